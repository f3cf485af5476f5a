"""A job that starts children in a nursery, on another queue, and waits for them; each tells how it ends."""

from __future__ import annotations

import trio

import gopher
from tests.e2e.apps.work import hold, note

CHILDREN = 3

registry = gopher.Registry()
registry.handler("hold")(hold)


@registry.handler("parent")
async def parent(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Take a minute, as its children do."""
    note("start", job)
    try:
        async with job.open_nursery() as nursery:
            for _ in range(CHILDREN):
                nursery.start_soon("child", None, queue="elsewhere")
            await trio.sleep(60)
    finally:
        note("end", job)


@registry.handler("child")
async def child(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Take a minute."""
    note("start", job)
    try:
        await trio.sleep(60)
    finally:
        note("end", job)
