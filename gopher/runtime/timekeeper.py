"""The shape of what acts when a moment comes that Redis has named: the promoter and the scheduler of a queue.

It sleeps until that moment, or until Redis says that something earlier has come in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import structlog
import trio

from gopher.errors import StoreError

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Timekeeper(ABC):
    """Acts again and again.

    Args:
        queue: Where.
        act: What it does, for the log: `promote`, `fire`.
        retry_seconds: The pause after a failure.
    """

    def __init__(self, *, queue: str, act: str, retry_seconds: float) -> None:
        self._queue = queue
        self._act = act
        self._retry_seconds = retry_seconds
        self._has_news = trio.Event()

    def wake(self) -> None:
        """Note that something may be due earlier than was known."""
        self._has_news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Act until cancelled."""
        task_status.started()
        while True:
            # Before the look, so that news which comes during it is not lost.
            self._has_news = trio.Event()
            try:
                pause_seconds = await self.tick()
            except StoreError as error:
                _log.warning(f"{self._act}.delayed", queue=self._queue, error=str(error))
                pause_seconds = self._retry_seconds
            with trio.move_on_after(pause_seconds):
                await self._has_news.wait()

    @abstractmethod
    async def tick(self) -> float:
        """Do what is due.

        Returns:
            How long to sleep, in seconds.
        """
