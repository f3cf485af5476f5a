from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.job import JobState, Move, NewJob, Outcome
from gopher.runtime.upkeep import Upkeep
from gopher.schedule import NewSchedule
from gopher.store import keys
from gopher.store.ids import IdSource
from gopher.store.lifecycle import Settlement
from gopher.store.outbox import pack
from tests.runtime.parts import submit
from tests.waiting import until, until_async

if TYPE_CHECKING:
    import trio

    from gopher.store.store import Store

pytestmark = pytest.mark.leaves_keys  # jobs are left waiting


async def started(store: Store, nursery: trio.Nursery, *, poll_seconds: float = 3600.0, sweep_seconds: float = 0.05) -> Upkeep:
    upkeep = Upkeep(store, poll_seconds=poll_seconds, sweep_seconds=sweep_seconds)
    await nursery.start(upkeep.run)
    return upkeep


async def count(store: Store, namespace: str, state: JobState, queue: str = "default") -> int:
    return (await store.query.queue_stats(namespace, queue)).counts[state]


async def claim(store: Store, namespace: str, *, lease_ms: int = 60_000) -> tuple[str, int]:
    taken = await store.lifecycle.claim(namespace, "default", worker="w", count=1, lease_ms=lease_ms, claim_id="c")
    assert taken is not None
    return taken.jobs[0].id, taken.jobs[0].token


async def test_due_jobs_are_promoted_as_soon_as_they_are_due(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """Also one that comes in while the queue is kept: it is told of, long before any poll."""
    upkeep = await started(store, nursery)

    async with upkeep.keep(namespace, "default"):
        await submit(store, namespace, delay_ms=100)
        await until_async(lambda: _is(store, namespace, JobState.ENQUEUED, 1))


async def _is(store: Store, namespace: str, state: JobState, wanted: int, queue: str = "default") -> bool:
    return await count(store, namespace, state, queue) == wanted


async def test_ended_leases_are_reaped(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """The job of a worker that is gone is claimable again."""
    await submit(store, namespace)
    await claim(store, namespace, lease_ms=1)
    upkeep = await started(store, nursery)

    async with upkeep.keep(namespace, "default"):
        await until_async(lambda: _is(store, namespace, JobState.ENQUEUED, 1))


async def test_schedules_fire(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """One that is due makes its job."""
    await store.schedules.create(namespace, NewSchedule(name="often", cron="* * * * *", job=NewJob(type="work")))
    key = keys.schedule(namespace, "default", "often")
    late_ms = int(await store.link.call("HGET", key, "next_ms")) - 60_000
    await store.link.call("HSET", key, "next_ms", late_ms, "due_ms", late_ms)
    await store.link.call("ZADD", keys.schedules(namespace, "default"), late_ms, "often")
    upkeep = await started(store, nursery)

    async with upkeep.keep(namespace, "default"):
        await until_async(lambda: _is(store, namespace, JobState.ENQUEUED, 1))


async def test_children_are_delivered_to_their_queues(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """What a worker that died has left in the outbox finds its queue."""
    await store.registry.add_types(namespace, ["work"])
    await submit(store, namespace)
    job_id, token = await claim(store, namespace)
    child_id = IdSource().new(await store.registry.queue_number(namespace, "other"))
    children = (pack(job_id, token, child_id, NewJob(type="work", queue="other", parent_id=job_id)),)
    settlement = Settlement(job_id, token, Move.COMPLETE, Outcome.SUCCEEDED, 0, b"1", children=children)
    await store.lifecycle.settle(namespace, "default", [settlement])
    upkeep = await started(store, nursery)

    async with upkeep.keep(namespace, "default"):
        await until_async(lambda: _is(store, namespace, JobState.ENQUEUED, 1, "other"))


async def test_queue_is_kept_once_for_all_and_not_after_the_last(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """It takes one set of tasks and one subscription, whoever asks, and leaves nothing behind."""
    upkeep = await started(store, nursery)
    assert upkeep._nursery is not None
    hooks = len(store.link.on_reconnect)

    async with upkeep.keep(namespace, "default"):
        async with upkeep.keep(namespace, "default"), upkeep.keep(namespace, "other"):
            tasks = len(upkeep._nursery.child_tasks)
        await until(lambda: upkeep._nursery is not None and len(upkeep._nursery.child_tasks) == 1)

    assert tasks == 2
    await until(lambda: upkeep._nursery is not None and not upkeep._nursery.child_tasks)
    assert len(store.link.on_reconnect) == hooks
    assert keys.control(namespace, "default").encode() not in store.link._subscriber._handlers
