"""Whole workers in the test's own process, for handlers that open nurseries: what they do, and who of them runs code when."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import msgspec
import trio

from gopher.errors import JobNotFoundError
from gopher.handlers import Registry
from gopher.runtime.plan import WorkerPlan
from gopher.runtime.supervisor import Supervisor
from gopher.store import keys
from tests.runtime.parts import submit
from tests.waiting import PATIENCE_SECONDS, until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import gopher
    from gopher.job import Job, JobState
    from gopher.store.audit import AuditProgress, Finding
    from gopher.store.store import Store


class Code:
    """Counts the handlers that run code.

    Attributes:
        running: How many do now.
        most: How many did at most at once.
    """

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    def enter(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def leave(self) -> None:
        self.running -= 1

    @contextmanager
    def section(self) -> Iterator[None]:
        self.enter()
        try:
            yield
        finally:
            self.leave()


class Home:
    """Workers on one Redis, and what became of their jobs.

    Attributes:
        registry: The handlers of all workers; `leaf` returns its payload, `fail` raises, `sleep` never returns.
        code: Entered by `leaf`; other handlers enter it themselves.
        begun: The ids of the `sleep` jobs that have begun.
        ended: Those that have ended since.
    """

    def __init__(self, store: Store, url: str, namespace: str) -> None:
        self.store = store
        self.url = url
        self.namespace = namespace
        self.registry = Registry()
        self.code = Code()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._workers: list[Supervisor] = []
        self.registry.handler("leaf")(self._leaf)
        self.registry.handler("fail")(_fail)
        self.registry.handler("sleep")(self._sleep)

    async def _leaf(self, job: gopher.JobContext, payload: object) -> object:
        with self.code.section():
            await trio.lowlevel.checkpoint()
            return payload

    async def _sleep(self, job: gopher.JobContext, payload: object) -> None:
        self.begun.append(job.id)
        try:
            await trio.sleep_forever()
        finally:
            self.ended.append(job.id)

    def worker(
        self,
        *,
        slots: int | tuple[int, int] = 4,
        lease_seconds: float = 30.0,
        grace_seconds: float = 0.2,
        queues: tuple[str, ...] = ("default",),
    ) -> Supervisor:
        plan = WorkerPlan(
            app="",
            namespace=self.namespace,
            queues=dict.fromkeys(queues, 1),
            slots=slots if isinstance(slots, tuple) else (slots, slots),
            subprocesses=1,
            lease_seconds=lease_seconds,
            poll_seconds=3600.0,
            grace_seconds=grace_seconds,
            max_attempts=1,
            max_result_bytes=1 << 16,
            keep_tracebacks=True,
            version="test",
        )
        made = Supervisor(self.store, self.url, self.registry, plan, abandon=lambda: None)
        self._workers.append(made)
        return made

    @asynccontextmanager
    async def working(self, *workers: Supervisor) -> AsyncIterator[None]:
        """Run workers while the block runs, and drain them; then none of them has lost count of an attempt that rests."""
        async with trio.open_nursery() as nursery:
            for worker in workers or (self.worker(),):
                await nursery.start(worker.run)
            yield
            for worker in self._workers:
                worker.drain()
        assert [worker._claimer.rests.count for worker in self._workers] == [0] * len(self._workers)
        assert [len(worker._carrier._kins) for worker in self._workers] == [0] * len(self._workers)

    async def submit(self, job_type: str = "parent", payload: object = None, **fields: object) -> str:
        about = {"type": job_type, "payload": msgspec.json.encode(payload), **fields}
        (job_id,) = await submit(self.store, self.namespace, 1, **about)
        return job_id

    async def run(self, job_type: str = "parent", payload: object = None, **fields: object) -> Job:
        """Run a job to its end."""
        return await self.final(await self.submit(job_type, payload, **fields))

    async def final(self, job_id: str) -> Job:
        with trio.fail_after(PATIENCE_SECONDS):
            return await self.store.wait(self.namespace, job_id)

    async def job(self, job_id: str) -> Job:
        return await self.store.query.get(self.namespace, job_id)

    async def state(self, job_id: str) -> JobState | None:
        try:
            return (await self.job(job_id)).state
        except JobNotFoundError:
            return None

    async def cancel(self, job_id: str) -> None:
        await self.store.lifecycle.cancel(self.namespace, job_id, reason="not wanted", grace_ms=60_000)

    async def jobs(self, job_type: str) -> list[Job]:
        """Return all jobs of a type, in the order of their ids."""
        found, _ = await self.store.query.list_jobs(self.namespace, type=job_type, size=1000)
        return sorted(found, key=lambda job: job.id)

    async def states(self, job_type: str) -> list[JobState]:
        return [job.state for job in await self.jobs(job_type)]

    async def all_final(self, *job_types: str) -> None:
        """Wait until no job of these types is left that has not ended."""

        async def are_final() -> bool:
            states = [state for job_type in job_types for state in await self.states(job_type)]
            return all(state.is_final for state in states)

        await until_async(are_final)

    async def family(self, job_id: str, queue: str = "default") -> list[str]:
        """Return the ids in a job's family."""
        return [member.id for member in await self.store.families.members(self.namespace, queue, job_id)]

    async def families(self) -> list[str]:
        """Return the keys of families, and of orphans, that are left."""
        pattern = keys.queue(self.namespace, "*")
        found = [
            *await self.store.link.call("KEYS", pattern + "family:*"),
            *await self.store.link.call("KEYS", pattern + "orphans"),
        ]
        return [key.decode() for key in found]

    async def no_families(self) -> None:
        """Wait until nothing is left of any family."""

        async def are_none() -> bool:
            return not await self.families()

        await until_async(are_none)

    async def findings(self) -> list[Finding]:
        """Return what the audit finds."""
        found: list[Finding] = []

        async def take(progress: AuditProgress) -> None:
            await trio.lowlevel.checkpoint()
            found.extend(progress.findings)

        await self.store.audit.run(self.namespace, repair=False, report=take)
        return found


async def _fail(job: gopher.JobContext, payload: object) -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError(f"no {payload}")
