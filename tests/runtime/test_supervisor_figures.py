"""A whole worker's figures: what Redis knows of its attempts once it has gone, and what its beats tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher.handlers import Registry
from gopher.job import Outcome, Priority
from gopher.runtime.plan import WorkerPlan
from gopher.runtime.supervisor import Supervisor
from tests.runtime.parts import submit
from tests.waiting import PATIENCE_SECONDS, until_async

if TYPE_CHECKING:
    from gopher.store.store import Store

SLOTS = 4
LEASE_SECONDS = 1.5


def worker_of(store: Store, url: str, namespace: str, registry: Registry) -> Supervisor:
    plan = WorkerPlan(
        app="",
        namespace=namespace,
        queues={"default": 1},
        slots=(SLOTS, SLOTS),
        subprocesses=2,
        lease_seconds=LEASE_SECONDS,
        poll_seconds=3600.0,
        grace_seconds=10.0,
        max_attempts=1,
        max_result_bytes=1024,
        keep_tracebacks=True,
        version="test",
    )
    return Supervisor(store, url, registry, plan, abandon=lambda: None)


async def test_drained_workers_have_told_of_every_attempt(store: Store, redis_url: str, namespace: str) -> None:
    """Two workers add up, to the last attempt before each of them went."""
    registry = Registry()

    @registry.handler("work")
    async def work(_job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        if payload == "fail":
            raise ValueError

    for count in (20, 10):
        async with trio.open_nursery() as nursery:
            worker = worker_of(store, redis_url, namespace, registry)
            await nursery.start(worker.run)
            ids = [*await submit(store, namespace, count), *await submit(store, namespace, 1, payload=b'"fail"')]
            for job_id in ids:
                with trio.fail_after(PATIENCE_SECONDS):
                    await store.wait(namespace, job_id)
            worker.drain()

    (figures,) = await store.figures.read(namespace, ["default"])

    assert figures.total.attempts == {("work", Outcome.SUCCEEDED): 30, ("work", Outcome.RAISED): 2}
    assert figures.total.durations["work"].count == 32
    assert figures.total.waits[Priority.NORMAL].count == 32


async def test_beats_tell_what_a_worker_uses(store: Store, redis_url: str, namespace: str) -> None:
    """With one of four slots taken a quarter is used; memory is that of the process."""
    registry = Registry()
    gate = trio.Event()

    @registry.handler("work")
    async def work(_job: object, _payload: object) -> None:
        await gate.wait()

    async with trio.open_nursery() as nursery:
        worker = worker_of(store, redis_url, namespace, registry)
        await nursery.start(worker.run)
        await submit(store, namespace, 1)

        async def is_quarter() -> bool:
            found = await store.registry.workers(namespace)
            return bool(found) and abs(found[0].description.utilisation - 0.25) < 0.02

        await until_async(is_quarter)
        (found,) = await store.registry.workers(namespace)
        gate.set()
        worker.drain()

    assert found.description.busy == 1
    assert found.description.resident_bytes > 0
