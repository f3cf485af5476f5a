"""Where gRPC's thread meets Trio: calls over, answers back, cancel and deadline across.

gRPC runs in asyncio, in a thread of its own; everything that serves a call runs in Trio. Between them lie two lanes, one each way.
A lane is a deque of acts and at most one pending wake-up: whatever is posted before the other side has woken up travels with the
first. A wake-up is the dearest part of a call, for the threads then take turns at the interpreter: when many calls are under way
the lane to Trio lets a few of them gather first. An idle server waits for nothing.

A `Call` is made in gRPC's thread, posted to Trio, served there, and its reply is posted back. What may touch it, and where:

- `answer` and `stream` run in gRPC's thread and are the whole of a call's life there. When they are cancelled, because the client
  has gone, has cancelled or has waited long enough, they have the call's scope cancelled in Trio.
- `scope`, `send` and `finish` belong to Trio. The scope carries the call's deadline.

A stream has at most `MAX_UNSENT` messages on this side of the network. When it is full the sender waits, and a reader that takes
nothing for `STALL_SECONDS` is cut off; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc.aio
import trio

from gopher.wire.status import SlowReaderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.rpc import status_pb2

Reply: TypeAlias = "bytes | status_pb2.Status"
"""What a call ends with: the response's bytes (none for a stream), or why it failed."""

MAX_UNSENT: Final = 64
"""Chosen: what a job's handler reports in a burst; at a whole job's 300 KiB it is some 20 MB for a reader that stalls."""
GATHER_SECONDS: Final = 0.004
"""Longest wait for others. Measured with 100 calls under way, CPU of the whole process: 460 us a call without, 370 with 2 ms, 320
with 4; a bare echo of grpc.aio on uvloop takes 315."""
GATHER_MOST: Final = 16
"""Most acts to wait for; chosen: by then the wake-up is a small part of their cost."""
GATHER_RATE: Final = 800.0
"""Acts a second below which none waits: there is time enough for a wake-up each."""
GATHER_SAMPLE: Final = 8
"""Wake-ups between two looks at how many acts each carried."""
GATHER_EXCESS: Final = 0.1
"""How many acts above those waited for a wake-up must carry on average for the lane to wait for one more."""
STALL_SECONDS: Final = 10.0
"""Chosen: longer than a reader's pause for collection or a retransmission, shorter than a person's patience."""


class Lane:
    """One direction between the two threads: acts posted by one side are carried out, in order, by the other.

    Args:
        wake: Has a function called by the other side's loop; callable from any thread.
        is_gone: The error that `wake` raises when the other side's loop has ended.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object], is_gone: type[Exception]) -> None:
        self._wake = wake
        self._is_gone = is_gone
        self._acts: deque[Callable[[], None]] = deque()
        self._is_awake = False

    def post(self, act: Callable[[], None]) -> None:
        """Have an act carried out by the other side; it must neither block nor raise. Dropped when that side has ended."""
        self._acts.append(act)
        # Without a lock: the reader clears the mark before it looks, so an act that comes after its look wakes it again.
        if not self._is_awake:
            self._wake_up()

    def _wake_up(self) -> None:
        self._is_awake = True
        try:
            self._wake(self._carry_out)
        except self._is_gone:
            self._is_awake = False
            self._acts.clear()

    def _carry_out(self) -> None:
        self._is_awake = False
        acts = self._acts
        # Only what lies there now: what is posted meanwhile has a wake-up of its own, and a flood cannot hold the loop.
        for _ in range(len(acts)):
            acts.popleft()()


class GatheringLane(Lane):
    """The lane to Trio, which at a high rate lets as many acts gather as come together anyway.

    How many clients wait cannot be seen from here: most of their calls lie in gRPC's own queues. What shows is that acts arrive
    while Trio is just being woken for others. Where that is so the lane waits for one more from then on, and so finds out how many
    come within `GATHER_SECONDS`; when fewer come it waits for as many as did. A client that makes one call after another never has
    two under way, and never waits.

    Args:
        wake: As for a lane.
        is_gone: As for a lane.
        loop: gRPC's, in whose thread acts are posted.
    """

    def __init__(
        self, wake: Callable[[Callable[[], None]], object], is_gone: type[Exception], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(wake, is_gone)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = 1
        self._begin_sample()

    def post(self, act: Callable[[], None]) -> None:
        """Have an act carried out by Trio, at once or together with those of the next moment."""
        self._acts.append(act)
        if self._is_awake:
            return
        if len(self._acts) >= self._wanted:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._wake_ups += 1
            if self._wake_ups == GATHER_SAMPLE:
                self._end_sample()
            self._wake_up()
        elif self._timer is None:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._end_wait)

    def _begin_sample(self) -> None:
        self._sample_began_at = self._loop.time()
        self._wake_ups = self._carried = 0

    def _end_sample(self) -> None:
        if self._carried < GATHER_RATE * (self._loop.time() - self._sample_began_at):
            self._wanted = 1
        elif self._carried >= GATHER_SAMPLE * (self._wanted + GATHER_EXCESS):
            self._wanted = min(self._wanted + 1, GATHER_MOST)
        self._begin_sample()

    def _end_wait(self) -> None:
        """Wake Trio for those that have come."""
        self._timer = None
        self._wanted = max(1, len(self._acts))
        self._begin_sample()
        if not self._is_awake:
            self._wake_up()

    def _carry_out(self) -> None:
        # Counted in Trio's thread, read in gRPC's: a sample may be off by a few, which is no matter.
        self._carried += len(self._acts)
        super()._carry_out()


class Handover:
    """Both lanes.

    Args:
        token: Of the Trio run that serves.
        loop: gRPC's loop, in the other thread.
    """

    def __init__(self, token: trio.lowlevel.TrioToken, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.to_trio = GatheringLane(token.run_sync_soon, trio.RunFinishedError, loop)
        self.to_grpc = Lane(loop.call_soon_threadsafe, RuntimeError)


class Call(ABC):
    """One rpc under way.

    Attributes:
        request: Its bytes.
        traceparent: W3C trace context of the caller; None when it sent none or nothing is traced.
        scope: What it runs in; cancelled when the client no longer waits.

    Args:
        handover: The lanes.
        accept: Takes the call on, in Trio; from there it is served and finished.
        request: As the attribute.
        left_seconds: Until its deadline; infinite for none.
        traceparent: As the attribute.
    """

    __slots__ = ("_accept", "_handover", "request", "scope", "traceparent")

    def __init__(
        self,
        handover: Handover,
        accept: Callable[[Call], None],
        request: bytes,
        left_seconds: float,
        traceparent: str | None,
    ) -> None:
        self._accept = accept
        self.request = request
        self.traceparent = traceparent
        self.scope = trio.CancelScope(relative_deadline=left_seconds)
        self._handover = handover

    def take_request(self) -> bytes:
        """Return the request, and keep it no longer."""
        request, self.request = self.request, b""
        return request

    def finish(self, reply: Reply) -> None:
        """End the call; done exactly once, in Trio."""
        self._handover.to_grpc.post(lambda: self._settle(reply))

    @abstractmethod
    def _settle(self, reply: Reply) -> None:
        """Wake who waits for the reply, in gRPC's thread."""

    def _start(self) -> None:
        self._accept(self)

    def _cancel(self) -> None:
        self.scope.cancel(reason="the client no longer waits")


class UnaryCall(Call):
    """A call that is answered by one message."""

    __slots__ = ("_answer",)

    async def answer(self) -> Reply:
        """Have the call served and return its reply, in gRPC's thread."""
        self._answer: asyncio.Future[Reply] = self._handover.loop.create_future()
        self._handover.to_trio.post(self._start)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self._handover.to_trio.post(self._cancel)
            raise

    def _settle(self, reply: Reply) -> None:
        if not self._answer.done():
            self._answer.set_result(reply)


class StreamCall(Call):
    """A call that is answered by a stream of messages."""

    __slots__ = ("_is_cut", "_news", "_reply", "_room", "_sent", "_unwritten", "_written")

    def __init__(
        self,
        handover: Handover,
        accept: Callable[[Call], None],
        request: bytes,
        left_seconds: float,
        traceparent: str | None,
    ) -> None:
        super().__init__(handover, accept, request, left_seconds, traceparent)
        # These belong to gRPC's thread...
        self._news: asyncio.Future[None] | None = None
        # Short, and empty nearly always: a deque takes ten times the memory of an empty list.
        self._unwritten: list[bytes] = []
        self._reply: Reply | None = None
        self._written = 0
        # ...and these to Trio; whether the reader was cut off is read by the other when nothing follows any more.
        self._is_cut = False
        self._sent = 0
        self._room: trio.lowlevel.ParkingLot | None = None

    async def stream(self, write: Callable[[bytes], Awaitable[None]]) -> Reply:
        """Have the call served, write what it sends, and return its reply, in gRPC's thread."""
        self._handover.to_trio.post(self._start)
        try:
            while True:
                while self._unwritten:
                    await write(self._unwritten.pop(0))
                    self._written += 1
                    # Trio need not be woken as long as its sender has never had to wait, as an idle stream's never has.
                    if self._room is not None:
                        self._handover.to_trio.post(self._make_room)
                if self._reply is not None:
                    return self._reply
                self._news = self._handover.loop.create_future()
                await self._news
        except asyncio.CancelledError:
            self._handover.to_trio.post(self._cancel)
            raise
        except grpc.aio.InternalError:
            # What gRPC makes of a connection that was cut in mid-write.
            self._handover.to_trio.post(self._cancel)
            raise asyncio.CancelledError from None

    def _add(self, message: bytes) -> None:
        self._unwritten.append(message)
        self._wake()

    def _settle(self, reply: Reply) -> None:
        self._reply = reply
        if self._is_cut:
            # What is not written yet would only delay the reason. gRPC has no way to drop what it was given already: a reader
            # that never reads again keeps that much, and its place among the calls, until its connection ends.
            self._unwritten.clear()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def send(self, message: bytes) -> None:
        """Send a message, in Trio; waits while too many are under way.

        Raises:
            SlowReaderError: The reader took none of them for `STALL_SECONDS`.
        """
        await trio.lowlevel.checkpoint()
        while self._sent - self._written >= MAX_UNSENT:
            await self._wait_for_room()
        self._sent += 1
        self._handover.to_grpc.post(lambda: self._add(message))

    async def _wait_for_room(self) -> None:
        if self._room is None:
            # Without a lock: the other thread counts before it looks for this, and here it is the other way round.
            self._room = trio.lowlevel.ParkingLot()
            if self._sent - self._written < MAX_UNSENT:
                return
        with trio.move_on_after(STALL_SECONDS) as stall:
            await self._room.park()
        if stall.cancelled_caught:
            self._is_cut = True
            raise SlowReaderError

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.unpark()
