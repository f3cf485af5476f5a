from __future__ import annotations

from typing import TYPE_CHECKING

import structlog.testing

from gopher.job import MAX_CRASHES, JobState, NewJob
from gopher.runtime.reaper import Reaper
from gopher.store import keys
from gopher.store.submission import SubmitReceipt
from tests.runtime.parts import submit
from tests.waiting import until_async

if TYPE_CHECKING:
    import trio

    from gopher.store.store import Store


async def claim_and_forget(store: Store, namespace: str, count: int) -> list[str]:
    """Submit and claim jobs as a worker does that then falls silent for longer than its lease."""
    ids = await submit(store, namespace, count)
    for number in range(0, count, 100):
        await store.lifecycle.claim(namespace, "default", worker="w", count=100, lease_ms=60_000, claim_id=f"c-{number}")
    long_ago = [word for job_id in ids for word in (1, job_id)]
    await store.link.call("ZADD", f"{keys.queue(namespace, 'default')}processing", "XX", *long_ago)
    return ids


async def test_reaper_says_whether_more_may_be_left(store: Store, namespace: str) -> None:
    """A sweep takes 100 leases, so that Redis is never kept for long, and is told to go on; each loss is logged."""
    ids = await claim_and_forget(store, namespace, 150)
    reaper = Reaper(store.lifecycle, namespace=namespace, queue="default", sweep_seconds=1.0)

    with structlog.testing.capture_logs() as logs:
        sweeps = [await reaper.tick(), await reaper.tick()]

    assert sweeps == [True, False]
    assert sorted(entry["job_id"] for entry in logs) == sorted(ids)
    assert {entry["event"] for entry in logs} == {"attempt.lost"}


async def test_reaper_reports_a_job_that_takes_its_workers_along(store: Store, namespace: str) -> None:
    """The crash that ends a job is a line for operators."""
    (job_id,) = await claim_and_forget(store, namespace, 1)
    key = keys.job(namespace, "default", job_id)
    token = await store.link.call("HGET", key, "token")
    await store.link.call("HSET", key, "crashes", MAX_CRASHES - 1, "begun", token)
    reaper = Reaper(store.lifecycle, namespace=namespace, queue="default", sweep_seconds=1.0)

    with structlog.testing.capture_logs() as logs:
        await reaper.tick()

    assert [(entry["event"], entry["job_id"]) for entry in logs] == [("attempt.lost", job_id), ("job.failed", job_id)]
    assert logs[1]["reason"] == "CRASH_LOOP"


async def test_reaper_has_swept_when_it_says_that_it_runs(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """A worker that starts claims nothing whose client has vanished while there was none: an attached job does not begin after that."""
    job = NewJob(type="work")
    receipt = await store.attached_jobs.submit(namespace, job, "call", None)
    assert isinstance(receipt, SubmitReceipt)
    await store.link.call("ZADD", keys.attached(namespace, "default"), 1, receipt.job_id)

    await nursery.start(Reaper(store.lifecycle, namespace=namespace, queue="default", sweep_seconds=3600.0).run)

    assert (await store.query.get(namespace, receipt.job_id)).state is JobState.CANCELLED


async def test_reaper_sweeps_by_itself(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """A job whose worker is gone is enqueued again soon after its lease has ended."""
    (job_id,) = await claim_and_forget(store, namespace, 1)

    async def is_back() -> bool:
        job = await store.query.get(namespace, job_id)
        return (job.state, job.crashes) == (JobState.ENQUEUED, 1)

    await nursery.start(Reaper(store.lifecycle, namespace=namespace, queue="default", sweep_seconds=0.02).run)

    await until_async(is_back)
