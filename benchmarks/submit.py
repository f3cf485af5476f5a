"""How fast are jobs taken in: in bulk by the store client, and over gRPC one by one and in bulk?

The unary figure stands beside that of an echo server (`echo_server`) that takes and gives the same messages and does nothing
else, under the same load from the same program (`grpc_load`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.children import open_child, python_module, run_child
from benchmarks.plan import BATCH, GOPHER, IN_FLIGHT, PAYLOAD_BYTES, YARDSTICK, Plan, Step
from benchmarks.servers import Server, open_server
from benchmarks.systems import System, grpc_target, open_gopher_server

if TYPE_CHECKING:
    from collections.abc import Sequence

STREAMED_IN_FLIGHT: Final = 256
"""Items without an answer, as the clients have them."""
BATCHES_IN_FLIGHT: Final = 4
"""Enough that the server never waits for the next batch."""


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the bulk submit of each system, then the gRPC loads."""
    bulk = [
        Step(
            question="submit",
            column=system.name,
            missing=system.missing,
            measure=partial(_measure_bulk, system, plan.submit_jobs[system.name]),
        )
        for system in systems
    ]
    return [
        *bulk,
        Step(question="submit", column=GOPHER, measure=partial(_measure_grpc, plan)),
        Step(question="submit", column=YARDSTICK, measure=partial(_measure_echo, plan)),
    ]


async def submit_bulk(system: System, server: Server, jobs: int) -> float:
    """Submit no-op jobs by the system's fastest call and return the jobs a second."""
    arguments = ("submit", str(jobs), str(BATCH), str(PAYLOAD_BYTES))
    answer = await run_child((*system.client, *arguments), server.environment, system.directory)
    return jobs / float(str(answer["seconds"]))


async def _measure_bulk(system: System, jobs: int) -> dict[str, float]:
    async with open_server() as server:
        return {"submit_bulk_jobs_per_second": await submit_bulk(system, server, jobs)}


async def _measure_grpc(plan: Plan) -> dict[str, float]:
    async with open_server() as server, open_gopher_server(server) as target:
        return {
            "submit_unary_calls_per_second": await _load(target, "unary", IN_FLIGHT, plan.load_seconds),
            "submit_batch_jobs_per_second": BATCH * await _load(target, "batch", BATCHES_IN_FLIGHT, plan.load_seconds),
            "submit_stream_jobs_per_second": await _load(target, "stream", STREAMED_IN_FLIGHT, plan.load_seconds),
        }


async def _measure_echo(plan: Plan) -> dict[str, float]:
    async with open_child(python_module("benchmarks.echo_server"), {}) as echo:
        target = grpc_target(await echo.ready())
        return {"submit_unary_calls_per_second": await _load(target, "unary", IN_FLIGHT, plan.load_seconds)}


async def _load(target: str, kind: str, in_flight: int, seconds: float) -> float:
    arguments = (kind, target, str(in_flight), str(seconds))
    answer = await run_child((*python_module("benchmarks.grpc_load"), *arguments), {})
    return float(str(answer["calls"])) / float(str(answer["seconds"]))
