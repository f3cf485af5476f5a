"""Handlers that submit and write lines of log, each in its own way of running."""

from __future__ import annotations

import logging

import structlog
import trio

import gopher
from gopher.client import Client, TrioClient

registry = gopher.Registry()
log = structlog.get_logger()
TWO_LINES = "first\nsecond\r\x1b[31m"


@registry.handler("parent")
async def parent(job: gopher.JobContext, payload: dict[str, str]) -> str:
    """Submit a job of its own, and return its id."""
    log.info("handler.line", said=TWO_LINES)
    async with TrioClient(payload["server"]) as client:
        return await client.submit("child")


@registry.handler("chained")
async def chained(job: gopher.JobContext, payload: None) -> str:
    """Submit a job with the outcome, and return its id."""
    return await job.submit("child")


@registry.handler("child")
async def child(job: gopher.JobContext, payload: None) -> None:
    """Say that it ran."""
    await trio.lowlevel.checkpoint()
    log.info("handler.line", said="child")


def _say() -> None:
    log.warning("handler.line", said=TWO_LINES)
    logging.getLogger("library").warning("library %s", TWO_LINES)


@registry.handler("trio")
async def on_trio(job: gopher.JobContext, payload: object) -> None:
    """Write lines."""
    await trio.lowlevel.checkpoint()
    _say()


@registry.handler("thread")
def in_thread(job: gopher.SyncJobContext, payload: object) -> None:
    """Write lines."""
    _say()


@registry.handler("asyncio", asyncio=True)
async def on_asyncio(job: gopher.JobContext, payload: object) -> None:  # noqa: ASYNC124 - what counts is where it runs
    """Write lines."""
    _say()


@registry.handler("process", process=True)
def in_process(job: gopher.SyncJobContext, payload: dict[str, str]) -> str:
    """Write lines, and submit a job, from another process."""
    _say()
    with Client(payload["server"]) as client:
        return client.submit("child")


@registry.handler("raises", max_attempts=1)
async def raises(job: gopher.JobContext, payload: None) -> None:
    """Raise."""
    await trio.lowlevel.checkpoint()
    raise ValueError(TWO_LINES)
