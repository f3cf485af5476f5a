"""Handlers that submit jobs, in a worker that kills itself, once, at the place that KILL_VARIABLE names."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import gopher
from gopher.store.connection import Connection
from gopher.store.lifecycle import Lifecycle
from tests.e2e.apps.work import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.lifecycle import Settlement
    from gopher.store.resp import Argument, Reply

KILL_VARIABLE: Final = "GOPHER_TEST_KILL"
"""`place file`: the file is made by the first to get there, who dies."""
PLACES: Final = ("before settle", "after settle", "before removal", "after removal", "at the second removal")

registry = gopher.Registry()


@registry.handler("parent")
async def parent(job: gopher.JobContext, payload: list[str]) -> list[str]:
    """Submit a child to each of the queues given, and return their ids."""
    note("start", job)
    return [await job.submit("child", at, queue=queue) for at, queue in enumerate(payload)]


@registry.handler("child")
async def child(job: gopher.JobContext, payload: int) -> None:
    """Tell of it."""
    await trio.lowlevel.checkpoint()
    note("start", job)


def die(place: str) -> None:
    """Kill this process, unless it is to be killed elsewhere, or somebody has been killed already."""
    wanted, _, name = os.environ.get(KILL_VARIABLE, "").rpartition(" ")
    if place == wanted:
        try:
            Path(name).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


class Removals:
    """How often this process has begun to empty an outbox."""

    count = 0


settle, call, call_many = Lifecycle.settle, Connection.call, Connection.call_many


async def deadly_settle(self: Lifecycle, namespace: str, queue: str, settlements: Sequence[Settlement]) -> list[str]:
    """Die before or after the outcome of a parent is written."""
    has_children = any(settlement.children for settlement in settlements)
    if has_children:
        die("before settle")
    words = await settle(self, namespace, queue, settlements)
    if has_children:
        die("after settle")
    return words


async def deadly_call(self: Connection, *words: Argument) -> Reply:
    """Die between the moments when a child is in its queue and when it is out of the outbox."""
    if words[0] == "HDEL":
        Removals.count += 1
        die("before removal")
        if Removals.count == 2:
            die("at the second removal")
    return await call(self, *words)


async def deadly_call_many(self: Connection, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
    """Die right after that."""
    if commands and commands[0][0] == "PEXPIRE":
        die("after removal")
    return await call_many(self, commands)


if KILL_VARIABLE in os.environ:
    Lifecycle.settle = deadly_settle  # type: ignore[method-assign] # the fault that is tested
    Connection.call = deadly_call  # type: ignore[method-assign] # likewise
    Connection.call_many = deadly_call_many  # type: ignore[method-assign] # likewise
