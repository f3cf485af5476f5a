"""A watcher under test, and a handler that speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher_pb.v1 import job_event_pb2, job_pb2, job_stream_pb2

from gopher.errors import JobNotFoundError
from gopher.event import EventKind
from gopher.store.history import Saying
from gopher.wire.events import KIND_OF
from gopher.wire.status import CursorTooOldError

if TYPE_CHECKING:
    from gopher.store.codec import ClaimedJob
    from tests.service.conftest import Rig

PATIENCE_SECONDS = 30.0


class Watcher:
    """Takes what a WatchJob sends."""

    def __init__(self, rig: Rig, job_id: str, cursor: str = "") -> None:
        self.events: list[job_event_pb2.JobEvent] = []
        self.error: Exception | None = None
        self.ended = trio.Event()
        self.hold = trio.Event()
        self.hold.set()
        self._rig = rig
        self._request = job_stream_pb2.WatchJobRequest(namespace=rig.namespace, job_id=job_id, cursor=cursor)
        self._news = trio.Event()

    async def run(self) -> None:
        try:
            await self._rig.watch.watch_job(self._request, self.send)
        except (JobNotFoundError, CursorTooOldError) as error:
            self.error = error
        self.ended.set()
        self._news.set()

    async def send(self, message: job_stream_pb2.WatchJobResponse) -> None:
        self.events.append(message.event)
        self._news.set()
        await self.hold.wait()

    async def until(self, count: int) -> None:
        """Wait for so many events."""
        while len(self.events) < count and not self.ended.is_set():
            self._news = trio.Event()
            await self._news.wait()

    @property
    def states(self) -> list[str]:
        return [job_pb2.JobState.Name(event.state).removeprefix("JOB_STATE_") for event in self.events]

    @property
    def kinds(self) -> list[str]:
        return [KIND_OF[event.kind].value for event in self.events]

    @property
    def sequences(self) -> list[int]:
        return [event.sequence for event in self.events]


async def say(rig: Rig, job: ClaimedJob, first: int, count: int = 1, kind: EventKind = EventKind.LOG) -> None:
    """Have an attempt say lines that hold their numbers; its progress is half."""
    progress = 0.5 if kind is EventKind.PROGRESS else ""
    detail = "%d" if kind is EventKind.PROGRESS else "info %d"
    sayings = [Saying(job.id, job.token, first + at, kind, progress, (detail % (first + at)).encode()) for at in range(count)]
    for at in range(0, count, 100):
        await rig.store.histories.report(rig.namespace, "default", sayings[at : at + 100])


async def watched(rig: Rig, job_id: str, cursor: str = "") -> list[job_event_pb2.JobEvent]:
    """Return all that a watch of a final job sends."""
    watcher = Watcher(rig, job_id, cursor)
    with trio.fail_after(PATIENCE_SECONDS):
        await watcher.run()
    if watcher.error is not None:
        raise watcher.error
    return watcher.events


async def watch_until(rig: Rig, job_id: str, count: int, cursor: str = "") -> list[job_event_pb2.JobEvent]:
    """Watch until so many events have come, and go."""
    watcher = Watcher(rig, job_id, cursor)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(count)
            nursery.cancel_scope.cancel()
    return watcher.events[:count]
