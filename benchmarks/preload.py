"""Jobs that the driver itself puts into Redis, through the store, before or between samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from benchmarks.plan import BATCH
from gopher.errors import GopherError
from gopher.job import DEFAULT_NAMESPACE
from gopher.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.servers import Server
    from gopher.job import NewJob


async def preload(server: Server, jobs: Sequence[NewJob]) -> list[str]:
    """Submit the jobs in their order and return their ids.

    Raises:
        GopherError: One was refused, or Redis failed.
    """
    store = Store(server.url, client_name="gopher-bench")
    ids: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for start in range(0, len(jobs), BATCH):
            for answer in await store.lifecycle.submit(DEFAULT_NAMESPACE, list(jobs[start : start + BATCH])):
                if isinstance(answer, GopherError):
                    raise answer
                ids.append(answer.job_id)
        nursery.cancel_scope.cancel()
    return ids
