"""Do 100,000 jobs that a rate limit holds back slow the other jobs of their queue?

First the limited jobs are all looked at once by a worker and parked; then the no-op jobs come, and a fresh worker drains them as in
`drain`. The same is measured with nothing parked, before and after, and beside as many jobs that are scheduled for tomorrow: no
claim looks at those, so what they cost is the price of a larger data set, not of a limit.
"""

from __future__ import annotations

from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Final

from benchmarks.children import MeasurementError, open_child
from benchmarks.drain import WARM_SHARE, Drained, drain, fall_to
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.preload import open_store, preload
from benchmarks.servers import Server, open_server
from benchmarks.submit import submit_bulk
from gopher.job import DEFAULT_NAMESPACE, DEFAULT_QUEUE, NewJob
from gopher.limits import PERIODS, Limits, RateLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

LIMITED: Final = "mark"
"""The type that is held back; the drained jobs are of another."""
ONE_A_DAY: Final = Limits(rate=RateLimit(1, PERIODS["d"]))


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [
        Step(question="parked", column=GOPHER, measure=partial(_measure, gopher, plan.parked_jobs, plan.drain_jobs[GOPHER]))
    ]


async def _measure(gopher: System, held_back: int, jobs: int) -> dict[str, float]:
    before = await _drain(gopher, jobs)
    beside = await _drain(gopher, jobs, parked=held_back)
    asleep = await _drain(gopher, jobs, scheduled=held_back)
    after = await _drain(gopher, jobs)
    alone_rate = mean((before.jobs_per_second, after.jobs_per_second))
    return {
        "parked_none_jobs_per_second": alone_rate,
        "parked_many_jobs_per_second": beside.jobs_per_second,
        "parked_ratio": beside.jobs_per_second / alone_rate,
        "parked_scheduled_jobs_per_second": asleep.jobs_per_second,
        "parked_none_redis_us_per_job": mean((before.redis_us_per_job, after.redis_us_per_job)),
        "parked_many_redis_us_per_job": beside.redis_us_per_job,
        "parked_scheduled_redis_us_per_job": asleep.redis_us_per_job,
    }


async def _drain(gopher: System, jobs: int, *, parked: int = 0, scheduled: int = 0) -> Drained:
    async with open_server() as server:
        if parked:
            await _park(gopher, server, parked)
        await preload(server, [NewJob(type=LIMITED, payload=b"1", delay_ms=PERIODS["d"])] * scheduled)
        await submit_bulk(gopher, server, jobs)
        await server.wait_rewritten()
        async with open_child(gopher.worker, server.environment) as worker:
            return await drain(gopher, server, worker, range(int(jobs * (1 - WARM_SHARE)), -1, -1))


async def _park(gopher: System, server: Server, jobs: int) -> None:
    """Have this many jobs held back by their limit."""
    async with open_store(server) as store:
        await store.limits.set_limits(DEFAULT_NAMESPACE, DEFAULT_QUEUE, LIMITED, ONE_A_DAY)
    await preload(server, [NewJob(type=LIMITED, payload=b"1")] * (jobs + 1))  # one may start
    async with open_child(gopher.worker, server.environment) as worker:
        await fall_to(gopher, server, worker, 0)
    async with open_store(server) as store:
        stats = await store.query.queue_stats(DEFAULT_NAMESPACE, DEFAULT_QUEUE)
    if stats.parked != jobs:
        raise MeasurementError(f"{stats.parked} jobs are parked, not {jobs}")
