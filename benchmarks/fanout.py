"""How long until a thousand watchers of one job, on twenty connections, have an event?

From the call that makes the event (a cancel of a job that is not due) to the last byte of its message at each watcher. All watchers are
one process on one loop, which takes its share of the time, and of the two cores.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.children import python_module, run_child
from benchmarks.latency import percentiles
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server
from benchmarks.systems import System, open_gopher_server

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCHERS: Final = 1_000
CONNECTIONS: Final = 20


def steps(_systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    return [Step(question="fanout", column=GOPHER, measure=partial(_measure, plan.events))]


async def _measure(events: int) -> dict[str, float]:
    async with open_server() as server, open_gopher_server(server) as target:
        arguments = (target, str(CONNECTIONS), str(WATCHERS), str(events))
        answer = await run_child((*python_module("benchmarks.grpc_watchers"), *arguments), {})
    return percentiles("fanout", msgspec.convert(answer["waited_ms"], list[float]))
