"""Changes of jobs as they happen: published by the scripts, followed by servers.

A script publishes the changes it made in one message on the queue's channel. A server that has a watcher in that queue is
subscribed to it, once, and gives each watcher the changes of its job: an idle watcher costs Redis nothing, and a job that nobody
watches costs one line of text.

A pub/sub message can be missed only while the connection is down; each follower is told of a renewed connection and reads the
job again.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from gopher.job import JobState
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
        is_cancel_requested: Whether the change is the mark of a cancel.
        progress: 0 to 1, when the change is that the handler reported; else None.
        progress_message: Text beside it.
    """

    job_id: str
    state: JobState | None
    attempt: int
    at_ms: int
    is_cancel_requested: bool = False
    progress: float | None = None
    progress_message: str = ""


class Follower:
    """One watcher's view of one job.

    Iterating gives its changes in order, and ends when they came faster than they were taken. None stands for a renewed connection:
    something may have been missed, read the job.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[JobChange | None](_BUFFER)

    def put_nowait(self, change: JobChange | None) -> None:
        """Give the watcher a change; one that lags too far behind is cut off and costs the others nothing."""
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
        channel = keys.events(namespace, await self._registry.queue_of(namespace, job_id)).encode()
        queue = self._queues.setdefault(channel, _QueueFollowers())
        follower = Follower()
        await self._link.subscribe(channel, queue.receive)
        try:
            queue.followers.setdefault(job_id, set()).add(follower)
            yield follower
        finally:
            queue.followers[job_id].discard(follower)
            if not queue.followers[job_id]:
                del queue.followers[job_id]
            await self._link.unsubscribe(channel, queue.receive)  # noqa: ASYNC102 - takes effect before its first checkpoint

    def _tell_all(self) -> None:
        for queue in self._queues.values():
            for followers in queue.followers.values():
                for follower in followers:
                    follower.put_nowait(None)


class _QueueFollowers:
    """The followers of one queue's jobs."""

    def __init__(self) -> None:
        self.followers: dict[str, set[Follower]] = {}

    def receive(self, message: bytes) -> None:
        """Take one message of `publish_changes` in lib/queue.lua: the moment, then `id state attempt mark` a line."""
        at, *lines = message.decode(errors="replace").split("\n")
        for line in lines:
            followers = self.followers.get(line[:_ID_LENGTH])
            if followers:
                change = _read_change(line, int(at))
                for follower in list(followers):
                    follower.put_nowait(change)


def _read_change(line: str, at_ms: int) -> JobChange:
    job_id, state, attempt, mark = line.split(" ", 3)
    progress: float | None = None
    text = ""
    if mark.startswith("progress "):
        _, number, text = mark.split(" ", 2)
        progress = float(number)
    return JobChange(
        job_id,
        None if state == "deleted" else JobState(state),
        int(attempt),
        at_ms,
        is_cancel_requested=mark == "cancel",
        progress=progress,
        progress_message=text,
    )


class Control:
    """What a queue's scripts tell its workers: that it is not empty any more, that a job is to be cancelled, what is due."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def listen(self, namespace: str, queue: str, receive: Callable[[str, list[str]], None]) -> None:
        """Have every message of a queue handed to `receive`, as its word and what follows, until the link closes.

        The words: `wake`; `due` and `schedule` with the moment in ms; `cancel` with job id, token, grace in ms and reason;
        `drain` with the id of a worker and grace in ms, -1 for its own.
        """

        def parse(message: bytes) -> None:
            word, *rest = message.decode(errors="replace").split(" ", 4)
            receive(word, rest)

        await self._link.subscribe(keys.control(namespace, queue).encode(), parse)
