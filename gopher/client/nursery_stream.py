"""What a client's nursery has under way: which children are sent and answered, and what follows when the stream is cut.

At most `MAX_UNANSWERED` children, or `MAX_UNANSWERED_BYTES` of them, are on their way at a time; the others wait here. Two sides share a
`NurseryStream`, in two threads or in one: one sends requests, the other takes replies. After a cut all that has no answer is said
again in a new call, with the right to resume the nursery: the server knows each child by its number, and starts none twice.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.client.channel import CallEndedError
from gopher.client.dialogues import REPEATS, is_unavailable
from gopher.client.nursery import Child, Children, Signal
from gopher.errors import GopherError, invalid
from gopher.nursery import MAX_GRACE_SECONDS, MIN_GRACE_SECONDS, NurseryPolicy
from gopher.wire import convert, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_UNANSWERED: Final = 256
"""Chosen: as of a stream of submits."""
MAX_UNANSWERED_BYTES: Final = 4 * 1024 * 1024
"""Chosen: likewise."""
LEAVE_SECONDS: Final = 2.0
"""How long a block whose children have ended takes for saying so; a nursery that was not left is forgotten after its grace."""

_POLICY_NUMBER: Final = {
    NurseryPolicy.ALL: pb.NURSERY_POLICY_ALL,
    NurseryPolicy.ANY: pb.NURSERY_POLICY_ANY,
    NurseryPolicy.COLLECT: pb.NURSERY_POLICY_COLLECT,
}


class NurseryStream(Children):
    """A nursery, over as many calls as it takes.

    Args:
        namespace: Of all children.
        policy: See `gopher.nursery.NurseryPolicy`.
        grace_seconds: How long the children go on once this client has vanished.
        ended: Set when the block may end.
        now: The clock, in seconds.

    Attributes:
        hang_up: Ends the call under way; of clients whose calls are made in threads.
        is_over: Whether another call is of no use.

    Raises:
        InvalidRequestError: There is no such policy, or the grace is out of range.
    """

    def __init__(
        self, namespace: str, policy: str, grace_seconds: float, ended: Signal, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(policy, ended)
        if not MIN_GRACE_SECONDS <= grace_seconds <= MAX_GRACE_SECONDS:
            expected = f"must be {MIN_GRACE_SECONDS:g} to {MAX_GRACE_SECONDS:g} seconds, got {grace_seconds}"
            raise invalid("grace", "OUT_OF_RANGE", expected)
        self.hang_up: Callable[[], object] = lambda: None
        self.is_over = False
        self._namespace = namespace
        self._grace_seconds = grace_seconds
        self._now = now
        self._unsent: deque[Child] = deque()
        self._unanswered: dict[int, Child] = {}
        self._unanswered_bytes = 0
        self._token = ""
        self._failures = 0
        self._cut_at = 0.0
        self._turn = 0
        self._has_opened = self._is_open = self._has_said_close = self._has_left = False
        self._said_cancel_through = 0

    # --- the side that sends ----------------------------------------------------------------------------------------------------

    def _queue_up(self, child: Child) -> None:
        self._unsent.append(child)
        self._unsent_bytes += child.size

    def _note_answer(self, child: Child) -> None:
        if self._unanswered.pop(child.number, None) is not None:
            self._unanswered_bytes -= child.size
        super()._note_answer(child)

    def begin_call(self) -> int:
        """Return what stands for a new call; what has no answer is said again in it, and another says no more from here on."""
        with self._changed:
            self._turn += 1
            self._has_opened = self._is_open = self._has_said_close = self._has_left = False
            self._said_cancel_through = 0
            again = [child for _, child in sorted(self._unanswered.items())]
            self._unsent.extendleft(reversed(again))
            self._unsent_bytes += self._unanswered_bytes
            self._unanswered.clear()
            self._unanswered_bytes = 0
            turn = self._turn
        self._tell()
        return turn

    def is_current(self, turn: int) -> bool:
        """Tell whether the call is the one that sends."""
        return turn == self._turn and not self._has_left

    def next_request(self) -> bytes | None:
        """Return the next request; None when there is nothing to say now."""
        with self._changed:
            message = self._next_message()
            return message if message is None or isinstance(message, bytes) else message.SerializeToString()

    def _next_message(self) -> pb.RunNurseryRequest | bytes | None:
        if not self._has_opened:
            self._has_opened = True
            return pb.RunNurseryRequest(
                open=pb.OpenNursery(
                    namespace=self._namespace,
                    policy=_POLICY_NUMBER[self._policy],
                    grace=convert.duration(round(self._grace_seconds * 1000)),
                    resume_token=self._token,
                    queue=self._queue,
                )
            )
        if not self._is_open:
            # Without the right to resume it a nursery must have no children: after a cut they would be started again.
            return None
        while self._unsent and not self._unsent[0].request:
            self._unsent_bytes -= self._unsent.popleft().size
        child = self._unsent[0] if self._unsent else None
        if self._said_cancel_through < self._cancelled_through and (child is None or child.number > self._cancelled_through):
            self._said_cancel_through = self._cancelled_through
            return pb.RunNurseryRequest(cancel=pb.CancelNursery(through_number=self._cancelled_through))
        if child is not None:
            return self._send(child)
        if self._is_closed and not self._has_said_close:
            self._has_said_close = True
            return pb.RunNurseryRequest(close=pb.CloseNursery())
        if self._is_done and not self._has_left:
            self._has_left = self.is_over = True
            return pb.RunNurseryRequest(leave=pb.LeaveNursery())
        return None

    def _send(self, child: Child) -> bytes | None:
        size = child.size
        is_full = len(self._unanswered) >= MAX_UNANSWERED or self._unanswered_bytes + size > MAX_UNANSWERED_BYTES
        if is_full and self._unanswered:
            return None
        self._unsent.popleft()
        self._unsent_bytes -= size
        self._unanswered[child.number] = child
        self._unanswered_bytes += size
        child.was_sent = True
        return child.request

    def requests(self) -> Iterator[bytes]:
        """Begin a call and return its requests; for a thread of its own, which waits for each."""
        return self._requests(self.begin_call())

    def _requests(self, turn: int) -> Iterator[bytes]:
        while (request := self._wait_for_request(turn)) is not None:
            yield request

    def _wait_for_request(self, turn: int) -> bytes | None:
        """Return the next request; None when all is said, or another call sends."""
        with self._changed:
            while self.is_current(turn):
                request = self.next_request()
                if request is not None:
                    return request
                self._changed.wait()
        return None

    # --- the side that takes replies --------------------------------------------------------------------------------------------

    def take(self, reply: bytes) -> None:
        """Take a reply."""
        message = pb.RunNurseryResponse.FromString(reply)
        with self._changed:
            self._failures = 0
            match message.WhichOneof("message"):
                case "opened":
                    self._token = message.opened.resume_token
                    self._is_open = True
                case "started":
                    self._take_started(message.started)
                case "ended":
                    self._take_ended(message.ended)
                case _:
                    pass  # a heartbeat; and what `joined` says is known
        self._tell()

    def pause_seconds(self, error: GopherError | None) -> float | None:
        """Return how long to wait before another call goes on; None when none would: the children are lost.

        Args:
            error: What the call ended with; None: with OK, but before all was told.
        """
        with self._changed:
            self._turn += 1
            if self._is_done:
                # It was not left, and is forgotten after its grace.
                self.is_over = True
                return None
            self._failures += 1
            if self._failures == 1:
                self._cut_at = self._now()
            is_cut = error is None or is_unavailable(error) or isinstance(error, status.SlowReaderError)
            if self._token:
                has_time = self._now() - self._cut_at <= self._grace_seconds
            else:
                has_time = REPEATS.has_attempt_after(self._failures)
        if error is not None and not (is_cut and has_time):
            self.lose(error)
            return None
        return REPEATS.delay_seconds(self._failures, random.random)

    def lose(self, error: GopherError) -> None:
        """Give the children up: what has not ended goes on until the grace is over, and the block ends with the error."""
        with self._changed:
            self._lost = error
            self.is_over = True
            self._turn += 1
            for child in self._children:
                if child.state is None and child.answered is not None:
                    child.error = child.error or (error if child.id is None else None)
                    child.answered.set()
            self.on_decided()
            self._look_for_end()
        self._tell()

    def stop(self) -> None:
        """End the call under way, and make no more."""
        with self._changed:
            self.is_over = True
        self.begin_call()
        self.hang_up()

    def note_last_call(self) -> None:
        """Note that no call is made any more, whatever has ended the last one: nobody must wait for what it did not tell."""
        if not (self.is_over or self._is_done):
            self.lose(CallEndedError("the calls of the nursery have ended"))
