"""Changes of jobs as they happen: published by the scripts, followed by servers.

A script publishes the changes it made in one message on the queue's channel. A server that has a watcher in that queue is
subscribed to it, once, and wakes those whose job has changed: an idle watcher costs Redis nothing. Where no server is subscribed, a
script finds that out and says nothing. What has happened is read from the job's history, see `history`.

A pub/sub message can be missed only while the connection is down; whoever follows is told of a renewed connection and reads again.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from gopher.job import JobState
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from gopher.store.link import Link
    from gopher.store.registry import Registry

_BUFFER: Final = 64
"""Changes a follower may lag behind, chosen: many times what one job does in a moment."""
_ID_LENGTH: Final = 36


@dataclass(frozen=True, slots=True)
class JobChange:
    """One change of a job.

    Attributes:
        job_id: Of the job.
        state: State after; None when the job was deleted.
        attempt: Number of the attempt.
        at_ms: Redis time, ms since the epoch.
    """

    job_id: str
    state: JobState | None
    attempt: int
    at_ms: int


class Hearer(Protocol):
    """Hears of the changes of a job."""

    def put_nowait(self, change: JobChange | None) -> None:
        """Take a change; None stands for a renewed connection: something may have been missed."""


class Follower:
    """One waiter's view of one job.

    Iterating gives its changes in order, and ends when they came faster than they were taken. None stands for a renewed connection:
    something may have been missed, read the job.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[JobChange | None](_BUFFER)

    def put_nowait(self, change: JobChange | None) -> None:
        """Give the waiter a change; one that lags too far behind is cut off and costs the others nothing."""
        try:
            self._send.send_nowait(change)
        except trio.WouldBlock:
            self._send.close()
        except trio.ClosedResourceError:
            pass

    def __aiter__(self) -> AsyncIterator[JobChange | None]:
        return self._receive.__aiter__()


class Events:
    """Follows the changes of jobs, for any number of watchers on one connection."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._queues: dict[bytes, _QueueFollowers] = {}
        link.on_reconnect.append(self._tell_all)

    @asynccontextmanager
    async def follow(self, namespace: str, job_id: str) -> AsyncIterator[Follower]:
        """Follow a job while the block lasts.

        Changes made after the block is entered are not missed: enter first, then read the job, then iterate.

        Raises:
            JobNotFoundError: The id belongs to no queue of the namespace.
        """
        follower = Follower()
        async with self.hear(namespace, await self._registry.queue_of(namespace, job_id), job_id, follower):
            yield follower

    def hear(self, namespace: str, queue_name: str, job_id: str, hearer: Hearer) -> AbstractAsyncContextManager[None]:
        """Have a hearer told of a job's changes while the block lasts; one that is in several blocks is told once."""
        channel = keys.events(namespace, queue_name).encode()
        queue = self._queues.get(channel)
        if queue is None:
            queue = self._queues[channel] = _QueueFollowers(channel)
        return _Hearing(self._link, queue, job_id, hearer)

    def _tell_all(self) -> None:
        for queue in self._queues.values():
            for hearers in queue.hearers.values():
                for hearer in hearers:
                    hearer.put_nowait(None)


class _Hearing:
    """The block of `Events.hear`; a class, since the frame of a generator takes hundreds of bytes, and a server may hold ten thousand."""

    __slots__ = ("_hearer", "_job_id", "_link", "_queue")

    def __init__(self, link: Link, queue: _QueueFollowers, job_id: str, hearer: Hearer) -> None:
        self._link = link
        self._queue = queue
        self._job_id = job_id
        self._hearer = hearer

    async def __aenter__(self) -> None:
        await self._link.subscribe(self._queue.channel, self._queue.receive)
        self._queue.hearers.setdefault(self._job_id, Counter())[self._hearer] += 1

    async def __aexit__(self, *_: object) -> None:
        self._queue.remove(self._job_id, self._hearer)
        await self._link.unsubscribe(self._queue.channel, self._queue.receive)  # noqa: ASYNC102 - takes effect before its checkpoint


class _QueueFollowers:
    """Who hears of one queue's jobs, and how often each has asked to."""

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.hearers: dict[str, Counter[Hearer]] = {}

    def remove(self, job_id: str, hearer: Hearer) -> None:
        """Forget that a hearer has asked once."""
        hearers = self.hearers[job_id]
        hearers[hearer] -= 1
        if not hearers[hearer]:
            del hearers[hearer]
        if not hearers:
            del self.hearers[job_id]

    def receive(self, message: bytes) -> None:
        """Take one message of `publish_changes` in lib/queue.lua: the moment, then `id state attempt mark` a line."""
        at, *lines = message.decode(errors="replace").split("\n")
        for line in lines:
            hearers = self.hearers.get(line[:_ID_LENGTH])
            if hearers:
                change = _read_change(line, int(at))
                for hearer in list(hearers):
                    hearer.put_nowait(change)


def _read_change(line: str, at_ms: int) -> JobChange:
    job_id, state, attempt, _ = line.split(" ", 3)
    return JobChange(job_id, None if state == "deleted" else JobState(state), int(attempt), at_ms)


class Control:
    """What a queue's scripts tell its workers: that it is not empty any more, that a job is to be cancelled, what is due."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def listen(self, namespace: str, queue: str, receive: Callable[[str, list[str]], None]) -> None:
        """Have every message of a queue handed to `receive`, as its word and what follows, until the link closes.

        The words: `wake`; `due` and `schedule` with the moment in ms; `cancel` with job id, token, grace in ms and reason; `watched`
        with the id of a job that runs, once it has a history; `drain` with the id of a worker and grace in ms, -1 for its own;
        `tree` with job id, token and the question to answer; `session` with the id of a worker on a stream and the number of its new
        session.
        """
        await self._link.subscribe(keys.control(namespace, queue).encode(), _parsing(receive))

    @asynccontextmanager
    async def hear_rings(self, namespace: str, queue: str, worker: str, receive: Callable[[str], None]) -> AsyncIterator[None]:
        """Have the type, or '' for any, handed to `receive` each time that a job waits for an idle worker and it is this one's turn.

        After the block the worker's turn is another's.
        """
        channel = keys.ring(namespace, queue, worker).encode()

        def parse(message: bytes) -> None:
            receive(message.decode(errors="replace"))

        await self._link.subscribe(channel, parse)
        try:
            yield
        finally:
            await self._link.unsubscribe(channel, parse)  # noqa: ASYNC102 - takes effect before its first checkpoint

    @asynccontextmanager
    async def hear(self, namespace: str, queue: str, receive: Callable[[str, list[str]], None]) -> AsyncIterator[None]:
        """Do as `listen` while the block lasts."""
        channel, handler = keys.control(namespace, queue).encode(), _parsing(receive)
        await self._link.subscribe(channel, handler)
        try:
            yield
        finally:
            await self._link.unsubscribe(channel, handler)  # noqa: ASYNC102 - takes effect before its first checkpoint


def _parsing(receive: Callable[[str, list[str]], None]) -> Callable[[bytes], None]:
    def parse(message: bytes) -> None:
        word, *rest = message.decode(errors="replace").split(" ", 4)
        receive(word, rest)

    return parse
