"""Handlers that open nurseries; each tells when it runs code, and when it rests while its children run."""

from __future__ import annotations

from pathlib import Path

import trio

import gopher
from tests.e2e.apps.work import note

registry = gopher.Registry()


@registry.handler("chain")
async def chain(job: gopher.JobContext, payload: int) -> int:
    """Be the first of a chain so many jobs deep, each in the nursery of the one before; return its length."""
    note("start", job)
    length = 1
    if payload:
        async with job.open_nursery() as nursery:
            child = nursery.start_soon("chain", payload - 1)
            note("rest", job)
        note("wake", job)
        length += int(str(await child.result()))
    note("end", job)
    return length


@registry.handler("tree")
async def tree(job: gopher.JobContext, payload: dict[str, gopher.JsonValue]) -> int:
    """Be a tree with so many children at each level, whose leaves wait for a file; return how many leaves there are."""
    note("start", job)
    widths, gate = payload["widths"], Path(str(payload["gate"]))
    assert isinstance(widths, list)
    if not widths:
        while not gate.exists():  # noqa: ASYNC110, ASYNC240 - a look at a file is what a test can steer in any process
            await trio.sleep(0.02)
        return 1
    width, *rest = widths
    async with job.open_nursery() as nursery:
        children = [nursery.start_soon("tree", {"widths": rest, "gate": str(gate)}) for _ in range(int(str(width)))]
    return sum([int(str(await child.result())) for child in children])


@registry.handler("adopter")
async def adopter(job: gopher.JobContext, payload: dict[str, gopher.JsonValue]) -> list[gopher.JsonValue]:
    """Hold children of another queue, which the next attempt takes over if this one is lost."""
    note("start", job)
    async with job.open_nursery(on_crash="adopt") as nursery:
        children = [
            nursery.start_soon("held", {"number": number, "gate": payload["gate"]}, queue="side")
            for number in range(int(str(payload["count"])))
        ]
    return [await child.result() for child in children]


@registry.handler("held")
async def held(job: gopher.JobContext, payload: dict[str, gopher.JsonValue]) -> gopher.JsonValue:
    """Return a number once there is a file."""
    note("start", job)
    gate = Path(str(payload["gate"]))
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - as above
        await trio.sleep(0.02)
    note("end", job)
    return payload["number"]
