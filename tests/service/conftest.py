"""Fixtures for the tests of the services: each on a store that is connected to the shared redis-server."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.job import Failure, Move, Outcome
from gopher.service.admin import Admin
from gopher.service.jobs import Jobs
from gopher.service.pages import Pages
from gopher.service.queues import Queues
from gopher.service.run import Runs
from gopher.service.schedules import Schedules
from gopher.service.watch import Watch
from gopher.store import codec, keys
from gopher.store.lifecycle import Settlement
from gopher.store.registry import LoopBlock, WorkerDescription
from gopher.store.scripts import Script
from gopher.store.store import Store
from tests.service.nursery_rig import Desk
from tests.service.remote_rig import serving_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from gopher.store.codec import ClaimedJob
    from tests.service.remote_rig import Remote

FAILURE = codec.encode_failure(Failure(reason="HANDLER_RAISED", message="no"))


class Rig:
    """The services, and what a worker would do to their jobs."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        pages = Pages(store.registry)
        self.watch = Watch(store)
        self.queues = Queues(store)
        self.admin = Admin(store, self.queues, pages)
        self.jobs = Jobs(store, pages, accept_unknown_types=False, max_payload_bytes=1024)
        self.lax_jobs = Jobs(store, pages, accept_unknown_types=True, max_payload_bytes=1024)
        self.runs = Runs(store, self.jobs, self.watch)
        self.lax_runs = Runs(store, self.lax_jobs, self.watch)
        self.schedules = Schedules(store, pages, accept_unknown_types=False, max_payload_bytes=1024)
        self.lax_schedules = Schedules(store, pages, accept_unknown_types=True, max_payload_bytes=1024)
        self._claims = itertools.count()

    async def submit(self, **fields: object) -> str:
        spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec
        request = pb.SubmitJobRequest(namespace=self.namespace, job=spec)
        return (await self.lax_jobs.submit_job(request)).job_id

    async def claim(self, queue: str = "default", count: int = 1) -> list[ClaimedJob]:
        claim = await self.store.lifecycle.claim(
            self.namespace, queue, worker="w1", count=count, lease_ms=60_000, claim_id=f"claim-{next(self._claims)}"
        )
        assert claim is not None
        return claim.jobs

    def settlement(self, job: ClaimedJob, move: Move, outcome: Outcome = Outcome.SUCCEEDED) -> Settlement:
        is_failure = outcome is Outcome.RAISED
        return Settlement(
            job.id, job.token, move, outcome, 0, b"" if is_failure else b'{"done":true}', FAILURE if is_failure else b""
        )

    async def settle(self, job: ClaimedJob, move: Move, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        await self.store.lifecycle.settle(self.namespace, "default", [self.settlement(job, move, outcome)])

    async def complete(self) -> str:
        """Run the next job to its end and return its id."""
        (job,) = await self.claim()
        await self.settle(job, Move.COMPLETE)
        return job.id

    async def fail(self, queue: str = "default") -> str:
        """Bury the next job and return its id."""
        (job,) = await self.claim(queue)
        settlement = Settlement(job.id, job.token, Move.BURY, Outcome.RAISED, 0, b"", FAILURE)
        await self.store.lifecycle.settle(self.namespace, queue, [settlement])
        return job.id

    async def add_worker(self, name: str, types: list[str], *, slots: int = 10, utilisation: float = 0.25) -> None:
        """Enter a worker into the register, with 3 slots busy and one job stuck."""
        description = WorkerDescription(
            host="h",
            pid=7,
            version="1",
            queues={"default": 2},
            types=types,
            slots=slots,
            busy=3,
            started_ms=1_000,
            draining=False,
            stuck=["j1"],
            utilisation=utilisation,
            attempts_per_second=12.5,
            resident_bytes=50_000_000,
            cpu_cores=0.75,
            blocked=LoopBlock(type="email", function="shop.send", job_id="j2", seconds=1.5),
            blocked_totals=[LoopBlock(type="email", function="shop.send", seconds=4.25)],
        )
        await self.store.registry.add_types(self.namespace, types)
        beat = Script.load("beat")
        await beat(self.store.link, [keys.workers(self.namespace)], [name, 60_000, msgspec.json.encode(description)])


@pytest.fixture
async def store(redis_url: str, nursery: trio.Nursery) -> Store:
    """A store on the shared redis-server."""
    connected = Store(redis_url, client_name="test")
    await nursery.start(connected.run)
    return connected


@pytest.fixture
async def rig(store: Store, namespace: str) -> Rig:
    """The services, for a namespace of the test's own."""
    return Rig(store, namespace)


@pytest.fixture
async def desk(store: Store, redis_url: str, namespace: str, nursery: trio.Nursery) -> Desk:
    """A server of nurseries that takes every type, for a namespace of the test's own."""
    return Desk(store, redis_url, namespace, nursery)


@pytest.fixture
async def remote(rig: Rig) -> AsyncIterator[Remote]:
    """The service of workers on streams, in the same namespace."""
    async with serving_workers(rig) as serving:
        yield serving
