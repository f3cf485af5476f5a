"""How much faster do two worker processes drain than one, on as many cores as the machine has?

Redis takes its share of the cores. With w the worker's processor time a job and r that of Redis, two cores can do at most
2 / (w + r) jobs a second, and one worker process at most 1 / w: two processes are at most 2w / (w + r) times as fast. The bound
is worked out from the run with one process.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.children import MeasurementError, open_child
from benchmarks.drain import WARM_SHARE, Drained, drain
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server
from benchmarks.submit import submit_bulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

PROCESSES: Final = 2


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement, which is two drains."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [Step(question="processes", column=GOPHER, measure=partial(_measure, gopher, plan.drain_jobs[GOPHER] * PROCESSES))]


async def _measure(gopher: System, jobs: int) -> dict[str, float]:
    one = await _drain(gopher, jobs)
    two = await _drain(replace(gopher, worker=(*gopher.worker, f"--processes={PROCESSES}")), jobs)
    worker, redis = one.worker_us_per_job, one.redis_us_per_job
    if worker is None:
        raise MeasurementError("the worker's processor time is read from /proc, which is not here")
    return {
        "processes_one_jobs_per_second": one.jobs_per_second,
        "processes_two_jobs_per_second": two.jobs_per_second,
        "processes_ratio": two.jobs_per_second / one.jobs_per_second,
        "processes_bound": PROCESSES * worker / (worker + redis),
        "processes_worker_us_per_job": worker,
        "processes_redis_us_per_job": redis,
    }


async def _drain(gopher: System, jobs: int) -> Drained:
    async with open_server() as server:
        await submit_bulk(gopher, server, jobs)
        async with open_child(gopher.worker, server.environment) as worker:
            return await drain(gopher, server, worker, range(int(jobs * (1 - WARM_SHARE)), -1, -1))
