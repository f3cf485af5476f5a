"""Enqueues scheduled and retrying jobs when their time has come, and fails waiting ones whose deadline has passed.

It sleeps until the moment that Redis named at the last call, or until Redis says that something earlier has come in; a slow poll is
the safety net. Every worker has one: the script moves a job once, whoever calls it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import structlog

from gopher.runtime.timekeeper import Timekeeper

if TYPE_CHECKING:
    from gopher.store.lifecycle import Lifecycle

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SHORTEST_SECONDS: Final = 0.001
"""Redis counts in ms: asking again sooner finds the same."""


class Promoter(Timekeeper):
    """Promotes the jobs of one queue.

    Args:
        lifecycle: Where.
        namespace: Of the queue.
        queue: Whose jobs.
        poll_seconds: The safety net, and the pause after a failure.
    """

    def __init__(self, lifecycle: Lifecycle, *, namespace: str, queue: str, poll_seconds: float) -> None:
        super().__init__(queue=queue, act="promote", retry_seconds=poll_seconds)
        self._lifecycle = lifecycle
        self._namespace = namespace
        self._poll_seconds = poll_seconds

    async def tick(self) -> float:
        """Promote what is due.

        Returns:
            How long to sleep, in seconds.
        """
        promotion = await self._lifecycle.promote(self._namespace, self._queue)
        for job_id in promotion.failed_ids:
            _log.error("job.failed", job_id=job_id, queue=self._queue, reason="EXPIRED")
        longest = self._poll_seconds * random.uniform(0.8, 1.2)
        if promotion.next_seconds is None:
            return longest
        return max(_SHORTEST_SECONDS if promotion.moved == 0 else 0.0, min(longest, promotion.next_seconds))
