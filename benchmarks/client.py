"""The command line that every measured Python client answers: `submit` and `probe`.

`submit COUNT BATCH PAYLOAD_BYTES` submits as fast as it can and prints `{"jobs": n, "seconds": s}`. `probe SAMPLES LOW HIGH`
submits one job at a time after a random gap of LOW to HIGH ms and prints `{"sent": [...]}`: the monotonic nanosecond just before
each submit. Every process of one host reads the same monotonic clock, so the worker's `ran SEQUENCE NANOSECOND` lines compare.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import msgspec
import trio

_EMPTY_BYTES: Final = len('{"blob":""}')

SubmitMany: TypeAlias = Callable[[int, int, dict[str, str]], Awaitable[None]]
"""Submits COUNT no-op jobs with this payload, BATCH a call where the system has such a call."""
SubmitOne: TypeAlias = Callable[[int], Awaitable[None]]
"""Submits one job with this sequence number, whose handler says when it ran."""


async def serve(arguments: Sequence[str], submit_many: SubmitMany, submit_one: SubmitOne) -> None:
    """Carry out one of the two commands and print its answer."""
    match arguments:
        case ["submit", count, batch, payload_bytes]:
            await submit(submit_many, int(count), int(batch), int(payload_bytes))
        case ["probe", samples, low_ms, high_ms]:
            await probe(submit_one, int(samples), float(low_ms), float(high_ms))
        case _:
            raise SystemExit("usage: submit COUNT BATCH PAYLOAD_BYTES | probe SAMPLES LOW_MS HIGH_MS")


async def submit(submit_many: SubmitMany, count: int, batch: int, payload_bytes: int) -> None:
    """Submit `count` jobs and print how long that took."""
    payload = payload_of(payload_bytes)
    start = time.perf_counter()
    await submit_many(count, batch, payload)
    say({"jobs": count, "seconds": time.perf_counter() - start})


async def probe(submit_one: SubmitOne, samples: int, low_ms: float, high_ms: float) -> None:
    """Submit `samples` jobs at random moments and print when each submit began."""
    sent = []
    for sequence in range(samples):
        await trio.sleep(random.uniform(low_ms, high_ms) / 1000)
        sent.append(time.monotonic_ns())
        await submit_one(sequence)
    say({"sent": sent})


async def steady(submit_one: SubmitOne, jobs: int, rate: float) -> None:
    """Submit `jobs` jobs at `rate` a second, none of which waits for another, and print when each submit began."""
    sent: list[int] = []
    start = trio.current_time()

    async with trio.open_nursery() as nursery:
        for sequence in range(jobs):
            await trio.sleep_until(start + sequence / rate)
            sent.append(time.monotonic_ns())
            nursery.start_soon(submit_one, sequence)
    say({"sent": sent})


def payload_of(payload_bytes: int) -> dict[str, str]:
    """Return a payload that is this many bytes of JSON."""
    return {"blob": "x" * (payload_bytes - _EMPTY_BYTES)}


def say(answer: dict[str, object]) -> None:
    """Print a program's answer, one JSON object on a line."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()
