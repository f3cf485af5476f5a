"""Real worker processes on a real Redis, the jobs they run, and what their handlers have told."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import msgspec
import trio

from tests.e2e.apps.work import SINK_VARIABLE
from tests.programs import Program
from tests.runtime.parts import submit
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from gopher.job import Job, JobState
    from gopher.store.audit import AuditProgress, Finding
    from gopher.store.store import Store

MODULE = "gopher.cli.worker"
APP = "tests.e2e.apps.work:registry"
NOTHING: Mapping[str, str] = MappingProxyType({})


class Event(msgspec.Struct, frozen=True):
    """A line of the sink."""

    event: str
    job: str
    attempt: int
    token: int
    pid: int


class FarmServer:
    """A server that can be killed and started again under the same address.

    Attributes:
        address: `host:port` of its gRPC side.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.address = "127.0.0.1:0"
        self._environ = environ
        self._program: Program | None = None

    async def start(self) -> None:
        arguments = ["--grpc", self.address, "--http", "127.0.0.1:0", "--accept-unknown-types"]
        self._program = Program("gopher.cli.server", *arguments, environ=self._environ)
        self.address = (await trio.to_thread.run_sync(self._program.wait_ready))["grpc"]

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._program is not None
        return self._program.stop()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._program is not None
        return self._program.process.pid

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._program is not None:
            self._program.process.kill()
            self._program.wait()


class Farm:
    """Starts workers, gives them jobs and looks at what became of both.

    Attributes:
        gate: A file that `hold` jobs wait for.
    """

    def __init__(self, store: Store, url: str, namespace: str, directory: Path) -> None:
        self.store = store
        self.namespace = namespace
        self.gate = directory / "gate"
        self._sink = directory / "sink"
        self._sink.touch()
        self._environ = {**os.environ, "GOPHER_REDIS_URL": url, SINK_VARIABLE: str(self._sink)}
        self._programs = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._programs.close()

    async def worker(
        self,
        *options: str,
        lease_seconds: float = 30.0,
        grace_seconds: float = 10.0,
        app: str = APP,
        variables: Mapping[str, str] = NOTHING,
    ) -> Program:
        """Start a worker and wait until it is ready."""
        program = self.start_worker(
            *options, lease_seconds=lease_seconds, grace_seconds=grace_seconds, app=app, variables=variables
        )
        await trio.to_thread.run_sync(program.wait_ready)
        return program

    def start_worker(
        self,
        *options: str,
        lease_seconds: float = 30.0,
        grace_seconds: float = 10.0,
        app: str = APP,
        variables: Mapping[str, str] = NOTHING,
    ) -> Program:
        """Start a worker with some environment variables more; it is killed at the end."""
        arguments = ["--app", app, "--namespace", self.namespace]
        arguments += ["--lease", f"{lease_seconds:g}", "--grace", f"{grace_seconds:g}", *options]
        return self._programs.enter_context(Program(MODULE, *arguments, environ={**self._environ, **variables}))

    async def server(self) -> FarmServer:
        """Start a server; it is killed at the end."""
        server = FarmServer(self._environ)
        self._programs.callback(server.kill)
        await server.start()
        return server

    def command(self, address: str, *arguments: str) -> Program:
        """Start a command of the line; it is killed at the end."""
        environ = {**self._environ, "GOPHER_SERVER": address, "GOPHER_NAMESPACE": self.namespace}
        return self._programs.enter_context(Program("gopher.cli.main", *arguments, environ=environ))

    async def submit(self, type: str, payload: object = None, count: int = 1) -> list[str]:  # noqa: A002 - as everywhere
        return await submit(self.store, self.namespace, count, type=type, payload=msgspec.json.encode(payload))

    async def hold(self, count: int = 1) -> list[str]:
        """Submit jobs that end once the gate is open."""
        return await self.submit("hold", str(self.gate), count)

    def open_gate(self) -> None:
        self.gate.touch()

    def events(self, event: str, ids: Iterable[str]) -> list[Event]:
        """Return what the handlers of some jobs have told so far."""
        wanted = set(ids)
        return [line for line in self.all_events(event) if line.job in wanted]

    def all_events(self, event: str) -> list[Event]:
        """Return what the handlers of all jobs have told so far."""
        lines = [msgspec.convert(json.loads(line), Event) for line in self._sink.read_text().splitlines()]
        return [line for line in lines if line.event == event]

    async def started(self, ids: list[str], count: int | None = None) -> list[Event]:
        """Wait until so many attempts (None: one a job) have begun, and return them."""
        await until(lambda: len(self.events("start", ids)) >= (count or len(ids)))
        return self.events("start", ids)

    async def jobs(self, ids: Iterable[str]) -> list[Job]:
        return [await self.store.query.get(self.namespace, job_id) for job_id in ids]

    async def finals(self, ids: Iterable[str]) -> list[Job]:
        """Wait until all jobs have ended and return them."""
        jobs = []
        with trio.fail_after(PATIENCE_SECONDS):
            for job_id in ids:
                jobs.append(await self.store.wait(self.namespace, job_id))  # noqa: PERF401 - so that the linter sees the wait
        return jobs

    async def findings(self) -> list[Finding]:
        """Return what the audit finds."""
        found: list[Finding] = []

        async def take(progress: AuditProgress) -> None:
            await trio.lowlevel.checkpoint()
            found.extend(progress.findings)

        await self.store.audit.run(self.namespace, repair=False, report=take)
        return found


async def end_of(program: Program) -> int:
    """Wait until a program has ended and return its exit code."""
    return await trio.to_thread.run_sync(program.wait)


def states(jobs: Iterable[Job]) -> set[JobState]:
    return {job.state for job in jobs}
