"""Cancels the asyncio task of a block, so that this can be told from other cancels."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Interruption:
    """Cancels the asyncio task of a block once, in a way that can be told from other cancels, as `asyncio.TaskGroup` does."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._is_pending = False
        self._has_ended = False

    def interrupt(self) -> None:
        """Cancel the block, if it has not ended."""
        if self._task is not None and not self._has_ended:
            self._is_pending = True
            self._task.cancel()

    def is_over(self) -> bool:
        """Take a cancel that has arrived; tell whether it was ours alone."""
        was_pending, self._is_pending = self._is_pending, False
        return was_pending and self._task is not None and self._task.uncancel() == 0

    async def end(self) -> None:
        """Let none come any more; one that is on its way is taken here."""
        self._has_ended = True
        if self._is_pending:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            if not self.is_over():
                raise asyncio.CancelledError
