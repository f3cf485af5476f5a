"""Gopher's client program that speaks to Redis by the store, as the peers' clients do.

Beside the commands of `benchmarks.client` it knows `steady JOBS RATE`, which submits JOBS jobs at RATE a second and prints what
`probe` does; their handler notes when it ran.
"""

from __future__ import annotations

import os
import sys

import msgspec
import trio

from benchmarks.client import serve, steady
from gopher.errors import GopherError
from gopher.job import DEFAULT_NAMESPACE, NewJob
from gopher.store.store import Store


class StoreClient:
    """Submits through the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def submit_many(self, count: int, batch: int, payload: dict[str, str]) -> None:
        """Submit `count` jobs, `batch` a call, each encoded anew as any caller's would be."""
        for start in range(0, count, batch):
            jobs = [NewJob(type="noop", payload=msgspec.json.encode(payload)) for _ in range(min(batch, count - start))]
            await self._submit(jobs)

    async def submit_one(self, sequence: int) -> None:
        """Submit one job whose handler says when it ran."""
        await self._submit([NewJob(type="stamp", payload=msgspec.json.encode(sequence))])

    async def submit_marked(self, sequence: int) -> None:
        """Submit one job whose handler notes when it ran."""
        await self._submit([NewJob(type="mark", payload=msgspec.json.encode(sequence))])

    async def _submit(self, jobs: list[NewJob]) -> None:
        for answer in await self._store.lifecycle.submit(DEFAULT_NAMESPACE, jobs):
            if isinstance(answer, GopherError):
                raise answer


async def main(arguments: list[str]) -> None:
    """Connect and carry out one command."""
    store = Store(os.environ["REDIS_URL"], client_name="gopher-bench")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        client = StoreClient(store)
        match arguments:
            case ["steady", jobs, rate]:
                await steady(client.submit_marked, int(jobs), float(rate))
            case _:
                await serve(arguments, client.submit_many, client.submit_one)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
