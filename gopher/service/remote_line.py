"""Frames on their way to a worker on a stream, in the order in which they were put."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher_pb.v1 import worker_service_pb2 as pb

    Send = Callable[[pb.ConnectResponse], Awaitable[None]]

MOST_UNSENT: Final = 16
"""Chosen: the edge has a buffer too, and what lies here has not left."""


class FrameLine:
    """Takes frames from all who speak to the worker; one task sends them."""

    def __init__(self) -> None:
        self._frames: deque[pb.ConnectResponse] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    async def wait_room(self) -> None:
        """Wait until a frame may be put: while the worker reads slowly."""
        await trio.lowlevel.checkpoint()
        while len(self._frames) >= MOST_UNSENT:
            await self._changed.park()

    def put_nowait(self, frame: pb.ConnectResponse) -> None:
        """Put a frame. Whoever has not waited for room puts no more than one an attempt."""
        self._frames.append(frame)
        self._changed.unpark_all()

    async def put(self, *frames: pb.ConnectResponse) -> None:
        """Put frames as there is room."""
        for frame in frames:
            await self.wait_room()
            self.put_nowait(frame)

    async def wait_empty(self) -> None:
        """Wait until all that was put is sent."""
        while self._frames:
            await self._changed.park()

    async def run(self, send: Send) -> None:
        """Send until cancelled."""
        while True:
            while self._frames:
                await send(self._frames[0])
                self._frames.popleft()
                self._changed.unpark_all()
            await self._changed.park()
