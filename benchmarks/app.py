"""The registry that Gopher's measured worker runs: a handler that does nothing, and one that says when it ran."""

from __future__ import annotations

import os
import time
from typing import Final

import trio

import gopher

STANDARD_OUTPUT: Final = 1

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
