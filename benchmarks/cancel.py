"""How long from the call of CancelJob, over gRPC, to the running handler's `Cancelled`?

A hundred jobs are running at any time; each is cancelled by itself, after a random gap. The caller and the worker are two
processes on one host; both read the monotonic clock.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.children import open_child, python_module
from benchmarks.latency import percentiles, pickups_ms
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server
from benchmarks.systems import System, open_gopher_server

if TYPE_CHECKING:
    from collections.abc import Sequence


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [Step(question="cancel", column=GOPHER, measure=partial(_measure, gopher, plan.cancels))]


async def _measure(gopher: System, cancels: int) -> dict[str, float]:
    caller = replace(gopher, client=(*python_module("benchmarks.grpc_client"), "cancel"))
    async with (
        open_server() as server,
        open_child(gopher.worker, server.environment) as worker,
        open_gopher_server(server) as target,
    ):
        return percentiles("cancel", await pickups_ms(caller, worker, cancels, {"GOPHER_SERVER": target}))
