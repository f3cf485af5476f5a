"""The registry that Gopher's measured worker runs: a handler that does nothing, and those that say or note when they ran."""

from __future__ import annotations

import json
import os
import time
from typing import Final

import trio

import gopher

STANDARD_OUTPUT: Final = 1

MARKS: Final[list[tuple[int, int]]] = []
LATENESS: Final[list[float]] = []

registry = gopher.Registry()


@registry.handler("noop")
async def noop(job: gopher.JobContext, payload: dict[str, str]) -> None:
    """Do nothing."""


@registry.handler("stamp")
async def stamp(job: gopher.JobContext, payload: int) -> None:  # noqa: ARG001 - a handler's signature
    """Say when the handler ran."""
    moment = time.monotonic_ns()
    os.write(STANDARD_OUTPUT, f"ran {payload} {moment}\n".encode())
    await trio.lowlevel.checkpoint()


@registry.handler("compute")
async def compute(job: gopher.JobContext, payload: float) -> None:  # noqa: ARG001, ASYNC124 - a handler that only computes
    """Use the processor for so many seconds, on the loop."""
    _burn(payload)


@registry.handler("compute_thread")
def compute_thread(job: gopher.SyncJobContext, payload: float) -> None:  # noqa: ARG001 - a handler's signature
    """Use the processor for so many seconds, in a thread."""
    _burn(payload)


@registry.handler("mixed")
async def mixed(job: gopher.JobContext, payload: float) -> None:  # noqa: ARG001 - a handler's signature
    """Wait for so many seconds and compute for a hundredth of that."""
    await trio.sleep(payload)
    _burn(payload / 100)


@registry.handler("wait")
async def wait(job: gopher.JobContext, payload: float) -> None:  # noqa: ARG001 - a handler's signature
    """Wait for so many seconds."""
    await trio.sleep(payload)


def _burn(seconds: float) -> None:
    # By the thread's own clock: the work is the same however many others want the processor.
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@registry.handler("mark")
async def mark(job: gopher.JobContext, payload: int) -> None:  # noqa: ARG001 - a handler's signature
    """Note when the handler ran, for `report` to tell: at 500 jobs a second the lines of `stamp` would fill the pipe."""
    MARKS.append((payload, time.monotonic_ns()))
    await trio.lowlevel.checkpoint()


@registry.handler("due")
async def due(job: gopher.JobContext, payload: int) -> None:  # noqa: ARG001 - a handler's signature
    """Note how late the handler runs, in ms after the moment in the payload, ms since the epoch."""
    LATENESS.append(time.time_ns() / 1e6 - payload)
    await trio.lowlevel.checkpoint()


@registry.handler("report")
async def report(job: gopher.JobContext, payload: None) -> None:  # noqa: ARG001 - a handler's signature
    """Tell, on one line, all that was noted since the last report, and forget it."""
    line = json.dumps({"marks": MARKS, "lateness_ms": LATENESS})
    MARKS.clear()
    LATENESS.clear()
    await trio.to_thread.run_sync(lambda: print(line, flush=True))


@registry.handler("family")
async def family(job: gopher.JobContext, payload: int) -> None:
    """Start and join so many children that do nothing, and say how long that took, in seconds."""
    began_at = time.perf_counter()
    async with job.open_nursery() as nursery:
        for _ in range(payload):
            nursery.start_soon("noop", {})
    os.write(STANDARD_OUTPUT, f"joined {time.perf_counter() - began_at}\n".encode())


@registry.handler("linger")
async def linger(job: gopher.JobContext, payload: int) -> None:  # noqa: ARG001 - a handler's signature
    """Wait for a cancel, and say when it came."""
    try:
        await trio.sleep_forever()
    finally:
        moment = time.monotonic_ns()
        os.write(STANDARD_OUTPUT, f"ran {payload} {moment}\n".encode())
