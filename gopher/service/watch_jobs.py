"""Following many jobs: WatchJobs.

The changes of a queue come in one order; those of several queues are merged as they come. A cursor says for each queue how far the
reader has come: all up to an entry, and so many changes of the next one.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from gopher_pb.v1 import job_event_pb2, job_stream_pb2

from gopher.errors import GopherError
from gopher.service.cursors import Cursors
from gopher.service.queue_feeds import QueueFeeds
from gopher.service.telling import event_message, truncated
from gopher.service.watch import HEARTBEAT_SECONDS
from gopher.store.ids import queue_number
from gopher.wire import check
from gopher.wire.check import Faults
from gopher.wire.events import KIND_NUMBER, KIND_OF
from gopher.wire.status import CursorTooOldError, TooManyCallsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gopher.job import Failure
    from gopher.service.queue_feeds import QueueFeed
    from gopher.store.changes import Change, Entry, Facts
    from gopher.store.store import Store

    Send = Callable[[job_stream_pb2.WatchJobsResponse], Awaitable[None]]

MOST_FOLLOWED: Final = 20_000
"""Queues that all readers of a server follow, each counted for each reader; chosen: a pair costs some 6 KB, so 120 MB."""
_ALWAYS: Final = frozenset({job_event_pb2.JOB_EVENT_KIND_TRUNCATED, job_event_pb2.JOB_EVENT_KIND_HEARTBEAT})


class Place(NamedTuple):
    """How far a reader has come in a queue.

    Attributes:
        number: He knows all up to this entry.
        told: And so many changes of the next one.
        fingerprint: Of the last entry that he knows any change of; 0 where he knows none.
    """

    number: int
    told: int = 0
    fingerprint: int = 0

    @property
    def newest(self) -> int:
        """The last entry that he knows any change of."""
        return self.number + (self.told > 0)


class Filter(NamedTuple):
    """Which events a reader wants; what is empty or None means any."""

    type: str | None
    labels: dict[str, str]
    root_id: str
    kinds: frozenset[int]

    def takes(self, kind: int, job_id: str, facts: Facts | None) -> bool:
        """Tell whether it lets an event through."""
        if self.kinds and kind not in self.kinds:
            return False
        if self.type is None and not self.labels and not self.root_id:
            return True
        # Of a job that was gone before anybody looked only its id is known.
        if facts is None:
            return self.type is None and not self.labels and self.root_id == job_id
        return (
            self.type in {None, facts.type}
            and self.labels.items() <= facts.labels.items()
            and (not self.root_id or self.root_id in {facts.root_id, job_id})
        )


class WatchJobs:
    """Answers WatchJobs.

    Args:
        store: Where the jobs are.
        heartbeat_seconds: Longest silence.
    """

    def __init__(self, store: Store, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._store = store
        self._feeds = QueueFeeds(store)
        self._followed = 0
        self._heartbeat_seconds = heartbeat_seconds

    async def watch_jobs(self, request: job_stream_pb2.WatchJobsRequest, send: Send) -> None:
        """Send the events of all jobs that match, from now on or from behind the cursor, until the reader goes."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        queue = check.optional_name(faults, "queue", request.queue)
        wanted = _filter(faults, request)
        faults.refuse()
        if queue is not None:
            await self._store.registry.require_queue(namespace, queue)
        cursors = Cursors(await self._store.registry.page_secret(namespace), "WatchJobs", namespace, _said(request))
        places = _decode_places(cursors.place(request.cursor)) if request.cursor else {}
        reader = _Reader(cursors, wanted, places, send)
        # While the reader listens.
        async with trio.open_nursery() as tasks:
            followed: set[str] = set()
            await self._follow_new(tasks, namespace, queue, reader, followed)
            await reader.tell_alive()
            while True:
                await trio.sleep(self._heartbeat_seconds)
                # However much the others tell: a new queue waits for nobody's silence.
                await self._follow_new(tasks, namespace, queue, reader, followed)
                await reader.tell_alive()

    async def _follow_new(
        self, tasks: trio.Nursery, namespace: str, queue: str | None, reader: _Reader, followed: set[str]
    ) -> None:
        """Follow the queues that match and are not followed yet."""
        for name in [queue] if queue is not None else await self._store.registry.queues(namespace):
            if name not in followed:
                if self._followed >= MOST_FOLLOWED:
                    raise TooManyCallsError
                followed.add(name)
                await tasks.start(self._follow, namespace, name, reader)

    async def _follow(
        self, namespace: str, queue: str, reader: _Reader, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with self._counted():
            async with self._feeds.open(namespace, queue) as feed:
                kept = await feed.begin()
                known = reader.places.get(queue)
                if known is None:
                    known = reader.places[queue] = Place(kept.last)
                elif not kept.oldest - 1 <= known.number <= kept.last or await _is_another(feed, known):
                    reader.places[queue] = Place(kept.oldest - 1)
                    raise CursorTooOldError(f"queue {queue!r}", kept.oldest, reader.cursor())
                losses = feed.losses
                task_status.started()
                number = known.number
                while True:
                    entries: list[Entry] = []
                    with trio.move_on_after(self._heartbeat_seconds):
                        entries = await feed.next(number, losses)
                    await feed.renew()
                    if feed.losses != losses:
                        reader.places[queue] = Place(feed.kept.oldest - 1)
                        raise CursorTooOldError(f"queue {queue!r}", feed.kept.oldest, reader.cursor())
                    for entry in entries:
                        if entry.number != number + 1:
                            await reader.tell_gap(queue, entry, entry.number - 1 - number)
                        await reader.tell(queue, feed, entry)
                        number = entry.number

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count one more queue that a reader follows, while the block lasts."""
        self._followed += 1
        try:
            yield
        finally:
            self._followed -= 1


async def _is_another(feed: QueueFeed, known: Place) -> bool:
    """Tell whether Redis has lost what a reader knows, and has given its number to another entry since."""
    return bool(known.fingerprint) and await feed.fingerprint(known.newest) not in {0, known.fingerprint}


class _Reader:
    """One stream, and how far it has come in each queue."""

    def __init__(self, cursors: Cursors, wanted: Filter, places: dict[str, Place], send: Send) -> None:
        self.places = places
        self._cursors = cursors
        self._wanted = wanted
        self._send = send
        # One message after another, whichever queue it is of.
        self._turn = trio.Lock()

    def cursor(self) -> str:
        """Return the cursor of where the stream stands."""
        return self._cursors.cursor(msgspec.msgpack.encode(self.places))

    async def tell(self, queue: str, feed: QueueFeed, entry: Entry) -> None:
        """Tell what an entry has changed, as far as it is wanted and not known."""
        before = self.places[queue]
        first = before.told if before.number == entry.number - 1 else 0
        facts = await feed.facts(change.job_id for change in entry.changes[first:])
        failures = await feed.failures(entry.changes[first:])
        async with self._turn:
            for place, (change, failure) in enumerate(zip(entry.changes[first:], failures, strict=True), first + 1):
                is_last = place == len(entry.changes)
                told = (entry.number, 0) if is_last else (entry.number - 1, place)
                self.places[queue] = Place(*told, entry.fingerprint)
                await self._tell_one(queue, change, facts.get(change.job_id), failure)

    async def _tell_one(self, queue: str, change: Change, facts: Facts | None, failure: Failure | None) -> None:
        if self._wanted.takes(KIND_NUMBER[change.event.kind], change.job_id, facts):
            event = event_message(change.job_id, change.event, self.cursor(), failure)
            event.queue = queue
            event.type = facts.type if facts is not None else ""
            await self._put(event)

    async def tell_gap(self, queue: str, following: Entry, missing: int) -> None:
        """Tell that entries before one are kept no more."""
        first = following.changes[0]
        async with self._turn:
            self.places[queue] = Place(following.number - 1)
            event = truncated(event_message(first.job_id, first.event, ""), missing, self.cursor())
            event.queue = queue
            await self._put(event)

    async def tell_alive(self) -> None:
        """Tell that the stream lives."""
        async with self._turn:
            await self._put(job_event_pb2.JobEvent(kind=job_event_pb2.JOB_EVENT_KIND_HEARTBEAT, cursor=self.cursor()))

    async def _put(self, event: job_event_pb2.JobEvent) -> None:
        await self._send(job_stream_pb2.WatchJobsResponse(event=event))


_places_decoder: Final = msgspec.msgpack.Decoder(dict[str, Place])


def _decode_places(data: bytes) -> dict[str, Place]:
    return _places_decoder.decode(data)


def _filter(faults: Faults, request: job_stream_pb2.WatchJobsRequest) -> Filter:
    job_type = check.optional_name(faults, "type", request.type)
    labels = check.labels(faults, "labels", request.labels)
    if request.root_id:
        try:
            queue_number(request.root_id)
        except GopherError as error:
            faults.add("root_id", "BAD_ID", error.message.partition(": ")[2] or error.message)
    kinds = set(request.kinds)
    for kind in kinds - KIND_OF.keys() | (kinds & {0}):
        known = ", ".join(f"{number} ({each})" for number, each in sorted(KIND_OF.items()) if number)
        faults.add("kinds", "BAD_ENUM", f"must be {known}, got {kind}")
    return Filter(job_type, dict(labels), request.root_id, frozenset(kinds | _ALWAYS) if kinds else frozenset())


def _said(request: job_stream_pb2.WatchJobsRequest) -> str:
    """Return what a cursor is good for: the rest of the request."""
    bare = job_stream_pb2.WatchJobsRequest()
    bare.CopyFrom(request)
    bare.namespace = bare.cursor = ""
    return bare.SerializeToString(deterministic=True).hex()
