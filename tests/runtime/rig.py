"""The worker's parts under test: attempts made by hand, what the runner hands over, and a bench that runs attempts with no Redis."""

from __future__ import annotations

import itertools
import time
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

import trio

from gopher.errors import UnknownTypeError
from gopher.handlers import Registry
from gopher.runtime.children import Children
from gopher.runtime.executors import Executors
from gopher.runtime.gates import Gates
from gopher.runtime.lifespans import Lifespans
from gopher.runtime.runner import Runner
from gopher.runtime.scopes import RunningAttempt, Scopes
from gopher.runtime.settler import Settler
from gopher.store.codec import ClaimedJob
from gopher.store.ids import IdSource
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from gopher.event import EventKind
    from gopher.handlers import FunctionT
    from gopher.job import NewJob
    from gopher.runtime.nurseries import Nurseries
    from gopher.store.lifecycle import Settlement
    from gopher.store.outbox import Outbox
    from gopher.store.store import Store

CLAIMED_MS: Final = 1_800_000_000_000
MAX_ATTEMPTS: Final = 3
MAX_RESULT_BYTES: Final = 1024

_ids: Final = IdSource()
_tokens: Final = itertools.count(1)


def no_gates() -> Gates:
    """Return the gates of a worker whose handlers declare none: they ask Redis nothing."""
    store = cast("Store", SimpleNamespace(breakers=None))
    return Gates(store, Registry(), namespace="n", queues=[], worker="w", lease_seconds=30.0, on_room=lambda _: None)


def claimed_job(
    job_type: str = "work", payload: bytes = b"null", *, attempt: int = 1, record: Mapping[str, object] | None = None
) -> ClaimedJob:
    """Return a job as the claim script gives it, with further fields of its record."""
    fields = {"type": job_type, "payload": payload, **(record or {})}
    flat = [value if isinstance(value, bytes) else str(value).encode() for pair in fields.items() for value in pair]
    return ClaimedJob([_ids.new(0).encode(), next(_tokens), attempt, flat], CLAIMED_MS)


def attempt_of(job: ClaimedJob, *, lease_seconds: float = 30.0, queue: str = "default") -> RunningAttempt:
    return RunningAttempt(job, queue, time.monotonic() + lease_seconds)


class Handed(Settler):
    """Takes outcomes from runners and keeps them: none waits to be written."""

    def __init__(self, scopes: Scopes) -> None:
        self.settlements: list[Settlement] = []
        self._scopes = scopes

    def __len__(self) -> int:
        return 0

    def put_nowait(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        self.settlements.append(settlement)
        self._scopes.remove(attempt)


class Numberless:
    """Gives ids to what handlers submit; of the types that there are, all but one are known."""

    async def reserve(self, namespace: str, job: NewJob) -> str:
        await trio.lowlevel.checkpoint()
        if job.type == "unknown":
            raise UnknownTypeError(job.type)
        return _ids.new(0)


class Bench:
    """A runner with handlers of the test's own, and what comes of its attempts.

    Attributes:
        registry: Put the handlers here, or say `@bench.handler`.
        scopes: The attempts that run.
        handed: Takes the outcomes.
        reports: The progress told.
        said: All that was said: kind and detail.
    """

    def __init__(self, app: str = "", *, subprocesses: int = 4) -> None:
        self.registry = Registry()
        self.scopes = Scopes()
        self.handed = Handed(self.scopes)
        self.reports: list[tuple[float, str]] = []
        self.said: list[tuple[str, bytes]] = []
        self.is_draining = False
        self.children = Children(cast("Outbox", Numberless()), namespace="test")
        self._app = app
        self._subprocesses = subprocesses
        self._runner: Runner | None = None

    @cached_property
    def lifespans(self) -> Lifespans:
        return Lifespans(self.registry, on_end=lambda: None)

    @cached_property
    def executors(self) -> Executors:
        return Executors(
            app=self._app,
            subprocesses=self._subprocesses,
            max_result_bytes=MAX_RESULT_BYTES,
            children=self.children,
            nurseries=cast("Nurseries", None),
            middleware=self.registry.middlewares,
            lifespans=self.lifespans,
        )

    def open_lifespans(self) -> AbstractAsyncContextManager[bool]:
        """Keep the lifespans of the registry open in the block, which comes once it is filled."""
        return self.lifespans.keep_open(lambda: trio.current_time() + PATIENCE_SECONDS)

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = Runner(
                self.registry,
                self.executors,
                namespace="test",
                max_result_bytes=MAX_RESULT_BYTES,
                say=self._say,
                children=self.children,
                nurseries=cast("Nurseries", None),
                is_draining=lambda: self.is_draining,
                max_attempts=MAX_ATTEMPTS,
                keep_tracebacks=True,
            )
        return self._runner

    def handler(self, function: FunctionT) -> FunctionT:
        """Register a function as the handler of `work`."""
        return self.registry.handler("work")(function)

    def take(self, job: ClaimedJob | None = None) -> RunningAttempt:
        """Do what a claim does."""
        attempt = attempt_of(job or claimed_job())
        self.scopes.add(attempt)
        return attempt

    async def run(self, attempt: RunningAttempt | None = None) -> Settlement:
        """Run an attempt to its end and return its outcome."""
        await self.run_alone(attempt or self.take())
        return self.outcome

    async def run_alone(self, attempt: RunningAttempt) -> bool:
        """Run an attempt to its end and tell whether its handler simply returned."""
        attempts = [(attempt, self.handed)]
        return await self.runner.run(lambda: attempts.pop() if attempts else None)

    @property
    def outcome(self) -> Settlement:
        """The only outcome there is; nothing is left of its attempt."""
        (settlement,) = self.handed.settlements
        assert len(self.scopes) == 0
        return settlement

    async def _say(self, attempt: RunningAttempt, kind: EventKind, progress: float | str, detail: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.said.append((kind.value, detail))
        if isinstance(progress, float | int):
            self.reports.append((progress, detail.decode()))
