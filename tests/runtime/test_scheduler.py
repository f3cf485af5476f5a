"""The scheduler: which firings it plans, when it sleeps and what wakes it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gopher.cron import Cron
from gopher.errors import StoreUnavailableError
from gopher.runtime.scheduler import POLL_SECONDS, Scheduler, plan
from gopher.schedule import CATCH_UP_LIMIT, CatchUpPolicy, due_ms
from gopher.store.schedules import Due, DueSchedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.schedules import Firing

MINUTE_MS: Final = 60_000
NOW_MS: Final = int(datetime(2027, 1, 15, 8, 0, tzinfo=UTC).timestamp() * 1000)


def due_schedule(
    cron: str = "* * * * *", next_ms: int = NOW_MS, *, zone: str = "UTC", jitter_ms: int = 0, catch_up: str = "last"
) -> DueSchedule:
    return DueSchedule("nightly", 1, next_ms, cron, zone, jitter_ms, catch_up, None)


class FakeSchedules:
    """Answers `due` with what it is given, in turn, then with nothing due; keeps the firings."""

    def __init__(self, *answers: Due | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.fired: list[Firing] = []
        self.asked = trio.Event()

    async def due(self, namespace: str, queue: str) -> Due:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        self.asked.set()
        answer = self.answers.pop(0) if self.answers else Due(NOW_MS, None, [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def fire(self, namespace: str, queue: str, firings: Sequence[Firing]) -> list[str | None]:
        await trio.lowlevel.checkpoint()
        self.fired += firings
        return ["job"] * len(firings)


def scheduler_of(schedules: FakeSchedules) -> Scheduler:
    return Scheduler(schedules, namespace="ns", queue="q")  # type: ignore[arg-type] # stands in for the store


@given(
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 * *"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    late_ms=st.integers(0, 40 * 24 * 60 * MINUTE_MS),
    jitter_ms=st.sampled_from([0, 500, 30_000, 600_000]),
    catch_up=st.sampled_from(CatchUpPolicy),
)
def test_plan_spends_every_time_that_is_due_and_none_twice(
    cron: str, zone: str, late_ms: int, jitter_ms: int, catch_up: CatchUpPolicy
) -> None:
    """Firings form a chain from the next time on, each is due, they are bounded, and after the chain nothing old is left."""
    next_ms = Cron(cron, zone).after(NOW_MS)
    assert next_ms is not None
    schedule = due_schedule(cron, next_ms, zone=zone, jitter_ms=jitter_ms, catch_up=catch_up.value)
    now_ms = due_ms("nightly", next_ms, jitter_ms) + late_ms

    firings = list(plan(schedule, now_ms))

    assert 1 <= len(firings) <= CATCH_UP_LIMIT
    assert firings[0].expected_ms == next_ms
    for firing, follower in pairwise(firings):
        assert follower.expected_ms == firing.next_ms
        assert follower.fire_ms > firing.fire_ms
    assert all(due_ms("nightly", each.fire_ms, jitter_ms) <= now_ms for each in firings)
    last = firings[-1]
    assert last.next_ms is not None
    assert last.next_ms > last.fire_ms
    assert due_ms("nightly", last.next_ms, jitter_ms) > now_ms or jitter_ms >= MINUTE_MS


@pytest.mark.parametrize(
    ("catch_up", "late_ms", "makes"),
    [("none", 59_999, True), ("none", 60_000, False), ("last", 60_000, True), ("all", 60_000, True)],
)
def test_a_firing_is_missed_when_it_is_a_minute_late(catch_up: str, late_ms: int, *, makes: bool) -> None:
    """Under none, late is late and missed is missed; the time is spent either way."""
    (firing,) = plan(due_schedule("0 8 * * *", catch_up=catch_up), NOW_MS + late_ms)

    assert (firing.makes_job, firing.fire_ms) == (makes, NOW_MS)


def test_plan_fires_what_redis_says_is_due_though_this_machine_knows_the_zone_otherwise() -> None:
    """A next time that the expression does not give here (other zone data) is fired all the same."""
    (firing,) = plan(due_schedule("0 9 * * *", next_ms=NOW_MS), NOW_MS)

    assert (firing.fire_ms, firing.makes_job, firing.next_ms) == (NOW_MS, True, NOW_MS + 60 * MINUTE_MS)


async def test_scheduler_passes_over_what_it_cannot_read() -> None:
    """A schedule in a zone that this machine does not know is left to others, and asked about again soon, not at once."""
    schedules = FakeSchedules(
        Due(NOW_MS, 0.0, [due_schedule(zone="Mars/Olympus"), due_schedule()]), Due(NOW_MS, 0.0, [due_schedule(zone="Mars/X")])
    )
    scheduler = scheduler_of(schedules)

    first_seconds = await scheduler.tick()
    second_seconds = await scheduler.tick()

    assert [firing.schedule.time_zone for firing in schedules.fired] == ["UTC"]
    assert (first_seconds, second_seconds) == (0.0, 1.0)


async def test_scheduler_sleeps_until_the_next_is_due_and_long_when_none_is() -> None:
    """The pause is what Redis said, never less than Redis can tell apart, and bounded by the rare poll."""
    schedules = FakeSchedules(Due(NOW_MS, 2.5, []), Due(NOW_MS, 0.0, []), Due(NOW_MS, 1e6, []), Due(NOW_MS, None, []))
    scheduler = scheduler_of(schedules)

    pauses = [await scheduler.tick() for _ in range(4)]

    assert pauses[:2] == [2.5, 0.001]
    assert all(0.8 * POLL_SECONDS <= each <= 1.2 * POLL_SECONDS for each in pauses[2:])


async def test_idle_scheduler_asks_less_than_once_in_twenty_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """A worker with no schedule adds at most 0.05 Redis commands a second for each queue."""
    schedules = FakeSchedules()

    with trio.move_on_after(3600):
        await scheduler_of(schedules).run()

    assert 90 <= schedules.calls <= 3600 / 24 + 1


async def test_scheduler_is_woken_and_outlasts_a_redis_that_is_away(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """After a failure it asks again within a second or so; a wake makes it ask at once."""
    schedules = FakeSchedules(StoreUnavailableError("away", outcome_unknown=False))
    scheduler = scheduler_of(schedules)
    started = trio.current_time()
    await nursery.start(scheduler.run)
    await trio.sleep(1.1)
    calls_after_failure = schedules.calls

    schedules.asked = trio.Event()
    scheduler.wake()
    await schedules.asked.wait()

    assert calls_after_failure == 2
    assert trio.current_time() - started < 2
