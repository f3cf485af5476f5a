"""How long from the call of submit to the handler's first line, when 500 jobs come in every second?

An open load: the next job is submitted when its moment has come, whatever has become of the last. Client and worker are two
processes on one host; both read the monotonic clock, and tell what they have noted at the end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from benchmarks.children import open_child, run_child
from benchmarks.latency import SETTLE_SECONDS, percentiles
from benchmarks.lateness import report_of
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

RATE: Final = 500
"""Jobs a second."""
WARM_SECONDS: Final = 0.5
"""What opens connections and loads scripts is not counted."""


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [Step(question="steady", column=GOPHER, measure=partial(_measure, gopher, plan.paced_seconds))]


async def _measure(gopher: System, seconds: float) -> dict[str, float]:
    async with open_server() as server, open_child(gopher.worker, server.environment) as worker:
        await worker.ready()
        await trio.sleep(SETTLE_SECONDS)
        jobs = int(RATE * (seconds + WARM_SECONDS))
        answer = await run_child((*gopher.client, "steady", str(jobs), str(RATE)), server.environment)
        sent = msgspec.convert(answer["sent"], list[int])
        ran = dict((await report_of(server, worker, jobs)).marks)
    pickups_ms = [(ran[sequence] - moment) / 1e6 for sequence, moment in enumerate(sent)]
    return percentiles("steady", pickups_ms[int(RATE * WARM_SECONDS) :])
