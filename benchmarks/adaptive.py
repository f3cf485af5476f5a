"""Does a worker that finds its own number of slots do as well as the best fixed number?

Four loads: handlers that compute on the loop, that compute in threads, that wait and compute a little, that wait. For each, in one go: a worker
with each of a few fixed numbers of slots, then one that is given bounds alone, once it has had time to settle, then the best fixed
number again. The figure is the adaptive worker's rate over the mean of the two rates of the best fixed one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from benchmarks.children import MeasurementError, open_child
from benchmarks.plan import BATCH, GOPHER, Plan, Step
from benchmarks.servers import open_server
from gopher.job import DEFAULT_NAMESPACE, NewJob
from gopher.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.children import Child
    from benchmarks.servers import Server
    from benchmarks.systems import System

BOUNDS: Final = "1-400"
WARM_SECONDS: Final = 2.0
"""Of a fixed number: its first jobs are under way by then."""
FIXED_SECONDS: Final = 4.0
SETTLE_SECONDS: Final = 20.0
ADAPTIVE_SECONDS: Final = 12.0
"""Long enough to hold the tries up and down that go on when the number has been found."""
BEAT_SECONDS: Final = 2.0
"""The lease is 3 s, so the register tells the number of slots every second."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One kind of work.

    Attributes:
        name: In the figures.
        job_type: Of `benchmarks.app`.
        seconds: Range of what a job takes, spread evenly.
        fixed: Numbers of slots to hold against.
        most_per_second: Jobs that no worker exceeds; so many are submitted for each second.
    """

    name: str
    job_type: str
    seconds: tuple[float, float]
    fixed: tuple[int, ...]
    most_per_second: int


LOADS: Final = (
    Load(name="compute", job_type="compute", seconds=(0.005, 0.02), fixed=(1, 2, 8, 32), most_per_second=150),
    Load(name="compute_thread", job_type="compute_thread", seconds=(0.005, 0.02), fixed=(1, 2, 8, 32), most_per_second=150),
    Load(name="mixed", job_type="mixed", seconds=(0.05, 0.2), fixed=(30, 100, 300), most_per_second=1_000),
    Load(name="wait", job_type="wait", seconds=(0.05, 0.2), fixed=(8, 100, 400), most_per_second=3_500),
)


def steps(systems: Sequence[System], _plan: Plan) -> list[Step]:
    """Return one measurement a load."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [Step(question="adaptive", column=GOPHER, measure=partial(_measure, gopher, load), once=True) for load in LOADS]


async def _measure(gopher: System, load: Load) -> dict[str, float]:
    fixed = {slots: await _rate(gopher, load, str(slots), WARM_SECONDS, FIXED_SECONDS) for slots in load.fixed}
    adaptive = await _rate(gopher, load, BOUNDS, SETTLE_SECONDS, ADAPTIVE_SECONDS)
    best = max(fixed, key=lambda slots: fixed[slots][0])
    again = await _rate(gopher, load, str(best), WARM_SECONDS, FIXED_SECONDS)
    figures = {f"adaptive_{load.name}_at_{slots}_per_second": rate for slots, (rate, _) in fixed.items()}
    figures[f"adaptive_{load.name}_per_second"], figures[f"adaptive_{load.name}_slots"] = adaptive
    figures[f"adaptive_{load.name}_again_per_second"] = again[0]
    figures[f"adaptive_{load.name}_share"] = adaptive[0] / mean((fixed[best][0], again[0]))
    return figures


async def _rate(gopher: System, load: Load, concurrency: str, settle_seconds: float, seconds: float) -> tuple[float, float]:
    """Return jobs a second, and the mean number of slots meanwhile."""
    program = (gopher.worker[0], "--app=benchmarks.app:registry", f"--concurrency={concurrency}", "--lease=3")
    async with open_server() as server, trio.open_nursery() as nursery:
        store = Store(server.url, client_name="gopher-bench")
        await nursery.start(store.run)
        await _submit(store, load, round(load.most_per_second * (settle_seconds + seconds + 1)))
        async with open_child(program, server.environment) as worker:
            await worker.ready()
            await trio.sleep(settle_seconds)
            start, before = trio.current_time(), gopher.unfinished(server.look)
            slots = await _slots(store, seconds)
            left = gopher.unfinished(server.look)
            rate = (before - left) / (trio.current_time() - start)
            _require_waiting(worker, server, left)
        nursery.cancel_scope.cancel()
    return rate, slots


async def _submit(store: Store, load: Load, count: int) -> None:
    lengths = random.Random(count)
    for start in range(0, count, BATCH):
        jobs = [
            NewJob(type=load.job_type, payload=msgspec.json.encode(lengths.uniform(*load.seconds)))
            for _ in range(min(BATCH, count - start))
        ]
        await store.lifecycle.submit(DEFAULT_NAMESPACE, jobs)


async def _slots(store: Store, seconds: float) -> float:
    seen: list[int] = []
    with trio.move_on_after(seconds):
        while True:
            await trio.sleep(BEAT_SECONDS)
            seen += [info.description.slots for info in await store.registry.workers(DEFAULT_NAMESPACE)]
    return mean(seen)


def _require_waiting(worker: Child, server: Server, left: int) -> None:
    worker.require_running()
    if left < BATCH:
        raise MeasurementError(f"only {left} jobs were left at {server.url}: the machine is faster than this load was made for")
