"""How many no-op children a second does one worker start and join, in a nursery of 1,000?

The parent's handler says when its block began and when it ended, by the clock of its worker; so the whole of a child counts: stored,
claimed, run, settled, heard of. The first parents warm up, and do not count.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.children import open_child
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.preload import preload
from benchmarks.servers import open_server
from gopher.job import NewJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

CHILDREN: Final = 1_000
WARM_PARENTS: Final = 2


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [Step(question="nursery", column=GOPHER, measure=partial(_measure, gopher, plan.nurseries))]


async def _measure(gopher: System, nurseries: int) -> dict[str, float]:
    rates = []
    async with open_server() as server, open_child(gopher.worker, server.environment) as worker:
        await worker.ready()
        for _ in range(WARM_PARENTS + nurseries):
            await preload(server, [NewJob(type="family", payload=str(CHILDREN).encode())])
            line = await worker.line_starting("joined ")
            rates.append(CHILDREN / float(line.split()[1]))
    return {"nursery_children_per_second": median(rates[WARM_PARENTS:])}
