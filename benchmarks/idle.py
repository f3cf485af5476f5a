"""What does an idle worker cost, and what do 100 idle watchers add?

Redis's MONITOR shows each command that a client sends; commands that a script runs inside Redis are left out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from benchmarks.children import cpu_seconds, open_child, python_module
from benchmarks.plan import GOPHER, IDLE_WATCHERS, Plan, Step
from benchmarks.servers import Server, open_server
from benchmarks.systems import System, open_gopher_server

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLE_SECONDS: Final = 2.0
"""A polling worker has reached its slowest pace by then."""
IN_SCRIPT: Final = b" lua]"
"""How MONITOR marks a command that a script runs."""


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return one measurement a system, and Gopher's with a server and its watchers."""
    gopher = next(system for system in systems if system.name == GOPHER)
    alone = [
        Step(
            question="idle",
            column=system.name,
            missing=system.missing,
            measure=partial(_measure, system, plan.idle_seconds),
            once=True,
        )
        for system in systems
    ]
    watched = partial(_measure_watched, gopher, plan.idle_seconds)
    return [*alone, Step(question="idle", column=GOPHER, measure=watched, once=True)]


async def _measure(system: System, seconds: float) -> dict[str, float]:
    async with open_server() as server, open_child(system.worker, server.environment) as worker:
        await worker.ready()
        await trio.sleep(SETTLE_SECONDS)
        before = cpu_seconds(worker.pid)
        figures = {"idle_commands_per_second": await _commands_per_second(server, seconds)}
        after = cpu_seconds(worker.pid)
        if before is not None and after is not None:
            figures["idle_cpu_percent"] = 100 * (after - before) / seconds
    return figures


async def _measure_watched(gopher: System, seconds: float) -> dict[str, float]:
    async with (
        open_server() as server,
        open_child(gopher.worker, server.environment) as worker,
        open_gopher_server(server) as target,
    ):
        await worker.ready()
        await trio.sleep(SETTLE_SECONDS)
        unwatched = await _commands_per_second(server, seconds)
        watch = (*python_module("benchmarks.grpc_client"), "watch", str(IDLE_WATCHERS))
        async with open_child(watch, {"GOPHER_SERVER": target}) as watchers:
            await watchers.ready()
            await trio.sleep(SETTLE_SECONDS)
            watched = await _commands_per_second(server, seconds)
    return {
        "idle_with_server_commands_per_second": unwatched,
        "idle_watchers_add_per_second": max(0.0, watched - unwatched),
    }


async def _commands_per_second(server: Server, seconds: float) -> float:
    """Count what all clients but this one send in the given time."""
    received = b""
    async with await trio.open_unix_socket(server.socket_path) as stream:
        await stream.send_all(b"MONITOR\r\n")
        with trio.move_on_after(seconds):
            async for chunk in stream:
                received += chunk
    # The first line answers MONITOR itself.
    commands = [line for line in received.split(b"\r\n")[1:] if line and IN_SCRIPT not in line]
    return len(commands) / seconds
