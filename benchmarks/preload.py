"""Jobs that the driver itself puts into Redis, through the store, before or between samples."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from benchmarks.children import MeasurementError
from benchmarks.plan import BATCH
from gopher.errors import GopherError
from gopher.job import DEFAULT_NAMESPACE
from gopher.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from benchmarks.servers import Server
    from gopher.job import NewJob


@asynccontextmanager
async def open_store(server: Server) -> AsyncGenerator[Store]:
    """Connect the driver's own store."""
    store = Store(server.url, client_name="gopher-bench")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def preload(server: Server, jobs: Sequence[NewJob]) -> list[str]:
    """Submit the jobs in their order and return their ids.

    Raises:
        MeasurementError: One was refused, or Redis failed.
    """
    ids: list[str] = []
    async with open_store(server) as store:
        for start in range(0, len(jobs), BATCH):
            for answer in await store.lifecycle.submit(DEFAULT_NAMESPACE, list(jobs[start : start + BATCH])):
                if isinstance(answer, GopherError):
                    raise MeasurementError(str(answer))
                ids.append(answer.job_id)
    return ids
