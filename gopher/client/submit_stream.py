"""What a stream of submits has under way: which items are read, sent and answered, and what follows when the stream is cut.

At most `MAX_ITEMS` items, or `MAX_BYTES` of them, are read ahead of the answers that the caller has taken; so a caller that takes
its time holds up its own items, and never the server. Two sides share a `SubmitStream`, in two threads or in one: one reads items
and sends requests, the other takes replies. After a cut the requests without a reply are sent again in a new call, where each of
them has a request id.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from gopher_pb.v1 import job_pb2, job_stream_pb2

from gopher.client import calls
from gopher.client.dialogues import PATIENCE_SECONDS, REPEATS, is_unavailable
from gopher.client.submission import item_spec
from gopher.errors import GopherError, InvalidRequestError
from gopher.wire import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_ITEMS: Final = 256
"""Chosen: what a server stores while a reply is on its way, some times over; their replies fit into gRPC's window."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""Chosen: sixteen of the largest payloads."""

Answer: TypeAlias = calls.Receipt | GopherError
"""What an item came to: a job, or why it was refused."""


@dataclass(frozen=True, slots=True)
class _Item:
    """An item that is read and not answered.

    Attributes:
        request: The message, serialised; None where no message can say what the item holds.
        refusal: Why there is no request.
        is_repeatable: Whether it may be sent again when it is not known what became of it.
    """

    request: bytes | None
    refusal: GopherError | None
    is_repeatable: bool

    @property
    def size(self) -> int:
        return 0 if self.request is None else len(self.request)


class SubmitStream:
    """One use of `submit_stream`, over as many calls as it takes.

    Attributes:
        has_ended: Whether all items are read.
        on_room: Called when an item was answered, and so another may be read.

    Args:
        namespace: Of all jobs.
        items: As `submit_many` takes them.
        now: The clock, in seconds.
    """

    def __init__(
        self, namespace: str, items: Iterable[Mapping[str, object]], now: Callable[[], float] = time.monotonic
    ) -> None:
        self.has_ended = False
        self.on_room: Callable[[], None] = lambda: None
        self._namespace = namespace
        self._items = enumerate(items)
        self._failure: Exception | None = None
        self._unsent: deque[_Item] = deque()
        self._unanswered: deque[_Item] = deque()
        self._bytes = 0
        self._now = now
        self._was_answered = False
        self._failures = 0
        self._cut_at = 0.0
        self._turn = 0
        self._is_reading = False
        self._changed = threading.Condition()

    # --- the side that sends ----------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another item may be read."""
        return len(self._unsent) + len(self._unanswered) < MAX_ITEMS and self._bytes < MAX_BYTES

    def begin_call(self) -> int:
        """Return what stands for a new call; another takes no more requests from here on."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()
            return self._turn

    def is_current(self, turn: int) -> bool:
        """Tell whether the call is the one that sends."""
        return turn == self._turn

    def next_request(self) -> bytes | None:
        """Return the next request that is read and not sent; None when there is none."""
        with self._changed:
            while self._unsent:
                item = self._unsent.popleft()
                self._unanswered.append(item)
                if item.request is not None:
                    return item.request
        return None

    def read_item(self) -> None:
        """Read the next item; takes as long as the caller's iterable does."""
        item: _Item | None = None
        try:
            item = self._item(*next(self._items))
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - the caller's own, raised where he takes the answers
            self._failure = error
        with self._changed:
            if item is None:
                self.has_ended = True
            else:
                self._unsent.append(item)
                self._bytes += item.size
            self._changed.notify_all()

    def _item(self, number: int, fields: Mapping[str, object]) -> _Item:
        try:
            spec: job_pb2.JobSpec = item_spec(fields, f"jobs[{number}]")
        except InvalidRequestError as error:
            return _Item(None, error, is_repeatable=True)
        request = job_stream_pb2.SubmitJobStreamRequest(namespace=self._namespace, job=spec)
        return _Item(request.SerializeToString(), None, is_repeatable=bool(spec.request_id))

    def requests(self) -> Iterator[bytes]:
        """Begin a call and return its requests; for a thread of its own, which waits for room and for the caller's iterable."""
        return self._requests(self.begin_call())

    def _requests(self, turn: int) -> Iterator[bytes]:
        while (request := self._wait_for_request(turn)) is not None:
            yield request

    def _wait_for_request(self, turn: int) -> bytes | None:
        """Return the next request; None when there are no more, or another call sends them."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: turn != self._turn or self._unsent or self.has_ended or self._may_read)
                if turn != self._turn:
                    return None
                request = self.next_request()
                if request is not None or self.has_ended:
                    return request
                # The thread of a call that was cut may still be reading: what it reads is sent by this one.
                if not self._may_read:
                    continue
                self._is_reading = True
            self.read_item()
            with self._changed:
                self._is_reading = False
                self._changed.notify_all()

    @property
    def _may_read(self) -> bool:
        return self.has_room and not self._is_reading

    # --- the side that takes replies --------------------------------------------------------------------------------------------

    def settle(self, reply: bytes) -> list[Answer]:
        """Return what a reply says, with the items about it that were never sent, in order."""
        answers = self.refused()
        message = job_stream_pb2.SubmitJobStreamResponse.FromString(reply)
        with self._changed:
            self._bytes -= self._unanswered.popleft().size
            self._failures = 0
            self._was_answered = True
            self._changed.notify_all()
        answers.append(status.from_status(message.error) if message.HasField("error") else calls.receipt(message))
        answers += self.refused()
        self.on_room()
        return answers

    def refused(self) -> list[Answer]:
        """Return the refusals of the next items that were never sent."""
        refusals: list[Answer] = []
        with self._changed:
            while self._unanswered and (refusal := self._unanswered[0].refusal) is not None:
                refusals.append(refusal)
                self._unanswered.popleft()
            if refusals:
                self._changed.notify_all()
        return refusals

    def raise_failure(self) -> None:
        """Raise what the caller's iterable raised, once all that it gave before is answered."""
        if self._failure is not None:
            raise self._failure

    def pause_seconds(self, error: GopherError) -> float:
        """Return how long to wait before what has no reply is sent in a new call.

        Raises:
            GopherError: The error that ended the call, when another would not go better, or could make an item two jobs.
        """
        with self._changed:
            self._turn += 1
            self._failures += 1
            if self._failures == 1:
                self._cut_at = self._now()
            is_cut = is_unavailable(error) or isinstance(error, status.SlowReaderError)
            is_repeatable = all(item.is_repeatable for item in self._unanswered)
            # As for a watch: a server that was there before may be away for a restart.
            is_early = self._now() - self._cut_at <= PATIENCE_SECONDS
            has_time = is_early if self._was_answered else REPEATS.has_attempt_after(self._failures)
            if not (is_cut and is_repeatable and has_time):
                raise error
            self._unsent.extendleft(reversed(self._unanswered))
            self._unanswered.clear()
            return REPEATS.delay_seconds(self._failures, random.random)

    def close(self) -> None:
        """Have whoever waits to send wait no more."""
        self.begin_call()
        self.on_room()
