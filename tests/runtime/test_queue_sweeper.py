"""A queue whose workers are all gone is looked after, and one that workers serve is not freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gopher.job import JobState
from gopher.runtime.queue_sweeper import QueueSweeper
from gopher.store import keys
from gopher.store.leases import Leases
from gopher.store.queue_sweep import IDLE_MS
from tests.runtime.parts import submit
from tests.store.test_registry import DESCRIPTION

if TYPE_CHECKING:
    from gopher.store.store import Store

MINUTE_MS = 60_000
QUEUE = "default"


async def sweep(store: Store) -> None:
    """Walk over all queues once; other tests have left theirs."""
    sweeper = QueueSweeper(store, sweep_seconds=1.0)
    await sweeper.tick()
    while sweeper._namespaces:
        await sweeper.tick()


async def claim(store: Store, namespace: str) -> None:
    await store.lifecycle.claim(namespace, QUEUE, worker="gone", count=100, lease_ms=MINUTE_MS, claim_id="c")


async def make_overdue(store: Store, namespace: str, index: str) -> None:
    """Have what an index holds been due a minute ago."""
    key = keys.queue(namespace, QUEUE) + index
    for job_id in await store.link.call("ZRANGE", key, 0, -1):
        await store.link.call("ZADD", key, "XX", await store.registry.now_ms() - MINUTE_MS, job_id)


async def make_idle(store: Store, namespace: str) -> None:
    """Have the queue held nothing for a day."""
    key = keys.counters(namespace, QUEUE)
    submitted = (await store.link.call("HGET", key, "submitted_total")).decode()
    since = await store.registry.now_ms() - IDLE_MS
    await store.link.call("HSET", keys.settings(namespace, QUEUE), "idle_since", f"{since} {submitted}")


async def test_jobs_are_taken_back_where_no_worker_is(store: Store, namespace: str) -> None:
    """More than a call takes, and those whose cancel was asked for end as cancelled."""
    ids = await submit(store, namespace, 150)
    await claim(store, namespace)
    running = [job_id for job_id in ids if (await store.query.get(namespace, job_id)).state is JobState.PROCESSING]
    await store.lifecycle.cancel(namespace, running[0], reason="", grace_ms=1)
    await sweep(store)
    early = (await store.query.get(namespace, running[1])).state
    await make_overdue(store, namespace, "processing")

    await sweep(store)

    assert len(running) == 100
    assert early is JobState.PROCESSING
    assert (await store.query.get(namespace, running[0])).state is JobState.CANCELLED
    assert {(await store.query.get(namespace, job_id)).state for job_id in running[1:]} == {JobState.ENQUEUED}


async def test_due_jobs_are_enqueued_where_no_worker_is(store: Store, namespace: str) -> None:
    """So that a list tells that they wait for a worker."""
    (job_id,) = await submit(store, namespace, 1, delay_ms=MINUTE_MS)
    await make_overdue(store, namespace, "scheduled")

    await sweep(store)

    assert (await store.query.get(namespace, job_id)).state is JobState.ENQUEUED


async def test_types_that_no_worker_has_are_forgotten(store: Store, redis_url: str, namespace: str) -> None:
    """After a long time; a worker that lives keeps its own known, and the namespace is looked at though it has no queue."""
    await store.registry.add_namespace(namespace)
    await store.registry.add_types(namespace, ["t", "gone"])
    await store.link.call("ZADD", keys.types_declared(namespace), 1, "t", 1, "gone")
    leases = Leases(redis_url, namespace=namespace, reply_seconds=5)
    leases.beat("w", msgspec.json.encode(DESCRIPTION), MINUTE_MS)

    await sweep(store)
    leases.beat("w", b"{}", 0)
    leases.close()
    await sweep(store)
    kept = await store.registry.types(namespace)
    await store.link.call("ZADD", keys.types_declared(namespace), 1, "t")
    await sweep(store)

    assert kept == ["t"]
    assert await store.registry.types(namespace) == []


async def test_queue_that_no_worker_serves_is_freed(store: Store, redis_url: str, namespace: str) -> None:
    """One that holds nothing stays listed while a worker serves it."""
    (job_id,) = await submit(store, namespace, 1)
    await store.lifecycle.delete(namespace, job_id)
    await make_idle(store, namespace)
    leases = Leases(redis_url, namespace=namespace, reply_seconds=5)
    leases.beat("w", msgspec.json.encode(DESCRIPTION), MINUTE_MS)
    await sweep(store)
    served = await store.query.queues(namespace)
    leases.beat("w", b"{}", 0)
    leases.close()

    await sweep(store)

    assert served == [QUEUE]
    assert await store.query.queues(namespace) == []
