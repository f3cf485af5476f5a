"""The handlers of the worker that the tests of clients and commands talk to."""

from __future__ import annotations

from contextlib import suppress

import trio

import gopher

registry = gopher.Registry()


@registry.handler("echo")
async def echo(job: gopher.JobContext, payload: object) -> object:
    """Return the payload."""
    await trio.lowlevel.checkpoint()
    return payload


@registry.handler("fail", max_attempts=1)
async def fail(job: gopher.JobContext, payload: object) -> object:
    """Fail with the payload as message."""
    await trio.lowlevel.checkpoint()
    raise ValueError(str(payload))


@registry.handler("steps")
async def steps(job: gopher.JobContext, payload: object) -> object:
    """Report progress, and go on for ever if the payload says so."""
    await job.progress(0.25, "a quarter")
    if payload == "endless":
        await trio.sleep_forever()
    if payload == "unmoved":
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
    return "done"


@registry.handler("talk")
async def talk(job: gopher.JobContext, payload: object) -> object:
    """Say something of every kind."""
    await job.log("hello", level="warning")
    await job.emit({"n": [1, None]})
    await job.emit(b"\x00\xff")
    return "done"


@registry.handler("size")
async def size(job: gopher.JobContext, payload: bytes) -> object:
    """Return how many bytes came."""
    await trio.lowlevel.checkpoint()
    return len(payload)


@registry.handler("crash", max_attempts=1)
async def crash(job: gopher.JobContext, payload: object) -> object:
    """End the worker process as a fault in C code would."""
    import os

    await trio.lowlevel.checkpoint()
    os._exit(9)


@registry.handler("guarded", breaker=gopher.Breaker(name="dependency"))
async def guarded(job: gopher.JobContext, payload: object) -> object:
    """Return the payload, behind a breaker."""
    await trio.lowlevel.checkpoint()
    return payload


@registry.handler("limited", rate_limit="1000/s")
async def limited(job: gopher.JobContext, payload: object) -> object:
    """Return the payload, under a limit."""
    await trio.lowlevel.checkpoint()
    return payload
