"""Attempts that have given up their slot while they wait for their children, and take one again before their handler goes on.

Without this, a worker whose slots are all taken by parents would wait for children that nobody runs.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Rests:
    """Counts the attempts that rest.

    Args:
        on_change: Called when there may be room for another, or when one wants to go on.

    Attributes:
        count: Attempts without a slot: those that wait for their children, and those that wait for a slot again.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.count = 0
        self._on_change = on_change
        self._returning: deque[trio.Event] = deque()

    @property
    def are_returning(self) -> bool:
        """Whether any waits for a slot again."""
        return bool(self._returning)

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Give up the slot of an attempt while the block lasts, and take one again before any job that waits in a queue.

        Cancellation:
            The handler goes on without waiting for a slot, to clean up.
        """
        self.count += 1
        self._on_change()
        try:
            yield
        except BaseException:
            self.count -= 1
            raise
        await self._wait_turn()

    async def _wait_turn(self) -> None:
        turn = trio.Event()
        self._returning.append(turn)
        self._on_change()
        try:
            await turn.wait()
        except trio.Cancelled:
            if not turn.is_set():
                self._returning.remove(turn)
                self.count -= 1
            raise

    def admit(self, free: int) -> None:
        """Let as many go on as there are free slots."""
        while self._returning and free > 0:
            free -= 1
            self.count -= 1
            self._returning.popleft().set()
