"""The scripts of schedules, cut short at each of their writes: no fire time makes two jobs, and the schedule goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.errors import GopherError, ScriptReplyError
from gopher.job import NewJob
from gopher.runtime.scheduler import Scheduler
from gopher.schedule import NewSchedule, OverlapPolicy
from tests.store.rig import START_MS, turn_clocks
from tests.store.test_interruptions import cut_short

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.store.rig import Rig

MINUTE_MS: Final = 60_000
MOST_WRITES: Final = 40


def minutely(overlap: OverlapPolicy = OverlapPolicy.CANCEL_PREVIOUS) -> NewSchedule:
    return NewSchedule(name="s", cron="* * * * *", job=NewJob(type="t", labels={"a": "b"}, timeout_ms=5), overlap=overlap)


async def tick(rig: Rig) -> None:
    await Scheduler(rig.store.schedules, namespace=rig.namespace, queue=rig.queue).tick()


async def update(rig: Rig) -> object:
    job = NewJob(type="t", labels={"a": "b"})
    changed = NewSchedule(name="s", cron="*/2 * * * *", job=job, overlap=OverlapPolicy.QUEUE)
    return await rig.store.schedules.update(rig.namespace, changed)


@dataclass(frozen=True)
class Case:
    """A call that is cut short.

    Attributes:
        script: Attribute of `Schedules` that holds it.
        call: Makes the call.
        ends_paused: Whether the schedule no longer fires after the whole call.
        is_paused: Whether it is paused before.
        exists: Whether it is there before.
    """

    script: str
    call: Callable[[Rig], Awaitable[object]]
    ends_paused: bool = False
    is_paused: bool = False
    exists: bool = True

    def __str__(self) -> str:
        return self.script.strip("_")


def of(rig: Rig) -> tuple[str, str, str]:
    return rig.namespace, rig.queue, "s"


CASES: Final = [
    Case("_create", lambda rig: rig.store.schedules.create(rig.namespace, minutely()), exists=False),
    Case("_update", update),
    Case("_pause", lambda rig: rig.store.schedules.pause(*of(rig)), ends_paused=True),
    Case("_resume", lambda rig: rig.store.schedules.resume(*of(rig)), is_paused=True),
    Case("_delete", lambda rig: rig.store.schedules.delete(*of(rig)), ends_paused=True),
    Case("_trigger", lambda rig: rig.store.schedules.trigger(*of(rig))),
    Case("_fire", tick),
]


@pytest.fixture
async def timed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The rig, with the clock that schedules read turned too."""
    turn_clocks(rig.store.schedules)

    async def now_ms() -> int:
        await trio.lowlevel.checkpoint()
        return rig.now_ms

    monkeypatch.setattr(rig.store.registry, "now_ms", now_ms)
    return rig


async def begin(rig: Rig, case: Case) -> None:
    """Make the schedule, and let it fire once so that there is a job before."""
    await rig.clear()
    await rig.set_clock(START_MS)
    if case.exists:
        await rig.store.schedules.create(rig.namespace, minutely())
        await rig.advance(MINUTE_MS)
        await tick(rig)
        await rig.advance(MINUTE_MS)
    if case.is_paused:
        await rig.store.schedules.pause(*of(rig))


async def is_cut(rig: Rig, case: Case, at: int) -> bool:
    """Make the call with its script cut short at a write; return whether it was."""
    whole = getattr(rig.store.schedules, case.script)
    setattr(rig.store.schedules, case.script, cut_short(whole, at))
    try:
        await case.call(rig)
    except ScriptReplyError:
        return True
    finally:
        setattr(rig.store.schedules, case.script, whole)
    return False


async def fire_times(rig: Rig) -> Counter[str]:
    jobs, _ = await rig.store.query.list_jobs(rig.namespace, size=100)
    return Counter(job.labels["gopher.fire_time"] for job in jobs)


@pytest.mark.leaves_keys
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_script_cut_short_anywhere_may_be_repeated_and_the_schedule_goes_on(timed: Rig, case: Case) -> None:
    """After the cut and the call once more, every fire time has one job at most, the next ones fire, and the audit mends the rest."""
    for at in range(1, MOST_WRITES):
        await begin(timed, case)
        cut = await is_cut(timed, case, at)

        try:
            await case.call(timed)
        except GopherError as error:
            # The call that was cut short had done its work, or left what a person has to remove first.
            assert error.reason in {"SCHEDULE_EXISTS", "SCHEDULE_NOT_FOUND"}  # noqa: PT017 - not the point of the test
        for _ in range(4):
            await timed.advance(MINUTE_MS)
            await tick(timed)

        made = await fire_times(timed)
        assert case.script == "_trigger" or max(made.values(), default=0) <= 1, at
        later = [each for each in made if each > "2027-01-15T08:03"]
        assert bool(later) == (not case.ends_paused), at
        await timed.audit(repair=True)
        assert await timed.audit() == []
        if not cut:
            return
    pytest.fail("the script writes without end")


@pytest.mark.leaves_keys
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.exists and not case.ends_paused and not case.is_paused], ids=str
)
async def test_script_cut_short_anywhere_leaves_a_schedule_that_fires(timed: Rig, case: Case) -> None:
    """Without a repeated call the schedule goes on, each fire time with one job at most, and nobody asks in circles."""
    for at in range(1, MOST_WRITES):
        await begin(timed, case)
        cut = await is_cut(timed, case, at)

        for _ in range(4):
            await timed.advance(MINUTE_MS)
            await tick(timed)
        pause_seconds = await Scheduler(timed.store.schedules, namespace=timed.namespace, queue=timed.queue).tick()

        made = await fire_times(timed)
        assert max(made.values()) <= 1, at
        assert any(each > "2027-01-15T08:03" for each in made), at
        assert pause_seconds > 0, at
        if not cut:
            return
    pytest.fail("the script writes without end")
