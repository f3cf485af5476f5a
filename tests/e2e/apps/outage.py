"""Handlers that limits, bulkheads and a breaker hold back; the dependency of `call` counts its calls and says whether it is up."""

from __future__ import annotations

import os
import time
from typing import Final

import trio

import gopher
from tests.e2e.apps.work import note

PORT_VARIABLE: Final = "GOPHER_TEST_DEPENDENCY_PORT"
FAILURES: Final = 5
RESET_SECONDS: Final = 0.5

registry = gopher.Registry()


@registry.handler(
    "call",
    max_attempts=4,
    backoff_initial_seconds=0.1,
    breaker=gopher.Breaker(name="dependency", failures=FAILURES, reset_seconds=RESET_SECONDS),
)
async def call(job: gopher.JobContext, payload: object) -> None:
    """Ask once; a dependency that is down says so."""
    async with await trio.open_tcp_stream("127.0.0.1", int(os.environ[PORT_VARIABLE])) as stream:
        answer = await stream.receive_some(16)
    if answer != b"up\n":
        raise ConnectionError("the dependency is down")


@registry.handler(
    "always_fails",
    max_attempts=2,
    backoff_initial_seconds=0.01,
    breaker=gopher.Breaker(failures=1, reset_seconds=0.2),
)
async def always_fails(job: gopher.JobContext, payload: object) -> None:
    """Trip the breaker each time."""
    note("start", job)
    await trio.lowlevel.checkpoint()
    raise ConnectionError("the dependency is down")


@registry.handler("bulky", bulkhead=2)
async def bulky(job: gopher.JobContext, payload: str) -> None:
    """Wait for a file of the given name."""
    note("start", job)
    while not await trio.Path(payload).exists():  # noqa: ASYNC110 - a look at a file is what a test can steer in any process
        await trio.sleep(0.02)


@registry.handler("ten_a_second", rate_limit="10/s")
async def ten_a_second(job: gopher.JobContext, payload: object) -> float:
    """Return when it began: CLOCK_MONOTONIC, the same in all processes of a machine."""
    began = time.monotonic()
    await trio.lowlevel.checkpoint()
    return began
