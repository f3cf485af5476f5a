"""Handlers that are cancelled: what they have started, left and recorded can be seen from outside."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import trio

import gopher
from tests.runtime.process_app import daemon, family

RECORD_VARIABLE: Final = "GOPHER_TEST_RECORD"
LONG_SECONDS: Final = 60.0
DEAF: Final = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"

registry = gopher.Registry()
registry.handler("family", process=True)(family)
registry.handler("daemon", process=True)(daemon)


def record(*words: object) -> None:
    """Write a line in one piece."""
    fd = os.open(os.environ[RECORD_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, " ".join(map(str, words)).encode() + b"\n")
    os.close(fd)


@registry.handler("tree")
async def tree(job: gopher.JobContext, payload: str) -> None:
    """Have a temporary file, nurseries in nurseries, and a process deaf to SIGTERM; need a minute to clean up."""
    file = Path(payload)
    file.write_text("temporary")  # noqa: ASYNC240 - a few bytes
    try:
        async with trio.open_nursery() as outer:
            outer.start_soon(_branch, 3)
            await outer.start(_with_process)
            await job.progress(0.5, "all is up")
    finally:
        try:
            with trio.CancelScope(shield=True):  # cleanup, and far too long
                await trio.sleep(LONG_SECONDS)
        finally:
            file.unlink()  # noqa: ASYNC240 - as above
            record("left", job.id)


async def _branch(depth: int) -> None:
    try:
        async with trio.open_nursery() as inner:
            for _ in range(2 if depth else 0):
                inner.start_soon(_branch, depth - 1)
            await trio.sleep_forever()
    finally:
        record("branch")


async def _with_process(task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", DEAF]
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        await process.stdout.receive_some()
        record("pid", process.pid)
        task_status.started()


@registry.handler("slow-cleanup")
async def slow_cleanup(job: gopher.JobContext, payload: object) -> None:
    """Sleep until cancelled, then need a minute to clean up."""
    record("begun", job.id)
    try:
        await trio.sleep_forever()
    finally:
        record("cleaning", job.id)
        try:
            with trio.CancelScope(shield=True):  # cleanup, and far too long
                await trio.sleep(LONG_SECONDS)
        finally:
            record("left", job.id)


@registry.handler("parent")
async def parent(job: gopher.JobContext, payload: int) -> None:
    """Have some children that need a minute to clean up."""
    try:
        async with job.open_nursery() as nursery:
            for _ in range(payload):
                nursery.start_soon("slow-cleanup")
            await job.progress(0.5, "all is up")
    finally:
        record("left", job.id)


@registry.handler("race")
async def race(job: gopher.JobContext, payload: float) -> str:
    """Take some ms, and record how it ended: where it has recorded a return it returns."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, payload)
            nursery.start_soon(trio.sleep, random.random() * payload)
    except trio.Cancelled:
        record(job.id, "cancelled")
        raise
    record(job.id, "returned")
    return "done"


@registry.handler("stubborn-thread")
def stubborn_thread(job: gopher.SyncJobContext, payload: str) -> str:
    """Heed no cancel until there is a file of the given name."""
    job.progress(0.5, "all is up")
    record("up", job.id)
    while not Path(payload).exists():
        time.sleep(0.01)  # noqa: TID251 - a look at a file is what a test can steer in any process
    return "done"


@registry.handler("left-thread", on_cancel="abandon")
def left_thread(job: gopher.SyncJobContext, payload: str) -> str:
    """Do the same, where it may be left behind; then say something."""
    job.progress(0.5, "all is up")
    record("up", job.id)
    while not Path(payload).exists():
        time.sleep(0.01)  # noqa: TID251 - likewise
    try:
        job.progress(1.0, "too late")
    except gopher.AttemptCancelled:
        record("refused", job.id)
        raise
    return "done"
