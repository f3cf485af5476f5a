"""What do ten thousand idle watchers cost their server, beyond what gRPC itself needs to hold as many idle streams?

The anonymous memory of the server's process, before the streams are opened and when all have been idle for more than a heartbeat's
time, once with all watchers on a single job and once with a job each; and of the bare server (`echo_server`), which holds as many
streams that have had one message. The processor time is that of the heartbeats.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from benchmarks.children import Child, MeasurementError, cpu_seconds, open_child, python_module
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.servers import open_server
from benchmarks.systems import System, gopher_server, grpc_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

STREAMS_A_CONNECTION: Final = 100
HOLDERS: Final = 4
"""Processes that hold the streams."""
WARM_WATCHERS: Final = 100
"""Streams opened and closed before the first look."""
LIMIT_SECONDS: Final = 300.0


def steps(_systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement: the three servers one after the other."""
    measure = partial(_measure, plan.watchers, plan.watched_seconds)
    return [Step(question="watchers", column=GOPHER, measure=measure, limit_seconds=LIMIT_SECONDS)]


async def _measure(watchers: int, seconds: float) -> dict[str, float]:
    async with open_child(python_module("benchmarks.echo_server"), {}) as echo:
        bare, _ = await _weigh(echo, watchers, 0, 0)
    async with open_server() as server, gopher_server(server) as child:
        of_one, percent = await _weigh(child, watchers, 1, seconds)
    async with open_server() as server, gopher_server(server) as child:
        of_each, each_percent = await _weigh(child, watchers, watchers, seconds)
    return {
        "watchers_one_job_bytes": max(0.0, of_one - bare),
        "watchers_one_job_cpu_percent": percent,
        "watchers_job_each_bytes": max(0.0, of_each - bare),
        "watchers_job_each_cpu_percent": each_percent,
        "watchers_bare_bytes": bare,
    }


async def _weigh(server: Child, watchers: int, jobs: int, seconds: float) -> tuple[float, float]:
    """Return the server's bytes a watcher, and the percentage of a core that it uses while all are idle."""
    target = grpc_target(await server.ready())
    async with _open_holder(target, min(WARM_WATCHERS, watchers), min(jobs, 1)) as warm:
        await warm.ready()
    before = anonymous_bytes(server.pid)
    share = watchers // HOLDERS
    async with AsyncExitStack() as holders:
        for _ in range(HOLDERS):
            # One after the other: the server never has more than one lot of calls to take on.
            holder = await holders.enter_async_context(_open_holder(target, share, jobs if jobs <= 1 else share))
            await holder.ready()
        began = cpu_seconds(server.pid)
        await trio.sleep(seconds)
        ended = cpu_seconds(server.pid)
        after = anonymous_bytes(server.pid)
    if began is None or ended is None:
        raise MeasurementError("the server's processor time is read from /proc, which is not here")
    return (after - before) / (share * HOLDERS), 100 * (ended - began) / seconds if seconds else 0.0


def _open_holder(target: str, watchers: int, jobs: int) -> AbstractAsyncContextManager[Child]:
    connections = -(-watchers // STREAMS_A_CONNECTION)
    arguments = (target, str(connections), str(watchers), str(jobs))
    return open_child((*python_module("benchmarks.grpc_holder"), *arguments), {})


def anonymous_bytes(pid: int) -> int:
    """Return the memory of a process that is no file's.

    Raises:
        MeasurementError: There is no /proc.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MeasurementError(f"the server's memory cannot be read: {error.strerror}") from error
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
