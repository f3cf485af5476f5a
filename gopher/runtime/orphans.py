"""Ends the children that nobody looks after any more: those of parents whose worker was lost, or that went before their children.

Every worker does so for each of its queues; a parent is one worker's at a time.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import JobAlreadyFinalError, JobNotFoundError, StoreError
from gopher.runtime.timekeeper import Timekeeper

if TYPE_CHECKING:
    from gopher.store.families import Families, OrphanStep
    from gopher.store.lifecycle import Lifecycle

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_GRACE_MS: Final = 5_000
"""Chosen: as a cancel that says nothing of it."""


class Orphans(Timekeeper):
    """Looks after the orphans of one queue's jobs.

    Args:
        families: Where they are.
        lifecycle: Ends them, whatever their own queue.
        namespace: Of the queue.
        queue: Of the parents.
        sweep_seconds: Mean time between two looks; a parent that leaves its children is told of at once.
    """

    def __init__(self, families: Families, lifecycle: Lifecycle, *, namespace: str, queue: str, sweep_seconds: float) -> None:
        super().__init__(queue=queue, act="orphans", retry_seconds=sweep_seconds)
        self._families = families
        self._lifecycle = lifecycle
        self._namespace = namespace
        self._sweep_seconds = sweep_seconds

    async def tick(self) -> float:
        """Look after the children of one parent.

        Returns:
            How long to sleep, in seconds.
        """
        step = await self._families.take_orphans(self._namespace, self._queue)
        if step is None:
            # Spread, so that the sweeps of many workers do not meet.
            return self._sweep_seconds * random.uniform(0.8, 1.2)
        ended = 0
        while True:
            await self._end_all(step)
            ended += len(step.members)
            if not step.cursor:
                break
            following = await self._families.take_orphans(self._namespace, self._queue, step.parent_id, step.cursor)
            if following is None:
                break
            step = following
        if ended:
            _log.info("orphans.ended", parent_id=step.parent_id, queue=self._queue, children=ended)
        return 0.0

    async def _end_all(self, step: OrphanStep) -> None:
        failures: list[StoreError] = []

        async def end(child_id: str) -> None:
            try:
                reason = f"its parent {step.parent_id} has gone"
                actor = f"parent {step.parent_id}"
                await self._lifecycle.cancel(self._namespace, child_id, reason=reason, grace_ms=_GRACE_MS, actor=actor)
            except (JobNotFoundError, JobAlreadyFinalError):
                pass
            except StoreError as error:
                failures.append(error)

        # While the children of this step are ended: each may be of another queue.
        async with trio.open_nursery() as nursery:
            for _, child_id in step.members:
                if child_id:
                    nursery.start_soon(end, child_id)
        if failures:
            raise failures[0]
        places = [place for place, _ in step.members]
        reservation = "" if step.cursor else step.reservation
        await self._families.leave(self._namespace, self._queue, step.parent_id, places, reservation=reservation)
