"""The breaker's scripts: when it trips, what it lets through, when it closes, and what operators may order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.breaker import Breaker, BreakerState, Forced
from gopher.errors import BreakerNotFoundError
from gopher.store import keys
from gopher.store.breakers import BreakerEnding
from tests.store.rig import SET_CLOCK, START_MS

if TYPE_CHECKING:
    from gopher.store.breakers import Admission, BreakerView
    from gopher.store.store import Store
    from tests.store.rig import Rig

BREAKER = Breaker(failures=3, window_seconds=30, reset_seconds=10, probes=1)


class Fuse:
    """One breaker whose clock the test turns."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.breakers = store.breakers
        self._store = store
        self.namespace = namespace
        self._now_ms = START_MS
        self._reports = 0

    async def declare(self, breaker: Breaker = BREAKER) -> BreakerView:
        await self.advance(0)
        return await self.breakers.declare(self.namespace, "smtp", breaker, ["email"])

    async def advance(self, ms: int) -> None:
        self._now_ms += ms
        clock = keys.breaker(self.namespace, "smtp") + ":clock"
        await self._store.link.call("EVAL", SET_CLOCK, 1, clock, self._now_ms)

    async def admit(self, count: int = 100) -> Admission:
        return await self.breakers.admit(self.namespace, "smtp", count=count, permit_seconds=60)

    async def report(self, endings: str, permits: list[str] | None = None, report_id: str | None = None) -> BreakerView:
        self._reports += 1
        given = [*(permits or ()), *[""] * len(endings)]
        told = [BreakerEnding(ending, permit) for ending, permit in zip(endings, given, strict=False)]
        return await self.breakers.report(
            self.namespace, "smtp", worker="w", report_id=report_id or f"r{self._reports}", endings=told
        )


@pytest.fixture
async def fuse(rig: Rig) -> Fuse:
    """A breaker that has just been declared."""
    made = Fuse(rig.store, rig.namespace)
    await made.declare()
    return made


async def test_new_breaker_lets_as_many_try_as_may_fail(fuse: Fuse) -> None:
    """Nothing is known of the dependency: no more jobs run at once than failures trip it, whoever asks."""
    first = await fuse.admit(2)
    second = await fuse.admit()
    third = await fuse.admit()

    assert [len(each.permits) for each in (first, second, third)] == [2, 1, 0]
    assert third.next_seconds == 60
    assert not third.view.is_free


async def test_success_frees_and_failures_in_a_row_trip(fuse: Fuse) -> None:
    """After one success jobs need no permit; after three failures with none between it is open."""
    permits = (await fuse.admit(1)).permits
    freed = await fuse.report("s", permits)
    interrupted = await fuse.report("ffsff")
    tripped = await fuse.report("f")

    assert (freed.state, freed.is_free) == (BreakerState.CLOSED, True)
    assert (interrupted.state, interrupted.is_free) == (BreakerState.CLOSED, False)
    assert (tripped.state, tripped.open_seconds) == (BreakerState.OPEN, 10)


async def test_dependency_that_is_down_gets_no_more_calls_than_trip_it(fuse: Fuse) -> None:
    """Every permit that fails is one less to give: three calls, whatever the order of asks and reports."""
    calls = 0
    for _ in range(9):
        permits = (await fuse.admit(2)).permits
        calls += len(permits)
        await fuse.report("f" * len(permits), permits)

    assert calls == 3
    assert (await fuse.admit()).view.state is BreakerState.OPEN


async def test_old_failures_are_forgotten(fuse: Fuse) -> None:
    """Failures count only within the window."""
    await fuse.report("ff")
    await fuse.advance(30_001)

    assert (await fuse.report("f")).state is BreakerState.CLOSED


async def test_permit_stands_while_it_is_renewed_and_no_longer(fuse: Fuse) -> None:
    """A probe that takes long keeps others from probing; that of a worker that is lost does so until its permit ends."""
    await fuse.report("fff")
    await fuse.advance(10_000)
    (permit,) = (await fuse.admit()).permits

    for _ in range(3):
        await fuse.advance(40_000)
        await fuse.breakers.renew(fuse.namespace, "smtp", [permit], 60)
    renewed = await fuse.admit()
    await fuse.advance(60_000)
    lost = await fuse.admit()
    await fuse.breakers.renew(fuse.namespace, "smtp", [permit], 60)

    assert renewed.permits == []
    assert len(lost.permits) == 1
    assert (await fuse.admit()).permits == []
    assert (await fuse.report("s", [permit])).state is BreakerState.HALF_OPEN


async def test_open_breaker_probes_once_its_time_is_over(fuse: Fuse) -> None:
    """Open it gives nothing; then one probe at a time; a probe that fails opens it again, one that succeeds closes it."""
    await fuse.report("fff")
    await fuse.advance(9_999)
    early = await fuse.admit()
    await fuse.advance(1)
    probe = await fuse.admit()
    other = await fuse.admit()
    failed = await fuse.report("f", probe.permits)
    await fuse.advance(10_000)
    second = await fuse.admit()
    closed = await fuse.report("s", second.permits)

    assert (early.permits, len(probe.permits), other.permits) == ([], 1, [])
    assert probe.view.state is BreakerState.HALF_OPEN
    assert (failed.state, failed.open_seconds) == (BreakerState.OPEN, 10)
    assert (closed.state, closed.is_free) == (BreakerState.CLOSED, True)
    assert (await fuse.breakers.get(fuse.namespace, "smtp")).opened_total == 2


async def test_attempts_from_before_it_tripped_say_nothing(fuse: Fuse) -> None:
    """What began while it was closed neither closes nor opens it later."""
    await fuse.report("fff")
    late = await fuse.report("sf")
    await fuse.advance(10_000)
    await fuse.admit()
    later = await fuse.report("sf")

    assert late.state is BreakerState.OPEN
    assert later.state is BreakerState.HALF_OPEN


async def test_unused_permit_is_given_to_another(fuse: Fuse) -> None:
    """A permit for which no job was found, or whose attempt says nothing, is free again; one that is lost ends by itself."""
    permits = (await fuse.admit()).permits
    await fuse.report("n", permits[:1])
    again = await fuse.admit()
    await fuse.advance(60_000)
    later = await fuse.admit()

    assert (len(again.permits), len(later.permits)) == (1, 3)


async def test_report_that_is_repeated_counts_once(fuse: Fuse) -> None:
    """Its reply was lost: the same report again changes nothing."""
    told = [await fuse.report("ff", report_id="same") for _ in range(3)]

    assert {view.state for view in told} == {BreakerState.CLOSED}


async def test_operator_holds_it_open_or_closed(fuse: Fuse) -> None:
    """An order stands whatever attempts say, until it is taken back."""
    await fuse.breakers.force(fuse.namespace, "smtp", Forced.OPEN)
    shut = await fuse.admit()
    closed = await fuse.breakers.force(fuse.namespace, "smtp", Forced.CLOSED)
    failing = await fuse.report("ffff")
    freed = await fuse.breakers.force(fuse.namespace, "smtp", None)

    assert (shut.permits, shut.view.state, shut.view.open_seconds) == ([], BreakerState.OPEN, None)
    assert (closed.state, closed.forced, closed.is_free) == (BreakerState.CLOSED, Forced.CLOSED, True)
    assert failing.is_free
    assert (freed.state, freed.forced) == (BreakerState.CLOSED, None)


async def test_list_shows_what_is_declared_and_how_it_stands(fuse: Fuse) -> None:
    """Declared again by another worker it keeps its state; one that nobody has declared is refused."""
    await fuse.report("fff")
    await fuse.declare()

    (shown,) = await fuse.breakers.list_breakers(fuse.namespace)

    assert (shown.name, shown.state, shown.types) == ("smtp", BreakerState.OPEN, ("email",))
    assert shown.reopen_ms == START_MS + 10_000
    for step in (fuse.breakers.get(fuse.namespace, "other"), fuse.breakers.force(fuse.namespace, "other", None)):
        with pytest.raises(BreakerNotFoundError):
            await step


async def test_changes_are_pushed(fuse: Fuse) -> None:
    """Who listens is told at once that it has opened, and how long for."""
    told: list[BreakerView] = []
    await fuse.breakers.listen(fuse.namespace, "smtp", told.append)

    await fuse.report("fff")

    assert [(view.state, view.open_seconds) for view in told] == [(BreakerState.OPEN, 10)]


@pytest.mark.parametrize(
    "options", [{"failures": 0}, {"probes": 1001}, {"window_seconds": float("nan")}, {"reset_seconds": 0}, {"name": "a:b"}]
)
def test_breaker_that_cannot_work_is_refused(options: dict[str, object]) -> None:
    """The message says what is wrong and what would be right."""
    with pytest.raises(ValueError, match="must"):
        Breaker(**options)  # type: ignore[arg-type] # that is the point
