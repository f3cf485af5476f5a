"""Handlers for real workers. What they do is written, a line a start and a line an end, to the file that SINK_VARIABLE names."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Final

import trio

import gopher
from tests.runtime.process_app import family

SINK_VARIABLE: Final = "GOPHER_TEST_SINK"

registry = gopher.Registry()
registry.handler("family", process=True)(family)


def note(event: str, job: gopher.JobContext | gopher.SyncJobContext) -> None:
    """Write a line in one piece."""
    line = json.dumps({"event": event, "job": job.id, "attempt": job.attempt, "token": job.token, "pid": os.getpid()})
    fd = os.open(os.environ[SINK_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


@registry.handler("quick")
async def quick(job: gopher.JobContext, payload: gopher.JsonValue) -> int:
    """Return the pid, soon."""
    note("start", job)
    await trio.sleep(0.005)
    return os.getpid()


@registry.handler("hold")
async def hold(job: gopher.JobContext, payload: str) -> int:
    """Return the pid once there is a file of the given name."""
    note("start", job)
    while not Path(payload).exists():  # noqa: ASYNC110, ASYNC240 - a look at a file is what a test can steer in any process
        await trio.sleep(0.01)
    note("end", job)
    return os.getpid()


@registry.handler("emit", max_attempts=1)
async def emit(job: gopher.JobContext, payload: int) -> None:
    """Give the numbers from 1 to the payload."""
    for number in range(1, payload + 1):
        await job.emit(number)


@registry.handler("hold-process", process=True)
def hold_process(job: gopher.SyncJobContext, payload: str) -> None:
    """Do the same in a process of its own."""
    note("start", job)
    while not Path(payload).exists():
        time.sleep(0.01)  # noqa: TID251 - as above
    note("end", job)


@registry.handler("thread")
def thread(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> None:
    """Never end."""
    note("start", job)
    threading.Event().wait()


@registry.handler("block")
async def block(job: gopher.JobContext, payload: float) -> None:
    """Stop the whole loop for so many seconds."""
    note("start", job)
    await trio.lowlevel.checkpoint()
    time.sleep(payload)  # noqa: ASYNC251, TID251 - the fault that is tested
    note("end", job)


@registry.handler("stall")
async def stall(job: gopher.JobContext, payload: str) -> None:
    """Stop the whole loop until there is a file of the given name."""
    note("start", job)
    spin(payload)
    note("end", job)
    await trio.lowlevel.checkpoint()


def spin(path: str) -> None:
    """Return once there is a file."""
    while not Path(path).exists():
        time.sleep(0.01)  # noqa: TID251 - as above


@registry.handler("branch")
async def branch(job: gopher.JobContext, payload: str) -> None:
    """Have two Trio tasks, one with a deadline, and a child job, until there is a file of the given name."""
    note("start", job)

    async def leaf() -> None:
        while not Path(payload).exists():  # noqa: ASYNC110, ASYNC240 - as above
            await trio.sleep(0.01)

    async with job.open_nursery() as jobs, trio.open_nursery() as tasks:
        jobs.start_soon("hold", payload)
        tasks.start_soon(leaf, name="left")
        with trio.move_on_after(600):
            await leaf()


@registry.handler("exit")
async def leave(job: gopher.JobContext, payload: int) -> None:
    """End the worker process as a fault in C code would."""
    note("start", job)
    await trio.lowlevel.checkpoint()
    os._exit(payload)


@registry.handler("print")
async def say(job: gopher.JobContext, payload: str) -> None:
    """Print the payload."""
    await trio.lowlevel.checkpoint()
    print(payload, flush=True)  # noqa: T201 - what becomes of it is tested
