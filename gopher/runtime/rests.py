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

    from gopher.runtime.scopes import RunningAttempt


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
        self._returning: deque[tuple[RunningAttempt, trio.Event]] = deque()

    @property
    def are_returning(self) -> bool:
        """Whether any waits for a slot again."""
        return bool(self._returning)

    @asynccontextmanager
    async def resting(self, attempt: RunningAttempt) -> AsyncIterator[None]:
        """Give up the slot of an attempt while the block lasts, and take one again before any job that waits in a queue.

        An attempt may be in several such blocks at once, in Trio tasks of its own: it has no slot until the last of them has ended,
        since its other Trio tasks may wait for nothing but that.

        Cancellation:
            The handler goes on without waiting for a slot, to clean up.
        """
        attempt.rests += 1
        if attempt.rests == 1:
            self.count += 1
            self._on_change()
        try:
            yield
        except BaseException:
            self._wake(attempt)
            raise
        await self._wait_turn(attempt)

    async def _wait_turn(self, attempt: RunningAttempt) -> None:
        turn = trio.Event()
        if attempt.rests > 1:
            self._wake(attempt)
            turn.set()
        else:
            self._returning.append((attempt, turn))
            self._on_change()
        try:
            await turn.wait()
        except trio.Cancelled:
            if not turn.is_set():
                self._returning.remove((attempt, turn))
                self._wake(attempt)
            raise

    def _wake(self, attempt: RunningAttempt) -> bool:
        """Note the end of a rest; tell whether it was the attempt's last."""
        attempt.rests -= 1
        if attempt.rests == 0:
            self.count -= 1
        return attempt.rests == 0

    def admit(self, free: int) -> None:
        """Let as many go on as there are free slots."""
        while self._returning and free > 0:
            attempt, turn = self._returning.popleft()
            free -= self._wake(attempt)
            turn.set()
