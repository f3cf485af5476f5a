"""A Redis that has reached its maxmemory: what drains it and what looks at it works, from the first start on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher.client import Client
from gopher.job import JobState
from gopher.store import keys
from tests.e2e.farm import states

if TYPE_CHECKING:
    from tests.e2e.farm import Farm


async def test_worker_starts_in_a_full_redis_and_drains_it(lone_farm: Farm) -> None:
    """A worker of queues that were never named before registers, and runs what waits."""
    ids = await lone_farm.submit("quick", count=20)
    await lone_farm.store.link.call("CONFIG", "SET", "maxmemory", 1)

    await lone_farm.worker("--queues", "default,never-named")
    jobs = await lone_farm.finals(ids)

    assert states(jobs) == {JobState.COMPLETED}
    assert await lone_farm.findings() == []


async def test_lists_and_watches_work_in_a_full_redis(lone_farm: Farm) -> None:
    """Page 2 of a list, a watch and a client's stream need a secret that no call has made before."""
    ids = await lone_farm.submit("quick", count=250)
    server = await lone_farm.server()
    await lone_farm.store.link.call("CONFIG", "SET", "maxmemory", 1)

    def look() -> tuple[list[str], str]:
        with Client(server.address, namespace=lone_farm.namespace) as client:
            listed = [job.id for job in client.list(limit=None)]
            return listed, next(iter(client.watch(ids[0]))).state or ""

    with trio.fail_after(30):
        listed, state = await trio.to_thread.run_sync(look)

    assert sorted(listed) == sorted(ids)
    assert state == JobState.ENQUEUED
    assert await lone_farm.store.link.call("EXISTS", keys.page_secret()) == 1
