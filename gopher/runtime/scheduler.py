"""Fires the schedules of a queue.

It sleeps until the moment that Redis named at the last call, or until Redis says that an earlier one has come in; a rare poll is
the safety net. Every worker has one: the script carries each firing out once, whoever calls it. What Lua cannot know, when a
cron expression fires after that, is worked out here.
"""

from __future__ import annotations

import random
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher import cron
from gopher.runtime.timekeeper import Timekeeper
from gopher.schedule import CATCH_UP_LIMIT, MISSED_MS, CatchUpPolicy, due_ms
from gopher.store.schedules import DueSchedule, Firing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.store.schedules import Schedules

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

POLL_SECONDS: Final = 30.0
"""Chosen: what is missed is only what was said while the connection was down, and then all is read again anyhow."""
_RETRY_SECONDS: Final = 1.0
_SHORTEST_SECONDS: Final = 0.001
"""Redis counts in ms: asking again sooner finds the same."""


class Scheduler(Timekeeper):
    """Fires the schedules of one queue.

    Args:
        schedules: Where.
        namespace: Of the queue.
        queue: Whose schedules.
    """

    def __init__(self, schedules: Schedules, *, namespace: str, queue: str) -> None:
        super().__init__(queue=queue, act="fire", retry_seconds=_RETRY_SECONDS)
        self._schedules = schedules
        self._namespace = namespace

    async def tick(self) -> float:
        """Fire what is due.

        Returns:
            How long to sleep, in seconds.
        """
        due = await self._schedules.due(self._namespace, self._queue)
        firings: list[Firing] = []
        for schedule in due.schedules:
            firings += self._plan(schedule, due.now_ms)
            # Catching up can take ms a schedule, and handlers want to run meanwhile.
            await trio.lowlevel.checkpoint()
        if firings:
            for job_id in await self._schedules.fire(self._namespace, self._queue, firings):
                if job_id is not None:
                    _log.debug("schedule.fired", queue=self._queue, job_id=job_id)
            return 0.0
        if due.schedules:
            return _RETRY_SECONDS
        longest = POLL_SECONDS * random.uniform(0.8, 1.2)
        if due.next_seconds is None:
            return longest
        return min(longest, max(_SHORTEST_SECONDS, due.next_seconds))

    def _plan(self, schedule: DueSchedule, now_ms: int) -> list[Firing]:
        try:
            return list(plan(schedule, now_ms))
        except ValueError as error:
            # Another machine accepted it: this one knows other time zones. Those that know it fire it.
            _log.warning("schedule.unreadable", queue=self._queue, schedule=schedule.name, error=str(error))
            return []


def plan(schedule: DueSchedule, now_ms: int) -> Iterator[Firing]:
    """Yield the firings to carry out, oldest first; the last spends whatever is left out.

    Raises:
        ValueError: This machine cannot read the cron expression or does not know the time zone.
    """
    expression = cron.parsed(schedule.cron, schedule.time_zone)

    def is_due(fire_ms: int) -> bool:
        return due_ms(schedule.name, fire_ms, schedule.jitter_ms) <= now_ms

    following_ms = expression.after(schedule.next_ms)
    # Redis says that the next time is due, whatever this machine thinks of the zone; nearly always it is the only one.
    due_times = [schedule.next_ms]
    if following_ms is not None and following_ms <= now_ms:
        times = expression.last(CATCH_UP_LIMIT, schedule.next_ms - 1, now_ms)
        due_times = list(takewhile(is_due, times)) or due_times
    makes = _made_up_for(schedule, due_times, now_ms)
    expected_ms = schedule.next_ms
    for fire_ms in makes or due_times[-1:]:
        next_ms = expression.after(fire_ms)
        yield Firing(schedule, expected_ms, fire_ms, bool(makes), next_ms)
        if next_ms is None:
            return
        expected_ms = next_ms


def _made_up_for(schedule: DueSchedule, due_times: list[int], now_ms: int) -> list[int]:
    """Return the fire times that are to make a job."""
    in_time = [each for each in due_times if now_ms - due_ms(schedule.name, each, schedule.jitter_ms) < MISSED_MS]
    match CatchUpPolicy(schedule.catch_up):
        case CatchUpPolicy.NONE:
            return in_time
        case CatchUpPolicy.LAST:
            return in_time or due_times[-1:]
        case CatchUpPolicy.ALL:
            return due_times
