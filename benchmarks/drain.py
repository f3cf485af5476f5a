"""How fast does one worker process drain preloaded no-op jobs?

The jobs are there before the worker starts. The clock runs from the moment a tenth of them is done, so that neither the start of
the worker nor the warm-up of its interpreter counts, to the moment the last one is settled in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from benchmarks.children import Child, MeasurementError, cpu_seconds, open_child
from benchmarks.plan import GOPHER, OTHER, Plan, Step
from benchmarks.servers import Server, open_server
from benchmarks.submit import submit_bulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

WARM_SHARE: Final = 0.1
LOOK_EVERY_SECONDS: Final = 0.01
"""One look is two or three O(1) commands; the error it leaves is under 1 % of a drain of more than a second."""


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What a drain cost.

    Attributes:
        jobs_per_second: How fast.
        redis_us_per_job: Processor time of Redis.
        worker_us_per_job: Of the worker and its children; None where there is no /proc.
    """

    jobs_per_second: float
    redis_us_per_job: float
    worker_us_per_job: float | None


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return one measurement a system."""
    return [
        Step(
            question="drain",
            column=system.name,
            missing=system.missing,
            measure=partial(_measure, system, plan.drain_jobs[GOPHER if system.name == OTHER else system.name]),
        )
        for system in systems
    ]


async def _measure(system: System, jobs: int) -> dict[str, float]:
    async with open_server() as server:
        await submit_bulk(system, server, jobs)
        async with open_child(system.worker, server.environment, system.directory) as worker:
            drained = await drain(system, server, worker, range(int(jobs * (1 - WARM_SHARE)), -1, -1))
    figures = {"drain_jobs_per_second": drained.jobs_per_second, "drain_redis_us_per_job": drained.redis_us_per_job}
    if drained.worker_us_per_job is not None:
        figures["drain_worker_us_per_job"] = drained.worker_us_per_job
    return figures


async def drain(system: System, server: Server, worker: Child, levels: range) -> Drained:
    """Measure how fast the unfinished jobs fall from the first of the levels to the last.

    Raises:
        MeasurementError: The worker ended, or all was done between two looks.
    """
    left = await fall_to(system, server, worker, levels[0])
    start, redis_start, worker_start = trio.current_time(), server.cpu_seconds(), cpu_seconds(worker.pid)
    jobs = left - await fall_to(system, server, worker, levels[-1])
    if jobs == 0:
        raise MeasurementError(f"{levels[0]} jobs are too few: they were done between two looks")
    seconds = trio.current_time() - start
    worker_end = cpu_seconds(worker.pid)
    is_known = worker_start is not None and worker_end is not None
    return Drained(
        jobs_per_second=jobs / seconds,
        redis_us_per_job=(server.cpu_seconds() - redis_start) * 1e6 / jobs,
        worker_us_per_job=((worker_end or 0) - (worker_start or 0)) * 1e6 / jobs if is_known else None,
    )


async def fall_to(system: System, server: Server, worker: Child, bound: int) -> int:
    """Return how many jobs are unfinished as soon as they are no more than `bound`."""
    while True:
        left = system.unfinished(server.look)
        if left <= bound:
            return left
        worker.require_running()
        await trio.sleep(LOOK_EVERY_SECONDS)
