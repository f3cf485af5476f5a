"""Invariant I9: what a cancelled job's task tree is when `cancelled` is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher.job import JobState
from gopher.store.lifecycle import Lifecycle
from tests.runtime.test_supervisor import Hall, begun
from tests.waiting import PATIENCE_SECONDS, until_async

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.contexts import JobContext
    from gopher.store.lifecycle import Settlement
    from gopher.store.store import Store


class LiveTasks(trio.abc.Instrument):
    """Counts the Trio tasks of a name that have begun and not ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == self._name

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.count -= task.name == self._name


@pytest.mark.parametrize(("grace_ms", "cleaned"), [(60_000, 20), (200, 0)], ids=["within-grace", "cut"])
async def test_cancelled_is_written_after_the_task_tree_is_empty(
    store: Store, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, grace_ms: int, cleaned: int
) -> None:
    """Invariant I9: twenty child tasks with shielded cleanup, ended or cut, are gone when the outcome is sent."""
    hall = Hall(store, redis_url, namespace)
    living = LiveTasks("leaf")
    done: list[str] = []
    at_write: list[int] = []
    settle = Lifecycle.settle

    async def watched(self: Lifecycle, namespace: str, queue: str, settlements: Sequence[Settlement]) -> list[str]:
        at_write.append(living.count)
        return await settle(self, namespace, queue, settlements)

    async def leaf() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):  # what has to be awaited, or cut
                await trio.sleep(0.1 if cleaned else PATIENCE_SECONDS)
                done.append("cleaned")

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            for nursery in [outer, inner] * 10:
                nursery.start_soon(leaf, name="leaf")
            await job.progress(0, "begun")

    monkeypatch.setattr(Lifecycle, "settle", watched)
    trio.lowlevel.add_instrument(living)
    async with hall.working(hall.worker(grace_seconds=PATIENCE_SECONDS)):
        job_id = await hall.submit()
        await until_async(lambda: begun(hall, job_id))
        before = living.count
        await hall.cancel(job_id, grace_ms=grace_ms)
        job = await hall.final(job_id)
    trio.lowlevel.remove_instrument(living)

    assert (before, at_write, len(done)) == (20, [0], cleaned)
    assert job.state is JobState.CANCELLED


async def test_drain_cuts_shielded_cleanup_and_gives_the_job_back(store: Store, redis_url: str, namespace: str) -> None:
    """A worker that is told to go does not wait a minute for a handler's cleanup, nor does it go without its handlers."""
    hall = Hall(store, redis_url, namespace)
    left: list[str] = []

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> None:
        await job.progress(0, "begun")
        try:
            with trio.CancelScope(shield=True):  # what is to be cut
                await trio.sleep(2 * PATIENCE_SECONDS)
        finally:
            left.append(job.id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with hall.working(hall.worker(grace_seconds=0)):
            job_id = await hall.submit()
            await until_async(lambda: begun(hall, job_id))
    job = await hall.job(job_id)

    assert left == [job_id]
    assert (job.state, job.attempt, job.cancel_reason) == (JobState.ENQUEUED, 0, None)
