"""Does a worker drain as fast when a million jobs are waiting as when ten thousand are?

The same number of jobs is counted in both, after the same warm-up. The short drain lasts a third of a second, so it is made several
times, before and after the long one, and its median counts. Taking in a million jobs makes Redis rewrite its append-only file, in a
child that needs a core: the drain waits until that is over. Redis's processor time a job is the figure to trust on a busy machine.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.children import open_child
from benchmarks.drain import Drained, drain
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server
from benchmarks.submit import submit_bulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

SHORT_JOBS: Final = 10_000
SHORT_DRAINS: Final = 3
"""Before the long one, and again after it."""
WARM_JOBS: Final = 2_000
"""What the interpreter warms up with, before the counted jobs and on top of them."""
LONG_SECONDS: Final = 240.0


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    gopher = next(system for system in systems if system.name == GOPHER)
    measure = partial(_measure, gopher, plan.backlog_jobs)
    return [Step(question="backlog", column=GOPHER, measure=measure, once=True, limit_seconds=LONG_SECONDS)]


async def _measure(gopher: System, long_jobs: int) -> dict[str, float]:
    before = [await _drain(gopher, SHORT_JOBS) for _ in range(SHORT_DRAINS)]
    long = await _drain(gopher, long_jobs)
    short = before + [await _drain(gopher, SHORT_JOBS) for _ in range(SHORT_DRAINS)]
    short_rate = median(drained.jobs_per_second for drained in short)
    return {
        "backlog_short_jobs_per_second": short_rate,
        "backlog_long_jobs_per_second": long.jobs_per_second,
        "backlog_ratio": long.jobs_per_second / short_rate,
        "backlog_short_redis_us_per_job": median(drained.redis_us_per_job for drained in short),
        "backlog_long_redis_us_per_job": long.redis_us_per_job,
    }


async def _drain(gopher: System, waiting: int) -> Drained:
    """Measure how the first `SHORT_JOBS` of the waiting jobs go, after the warm-up."""
    async with open_server() as server:
        await submit_bulk(gopher, server, waiting + WARM_JOBS)
        await server.wait_rewritten()
        async with open_child(gopher.worker, server.environment) as worker:
            return await drain(gopher, server, worker, range(waiting, waiting - SHORT_JOBS - 1, -1))
