"""Takes jobs back from workers whose lease has ended, and removes final jobs whose retention has.

Every worker has one: the script moves a job once, whoever calls it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import structlog
import trio

from gopher.errors import StoreError
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.lifecycle import Lifecycle

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Reaper:
    """Sweeps one queue.

    Args:
        lifecycle: Where.
        namespace: Of the queue.
        queue: Whose jobs.
        sweep_seconds: Mean time between two sweeps.
        on_lost: Called with how many leases had ended with no outcome.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        namespace: str,
        queue: str,
        sweep_seconds: float,
        on_lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._on_lost = on_lost
        self._lifecycle = lifecycle
        self._namespace = namespace
        self._queue = queue
        self._sweep_seconds = sweep_seconds

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sweep until cancelled; started after the first sweep, so that a worker claims nothing whose client has vanished before."""
        is_more = await self._sweep()
        task_status.started()
        while True:
            if not is_more:
                # Spread, so that the sweeps of many workers do not meet.
                await trio.sleep(self._sweep_seconds * random.uniform(0.8, 1.2))
            is_more = await self._sweep()

    async def _sweep(self) -> bool:
        try:
            return await self.tick()
        except StoreError as error:
            _log.warning("reap.delayed", queue=self._queue, error=str(error))
            return False

    async def tick(self) -> bool:
        """Sweep once, at most 100 jobs of a kind.

        Returns:
            Whether more may be left.
        """
        reaping = await self._lifecycle.reap(self._namespace, self._queue)
        self._on_lost(len(reaping.job_ids))
        for job_id in reaping.job_ids:
            _log.warning("attempt.lost", job_id=job_id, queue=self._queue)
        for job_id in reaping.failed_ids:
            _log.error("job.failed", job_id=job_id, queue=self._queue, reason="CRASH_LOOP")
        return reaping.leases == BATCH or reaping.removed >= BATCH
