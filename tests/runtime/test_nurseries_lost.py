"""Nurseries whose parent is lost, given back or cut off: what becomes of the children, and what the next attempt finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from gopher.job import JobState
from gopher.runtime.scopes import CancelReason
from gopher.store import keys
from tests.runtime.parts import lose_lease
from tests.waiting import PATIENCE_SECONDS, until, until_async

if TYPE_CHECKING:
    from collections.abc import Callable

    import gopher
    from gopher.job import Job
    from tests.runtime.home import Home

LEASE_SECONDS: Final = 1.0


def plant_parent(
    home: Home,
    on_crash: str,
    *,
    payloads: Callable[[int], list[object]] = lambda _: [1, 2],
    queue: str = "default",
    on_cancel: str = "cancel",
) -> None:
    """Register a parent of gated children, given its attempt's number; it returns their results."""

    @home.registry.handler("parent", max_attempts=3)
    async def parent(job: gopher.JobContext, payload: object) -> list[object]:
        async with job.open_nursery(on_crash=on_crash) as nursery:
            children = [nursery.start_soon("gated", each, queue=queue, on_cancel=on_cancel) for each in payloads(job.attempt)]
        return [await child.result() for child in children]


class Gate:
    """What `gated` jobs wait for, and which have begun."""

    def __init__(self, home: Home) -> None:
        self.opened = trio.Event()
        self.begun: list[str] = []
        home.registry.handler("gated")(self._run)

    async def _run(self, job: gopher.JobContext, payload: object) -> object:
        self.begun.append(job.id)
        if payload == "never":
            await trio.sleep_forever()
        await self.opened.wait()
        return payload


@pytest.fixture
def gate(home: Home) -> Gate:
    return Gate(home)


async def has_family(home: Home, job_id: str, count: int) -> None:
    async def has() -> bool:
        return len(await home.family(job_id)) == count

    await until_async(has)


async def reread(home: Home, job_id: str) -> Job:
    return await home.store.query.get(home.namespace, job_id)


async def test_children_of_a_lost_attempt_are_cancelled_and_the_next_begins_anew(home: Home, gate: Gate) -> None:
    """Its lease is taken from it while it waits: whoever takes the job back ends them, and none outlives that."""
    plant_parent(home, "cancel")
    async with home.working(home.worker(slots=8)):
        job_id = await home.submit()
        await until(lambda: len(gate.begun) == 2)
        first = await home.jobs("gated")
        await lose_lease(home.store, await home.job(job_id))
        await until(lambda: len(gate.begun) == 4)
        gate.opened.set()
        job = await home.final(job_id)
        await home.all_final("gated")
        await home.no_families()
        states = {child.id: child.state for child in await home.jobs("gated")}

    assert (job.state, job.result, job.crashes) == (JobState.COMPLETED, b"[1,2]", 1)
    # The first two end well only if they were faster than their cancel.
    assert {states[child.id] for child in first} <= {JobState.CANCELLED, JobState.COMPLETED}
    assert len(states) == 4
    assert await home.findings() == []


@pytest.mark.parametrize("on_cancel", ["cancel", "detach"])
async def test_children_of_a_lost_attempt_are_adopted_by_the_next(home: Home, gate: Gate, on_cancel: str) -> None:
    """They run once; the next attempt starts nothing anew where it says the same, and has their results."""
    plant_parent(home, "adopt", on_cancel=on_cancel)
    async with home.working(home.worker(slots=8)):
        job_id = await home.submit()
        await until(lambda: len(gate.begun) == 2)
        await lose_lease(home.store, await home.job(job_id))
        await until_async(lambda: _attempt_is(home, job_id, 2))
        gate.opened.set()
        job = await home.final(job_id)
        await home.no_families()
        children = await home.jobs("gated")

    assert (job.state, job.result, job.attempt) == (JobState.COMPLETED, b"[1,2]", 2)
    assert [(child.state, child.attempt) for child in children] == [(JobState.COMPLETED, 1)] * 2
    assert len(gate.begun) == 2


async def _attempt_is(home: Home, job_id: str, attempt: int) -> bool:
    job = await home.job(job_id)
    return job.attempt == attempt and job.state is JobState.PROCESSING


async def test_children_that_ended_before_they_were_adopted_have_their_results(home: Home, gate: Gate) -> None:
    """Nobody listened when they ended: the next attempt looks."""
    plant_parent(home, "adopt", queue="other")
    leaving, staying = home.worker(slots=2), home.worker(slots=2)
    async with home.working(home.worker(queues=("other",))):
        async with trio.open_nursery() as tasks:
            await tasks.start(leaving.run)
            job_id = await home.submit()
            await until(lambda: len(gate.begun) == 2)
            leaving.drain(0)
        between = await home.job(job_id)
        gate.opened.set()
        await home.all_final("gated")
        async with trio.open_nursery() as tasks:
            await tasks.start(staying.run)
            job = await home.final(job_id)
            staying.drain()

    assert (between.state, between.attempt) == (JobState.ENQUEUED, 0)
    assert (job.state, job.result, job.attempt) == (JobState.COMPLETED, b"[1,2]", 1)
    assert len(gate.begun) == 2
    assert await home.family(job_id) == []


async def test_child_that_the_next_attempt_does_not_want_is_cancelled(home: Home, gate: Gate) -> None:
    """It starts another in that place, or none; the unwanted are ended when its block is."""
    plant_parent(home, "adopt", payloads=lambda attempt: [1, "never", "never"] if attempt == 1 else [1, "other"])
    async with home.working(home.worker(slots=8)):
        job_id = await home.submit()
        await until(lambda: len(gate.begun) == 3)
        await lose_lease(home.store, await home.job(job_id))
        await until(lambda: len(gate.begun) == 4)
        gate.opened.set()
        job = await home.final(job_id)
        await home.all_final("gated")
        await home.no_families()

    states = {(child.payload, child.state) for child in await home.jobs("gated")}
    assert (job.state, job.result) == (JobState.COMPLETED, b'[1,"other"]')
    assert states == {(b"1", JobState.COMPLETED), (b'"other"', JobState.COMPLETED), (b'"never"', JobState.CANCELLED)}
    assert len(gate.begun) == 4


async def test_detached_child_that_the_next_attempt_does_not_want_goes_on_alone(home: Home, gate: Gate) -> None:
    """It has left its parent, which may end before it."""
    plant_parent(home, "adopt", payloads=lambda attempt: [1, "alone"] if attempt == 1 else [], on_cancel="detach")
    async with home.working(home.worker(slots=8)):
        job_id = await home.submit()
        await until(lambda: len(gate.begun) == 2)
        await lose_lease(home.store, await home.job(job_id))
        job = await home.final(job_id)
        between = await home.jobs("gated")
        gate.opened.set()
        await home.all_final("gated")
        await home.no_families()
        children = await home.jobs("gated")

    assert (job.state, job.result) == (JobState.COMPLETED, b"[]")
    assert [child.state for child in between] == [JobState.PROCESSING] * 2
    assert [(child.state, child.attempt) for child in children] == [(JobState.COMPLETED, 1)] * 2
    assert await home.findings() == []


@pytest.mark.parametrize("on_crash", ["cancel", "adopt"])
async def test_drain_gives_a_waiting_parent_back_unspent(home: Home, gate: Gate, on_crash: str) -> None:
    """Its children are cancelled first, or left to the next attempt; the worker that goes does not wait for those."""
    plant_parent(home, on_crash)
    leaving = home.worker(slots=2, grace_seconds=0.0)
    async with home.working(home.worker(queues=("other",))):
        async with trio.open_nursery() as tasks:
            await tasks.start(leaving.run)
            job_id = await home.submit()
            await until(lambda: len(gate.begun) == 2)
            leaving.drain()
        job = await home.job(job_id)
        states = [child.state for child in await home.jobs("gated")]
        assert leaving._claimer.rests.count == 0

        staying = home.worker(slots=4)
        gate.opened.set()
        async with trio.open_nursery() as tasks:
            await tasks.start(staying.run)
            done = await home.final(job_id)
            await home.all_final("gated")
            await home.no_families()
            staying.drain()

    assert (job.state, job.attempt) == (JobState.ENQUEUED, 0)
    assert set(states) == {JobState.CANCELLED if on_crash == "cancel" else JobState.ENQUEUED}
    assert (done.state, done.result) == (JobState.COMPLETED, b"[1,2]")
    assert len(await home.jobs("gated")) == (4 if on_crash == "cancel" else 2)


@pytest.mark.parametrize("on_crash", ["cancel", "adopt"])
async def test_retry_of_a_parent_begins_with_no_children(home: Home, on_crash: str) -> None:
    """An attempt that fails by itself has ended its children, whatever becomes of those of one that is lost."""

    @home.registry.handler("parent", max_attempts=2, backoff_initial_seconds=0.01)
    async def parent(job: gopher.JobContext, payload: object) -> int:
        async with job.open_nursery(on_crash=on_crash) as nursery:
            await nursery.start("sleep" if job.attempt == 1 else "leaf")
            if job.attempt == 1:
                raise ValueError("not yet")
        return job.attempt

    async with home.working():
        job = await home.run()

    assert (job.state, job.result) == (JobState.COMPLETED, b"2")
    assert await home.states("sleep") == [JobState.CANCELLED]
    assert await home.families() == []


async def test_start_by_an_attempt_whose_lease_is_lost_ends_it(home: Home, gate: Gate) -> None:
    """The refusal is the news: nothing is stored, and the handler ends before the keeper has found out."""
    seen: list[CancelReason | None] = []

    @home.registry.handler("parent", max_attempts=3)
    async def parent(job: gopher.JobContext, payload: object) -> int:
        if job.attempt > 1:
            return job.attempt
        (attempt,) = worker._scopes.snapshot()
        await home.store.link.call("HSET", _key(home, job.id), "token", 10**9)
        try:
            async with job.open_nursery() as nursery:
                await nursery.start("leaf", queue="other")
                await trio.sleep_forever()
        finally:
            seen.append(attempt.cancel_reason)
        return 0

    worker = home.worker()
    async with home.working(worker):
        job_id = await home.submit()
        await until(lambda: bool(seen))
        leaves = await home.jobs("leaf")
        await home.store.link.call("HDEL", _key(home, job_id), "family")
        await lose_lease(home.store, await home.job(job_id))
        job = await home.final(job_id)

    assert seen == [CancelReason.LEASE_LOST]
    assert leaves == []
    assert (job.state, job.result) == (JobState.COMPLETED, b"2")


def _key(home: Home, job_id: str) -> str:
    return keys.job(home.namespace, "default", job_id)


@pytest.mark.parametrize("is_cancelled_before", [False, True])
async def test_worker_that_is_torn_down_waits_for_no_child(home: Home, is_cancelled_before: bool) -> None:
    """Nobody would tell it of their ends: also a parent that was being cancelled is given back, and the children are orphans."""

    @home.registry.handler("parent", max_attempts=3)
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            await nursery.start("stubborn")

    @home.registry.handler("stubborn")
    async def stubborn(job: gopher.JobContext, payload: object) -> None:
        home.begun.append(job.id)
        with trio.CancelScope(shield=True):  # the fault that is tested
            await released.wait()

    released = trio.Event()
    worker, other = home.worker(slots=1), home.worker(slots=1, queues=("other",))
    async with trio.open_nursery() as others:
        await others.start(other.run)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as tasks:
                await tasks.start(worker.run)
                job_id = await home.submit()
                await until(lambda: bool(home.begun))
                if is_cancelled_before:
                    await home.cancel(job_id)
                    await until(lambda: worker._claimer.rests.count == 0)
                await trio.testing.wait_all_tasks_blocked(0.01)
                tasks.start_soon(_release, released)
                tasks.cancel_scope.cancel()
        other.drain()

    assert (worker._claimer.rests.count, len(worker._carrier._kins)) == (0, 0)


async def _release(event: trio.Event) -> None:
    event.set()
    await trio.lowlevel.checkpoint()
