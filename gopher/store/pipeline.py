"""One connection to Redis that many Trio tasks share: whose reply is whose, what leaves when, and when to give up.

Redis answers in the order it was asked. Each command leaves a `Slot` at the end of a line, and the reader hands each reply to the
slot at its head. A Trio task that is cancelled while it waits only takes itself out of its slot; the slot stays, takes the reply
and drops it, so that no cancellation can put the line out of step.

Commands issued in the same tick of the scheduler leave in one write: they are gathered, and the writer task, woken by the first of
them, sends them in the next tick. There is a short cut. Those who were just handed their replies are likely to ask again at once;
the last of them sends for all, and saves the tick. A lone command is sent by its caller.

Push frames of RESP3 are no replies, with one exception: Redis confirms a subscription by a push frame in the place of a reply.

When the connection breaks, every waiter is told whether its command may have been carried out. What left is never sent again.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from hiredis import HiredisError, PushNotification, Reader
from outcome import Error, Value
from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

from gopher.errors import StoreUnavailableError
from gopher.store.resp import ReadOnlyReplicaError, error_from_reply
from gopher.store.transport import BREAKS, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.errors import StoreError
    from gopher.store.resp import Reply
    from gopher.store.transport import Transport

_MORE: Final = object()
WATCHES: Final = 4
"""How often the time allowed for a reply is looked at: it is noticed at most a quarter too late."""

BACKLOG_BYTES: Final = 1 << 20
"""Chosen: what a full socket may leave with us before callers wait; one batch of jobs."""


class NotSentError(StoreUnavailableError):
    """The connection broke while the command was still with us: the link keeps it for the next connection."""


class Slot:
    """A place in the line for the reply to one command.

    Attributes:
        task: Who waits; None once it was cancelled.
        batch: What gathers the replies, where the slot stands for several commands or for a subscription.
    """

    __slots__ = ("batch", "task")

    def __init__(self, task: trio.lowlevel.Task | None, batch: Batch | None = None) -> None:
        self.task = task
        self.batch = batch

    def abandon(self, _raise_cancel: Callable[[], None]) -> Abort:
        """Leave the place in the line and drop its reply: the abort function of the Trio task that waits."""
        self.task = None
        return Abort.SUCCEEDED


class Batch:
    """The replies to several commands, gathered for one wake-up.

    Attributes:
        count: How many replies it takes.
        confirmation: The kind of push frame that stands for a reply; None for plain commands.
        done: Called with the replies, from the reader; None when a Trio task waits for them.
    """

    __slots__ = ("confirmation", "count", "done", "replies")

    def __init__(
        self, count: int, *, confirmation: bytes | None = None, done: Callable[[list[Reply]], None] | None = None
    ) -> None:
        self.count = count
        self.confirmation = confirmation
        self.done = done
        self.replies: list[Reply] = []


class Pipeline:
    """The life of one connection.

    Attributes:
        reason: Why it was given up; empty while it stands.
        has_room: False while callers must wait: too many commands are unanswered, the socket takes no more, or it is broken.
        room: Where they wait.

    Args:
        transport: The bytes; closed by `close`.
        on_push: Called with each push frame, from the reader.
        reply_seconds: How long Redis may be silent while it owes a reply, > 0.
        max_unanswered: From how many commands without a reply on callers wait, >= 1.
    """

    def __init__(
        self, transport: Transport, on_push: Callable[[list[bytes]], None], *, reply_seconds: float, max_unanswered: int
    ) -> None:
        self.reason = ""
        self.has_room = True
        self.room = trio.lowlevel.ParkingLot()
        self._transport = transport
        self._on_push = on_push
        self._reply_seconds = reply_seconds
        self._max_unanswered = max_unanswered
        self._parser = Reader(replyError=self._error_from_reply, notEnoughData=_MORE)
        self._life = trio.CancelScope()
        self._line: deque[Slot] = deque()
        self._unanswered = 0
        self._expected = 1
        self._receptions = 0
        self._is_demoted = False
        self._unsent: list[bytes] = []
        self._unsent_slots = 0
        self._is_blocked = False
        self._backlog_bytes = 0
        self._writer: trio.lowlevel.Task | None = None

    def post(self, packed: bytes, slot: Slot) -> None:
        """Put a command, or the commands of a batch, into the line; the caller has seen `has_room`."""
        self._line.append(slot)
        self._unanswered += slot.batch.count if slot.batch is not None else 1
        if self._unanswered >= self._max_unanswered:
            self.has_room = False
        self._unsent.append(packed)
        self._unsent_slots += 1
        self._expected -= 1
        if self._is_blocked:
            self._backlog_bytes += len(packed)
            if self._backlog_bytes > BACKLOG_BYTES:
                self.has_room = False
            return
        if self._expected == 0:
            with suppress(*BREAKS):  # the writer meets the same and tells
                self._flush()
        if self._unsent and self._writer is not None:
            reschedule(self._writer)
            self._writer = None

    async def run(self) -> None:
        """Serve until the connection breaks."""
        with self._life:
            # While the connection stands.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)

    def close(self) -> None:
        """Close the connection once `run` has ended, and tell whoever still waits."""
        self.break_off("this program closed it")
        self._transport.close()

    def break_off(self, reason: str) -> None:
        """Give the connection up and tell every waiter; does nothing the second time."""
        if self.reason:
            return
        self.reason = reason
        self.has_room = False
        sent_slots = len(self._line) - self._unsent_slots
        for place, slot in enumerate(self._line):
            if slot.task is not None:
                reschedule(slot.task, Error(_fate(reason, is_sent=place < sent_slots)))
        self._line.clear()
        self._life.cancel()

    async def _read(self) -> None:
        while True:
            try:
                received = await self._transport.receive()
            except BREAKS as error:
                self.break_off(describe(error))
                return
            if not received:
                self.break_off("redis closed it")
                return
            self._receptions += 1
            self._parser.feed(received)
            try:
                self._deliver()
            except HiredisError:
                self.break_off("redis sent what is not RESP3")
            if self._is_demoted:
                self.break_off("redis has become a replica")

    def _deliver(self) -> None:
        """Hand out the replies that are complete."""
        next_reply, line = self._parser.gets, self._line
        answered = woken = 0
        while (reply := next_reply()) is not _MORE:
            if type(reply) is PushNotification and not self._is_confirmation(reply):
                continue
            if not line:
                self.break_off("redis sent a reply that nobody asked for")
                return
            answered += 1
            batch = line[0].batch
            if batch is not None:
                batch.replies.append(reply)
                if len(batch.replies) < batch.count:
                    continue
                reply = batch.replies
            task = line.popleft().task
            if task is not None:
                reschedule(task, Value(reply))
                woken += 1
            elif batch is not None and batch.done is not None:
                batch.done(batch.replies)
        self._unanswered -= answered
        self._expected = woken or 1
        if not self.has_room:
            self._make_room()

    def _is_confirmation(self, push: PushNotification) -> bool:
        """Pass a push frame on, and tell whether it stands for the reply at the head of the line."""
        self._on_push(push)
        batch = self._line[0].batch if self._line else None
        if batch is not None and batch.confirmation == push[0]:
            return True
        if push[0] == b"sunsubscribe":
            self.break_off("redis took a subscription away")
        return False

    def _flush(self) -> None:
        """Send what the kernel takes at once."""
        data = b"".join(self._unsent)
        sent = self._transport.send_nowait(data)
        if sent:
            self._unsent_slots = 0
            self._unsent.clear()
            if sent < len(data):
                self._unsent.append(data[sent:])

    async def _write(self) -> None:
        while True:
            if not self._unsent:
                self._writer = current_task()
                await wait_task_rescheduled(self._abort_writer)
                # The short cut may have been taken since.
                continue
            try:
                self._flush()
                if self._unsent:
                    await self._send_backlog()
            except BREAKS as error:
                self.break_off(describe(error))
                return

    async def _send_backlog(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_slots = 0
        self._is_blocked = True
        self._backlog_bytes = len(data)
        if len(data) > BACKLOG_BYTES:
            self.has_room = False
        await self._transport.send_all(data)
        self._is_blocked = False
        self._backlog_bytes = 0
        self._make_room()

    def _abort_writer(self, _raise_cancel: Callable[[], None]) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    def _make_room(self) -> None:
        places = self._max_unanswered - self._unanswered
        if places > 0 and self._backlog_bytes <= BACKLOG_BYTES and not self.reason:
            self.has_room = True
            self.room.unpark(count=places)

    async def _watch(self) -> None:
        """Give up on a peer that is silent while it owes a reply.

        Looks are counted, not seconds: when a handler has stopped the whole loop for long, the reader still comes before the verdict.
        """
        silent = 0
        while silent <= WATCHES:
            receptions = self._receptions
            await trio.sleep(self._reply_seconds / WATCHES)
            is_silent = self._unanswered > 0 and self._receptions == receptions
            silent = silent + 1 if is_silent else 0
        self.break_off(f"redis was silent for {self._reply_seconds:g} s")

    def _error_from_reply(self, text: str) -> StoreError:
        error = error_from_reply(text)
        self._is_demoted |= isinstance(error, ReadOnlyReplicaError)
        return error


def _fate(reason: str, *, is_sent: bool) -> StoreUnavailableError:
    if is_sent:
        return StoreUnavailableError(
            f"the connection to redis broke: {reason}; the command may have been carried out", outcome_unknown=True
        )
    return NotSentError(f"the connection to redis broke: {reason}; the command was not sent")
