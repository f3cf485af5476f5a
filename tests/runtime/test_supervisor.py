from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from gopher.handlers import Registry
from gopher.job import JobState, Outcome
from gopher.runtime.plan import WorkerPlan
from gopher.runtime.supervisor import Supervisor
from gopher.store import keys
from gopher.store.outbox import Outbox
from gopher.store.store import Store
from tests.runtime.parts import WilfulLifecycle, submit
from tests.waiting import PATIENCE_SECONDS, until, until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from gopher.contexts import JobContext, SyncJobContext
    from gopher.job import Job
    from gopher.store.outbox import Child
    from gopher.store.registry import WorkerInfo
    from tests.redis_server import RedisServer

GRACE_SECONDS = 0.2
LEASE_SECONDS = 30.0


class Abandoned(BaseException):
    """The supervisor wants the process to end: raised in its place."""


class Hall:
    """Workers in the test's own process, and the store they share with it."""

    def __init__(self, store: Store, url: str, namespace: str) -> None:
        self.store = store
        self.url = url
        self.namespace = namespace
        self.registry = Registry()
        self.abandon: Callable[[], None] = _go

    def worker(
        self, *, lease_seconds: float = LEASE_SECONDS, grace_seconds: float = GRACE_SECONDS, slots: int = 4
    ) -> Supervisor:
        plan = WorkerPlan(
            app="",
            namespace=self.namespace,
            queues={"default": 1},
            slots=(slots, slots),
            subprocesses=2,
            lease_seconds=lease_seconds,
            poll_seconds=3600.0,
            grace_seconds=grace_seconds,
            max_attempts=2,
            max_result_bytes=1024,
            keep_tracebacks=True,
            version="test",
        )
        return Supervisor(self.store, self.url, self.registry, plan, abandon=self.abandon)

    @asynccontextmanager
    async def working(self, worker: Supervisor) -> AsyncIterator[None]:
        """Run a worker while the block runs, and drain it."""
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run)
            yield
            worker.drain()

    async def submit(self, job_type: str = "work") -> str:
        (job_id,) = await submit(self.store, self.namespace, type=job_type)
        return job_id

    async def job(self, job_id: str) -> Job:
        return await self.store.query.get(self.namespace, job_id)

    async def final(self, job_id: str) -> Job:
        with trio.fail_after(PATIENCE_SECONDS):
            return await self.store.wait(self.namespace, job_id)

    async def cancel(self, job_id: str, *, grace_ms: int = 60_000) -> None:
        await self.store.lifecycle.cancel(self.namespace, job_id, reason="not wanted", grace_ms=grace_ms)

    async def registered(self) -> list[WorkerInfo]:
        return await self.store.registry.workers(self.namespace)


def _go() -> None:
    raise Abandoned


@pytest.fixture
def hall(store: Store, redis_url: str, namespace: str) -> Hall:
    """Room for workers on the shared redis-server."""
    return Hall(store, redis_url, namespace)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What thread handlers wait for; opened at the end, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


async def test_worker_runs_a_job_again_until_it_succeeds(hall: Hall) -> None:
    """A failed attempt is retried after its backoff, and the history tells."""

    @hall.registry.handler("work", backoff_initial_seconds=0.01)
    async def work(job: JobContext, payload: object) -> int:
        await job.progress(0.5, f"attempt {job.attempt}")
        if job.attempt == 1:
            raise ValueError("not yet")
        return job.attempt

    async with hall.working(hall.worker()):
        job = await hall.final(await hall.submit())

    assert (job.state, job.result, job.progress_message) == (JobState.COMPLETED, b"2", "attempt 2")
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.RAISED, Outcome.SUCCEEDED]


async def test_worker_leaves_a_type_it_lacks_to_others(hall: Hall) -> None:
    """A job of an unknown type waits unspent, in a line of its own."""
    hall.registry.handler("other")(sleeper)

    async with hall.working(hall.worker()):
        job_id = await hall.submit("unheard-of")
        await hall.submit("other")
        await until_async(lambda: is_parked(hall, job_id))

    assert (await hall.job(job_id)).attempt == 0


async def is_parked(hall: Hall, job_id: str) -> bool:
    job = await hall.job(job_id)
    return (job.state, job.parked_by) == (JobState.ENQUEUED, f"type:{job.type}")


async def stands(hall: Hall, job_id: str, state: JobState) -> bool:
    return (await hall.job(job_id)).state is state


async def sleeper(job: JobContext, payload: object) -> None:
    await job.progress(0, "begun")
    await trio.sleep_forever()


async def begun(hall: Hall, job_id: str) -> bool:
    return (await hall.job(job_id)).progress_message == "begun"


async def test_cancel_reaches_a_running_handler_at_once(hall: Hall) -> None:
    """The cancel is pushed: the keeper would bring it a third of a lease later."""
    hall.registry.handler("work")(sleeper)

    async with hall.working(hall.worker()):
        job_id = await hall.submit()
        await until_async(lambda: begun(hall, job_id))
        began = trio.current_time()
        await hall.cancel(job_id)
        job = await hall.final(job_id)
        took_seconds = trio.current_time() - began

    assert job.state is JobState.CANCELLED
    assert job.attempts[-1].outcome is Outcome.CANCELLED
    assert took_seconds < LEASE_SECONDS / 3


async def test_cancel_is_written_after_the_last_child_has_ended(hall: Hall) -> None:
    """`cancelled` means that nothing of the handler's tree runs any more, slow cleanups included."""
    living = 0
    lived_at_the_end: list[int] = []

    async def child() -> None:
        nonlocal living
        living += 1
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):  # a cleanup that takes its time
                await trio.sleep(0.05)
            living -= 1

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> None:
        async with trio.open_nursery() as children:
            for _ in range(20):
                children.start_soon(child)
            await sleeper(job, payload)

    async with hall.working(hall.worker()):
        job_id = await hall.submit()
        await until_async(lambda: begun(hall, job_id))
        await hall.cancel(job_id)
        job = await hall.final(job_id)
        lived_at_the_end.append(living)

    assert job.state is JobState.CANCELLED
    assert lived_at_the_end == [0]


async def test_cancelled_thread_handler_is_reported_stuck(hall: Hall, gate: threading.Event) -> None:
    """A thread cannot be ended: its job stays processing and is named in the register until it returns."""

    @hall.registry.handler("work")
    def work(job: SyncJobContext, payload: object) -> str:
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        return "done"

    async def is_named() -> bool:
        return [worker.description.stuck for worker in await hall.registered()] == [[job_id]]

    async with hall.working(hall.worker(lease_seconds=1.0, grace_seconds=PATIENCE_SECONDS)):
        job_id = await hall.submit()
        await until_async(lambda: begun(hall, job_id))
        await hall.cancel(job_id, grace_ms=0)
        await until_async(is_named)
        meanwhile = await hall.job(job_id)
        gate.set()
        job = await hall.final(job_id)

    assert (meanwhile.state, meanwhile.cancel_reason) == (JobState.PROCESSING, "not wanted")
    assert job.state is JobState.COMPLETED


async def test_lost_job_that_its_own_worker_claims_again_runs_once(hall: Hall) -> None:
    """A worker that loses a lease, and is the one that claims the job again, ends the first attempt."""
    running: set[int] = set()

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> None:
        running.add(job.attempt)
        try:
            await trio.sleep_forever()
        finally:
            running.discard(job.attempt)

    async with hall.working(hall.worker()):
        job_id = await hall.submit()
        await until(lambda: running == {1})
        await hall.store.link.call("ZADD", f"gopher:{{{hall.namespace}:default}}:processing", "XX", 1, job_id)
        await hall.store.lifecycle.reap(hall.namespace, "default")
        await until(lambda: running == {2})

    assert (await hall.job(job_id)).crashes == 1


async def test_drain_gives_back_what_outlasts_the_grace(hall: Hall) -> None:
    """Its job is enqueued again, and the attempt is not counted."""
    hall.registry.handler("work")(sleeper)

    async with hall.working(hall.worker()):
        job_id = await hall.submit()
        await until_async(lambda: begun(hall, job_id))
    job = await hall.job(job_id)

    assert (job.state, job.attempt, job.crashes, job.attempts) == (JobState.ENQUEUED, 0, 0, ())
    assert await hall.registered() == []


async def test_drain_lets_handlers_know_and_finish(hall: Hall) -> None:
    """Within the grace a handler that looks at `shutdown_requested` ends as it likes."""

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> str:
        await job.progress(0, "begun")
        await until(lambda: job.shutdown_requested)
        return "finished in time"

    async with hall.working(hall.worker(grace_seconds=PATIENCE_SECONDS)):
        job_id = await hall.submit()
        await until_async(lambda: begun(hall, job_id))
    job = await hall.job(job_id)

    assert (job.state, job.result) == (JobState.COMPLETED, b'"finished in time"')


async def test_drain_hands_children_over(hall: Hall, nursery: trio.Nursery) -> None:
    """A worker that goes does not leave to others, who may not come, what its jobs have submitted to other queues."""
    gate = trio.Event()

    class HeldOutbox(Outbox):
        async def deliver(self, namespace: str, queue: str, children: Sequence[Child]) -> None:
            await gate.wait()
            await super().deliver(namespace, queue, children)

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> str:
        return await job.submit("work", queue="other")

    async def open_gate() -> None:
        await until(worker._draining.is_set)
        gate.set()

    hall.store.outbox = HeldOutbox(hall.store.link, hall.store.registry)
    worker = hall.worker()
    nursery.start_soon(open_gate)

    async with hall.working(worker):
        parent = await hall.final(await hall.submit())

    assert parent.result is not None
    child = await hall.job(msgspec.json.decode(parent.result))
    assert (child.queue, child.state, child.parent_id) == ("other", JobState.ENQUEUED, parent.id)


async def test_abort_ends_the_grace(hall: Hall) -> None:
    """The second signal ends everything at once; nothing is lost by it."""
    hall.registry.handler("work")(sleeper)
    worker = hall.worker(grace_seconds=3600)

    with trio.fail_after(PATIENCE_SECONDS):
        async with hall.working(worker):
            job_id = await hall.submit()
            await until_async(lambda: begun(hall, job_id))
            worker.drain()
            worker.abort()

    assert (await hall.job(job_id)).state is JobState.ENQUEUED


async def is_idle(hall: Hall) -> bool:
    return bool(await hall.store.link.call("HEXISTS", keys.counters(hall.namespace, "default"), "idle"))


async def test_abort_ends_what_a_claim_under_way_brings(hall: Hall) -> None:
    """A job whose claim was on its way when the second signal came is given back too, and not run for the length of the grace."""
    hall.registry.handler("work")(sleeper)
    lifecycle = hall.store.lifecycle = WilfulLifecycle(hall.store)
    worker = hall.worker(grace_seconds=3600)

    with trio.fail_after(PATIENCE_SECONDS):
        async with hall.working(worker):
            await until_async(lambda: is_idle(hall))
            lifecycle.gate = trio.Event()
            before = len(lifecycle.claims)
            job_id = await hall.submit()
            await until(lambda: len(lifecycle.claims) > before)
            worker.abort()
            lifecycle.gate.set()

    assert (await hall.job(job_id)).state is JobState.ENQUEUED


async def test_drain_abandons_a_thread_that_will_not_end(hall: Hall, gate: threading.Event) -> None:
    """Its job is given back unspent, then the process must go, long before the thread would end by itself."""

    @hall.registry.handler("work")
    def work(job: SyncJobContext, payload: object) -> None:
        job.progress(0, "begun")
        has_returned.append(not gate.wait(PATIENCE_SECONDS))

    has_returned: list[bool] = []
    had_returned: list[bool] = []

    def go() -> None:
        # As the process would end here, so does the thread.
        had_returned.append(bool(has_returned))
        gate.set()
        raise Abandoned

    hall.abandon = go
    with pytest.RaisesGroup(Abandoned, flatten_subgroups=True):
        async with hall.working(hall.worker()):
            job_id = await hall.submit()
            await until_async(lambda: begun(hall, job_id))
    job = await hall.job(job_id)

    assert had_returned == [False]
    assert (job.state, job.attempt) == (JobState.ENQUEUED, 0)


async def test_drain_ends_though_redis_is_away(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """With no Redis to give the jobs back to, the worker still ends; leases do the rest."""
    store = Store(redis_server.url)
    await nursery.start(store.run)
    hall = Hall(store, redis_server.url, "n")
    hall.registry.handler("work")(sleeper)

    with pytest.RaisesGroup(Abandoned, flatten_subgroups=True), trio.fail_after(PATIENCE_SECONDS):
        async with hall.working(hall.worker()):
            job_id = await hall.submit()
            await until_async(lambda: begun(hall, job_id))
            redis_server.kill()


async def test_worker_looks_again_once_its_connection_is_new(
    hall: Hall, redis_url: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis said while nobody listened is made up for: a job submitted meanwhile is claimed without waiting for the poll."""
    other = Store(redis_url)
    await nursery.start(other.run)

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> str:
        await trio.lowlevel.checkpoint()
        return "done"

    monkeypatch.setattr(hall.store.link._subscriber, "_backoff_seconds", lambda: 0.3)
    async with hall.working(hall.worker()):
        await hall.final(await hall.submit())
        pipeline = hall.store.link._subscriber._pipeline
        assert pipeline is not None
        pipeline.break_off("the test has cut it")
        (job_id,) = await submit(other, hall.namespace)
        missed = hall.store.link._subscriber._pipeline is None
        job = await hall.final(job_id)

    assert missed
    assert job.state is JobState.COMPLETED


async def test_worker_goes_on_after_redis_was_away(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """What was submitted while its connection was down is claimed without waiting for the poll."""
    store = Store(redis_server.url)
    await nursery.start(store.run)
    hall = Hall(store, redis_server.url, "n")

    @hall.registry.handler("work")
    async def work(job: JobContext, payload: object) -> str:
        await trio.lowlevel.checkpoint()
        return "done"

    async with hall.working(hall.worker()):
        first = await hall.final(await hall.submit())
        redis_server.kill()
        redis_server.start()
        second = await hall.final(await hall.submit())

    assert (first.state, second.state) == (JobState.COMPLETED, JobState.COMPLETED)
