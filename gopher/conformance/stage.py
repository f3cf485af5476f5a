"""What a check plays on: two servers on one Redis, a proxy before each, the worker under test, and a client beside the proxies."""

from __future__ import annotations

import itertools
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from gopher.client.trio_client import TrioClient
from gopher.conformance.programs import ChildProgram, server_command
from gopher.conformance.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from gopher.client.values import Worker
    from gopher.job import Job

SLOTS: Final = 4
"""Jobs that the worker under test is told to run at once."""
PATIENCE_SECONDS: Final = 20.0
"""Chosen: many times what anything here takes a worker that does it at all."""
_LOOK_SECONDS: Final = 0.05


class ConformanceError(Exception):
    """The worker under test did not do what it has to; the text says what was seen."""


@dataclass(frozen=True, slots=True)
class Note:
    """A line that a handler has written: `WORD JOB_ID ATTEMPT`.

    Attributes:
        word: begin, end or cancelled.
        job_id: Of the job.
        attempt: Of its attempt, from 1.
    """

    word: str
    job_id: str
    attempt: int


class ServerPlace:
    """A server and the proxy before it."""

    def __init__(self, program: ChildProgram, proxy: Proxy, address: str, proxy_address: str) -> None:
        self.program = program
        self.proxy = proxy
        self.address = address
        self.proxy_address = proxy_address
        self.is_alive = True


class Stage:
    """Where one check is played.

    Args:
        servers: In the order in which the worker is told of them.
        namespace: Of this check alone.
        directory: For the files of this check.
    """

    def __init__(self, servers: Sequence[ServerPlace], namespace: str, directory: Path) -> None:
        self.servers = servers
        self.namespace = namespace
        self._notes = directory / "notes"
        self._notes.touch()
        self._directory = directory
        self.worker: ChildProgram

    @property
    def notes_path(self) -> str:
        """The file that handlers write to."""
        return str(self._notes)

    def notes(self, *words: str) -> list[Note]:
        """Return what the handlers have written, of these words; of all for none."""
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        return [Note(word, job_id, int(attempt)) for word, job_id, attempt in lines if not words or word in words]

    def client(self) -> TrioClient:
        """Return a client of a server that lives; no proxy is between."""
        address = next(each.address for each in self.servers if each.is_alive)
        return TrioClient(address, namespace=self.namespace)

    async def submit(self, job_type: str, payload: object = None, **options: object) -> str:
        """Submit a job of the suite and return its id."""
        async with self.client() as client:
            return await client.submit(f"conformance.{job_type}", payload, **options)  # type: ignore[arg-type]  # as Client.submit

    async def slow(self, seconds: float) -> str:
        """Submit a job that takes so long, and notes it."""
        return await self.submit("slow", {"seconds": seconds, "file": self.notes_path})

    async def job(self, job_id: str) -> Job:
        """Return a job."""
        async with self.client() as client:
            return await client.get(job_id)

    async def final(self, job_id: str, within_seconds: float = PATIENCE_SECONDS) -> Job:
        """Wait for a job's end and return it."""
        await self.until(lambda: self._is_final(job_id), "the job does not end", within_seconds)
        return await self.job(job_id)

    async def _is_final(self, job_id: str) -> bool:
        return (await self.job(job_id)).state.is_final

    async def begun(self, job_id: str, attempt: int = 1) -> None:
        """Wait until the handler of an attempt has begun."""
        await self.until(
            lambda: _now(Note("begin", job_id, attempt) in self.notes()), f"attempt {attempt} of a job does not begin"
        )

    async def until(
        self, claim: Callable[[], Awaitable[bool]], otherwise: str, within_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until a claim holds.

        Raises:
            ConformanceError: It does not in time.
        """
        with trio.move_on_after(within_seconds):
            while not await claim():  # noqa: ASYNC110 - what is looked at has no event
                await trio.sleep(_LOOK_SECONDS)
            return
        raise ConformanceError(f"{otherwise} (waited {within_seconds:g} s)")

    async def workers(self) -> list[Worker]:
        """Return the workers that are registered."""
        async with self.client() as client:
            return list(await client.workers())

    async def wait_registered(self) -> None:
        """Wait for the worker under test."""

        async def is_there() -> bool:
            if self.worker.process.poll() is not None:
                raise ConformanceError(f"the worker has ended with exit code {self.worker.process.poll()}")
            return bool(await self.workers())

        await self.until(is_there, "no worker connects", 2 * PATIENCE_SECONDS)

    def connected(self) -> ServerPlace:
        """Return the server that the worker is connected to."""
        for each in self.servers:
            if each.is_alive and len(each.proxy):
                return each
        raise ConformanceError("the worker is connected to no server")

    def cut(self) -> None:
        """Break all connections of the worker, and refuse new ones."""
        for each in self.servers:
            each.proxy.cut()

    def silence(self) -> None:
        """Let nothing through to the worker, nor from it."""
        for each in self.servers:
            each.proxy.silence()

    def restore(self) -> None:
        """Let the worker speak with the servers again."""
        for each in self.servers:
            each.proxy.restore()

    async def play(self, command: Sequence[str], body: Callable[[Stage], Awaitable[None]]) -> None:
        """Start the worker under test and play a check.

        Raises:
            ConformanceError: The worker did not do what it has to.
        """
        environ = os.environ | {
            "GOPHER_SERVER": ",".join(each.proxy_address for each in self.servers),
            "GOPHER_NAMESPACE": self.namespace,
            "GOPHER_CONCURRENCY": str(SLOTS),
        }
        with ChildProgram(command, self._directory / "worker.log", environ) as self.worker:
            await self.wait_registered()
            await body(self)


async def _now(value: bool) -> bool:
    await trio.lowlevel.checkpoint()
    return value


class Theatre:
    """Makes stages, all on one Redis.

    Args:
        redis_url: Where.
        directory: For files.
    """

    def __init__(self, redis_url: str, directory: Path) -> None:
        self._redis_url = redis_url
        self._directory = directory
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def stage(self, name: str, lease_seconds: float) -> AsyncIterator[Stage]:
        """Run servers and proxies while the block lasts."""
        directory = self._directory / f"{next(self._numbers)}-{name}"
        directory.mkdir()
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            environ = os.environ | {"GOPHER_REDIS_URL": self._redis_url}
            programs = [
                stack.enter_context(ChildProgram(server_command(lease_seconds), directory / f"server-{number}.log", environ))
                for number in (1, 2)
            ]
            servers = []
            for program in programs:
                address = await program.wait_ready()
                proxy = Proxy(address)
                servers.append(ServerPlace(program, proxy, address, await nursery.start(proxy.run)))
            yield Stage(servers, f"conformance-{directory.name}", directory)
