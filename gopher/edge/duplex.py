"""A call whose client streams too: what it sends crosses to Trio as it is taken there, and no faster.

On this side of the network lies at most `MAX_UNREAD_BYTES` of what a client has sent and its handler has not taken. Then gRPC is
not read: its own window fills, and the client waits.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from gopher.edge.handover import StreamCall

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gopher.edge.handover import Call, Handover, Reply

MAX_UNREAD: Final = 64
"""Chosen, as for what is unsent."""
MAX_UNREAD_BYTES: Final = 1024 * 1024
"""Chosen: the largest message there may be by default; one more is read as long as there is any room."""
_LEAST_BYTES: Final = MAX_UNREAD_BYTES // MAX_UNREAD
"""What a message counts for that is smaller: one figure bounds both number and size."""


class DuplexCall(StreamCall):
    """A call whose client sends a stream of messages and which is answered by another.

    Args:
        handover: The lanes.
        accept: Takes the call on, in Trio; from there it is served and finished.
        left_seconds: Until its deadline; infinite for none.
        traceparent: W3C trace context of the caller; None when it sent none or nothing is traced.
    """

    __slots__ = ("_arrival", "_has_ended", "_is_over", "_reading", "_relief", "_taken_bytes", "_unread", "_unread_bytes")

    def __init__(
        self, handover: Handover, accept: Callable[[Call], None], left_seconds: float, traceparent: str | None
    ) -> None:
        super().__init__(handover, accept, b"", left_seconds, traceparent)
        # These belong to gRPC's thread...
        self._unread_bytes = 0
        self._relief: asyncio.Future[None] | None = None
        self._is_over = False
        # ...and these to Trio.
        self._unread: deque[bytes] = deque()
        self._taken_bytes = 0
        self._has_ended = False
        self._arrival = trio.lowlevel.ParkingLot()

    async def converse(self, read: Callable[[], Awaitable[bytes | None]], write: Callable[[bytes], Awaitable[None]]) -> Reply:
        """Have the call served, read what it takes, write what it sends, and return its reply, in gRPC's thread.

        Args:
            read: Returns the client's next message; None when it has sent all, or the call is over.
            write: Sends a message.
        """
        # Left to end by itself: gRPC ends a read whose call is over, and keeps the memory of one that is cancelled.
        self._reading = self._handover.loop.create_task(self._read(read))
        try:
            return await self.stream(write)
        finally:
            self._is_over = True
            self._go_on_reading()

    async def _read(self, read: Callable[[], Awaitable[bytes | None]]) -> None:
        try:
            while not self._is_over:
                if self._unread_bytes >= MAX_UNREAD_BYTES:
                    self._relief = self._handover.loop.create_future()
                    await self._relief
                    continue
                message = await read()
                if message is None:
                    return
                self._unread_bytes += _counted_bytes(message)
                self._handover.to_trio.post(partial(self._arrive, message))
        finally:
            self._handover.to_trio.post(self._end)

    def _relieve(self, taken_bytes: int) -> None:
        self._unread_bytes -= taken_bytes
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._relief is not None and not self._relief.done():
            self._relief.set_result(None)

    async def receive(self, most: int) -> list[bytes]:
        """Take what has arrived, in Trio; waits for the first message.

        The end may also be the first sign of a client that has gone; the scope is then cancelled next. Where it matters whether
        the client has meant it, there must be a message that says so.

        Args:
            most: Messages to take.

        Returns:
            The messages in order; none: the client has sent all.
        """
        await trio.lowlevel.checkpoint()
        while not self._unread and not self._has_ended:
            await self._arrival.park()
        taken = [self._unread.popleft() for _ in range(min(most, len(self._unread)))]
        self._taken_bytes += sum(map(_counted_bytes, taken))
        # Told when half is free, not for each message: a wake-up of the other thread is dear.
        if self._taken_bytes and (not self._unread or self._taken_bytes >= MAX_UNREAD_BYTES // 2):
            self._handover.to_grpc.post(partial(self._relieve, self._taken_bytes))
            self._taken_bytes = 0
        return taken

    def _arrive(self, message: bytes) -> None:
        self._unread.append(message)
        self._arrival.unpark()

    def _end(self) -> None:
        self._has_ended = True
        self._arrival.unpark_all()


def _counted_bytes(message: bytes) -> int:
    return max(len(message), _LEAST_BYTES)
