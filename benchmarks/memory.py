"""How much memory of Redis does a waiting job with a 100-byte payload take?

The first jobs load the scripts and make the queue; what is weighed are those that follow.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.plan import Plan, Step
from benchmarks.servers import open_server
from benchmarks.submit import submit_bulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

FIRST_JOBS: Final = 1_000


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return one measurement a system."""
    return [
        Step(
            question="memory",
            column=system.name,
            missing=system.missing,
            measure=partial(_measure, system, plan.memory_jobs),
            once=True,
        )
        for system in systems
    ]


async def _measure(system: System, jobs: int) -> dict[str, float]:
    async with open_server() as server:
        await submit_bulk(system, server, FIRST_JOBS)
        before = server.used_memory_bytes()
        await submit_bulk(system, server, jobs)
        return {"memory_bytes_per_job": (server.used_memory_bytes() - before) / jobs}
