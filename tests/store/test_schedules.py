"""Schedules in Redis: kept, steered, and fired once by however many schedulers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.errors import ScheduleExistsError, ScheduleNotFoundError, ScheduleOverlapError, TooManySchedulesError
from gopher.job import JobState, Move, NewJob, Priority
from gopher.runtime.scheduler import Scheduler
from gopher.schedule import CatchUpPolicy, NewSchedule, OverlapPolicy
from gopher.store import keys, schedules
from gopher.store.store import Store
from tests.store.rig import Rig, turn_clocks

if TYPE_CHECKING:
    from gopher.schedule import Schedule

MINUTE_MS: Final = 60_000
START_MS: Final = int(datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC).timestamp() * 1000)


def minutely(**fields: object) -> NewSchedule:
    job = NewJob(
        type="report", queue="default", payload=b'{"n":12345678901234567890}', labels={"team": "a"}, retention_ms=10**9
    )
    given = {"name": "nightly", "cron": "* * * * *", "job": job, "overlap": OverlapPolicy.QUEUE, **fields}
    return NewSchedule(**given)  # type: ignore[arg-type] # the test names fields of NewSchedule


async def jobs_of(rig: Rig) -> list[str]:
    """Return the fire times of the jobs there are, HH:MM, in order of their making."""
    jobs, _ = await rig.store.query.list_jobs(rig.namespace, size=1000)
    return [job.labels["gopher.fire_time"][11:16] for job in sorted(jobs, key=lambda job: job.id)]


@pytest.fixture
async def timed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The rig, with the clock that schedules read turned too."""
    turn_clocks(rig.store.schedules)

    async def now_ms() -> int:
        await trio.lowlevel.checkpoint()
        return rig.now_ms

    monkeypatch.setattr(rig.store.registry, "now_ms", now_ms)
    await rig.set_clock(START_MS)
    return rig


@pytest.fixture
def scheduler(timed: Rig) -> Scheduler:
    return Scheduler(timed.store.schedules, namespace=timed.namespace, queue=timed.queue)


async def create(rig: Rig, **fields: object) -> Schedule:
    return await rig.store.schedules.create(rig.namespace, minutely(**fields))


async def get(rig: Rig) -> Schedule:
    return await rig.store.schedules.get(rig.namespace, rig.queue, "nightly")


async def test_five_schedulers_make_one_job_a_tick(timed: Rig, redis_url: str, nursery: trio.Nursery) -> None:
    """Five schedulers on connections of their own, 1,000 ticks of the clock: 1,000 jobs, one a fire time."""
    await create(timed)
    rivals = []
    for _ in range(5):
        store = Store(redis_url, client_name="rival")
        await nursery.start(store.run)
        turn_clocks(store.schedules)
        rivals.append(Scheduler(store.schedules, namespace=timed.namespace, queue=timed.queue))

    for _ in range(1000):
        await timed.advance(MINUTE_MS)
        async with trio.open_nursery() as racing:
            for rival in rivals:
                racing.start_soon(rival.tick)

    names = await timed.names("job:*")
    found = await timed.store.link.call_many(
        [("HGET", keys.queue(timed.namespace, timed.queue) + name, "labels") for name in names]
    )
    assert len(names) == 1000
    assert len(set(found)) == 1000
    assert (await get(timed)).fired_total == 1000
    assert await timed.audit() == []


async def test_firing_makes_the_job_as_described_with_its_origin(timed: Rig, scheduler: Scheduler) -> None:
    """The job is enqueued, has the very bytes of the payload, its own labels, and says schedule and fire time."""
    job = NewJob(type="report", queue="default", payload=b'{"n":12345678901234567890}', priority=Priority.HIGH, max_attempts=7)
    await create(timed, job=job)

    await timed.advance(MINUTE_MS)
    pause_seconds = await scheduler.tick()

    (made,) = await timed.claim()
    record = await timed.get(made.id)
    assert pause_seconds == 0
    assert record.payload == job.payload
    assert (record.priority, record.max_attempts, record.type) == (Priority.HIGH, 7, "report")
    assert record.labels == {"gopher.schedule": "nightly", "gopher.fire_time": "2027-01-15T08:01:00Z"}
    assert await scheduler.tick() == pytest.approx(30, rel=0.21)


async def test_schedule_comes_back_as_it_was_put(timed: Rig) -> None:
    """Every field of the description survives; what it has done is told beside it."""
    given = minutely(
        cron="30 2 * * *",
        time_zone="Europe/Berlin",
        jitter_ms=5,
        overlap=OverlapPolicy.CANCEL_PREVIOUS,
        catch_up=CatchUpPolicy.ALL,
    )

    made = await timed.store.schedules.create(timed.namespace, given)

    assert {name: getattr(made, name) for name in NewSchedule.__struct_fields__} == {
        name: getattr(given, name) for name in NewSchedule.__struct_fields__
    }
    assert (made.paused, made.created_ms, made.fired_total, made.last_job_id) == (False, START_MS, 0, None)
    assert made.next_ms == int(datetime(2027, 1, 16, 1, 30, tzinfo=UTC).timestamp() * 1000)


async def test_create_refuses_a_second_of_the_name_and_one_too_many(timed: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is given once a queue, and a queue holds so many."""
    await create(timed)
    monkeypatch.setattr(schedules, "LIMIT", 1)

    with pytest.raises(ScheduleExistsError):
        await create(timed)
    with pytest.raises(TooManySchedulesError):
        await create(timed, name="other")


@pytest.mark.parametrize(
    ("overlap", "fired", "skipped", "first"),
    [
        (OverlapPolicy.SKIP, 1, 2, JobState.PROCESSING),
        (OverlapPolicy.QUEUE, 3, 0, JobState.PROCESSING),
        (OverlapPolicy.CANCEL_PREVIOUS, 3, 0, JobState.PROCESSING),
    ],
)
async def test_overlap_policy_decides_while_a_job_runs(
    timed: Rig, scheduler: Scheduler, overlap: OverlapPolicy, fired: int, skipped: int, first: JobState
) -> None:
    """While the first job runs, skip makes none, queue makes each, cancel_previous marks the one before for its end."""
    await create(timed, overlap=overlap)
    await timed.advance(MINUTE_MS)
    await scheduler.tick()
    (running,) = await timed.claim(lease_ms=3 * MINUTE_MS)

    for _ in range(2):
        await timed.advance(MINUTE_MS)
        await scheduler.tick()

    schedule, job = await get(timed), await timed.get(running.id)
    assert (schedule.fired_total, schedule.skipped_total, job.state) == (fired, skipped, first)
    assert (job.cancel_reason is not None) == (overlap is OverlapPolicy.CANCEL_PREVIOUS)
    assert (job.cancel_actor is not None) == (overlap is OverlapPolicy.CANCEL_PREVIOUS)
    jobs, _ = await timed.store.query.list_jobs(timed.namespace, state=JobState.CANCELLED, size=9)
    assert len(jobs) == (1 if overlap is OverlapPolicy.CANCEL_PREVIOUS else 0)
    assert await timed.audit() == []


async def test_skip_fires_again_once_the_job_has_ended(timed: Rig, scheduler: Scheduler) -> None:
    """A completed job is in nobody's way."""
    await create(timed, overlap=OverlapPolicy.SKIP)
    await timed.advance(MINUTE_MS)
    await scheduler.tick()
    (running,) = await timed.claim()
    await timed.settle(running.id, running.token, Move.COMPLETE)

    await timed.advance(MINUTE_MS)
    await scheduler.tick()

    assert (await get(timed)).fired_total == 2


@pytest.mark.parametrize(
    ("catch_up", "made"),
    [
        (CatchUpPolicy.NONE, []),
        (CatchUpPolicy.LAST, ["10:00"]),
        (
            CatchUpPolicy.ALL,
            ["08:10", "08:20", "08:30", "08:40", "08:50", "09:00", "09:10", "09:20", "09:30", "09:40", "09:50", "10:00"],
        ),
    ],
)
async def test_catch_up_policy_decides_what_was_missed(
    timed: Rig, scheduler: Scheduler, catch_up: CatchUpPolicy, made: list[str]
) -> None:
    """After two hours and five minutes without a scheduler: none, the last, or all of twelve; then on as ever."""
    await create(timed, cron="*/10 * * * *", catch_up=catch_up)

    await timed.advance(125 * MINUTE_MS)
    await scheduler.tick()

    assert await jobs_of(timed) == made
    await timed.advance(5 * MINUTE_MS)
    await scheduler.tick()
    assert await jobs_of(timed) == [*made, "10:10"]


async def test_catch_up_all_is_bounded(timed: Rig, scheduler: Scheduler) -> None:
    """A year of missed minutes makes the last 100 jobs, in one call, and what is late by less than a minute fires under none."""
    await create(timed, catch_up=CatchUpPolicy.ALL)

    await timed.advance(365 * 24 * 60 * MINUTE_MS)
    await scheduler.tick()
    await scheduler.tick()

    made = await jobs_of(timed)
    assert (len(made), made[-1], made[0]) == (100, "08:00", "06:21")
    await timed.store.schedules.update(timed.namespace, minutely(catch_up=CatchUpPolicy.NONE))
    await timed.advance(2 * MINUTE_MS + 59_000)
    await scheduler.tick()
    assert (await jobs_of(timed))[100:] == ["08:02"]


async def test_pause_keeps_from_firing_and_resume_makes_up_for_nothing(timed: Rig, scheduler: Scheduler) -> None:
    """While paused nothing is due and no next time is told; after the resume the next one is in the future."""
    await create(timed)
    paused = await timed.store.schedules.pause(timed.namespace, timed.queue, "nightly")
    await timed.advance(10 * MINUTE_MS)
    idle_seconds = await scheduler.tick()

    resumed = await timed.store.schedules.resume(timed.namespace, timed.queue, "nightly")
    await scheduler.tick()

    assert (paused.paused, paused.next_ms) == (True, None)
    assert idle_seconds > 20
    assert (resumed.paused, resumed.next_ms) == (False, START_MS + 11 * MINUTE_MS)
    assert await jobs_of(timed) == []


async def test_update_replaces_and_keeps_the_past(timed: Rig, scheduler: Scheduler) -> None:
    """New times and a new job hold at once, old fields are gone, counts stay; a paused one stays paused."""
    await create(timed)
    await timed.advance(MINUTE_MS)
    await scheduler.tick()
    await timed.store.schedules.pause(timed.namespace, timed.queue, "nightly")

    updated = await timed.store.schedules.update(
        timed.namespace, minutely(cron="0 12 * * *", job=NewJob(type="other", queue="default"))
    )

    assert (updated.paused, updated.fired_total, updated.cron) == (True, 1, "0 12 * * *")
    assert updated.job == NewJob(type="other", queue="default")
    resumed = await timed.store.schedules.resume(timed.namespace, timed.queue, "nightly")
    assert resumed.next_ms == START_MS + 4 * 60 * MINUTE_MS


async def test_firing_planned_for_another_revision_is_stale(timed: Rig, scheduler: Scheduler) -> None:
    """What was worked out before an update, a pause, or a delete and a new one of the name, comes to nothing."""
    await create(timed)
    await timed.advance(MINUTE_MS)
    due = await timed.store.schedules.due(timed.namespace, timed.queue)
    firings = scheduler._plan(due.schedules[0], due.now_ms)
    fire, store = timed.store.schedules.fire, timed.store.schedules

    await store.update(timed.namespace, minutely())
    after_update = await fire(timed.namespace, timed.queue, firings)
    await store.delete(timed.namespace, timed.queue, "nightly")
    after_delete = await fire(timed.namespace, timed.queue, firings)
    await timed.set_clock(START_MS)
    await create(timed)
    after_create = await fire(timed.namespace, timed.queue, firings)

    assert [after_update, after_delete, after_create] == [[None], [None], [None]]
    assert await jobs_of(timed) == []


async def test_fire_time_is_never_fired_again_after_an_update(timed: Rig, scheduler: Scheduler) -> None:
    """An update that looked at the clock before the firing gives the same next time; it passes."""
    await create(timed)
    await timed.advance(MINUTE_MS)
    await scheduler.tick()
    await timed.set_clock(START_MS + MINUTE_MS - 1)
    await timed.store.schedules.update(timed.namespace, minutely())
    await timed.advance(1)

    await scheduler.tick()

    assert await jobs_of(timed) == ["08:01"]
    assert (await get(timed)).next_ms == START_MS + 2 * MINUTE_MS


async def test_trigger_makes_a_job_now_and_minds_the_overlap(timed: Rig) -> None:
    """Paused or not, it makes a job beside the times; a schedule that skips refuses while its last job has not ended."""
    before = await create(timed, overlap=OverlapPolicy.SKIP)
    await timed.store.schedules.pause(timed.namespace, timed.queue, "nightly")

    job_id = await timed.store.schedules.trigger(timed.namespace, timed.queue, "nightly")

    with pytest.raises(ScheduleOverlapError, match=job_id):
        await timed.store.schedules.trigger(timed.namespace, timed.queue, "nightly")
    job = await timed.get(job_id)
    after = await get(timed)
    assert (job.state, job.labels["gopher.schedule"], job.labels["team"]) == (JobState.ENQUEUED, "nightly", "a")
    assert (after.last_job_id, after.fired_total, after.last_fire_ms) == (job_id, 1, before.last_fire_ms)


async def test_jitter_puts_firings_off_by_the_same_for_all(timed: Rig, scheduler: Scheduler) -> None:
    """Within the jitter nothing is due before its moment, the moment is the same for every scheduler, and times stay in order."""
    await create(timed, jitter_ms=30_000)
    made = []

    for _ in range(10):
        await timed.advance(MINUTE_MS)
        await scheduler.tick()
        made.append(len(await jobs_of(timed)))
    await timed.advance(MINUTE_MS - 1)
    await scheduler.tick()

    assert await jobs_of(timed) == [f"08:{minute:02}" for minute in range(1, 11)]
    assert made[0] == 0


async def test_what_is_not_there_is_named(timed: Rig) -> None:
    """Each verb on an unknown name says so."""
    store, where = timed.store.schedules, (timed.namespace, timed.queue, "none")

    for verb in (store.get, store.pause, store.resume, store.delete, store.trigger):
        with pytest.raises(ScheduleNotFoundError, match="has no schedule 'none'"):
            await verb(*where)
    with pytest.raises(ScheduleNotFoundError):
        await store.update(timed.namespace, minutely(name="none"))
    assert await timed.names("schedule*") == []


async def test_list_pages_by_queue_and_name(timed: Rig) -> None:
    """Every schedule of every queue comes once, in order, whatever the size of the page."""
    for queue in ("default", "b"):
        for name in ("two", "one", "three"):
            await create(timed, name=name, job=NewJob(type="t", queue=queue))
    found: list[tuple[str, str]] = []
    cursor = None

    while True:
        page, cursor = await timed.store.schedules.page(timed.namespace, queue=None, size=2, cursor=cursor)
        found += [(each.job.queue, each.name) for each in page]
        if cursor is None:
            break

    assert found == [(queue, name) for queue in ("b", "default") for name in ("one", "three", "two")]
    page, _ = await timed.store.schedules.page(timed.namespace, queue="b", size=9, cursor=None)
    assert [each.name for each in page] == ["one", "three", "two"]


async def test_schedulers_are_told_of_what_is_due_earlier_and_of_nothing_else(timed: Rig) -> None:
    """The first schedule, an earlier one and a resumed one are announced; a later one and a pause are not."""
    heard: list[tuple[str, list[str]]] = []
    await timed.store.control.listen(timed.namespace, timed.queue, lambda word, rest: heard.append((word, rest)))

    await create(timed, cron="0 9 * * *", name="nine")
    await create(timed, cron="0 10 * * *", name="ten")
    await create(timed, cron="30 8 * * *")
    await timed.store.schedules.pause(timed.namespace, timed.queue, "nightly")
    await timed.store.schedules.resume(timed.namespace, timed.queue, "nightly")
    await timed.store.schedules.pause(timed.namespace, timed.queue, "nightly")

    half, nine = START_MS + 30 * MINUTE_MS, START_MS + 60 * MINUTE_MS
    assert heard == [("schedule", [str(each)]) for each in (nine, half, half)]


async def test_resume_goes_by_what_the_schedule_says_when_it_resumes(timed: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that comes in the middle of a resume is heeded: the next time is that of the new expression."""
    await create(timed)
    await timed.store.schedules.pause(timed.namespace, timed.queue, "nightly")
    times_of, updates = timed.store.schedules._times_of, [minutely(cron="0 12 * * *")]

    async def interrupted(schedule: NewSchedule) -> tuple[int, int]:
        times = await times_of(schedule)
        if updates:
            await timed.store.schedules.update(timed.namespace, updates.pop())
        return times

    monkeypatch.setattr(timed.store.schedules, "_times_of", interrupted)
    resumed = await timed.store.schedules.resume(timed.namespace, timed.queue, "nightly")

    assert (resumed.paused, resumed.next_ms) == (False, START_MS + 4 * 60 * MINUTE_MS)
