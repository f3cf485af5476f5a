"""The three clients behind one face that blocks, so that one test can say what all of them do."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the client for asyncio is tested as its users run it
from abc import ABC, abstractmethod
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from gopher.client import AsyncClient, Client, TrioClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from gopher.client import AuditReport, JobEvent, JobItem
    from gopher.client.async_runs import AsyncAttachedJob
    from gopher.client.asynchronous import AsyncMethods
    from gopher.client.submit_stream import Answer
    from gopher.client.sync_runs import AttachedJob
    from gopher.nursery import JobNursery, SyncJobNursery
    from gopher.submission import Payload

    Body = Callable[[JobNursery], Coroutine[object, None, None] | None]

T = TypeVar("T")


def ignore(_: object) -> None:
    pass


class Attached(ABC):
    """A job that is attached to a block of one of the clients; awaited also where nothing waits, as with the client that blocks."""

    def __init__(self, job: AttachedJob | AsyncAttachedJob) -> None:
        self.job = job

    @abstractmethod
    async def result(self, wait: float | None = None) -> object:
        """Return the job's result."""

    @abstractmethod
    async def events(self, enough: Callable[[JobEvent], bool] = lambda _: False) -> list[JobEvent]:
        """Return the events until there are enough, or all."""


class SyncAttached(Attached):
    def __init__(self, job: AttachedJob) -> None:
        super().__init__(job)
        self._job = job

    async def result(self, wait: float | None = None) -> object:
        return self._job.result(wait)

    async def events(self, enough: Callable[[JobEvent], bool] = lambda _: False) -> list[JobEvent]:
        found = []
        for event in self._job.events():
            found.append(event)
            if enough(event):
                break
        return found


class AsyncAttached(Attached):
    def __init__(self, job: AsyncAttachedJob) -> None:
        super().__init__(job)
        self._job = job

    async def result(self, wait: float | None = None) -> object:
        return await self._job.result(wait)

    async def events(self, enough: Callable[[JobEvent], bool] = lambda _: False) -> list[JobEvent]:
        found = []
        async with aclosing(self._job.events()) as events:
            async for event in events:
                found.append(event)
                if enough(event):
                    break
        return found


class Face(ABC):
    """A client; an attribute of it, called, blocks until the answer is there."""

    @abstractmethod
    def __getattr__(self, name: str) -> Callable[..., object]: ...

    @abstractmethod
    def watch(self, job_id: str, on_event: Callable[[JobEvent], None] = ignore, cursor: str | None = None) -> list[JobEvent]:
        """Return all events of a watch; `on_event` sees each as it comes."""

    @abstractmethod
    def audit(self) -> list[AuditReport]:
        """Return all reports of an audit."""

    @abstractmethod
    def submit_stream(self, items: Iterable[JobItem], on_answer: Callable[[Answer], None] = ignore) -> list[Answer]:
        """Return all answers of a stream of submits; `on_answer` sees each as it comes, and may raise to leave the stream."""

    @abstractmethod
    def attach(self, act: Callable[[Attached], Awaitable[T]], job_type: str, payload: Payload = None, **options: object) -> T:
        """Act in the block of an attached job and return what that returns."""

    @abstractmethod
    def in_nursery(self, body: Body, policy: str = "all", grace: float = 30.0) -> None:
        """Run a body in a nursery of jobs, to the end of the block."""

    @abstractmethod
    def close(self) -> None:
        """Close the client."""


class BlockingNursery:
    """A nursery of the client that blocks, whose `start` can be awaited as that of the others."""

    def __init__(self, nursery: SyncJobNursery) -> None:
        self.start_soon = nursery.start_soon
        self.cancel = nursery.cancel
        self._start = nursery.start

    async def start(self, *args: object, **options: object) -> object:
        return self._start(*args, **options)  # type: ignore[arg-type]  # as the test has given them


class SyncFace(Face):
    def __init__(self, address: str) -> None:
        self.client = Client(address)

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self.client, name)  # type: ignore[no-any-return]  # a method of the client

    def watch(self, job_id: str, on_event: Callable[[JobEvent], None] = ignore, cursor: str | None = None) -> list[JobEvent]:
        events = []
        for event in self.client.watch(job_id, cursor):
            events.append(event)
            on_event(event)
        return events

    def audit(self) -> list[AuditReport]:
        return list(self.client.audit())

    def submit_stream(self, items: Iterable[JobItem], on_answer: Callable[[Answer], None] = ignore) -> list[Answer]:
        answers = []
        for answer in self.client.submit_stream(items):
            answers.append(answer)
            on_answer(answer)
        return answers

    def attach(self, act: Callable[[Attached], Awaitable[T]], job_type: str, payload: Payload = None, **options: object) -> T:
        with self.client.run(job_type, payload, **options) as job:  # type: ignore[arg-type]  # the test names options
            try:
                act(SyncAttached(job)).__await__().send(None)
            except StopIteration as end:
                return cast("T", end.value)
        raise AssertionError  # the client that blocks never suspends

    def in_nursery(self, body: Body, policy: str = "all", grace: float = 30.0) -> None:
        with self.client.open_nursery(policy, grace) as nursery, suppress(StopIteration):
            running = body(cast("JobNursery", BlockingNursery(nursery)))
            if running is not None:
                running.send(None)  # what it awaits has blocked before: it runs through at once

    def close(self) -> None:
        self.client.close()


class AsyncFace(Face):
    """One of the clients whose methods are awaited; `run` runs a coroutine function to its end."""

    client: AsyncMethods

    @abstractmethod
    def run(self, function: Callable[[], Awaitable[T]]) -> T: ...

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self.client, name)
        return lambda *args, **options: self.run(partial(method, *args, **options))

    def watch(self, job_id: str, on_event: Callable[[JobEvent], None] = ignore, cursor: str | None = None) -> list[JobEvent]:
        async def collect() -> list[JobEvent]:
            events = []
            async for event in self.client.watch(job_id, cursor):
                events.append(event)
                on_event(event)
            return events

        return self.run(collect)

    def audit(self) -> list[AuditReport]:
        async def collect() -> list[AuditReport]:
            return [report async for report in self.client.audit()]

        return self.run(collect)

    def submit_stream(self, items: Iterable[JobItem], on_answer: Callable[[Answer], None] = ignore) -> list[Answer]:
        async def collect() -> list[Answer]:
            answers = []
            async with aclosing(self.client.submit_stream(items)) as stream:
                async for answer in stream:
                    answers.append(answer)
                    on_answer(answer)
            return answers

        return self.run(collect)

    def attach(self, act: Callable[[Attached], Awaitable[T]], job_type: str, payload: Payload = None, **options: object) -> T:
        async def attach() -> T:
            async with self.client.run(job_type, payload, **options) as job:  # type: ignore[arg-type]  # the test names options
                return await act(AsyncAttached(job))

        return self.run(attach)

    def in_nursery(self, body: Body, policy: str = "all", grace: float = 30.0) -> None:
        async def main() -> None:
            async with self.client.open_nursery(policy, grace) as nursery:
                running = body(nursery)
                if running is not None:
                    await running

        self.run(main)

    def close(self) -> None:
        self.run(self.client.aclose)


class AsyncioFace(AsyncFace):
    def __init__(self, address: str) -> None:
        self.client = AsyncClient(address)
        self.runner = asyncio.Runner()

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        async def main() -> T:
            return await function()

        return self.runner.run(main())

    def close(self) -> None:
        super().close()
        self.runner.close()


class TrioFace(AsyncFace):
    def __init__(self, address: str) -> None:
        self.client = TrioClient(address)

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        return trio.run(function)


FACES: Final[dict[str, Callable[[str], Face]]] = {"sync": SyncFace, "asyncio": AsyncioFace, "trio": TrioFace}
