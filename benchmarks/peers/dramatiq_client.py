"""dramatiq's client program: one message a call, as dramatiq has no bulk call."""

from __future__ import annotations

import sys

import trio

from benchmarks.client import serve
from benchmarks.peers.dramatiq_app import noop, stamp


async def submit_many(count: int, batch: int, payload: dict[str, str]) -> None:  # noqa: ARG001 - there is no bulk call
    """Send `count` messages."""
    for _ in range(count):
        noop.send(payload)
    await trio.lowlevel.checkpoint()


async def submit_one(sequence: int) -> None:
    """Send one message whose actor says when it ran."""
    stamp.send(sequence)
    await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1:], submit_many, submit_one)
