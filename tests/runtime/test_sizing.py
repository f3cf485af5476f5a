from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest
import trio

from gopher.runtime.claimer import Claimer
from gopher.runtime.sizing import LOOK_SECONDS, UNUSED_SECONDS, Look, Sizer, Sizing
from gopher.store.type_set import ANY_TYPE
from tests.runtime.parts import Parts
from tests.runtime.rig import no_gates
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.lifecycle import Lifecycle
    from gopher.store.store import Store
    from tests.runtime.rig import Bench


@dataclass(frozen=True)
class Load:
    """What a worker meets: attempts that compute, then wait, and what stands behind them.

    Attributes:
        compute_seconds: Processor time of one attempt.
        wait_seconds: What else it takes.
        cpus: That can be had for it; 1 for Python code.
        served: Attempts that what they wait for can serve at once.
        memory_a_slot: Part of the memory.
    """

    compute_seconds: float
    wait_seconds: float
    cpus: float = 1.0
    served: float = 1e9
    memory_a_slot: float = 0.0

    def rate(self, slots: int) -> float:
        """Attempts a second of so many slots."""
        # Between two attempts a slot waits for a claim of about a millisecond.
        alone = min(slots, self.served) / (self.compute_seconds + self.wait_seconds + 0.001)
        return min(alone, self.cpus / max(self.compute_seconds, 1e-9))

    def lag_seconds(self, slots: int) -> float:
        """The loop comes late by half of what is ready to compute."""
        ready = slots - self.rate(slots) * (self.wait_seconds + 0.001)
        return max(0.0, ready) * self.compute_seconds / 2 if self.cpus == 1.0 and self.served > slots else 0.0


class World:
    """A worker under a load, in time that passes at once."""

    def __init__(self, sizing: Sizing, load: Load, *, noise: float = 0.05, seed: int = 7) -> None:
        self.sizing = sizing
        self.load = load
        self.rates: list[float] = []
        self._random = random.Random(seed)
        self._noise = noise
        self._now = self._ended = self._processor = 0.0

    def run(self, seconds: float, *, jobs_wait: bool = True, busy: Callable[[int], int] = lambda slots: slots) -> list[int]:
        """Let time pass and return the slots there were at each look."""
        history = []
        self.rates.clear()
        for _ in range(round(seconds / LOOK_SECONDS)):
            slots = self.sizing.slots
            rate = self.load.rate(slots)
            lag_seconds = self.load.lag_seconds(slots)
            step = LOOK_SECONDS + lag_seconds
            self._now += step
            self._ended += rate * step * self._random.gauss(1.0, self._noise * LOOK_SECONDS**-0.5)
            self._processor += rate * step * self.load.compute_seconds
            self.rates.append(rate)
            self.sizing.look(
                Look(
                    at=self._now,
                    ended=int(self._ended),
                    busy=busy(slots),
                    jobs_wait=jobs_wait,
                    lag_seconds=lag_seconds,
                    processor_seconds=self._processor,
                    memory=0.1 + self.load.memory_a_slot * slots,
                )
            )
            history.append(self.sizing.slots)
        return history

    @property
    def mean_rate(self) -> float:
        return sum(self.rates) / len(self.rates)

    def best_rate(self, maximum: int = 400) -> float:
        return max(self.load.rate(slots) for slots in range(1, maximum + 1))


COMPUTING = Load(compute_seconds=0.012, wait_seconds=0.0)
THREADS = Load(compute_seconds=0.05, wait_seconds=0.0, cpus=2.0)
WAITING = Load(compute_seconds=0.0001, wait_seconds=0.125)
MIXED = Load(compute_seconds=0.001, wait_seconds=0.1)
BEHIND_TWENTY = Load(compute_seconds=0.0001, wait_seconds=0.1, served=20)


@pytest.mark.parametrize(
    ("load", "fewest", "most"),
    [(COMPUTING, 1, 10), (THREADS, 2, 12), (WAITING, 250, 400), (MIXED, 80, 200), (BEHIND_TWENTY, 14, 80)],
)
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_sizing_settles_where_the_load_is_served_best(load: Load, fewest: int, most: int, noise: float, seed: int) -> None:
    """Each kind of work gets at least 0.9 of what its best fixed number of slots gives, and no slots in vain, noise or not."""
    world = World(Sizing(1, 400), load, noise=noise, seed=seed)
    world.run(60)

    history = world.run(60)

    assert world.mean_rate >= 0.9 * world.best_rate()
    assert fewest <= sum(history) / len(history) <= most


@pytest.mark.parametrize(("before", "after"), [(WAITING, COMPUTING), (COMPUTING, WAITING), (WAITING, BEHIND_TWENTY)])
def test_sizing_follows_a_change_of_work(before: Load, after: Load) -> None:
    """Whatever the slots were good for before, within two minutes they fit what comes now."""
    world = World(Sizing(1, 400), before)
    world.run(60)
    world.load = after
    world.run(120)

    world.run(30)

    assert world.mean_rate >= 0.9 * world.best_rate()


def test_sizing_stays_within_its_bounds() -> None:
    """Neither more nor less than was allowed, whatever would pay."""
    up, down = World(Sizing(3, 37), WAITING, noise=0.0), World(Sizing(3, 37), COMPUTING, noise=0.0)

    slots = up.run(60) + down.run(60)

    assert (min(slots), max(slots)) == (3, 37)


def test_sizing_of_one_number_is_that_number() -> None:
    """Equal bounds leave nothing to find out."""
    sizing = Sizing(7, 7)

    assert (sizing.is_fixed, sizing.slots) == (True, 7)


def test_sizing_stops_before_the_memory_is_full() -> None:
    """Work that pays in every slot but fills the memory ends below nine tenths of it."""
    world = World(Sizing(1, 400), Load(compute_seconds=0.0001, wait_seconds=0.125, memory_a_slot=0.01))
    world.run(60)

    history = world.run(60)

    assert 40 <= sum(history) / len(history) <= 82


def test_sizing_gives_slots_up_while_the_memory_is_full() -> None:
    """Somebody else fills it: slots go down to the least, and come back after."""
    world = World(Sizing(5, 400), WAITING)
    world.run(30)
    world.load = Load(compute_seconds=0.0001, wait_seconds=0.125, memory_a_slot=1.0)

    full = world.run(60)
    world.load = WAITING
    after = world.run(60)

    assert full[-1] == 5
    assert after[-1] >= 250


def test_sizing_learns_nothing_while_no_job_waits() -> None:
    """Slots that are not asked for are not added."""
    world = World(Sizing(1, 400), WAITING)

    assert set(world.run(120, jobs_wait=False)) == {10}


def test_sizing_gives_up_slots_that_are_not_used() -> None:
    """What a burst has left is halved every ten seconds, down to what is used, and slots in use are kept."""
    world = World(Sizing(1, 400), WAITING)
    world.run(30)

    kept = world.run(60, jobs_wait=False, busy=lambda _slots: 300)
    given_up = world.run(120, jobs_wait=False, busy=lambda _slots: 20)

    assert kept[-1] >= 300
    assert 10 <= given_up[-1] <= 40


def test_sizing_grows_on_an_idle_processor_before_anything_ends() -> None:
    """Attempts of an hour end too seldom to be counted: while they leave the processor idle there are more of them."""
    world = World(Sizing(1, 100), Load(compute_seconds=0.001, wait_seconds=3600.0))

    assert world.run(120)[-1] == 100


def test_sizing_takes_no_slots_for_a_lag_that_others_cause() -> None:
    """A loop that comes late on a crowded machine, but computes little, is not helped by fewer slots."""

    class Crowded(Load):
        def lag_seconds(self, slots: int) -> float:
            return 0.1

    world = World(Sizing(1, 400), Crowded(compute_seconds=0.0001, wait_seconds=0.125))

    history = world.run(120)

    assert sum(history) / len(history) >= 300


def test_sizing_begins_anew_after_a_pause() -> None:
    """A window does not reach over a time in which nothing ran."""
    sizing = Sizing(1, 400)
    world = World(sizing, WAITING)
    world.run(0.9)

    sizing.pause()
    world.run(0.9)

    assert sizing.slots == 10


@pytest.mark.leaves_keys  # jobs are left processing when there are slots enough
async def test_sizer_gives_a_worker_the_slots_that_pay(
    store: Store, namespace: str, bench: Bench, nursery: trio.Nursery
) -> None:
    """A worker whose handlers wait has more slots before long."""
    sizing = Sizing(1, 40)

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.sleep(0.02)

    parts = Parts(store, namespace, bench, nursery, slots=sizing.slots, poll_seconds=0.01)
    for _ in range(40):
        await parts.submit(100)
    await nursery.start(Sizer(sizing, parts.claimer, bench.scopes).run)
    await nursery.start(parts.claimer.run, parts.slots)

    await until(lambda: sizing.slots > 10)

    assert parts.claimer.slots == sizing.slots


async def test_sizer_does_not_look_while_nothing_runs(
    store: Store, namespace: str, bench: Bench, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker costs nothing; the first attempt starts the looking."""
    looks: list[float] = []
    parts = Parts(store, namespace, bench, nursery)
    sizer = Sizer(Sizing(1, 40), parts.claimer, bench.scopes)
    monkeypatch.setattr(sizer, "tick", looks.append)
    await nursery.start(sizer.run)
    await trio.sleep(5 * LOOK_SECONDS)
    idle = len(looks)

    attempt = bench.take()
    await until(lambda: len(looks) > 1)
    bench.scopes.remove(attempt)

    assert idle == 0


async def test_sizer_gives_up_what_an_idle_worker_does_not_use(
    bench: Bench, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Half of the slots every ten seconds, down to what a worker begins with; from then on nothing is looked at."""
    sizing = Sizing(1, 400)
    sizing.slots = 400
    never = cast("Lifecycle", None)
    claimer = Claimer(
        never,
        bench.scopes,
        no_gates(),
        types=ANY_TYPE,
        namespace="n",
        worker="w",
        slots=400,
        lease_seconds=30.0,
        poll_seconds=5.0,
    )
    await nursery.start(Sizer(sizing, claimer, bench.scopes).run)

    slots = []
    for _ in range(7):
        await trio.sleep(UNUSED_SECONDS + 0.001)
        slots.append(claimer.slots)

    assert slots == [200, 100, 50, 25, 12, 10, 10]
    assert not sizing.has_spare


def test_sizing_takes_back_what_cannot_be_judged() -> None:
    """Fewer slots that were being tried when attempts ceased to end are not kept."""
    sizing = Sizing(1, 400)
    world = World(sizing, THREADS, noise=0.0)
    while sizing.slots >= 10:
        world.run(LOOK_SECONDS)
    world.load = Load(compute_seconds=100.0, wait_seconds=0.0, cpus=2.0)

    assert world.run(30)[-1] == 10
