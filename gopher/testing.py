"""The test kit for handler authors: the real runtime on a Redis of its own, with no server and nothing to start.

    async def test_welcome_mail_is_sent() -> None:
        async with gopher.testing.open_runtime(registry) as runtime:
            job_id = await runtime.submit("email", {"to": "user@example.com"})
            jobs = await runtime.drain()
        assert jobs[job_id].state is gopher.JobState.COMPLETED

In a test that is not asynchronous, `run_job(registry, "email", {...})` does all of that for one job.

Lifespans are opened before the block and closed after it. What handlers submit runs as well, and `await runtime.children(job_id)` tells what one has submitted.

Nothing is simulated: jobs go through Redis and the scripts, and attempts are run by a worker in the test's own process, where its
patches and fixtures hold. Retries come at once.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

import trio

from gopher.errors import GopherError, JobNotFoundError
from gopher.event import EventKind
from gopher.job import DEFAULT_NAMESPACE, Job, NewJob, Priority
from gopher.runtime.apps import load_registry
from gopher.runtime.machine import usable_cpus
from gopher.runtime.plan import WorkerPlan
from gopher.runtime.supervisor import Supervisor
from gopher.store.embedded import open_embedded_redis
from gopher.store.history import MAX_EVENTS
from gopher.store.lifecycle import Lifecycle
from gopher.store.store import Store
from gopher.submission import encode_payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gopher.event import EventDetail
    from gopher.handlers import Registry
    from gopher.store.lifecycle import Settlement

_AT_ONCE_MS: Final = 1
_COMPLETED: Final = frozenset({"completed", "ALREADY"})


class SubmitOptions(TypedDict, total=False):
    """What a test may say of a job; see `gopher.job.NewJob`."""

    queue: str
    priority: Priority
    content_type: str
    labels: dict[str, str]
    max_attempts: int
    timeout_ms: int
    delay_ms: int
    deadline_ms: int
    unique_key: str
    request_id: str


class Runtime:
    """A worker under test.

    Attributes:
        submitted: What was submitted, by job id, in order.
    """

    def __init__(self, store: Store, lifecycle: _Lifecycle, supervisor: Supervisor, queue: str) -> None:
        self.submitted: dict[str, NewJob] = {}
        self._store = store
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._queue = queue

    async def submit(self, type: str, payload: object = None, **options: Unpack[SubmitOptions]) -> str:  # noqa: A002 - the word for it everywhere
        """Submit a job and return its id.

        Args:
            type: Which handler.
            payload: Anything that JSON can hold, a dataclass, or bytes of JSON.
            **options: Further fields of `gopher.job.NewJob`.

        Raises:
            GopherError: The submit was refused.
        """
        encoded = encode_payload(payload)
        job = NewJob(type=type, payload=encoded, backoff_initial_ms=_AT_ONCE_MS, backoff_max_ms=_AT_ONCE_MS, **options)
        [answer] = await self._store.lifecycle.submit(DEFAULT_NAMESPACE, [job])
        if isinstance(answer, GopherError):
            raise answer
        self.submitted[answer.job_id] = job
        return answer.job_id

    async def job(self, job_id: str) -> Job:
        """Return a job as it stands."""
        return await self._store.query.get(DEFAULT_NAMESPACE, job_id)

    async def children(self, job_id: str) -> list[Job]:
        """Return the jobs that the handler of a completed job has submitted, in that order, as they stand.

        One that was dropped, since its unique key was held, is not among them.
        """
        await self._supervisor.wait_idle()
        found = []
        for child_id in self._lifecycle.children.get(job_id, ()):
            with suppress(JobNotFoundError):
                found.append(await self.job(child_id))
        return found

    async def said(self, job_id: str) -> list[EventDetail]:
        """Return what the handler of a job has said to its watchers: log lines and output, in order."""
        return [
            event.told
            for event in await self._store.histories.read(DEFAULT_NAMESPACE, self._queue, job_id, after=0, count=MAX_EVENTS)
            if event.told is not None and event.kind in {EventKind.LOG, EventKind.OUTPUT}
        ]

    async def drain(self) -> dict[str, Job]:
        """Wait until every job submitted, and all that their handlers submit, is final and return them, by id.

        Jobs of queues that no worker serves here come as they stand. The caller's cancel scope bounds the wait.
        """
        jobs: dict[str, Job] = {}
        waiting = deque(self.submitted)
        while waiting:
            job_id = waiting.popleft()
            jobs[job_id] = await self._store.wait(DEFAULT_NAMESPACE, job_id)
            for child in await self.children(job_id):
                if child.queue == self._queue:
                    waiting.append(child.id)
                else:
                    jobs[child.id] = child
        return jobs


class _Lifecycle(Lifecycle):
    """The real one, which notes what handlers have submitted.

    Attributes:
        children: Ids, by the id of the parent that has completed.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.link, store.registry)
        self.children: dict[str, list[str]] = {}

    async def settle(self, namespace: str, queue: str, settlements: Sequence[Settlement]) -> list[str]:
        words = await super().settle(namespace, queue, settlements)
        for settlement, word in zip(settlements, words, strict=True):
            if word in _COMPLETED:
                self.children[settlement.job_id] = [child.id for child in settlement.children]
        return words


@asynccontextmanager
async def open_runtime(registry: Registry | str, *, slots: int = 10, queue: str = "default") -> AsyncIterator[Runtime]:
    """Run a worker with the given handlers while the block lasts.

    Args:
        registry: The handlers, or `module:registry`, which handlers marked `process=True` need.
        slots: Jobs that run at most at once.
        queue: Where the worker takes jobs from.

    Raises:
        StartError: No redis-server was found on this machine, the application cannot be imported, or its lifespan cannot be opened.
    """
    app = registry if isinstance(registry, str) else ""
    handlers = load_registry(registry) if isinstance(registry, str) else registry
    plan = WorkerPlan(
        app=app,
        namespace=DEFAULT_NAMESPACE,
        queues={queue: 1},
        slots=(slots, slots),
        subprocesses=usable_cpus(),
        lease_seconds=30.0,
        poll_seconds=5.0,
        grace_seconds=1.0,
        max_attempts=4,
        max_result_bytes=65_536,
        keep_tracebacks=True,
        version="test",
    )
    failure: Exception | None = None
    async with open_embedded_redis(None) as redis, trio.open_nursery() as nursery:
        store = Store(redis.url, client_name="gopher-testing")
        await nursery.start(store.run)
        lifecycle = store.lifecycle = _Lifecycle(store)
        supervisor = Supervisor(store, redis.url, handlers, plan, abandon=_refuse_to_abandon)
        async with trio.open_nursery() as working:
            try:
                await working.start(supervisor.run)
                yield Runtime(store, lifecycle, supervisor, queue)
            except Exception as error:  # noqa: BLE001 - raised again below, once no nursery can put a group around it
                failure = error
                supervisor.abort()
            supervisor.drain()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def run_job(registry: Registry | str, type: str, payload: object = None, **options: Unpack[SubmitOptions]) -> Job:  # noqa: A002 - as above
    """Run one job to its end and return it, for tests that are not asynchronous.

    Args:
        registry: As for `open_runtime`.
        type: Which handler.
        payload: As for `Runtime.submit`.
        **options: Likewise.
    """

    async def run() -> Job:
        async with open_runtime(registry) as runtime:
            job_id = await runtime.submit(type, payload, **options)
            return (await runtime.drain())[job_id]

    return trio.run(run)


def _refuse_to_abandon() -> None:
    raise RuntimeError("a thread handler did not end when the test did")
