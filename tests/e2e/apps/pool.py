"""Handlers that share a pool, which MODE_VARIABLE lets fail or hang at one end."""

from __future__ import annotations

import asyncio  # noqa: TID251 - half of the pools here are made of it
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import gopher
from tests.e2e.apps.work import SINK_VARIABLE, note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODE_VARIABLE: Final = "GOPHER_TEST_LIFESPAN"

registry = gopher.Registry()


class Pool:
    """Is open or not."""

    is_open = True


def tell(event: str) -> None:
    """Write a line that concerns no job."""
    line = json.dumps({"event": event, "job": "", "attempt": 0, "token": 0, "pid": os.getpid()})
    with Path(os.environ[SINK_VARIABLE]).open("a") as sink:
        sink.write(line + "\n")


@registry.lifespan
async def pool() -> AsyncIterator[Pool]:
    """Open the pool of Trio handlers."""
    mode = os.environ.get(MODE_VARIABLE, "")
    if mode == "open-fails":
        raise OSError("no database")
    tell("opened")
    if mode == "open-hangs":
        await trio.sleep_forever()
    opened = Pool()
    yield opened
    await trio.lowlevel.checkpoint()
    opened.is_open = False
    tell("closed")
    if mode == "close-fails":
        raise OSError("connection lost")
    if mode == "close-hangs":
        await trio.sleep_forever()


@registry.lifespan(asyncio=True)
async def asyncio_pool() -> AsyncIterator[Pool]:
    """Open the pool of asyncio handlers."""
    opened = Pool()
    yield opened
    await asyncio.sleep(0)
    opened.is_open = False


@registry.handler("use")
async def use(job: gopher.JobContext, payload: str) -> bool:
    """Return whether the pool is open once there is a file of the given name."""
    note("start", job)
    try:
        while not Path(payload).exists():  # noqa: ASYNC110, ASYNC240 - a look at a file is what a test can steer in any process
            await trio.sleep(0.01)
    finally:
        note("end" if job.resources.is_open else "too late", job)
    return True


@registry.handler("use-asyncio", asyncio=True)
async def use_asyncio(job: gopher.JobContext, payload: str) -> bool:
    """Do the same on asyncio."""
    note("start", job)
    try:
        while not Path(payload).exists():  # noqa: ASYNC110, ASYNC240 - as above
            await asyncio.sleep(0.01)
    finally:
        note("end" if job.resources.is_open else "too late", job)
    return True
