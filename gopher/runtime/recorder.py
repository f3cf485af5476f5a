"""Brings what the worker has measured to Redis, every few seconds, where the figures of all workers add up.

One call is on its way at a time, under a number of its own; one that Redis did not answer is made again as it was, so that nothing
counts twice. Where nothing was measured nothing is sent. What a worker that is killed has not sent yet is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StoreError
from gopher.store.figures import MOST_FIELDS

if TYPE_CHECKING:
    from gopher.runtime.meter import QueueMeter
    from gopher.store.figures import Figures

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVERY_SECONDS: Final = 2.0
"""Chosen: an operator who looks sees the last jobs, and a busy worker spends half a call a second on it."""


class Recorder:
    """Brings the figures of one queue.

    Args:
        figures: Where to.
        meter: What was measured.
        namespace: Of the queue.
        queue: Whose figures.
        worker: Id of this worker.
    """

    def __init__(self, figures: Figures, meter: QueueMeter, *, namespace: str, queue: str, worker: str) -> None:
        self._figures = figures
        self._meter = meter
        self._namespace = namespace
        self._queue = queue
        self._worker = worker
        self._number = 0
        self._unanswered: dict[str, int] = {}
        # A drain brings the last figures while `run` may still be at it.
        self._sending = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bring figures until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(_EVERY_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Bring what was measured since the last time.

        Cancellation:
            It may have been added; the next call finds out.
        """
        async with self._sending:
            try:
                while self._has_fields():
                    await self._figures.count(
                        self._namespace, self._queue, worker=self._worker, number=self._number, fields=self._unanswered
                    )
                    self._unanswered = {}
            except StoreError as error:
                _log.warning("figures.delayed", queue=self._queue, error=str(error))

    def _has_fields(self) -> bool:
        """Tell whether there is anything to send; what was sent and not answered comes first, under the number it had."""
        if not self._unanswered:
            self._unanswered = self._meter.take(MOST_FIELDS)
            self._number += 1
        return bool(self._unanswered)
