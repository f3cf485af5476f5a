"""How long from the call of submit to the handler's first line, on an idle system?

Client and worker are two processes on one host; both read the monotonic clock. Gopher is measured twice: by the store client, as
the peers are, and over gRPC.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from benchmarks.children import Child, open_child, python_module, run_child
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server
from benchmarks.systems import System, open_gopher_server

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLE_SECONDS: Final = 1.0
"""From the worker's ready line to the first sample: what a worker does at its start is over by then."""
FIRST_SAMPLES: Final = 5
"""The first samples open connections and load scripts; they are not counted."""


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return one measurement a system, and Gopher's over gRPC."""
    direct = [
        Step(
            question="latency",
            column=system.name,
            missing=system.missing,
            measure=partial(_measure, system, plan.probes[system.name]),
        )
        for system in systems
    ]
    gopher = next(system for system in systems if system.name == GOPHER)
    return [*direct, Step(question="latency", column=GOPHER, measure=partial(_measure_grpc, gopher, plan.probes[GOPHER]))]


async def _measure(system: System, samples: int) -> dict[str, float]:
    async with open_server() as server, open_child(system.worker, server.environment) as worker:
        return percentiles("pickup", await pickups_ms(system, worker, samples, server.environment))


async def _measure_grpc(gopher: System, samples: int) -> dict[str, float]:
    caller = replace(gopher, client=python_module("benchmarks.grpc_client"))
    async with (
        open_server() as server,
        open_child(gopher.worker, server.environment) as worker,
        open_gopher_server(server) as target,
    ):
        return percentiles("pickup_grpc", await pickups_ms(caller, worker, samples, {"GOPHER_SERVER": target}))


async def pickups_ms(system: System, worker: Child, samples: int, environment: dict[str, str]) -> list[float]:
    """Let the client probe, and return how long each probe took to reach the handler, in ms."""
    await worker.ready()
    await trio.sleep(SETTLE_SECONDS)
    arguments = ("probe", str(FIRST_SAMPLES + samples), *map(str, system.gap_ms))
    answer = await run_child((*system.client, *arguments), environment)
    sent = msgspec.convert(answer["sent"], list[int])
    # The worker's lines have waited in its pipe: the driver has not run since the first sample.
    ran: dict[int, int] = {}
    while len(ran) < len(sent):
        _, sequence, moment = (await worker.line_starting("ran")).split()
        ran[int(sequence)] = int(moment)
    return [(ran[sequence] - moment) / 1e6 for sequence, moment in enumerate(sent)][FIRST_SAMPLES:]


def percentiles(name: str, samples_ms: list[float]) -> dict[str, float]:
    """Return the figures `<name>_p50_ms` and `<name>_p99_ms`."""
    cuts = quantiles(samples_ms, n=100, method="inclusive")
    return {f"{name}_p50_ms": cuts[49], f"{name}_p99_ms": cuts[98]}
