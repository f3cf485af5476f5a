"""A feed is one job's history as this server's watchers read it: read from Redis once, told to any number.

Nobody hands events out. Each watcher has its place and takes what lies behind it, from the newest events, which the feed keeps, or,
where it has lagged behind them, from Redis; so a slow one costs the others nothing. When the job changes, one of those that wait reads
what is new and wakes the rest: a feed has no Trio task of its own, and while nothing happens it sends no command.

After the connection to Redis was renewed the next reader looks where the history stands, as the first one does. A Redis that has lost
its newest may have given their numbers to other events since: what is known is compared by content (`HistoryEvent.fingerprint`), and
so is a cursor, which holds the fingerprint of its event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from gopher_pb.v1 import job_stream_pb2

from gopher.errors import GopherError, JobNotFoundError
from gopher.event import EventKind
from gopher.job import JobState
from gopher.service.cursors import Cursors
from gopher.service.telling import event_message, heartbeat
from gopher.wire import convert
from gopher.wire.status import CursorTooOldError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from gopher.job import Failure
    from gopher.store.events import JobChange
    from gopher.store.history import HistoryEvent
    from gopher.store.store import Store

NEWEST: Final = 128
"""Events kept in memory of a job that is watched; chosen: what a handler says in a moment, so that only who lags reads for himself."""
NEWEST_BYTES: Final = 1 << 20
"""Of these; chosen: sixteen of the largest."""
CHUNK: Final = 64
"""Events read at once; chosen: of the largest, 4 MiB, which is all that a history holds."""
_PLACE_BYTES: Final = 7
_FINGERPRINT_BYTES: Final = 4
"""With the place and the signature a multiple of three, which base64 does not pad."""
_WAITING: Final = {convert.STATE_NUMBER[state] for state in (JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING)}


class Told:
    """An event as all watchers are told it.

    Attributes:
        sequence: Its number.
        fingerprint: Tells it from another of that number.
        message: With the whole job, where that has ended with it.
        is_end: Whether nothing follows, unless the job is requeued.
        size: Bytes of what is told beside it.
    """

    __slots__ = ("fingerprint", "is_end", "message", "sequence", "size")

    def __init__(self, event: HistoryEvent, message: job_stream_pb2.WatchJobResponse) -> None:
        self.sequence = event.sequence
        self.fingerprint = event.fingerprint
        self.message = message
        self.is_end = False
        self.size = len(event.detail)


class Feed:
    """The history of one job.

    Attributes:
        last: The newest event that is known; None before the first look.
        watchers: How many read here.

    Args:
        store: Where the history is.
        namespace: Of the job.
        queue: Of the job.
        job_id: Of the job.
    """

    __slots__ = (
        "_beat",
        "_cursors",
        "_failure",
        "_heard",
        "_is_doubtful",
        "_is_reading",
        "_is_stale",
        "_job_id",
        "_namespace",
        "_newest",
        "_queue",
        "_store",
        "_waiting",
        "last",
        "watchers",
    )

    def __init__(self, store: Store, namespace: str, queue: str, job_id: str) -> None:
        self.last: Told | None = None
        self.watchers = 0
        self._store = store
        self._namespace = namespace
        self._queue = queue
        self._job_id = job_id
        self._cursors: Cursors | None = None
        self._newest: list[Told] = []
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_stale = True
        self._is_doubtful = True
        self._is_reading = False
        self._heard = (0, 0)
        self._failure: Callable[[], GopherError] | None = None
        self._beat: tuple[Told, job_stream_pb2.WatchJobResponse] | None = None

    def put_nowait(self, change: JobChange | None) -> None:
        """Note that the job has changed, or that this may have been missed."""
        if change is None:
            self._is_doubtful = True
        elif change.state is None:
            self._fail(lambda: JobNotFoundError(self._job_id))
        else:
            self._heard = convert.STATE_NUMBER[change.state], change.attempt
        self._is_stale = True
        if not self._is_reading:
            self._waiting.unpark()

    @property
    def key(self) -> tuple[str, str]:
        """Its namespace and job id."""
        return self._namespace, self._job_id

    def hear(self) -> AbstractAsyncContextManager[None]:
        """Have it told of the job's changes while the block lasts."""
        return self._store.events.hear(self._namespace, self._queue, self._job_id, self)

    @property
    def has_failed(self) -> bool:
        """Whether nobody can be told anything here any more."""
        return self._failure is not None

    async def begin(self, cursor: str) -> int:
        """Return the number of the event that a new watcher knows already; 0 without a cursor.

        Raises:
            InvalidRequestError: BAD_CURSOR.
            CursorTooOldError: The history does not hold what follows it.
            JobNotFoundError: There is no such job.
        """
        last = await self._known()
        if not cursor:
            return 0
        assert self._cursors is not None  # noqa: S101 - it came with the first look
        held = self._cursors.place(cursor)
        place, fingerprint = int.from_bytes(held[:_PLACE_BYTES]), int.from_bytes(held[_PLACE_BYTES:])
        if place == last.sequence:
            is_known = fingerprint in {0, last.fingerprint}
        else:
            # With the event itself, as far as it is kept, to compare it.
            events = await self._read(max(0, place - 1), 2)
            known = events.pop(0) if events and events[0].sequence == place else None
            is_known = known is None or fingerprint in {0, known.fingerprint}
            is_known = is_known and bool(events) and events[0].sequence == place + 1
        if not is_known:
            first = (await self._read(0, 1))[0].sequence
            raise CursorTooOldError(self._job_id, first, self.cursor(first - 1))
        return place

    async def next(self, place: int) -> list[Told]:
        """Return the events behind a place, at least one, as soon as there is one.

        The first may have a greater number than `place + 1`: those between are kept no more.

        Raises:
            JobNotFoundError: The job was deleted.
            CursorTooOldError: Redis has lost the end of the history.
            StoreError: Redis failed.
        """
        while True:
            last = await self._known()
            first = self._newest[0].sequence
            if place < first - 1:
                events = await self._read(place, CHUNK)
                # Those in memory know more: whether the job has ended.
                return await self._tell([event for event in events if event.sequence < first]) or list(self._newest)
            if place < last.sequence:
                return self._newest[place + 1 - first :]
            await self._wait()

    def heartbeat(self) -> job_stream_pb2.WatchJobResponse:
        """Return the sign of life after the newest event, the same to all who wait behind it."""
        assert self.last is not None  # noqa: S101 - a stream has begun behind it
        if self._beat is not None and self._beat[0] is self.last:
            return self._beat[1]
        message = job_stream_pb2.WatchJobResponse(event=heartbeat(self.last.message.event))
        # Kept only where another watcher needs it: of ten thousand jobs it would be megabytes.
        self._beat = (self.last, message) if self.watchers > 1 else None
        return message

    def cursor(self, place: int, fingerprint: int = 0) -> str:
        """Return the cursor of an event; of one that is not known it holds no fingerprint."""
        assert self._cursors is not None  # noqa: S101 - it came with the first look
        return self._cursors.cursor(place.to_bytes(_PLACE_BYTES) + fingerprint.to_bytes(_FINGERPRINT_BYTES))

    async def _known(self) -> Told:
        """Return the newest event known, having looked for newer ones if there may be any."""
        while True:
            if self._failure is not None:
                raise self._failure()
            if self.last is not None and not self._is_stale:
                return self.last
            await self._wait()

    async def _wait(self) -> None:
        if self._is_stale and not self._is_reading:
            await self._catch_up()
        else:
            await self._waiting.park()

    async def _catch_up(self) -> None:
        """Read what is new, for all who wait.

        Cancellation:
            Another one of them does it.
        """
        self._is_reading = True
        self._is_stale = False
        is_doubtful, self._is_doubtful = self._is_doubtful, False
        is_done = False
        try:
            await self._look(is_doubtful=is_doubtful)
            is_done = True
        except JobNotFoundError:
            self._fail(lambda: JobNotFoundError(self._job_id))
            raise
        finally:
            self._is_reading = False
            self._is_stale |= not is_done
            self._is_doubtful |= is_doubtful and not is_done
            self._waiting.unpark_all()

    async def _look(self, *, is_doubtful: bool) -> None:
        if self._cursors is None:
            secret = await self._store.registry.page_secret(self._namespace)
            self._cursors = Cursors(secret, "WatchJob", self._namespace, self._job_id)
        events: list[HistoryEvent] = []
        if not is_doubtful:
            events = await self._read(self._place, CHUNK)
        if not events and (is_doubtful or not self._tells_what_was_heard()):
            events = await self._open()
        if events:
            await self._take(events)

    def _tells_what_was_heard(self) -> bool:
        """Whether the history tells what we were woken for: a script that was cut short has not told all."""
        return self.last is not None and self._heard == (self.last.message.event.state, self.last.message.event.attempt)

    async def _open(self) -> list[HistoryEvent]:
        newest = await self._store.histories.open(self._namespace, self._queue, self._job_id)
        last = self.last
        if last is None:
            return await self._read(max(0, newest - CHUNK), CHUNK)
        # From the last one that is known, to compare it.
        events = await self._read(last.sequence - 1, CHUNK + 1)
        if newest < last.sequence or (
            events and events[0].sequence == last.sequence and events[0].fingerprint != last.fingerprint
        ):
            await self._note_loss()
            return []
        return [event for event in events if event.sequence > last.sequence][:CHUNK]

    async def _note_loss(self) -> None:
        """Have all readers told that Redis has lost what they know, with the cursor of the last event that it still has."""
        known = {each.sequence: each.fingerprint for each in self._newest}
        kept = await self._read(self._newest[0].sequence - 1, NEWEST)
        same = next((event for event in reversed(kept) if known.get(event.sequence) == event.fingerprint), None)
        if same is not None:
            oldest, cursor = same.sequence + 1, self.cursor(same.sequence, same.fingerprint)
        else:
            oldest = (await self._read(0, 1))[0].sequence
            cursor = self.cursor(oldest - 1)
        self._fail(lambda: CursorTooOldError(self._job_id, oldest, cursor))

    async def _take(self, events: list[HistoryEvent]) -> None:
        told = await self._tell(events)
        if events[-1].state.is_final and not (len(events) == CHUNK and await self._read(told[-1].sequence, 1)):
            job = await self._store.query.get(self._namespace, self._job_id)
            # It may have been requeued since, and then there is more to come.
            if job.state.is_final:
                told[-1].message.event.job.CopyFrom(convert.job_to_message(job))
                told[-1].is_end = True
        elif events[-1].kind is EventKind.STATE and events[-1].sequence > 1:
            # Of the first one the stream itself says why the job waits, in the job.
            await self._explain(told[-1])
        self._is_stale |= len(events) == CHUNK
        if told[0].sequence != self._place + 1:
            self._newest.clear()
        self._newest += told
        self.last = told[-1]
        size = sum(each.size for each in self._newest)
        while len(self._newest) > 1 and (len(self._newest) > NEWEST or size > NEWEST_BYTES):
            size -= self._newest.pop(0).size

    async def _explain(self, newest: Told) -> None:
        """Add to the newest event why the job waits, if it does."""
        if newest.message.event.state not in _WAITING:
            return
        reason = await self._store.waiting.explain(await self._store.query.get(self._namespace, self._job_id))
        if reason is not None:
            newest.message.event.waiting_reason.CopyFrom(convert.reason_to_message(reason))

    @property
    def _place(self) -> int:
        return 0 if self.last is None else self.last.sequence

    async def _read(self, place: int, count: int) -> list[HistoryEvent]:
        return await self._store.histories.read(self._namespace, self._queue, self._job_id, after=place, count=count)

    async def _tell(self, events: list[HistoryEvent]) -> list[Told]:
        whose = [(self._job_id, event) for event in events]
        failures = await self._store.histories.failures(self._namespace, self._queue, whose)
        return [self._told(event, failure) for event, failure in zip(events, failures, strict=True)]

    def _told(self, event: HistoryEvent, failure: Failure | None) -> Told:
        told = event_message(self._job_id, event, self.cursor(event.sequence, event.fingerprint), failure)
        message = job_stream_pb2.WatchJobResponse(event=told)
        # One that was parsed takes two thirds of the memory of one that was put together.
        return Told(event, job_stream_pb2.WatchJobResponse.FromString(message.SerializeToString()))

    def _fail(self, failure: Callable[[], GopherError]) -> None:
        self._failure = failure
        self._waiting.unpark_all()


class Feeds:
    """The feeds of all jobs that are watched at this server.

    Args:
        store: Where the histories are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[tuple[str, str], Feed] = {}

    def open(self, namespace: str, job_id: str) -> AbstractAsyncContextManager[Feed]:
        """Share a job's feed while the block lasts; entering it raises what is said at `join`."""
        return _Share(self, namespace, job_id)

    async def join(self, namespace: str, job_id: str) -> Feed:
        """Return a job's feed, with one watcher more.

        Raises:
            InvalidRequestError: BAD_ID.
            JobNotFoundError: The id belongs to no queue of the namespace.
        """
        queue = await self._store.registry.queue_of(namespace, job_id)
        feed = self._feeds.get((namespace, job_id))
        if feed is None or feed.has_failed:
            feed = self._feeds[namespace, job_id] = Feed(self._store, namespace, queue, job_id)
        feed.watchers += 1
        return feed

    def leave(self, feed: Feed) -> None:
        """Take a watcher off its feed."""
        feed.watchers -= 1
        if not feed.watchers and self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]


class _Share:
    """The block of `Feeds.open`; a class, since the frames of a generator take hundreds of bytes, and a server may hold ten thousand watchers."""

    __slots__ = ("_feed", "_feeds", "_hearing", "_job_id", "_namespace")

    def __init__(self, feeds: Feeds, namespace: str, job_id: str) -> None:
        self._feeds = feeds
        self._namespace = namespace
        self._job_id = job_id

    async def __aenter__(self) -> Feed:
        self._feed = await self._feeds.join(self._namespace, self._job_id)
        self._hearing = self._feed.hear()
        try:
            await self._hearing.__aenter__()
        except BaseException:
            self._feeds.leave(self._feed)
            raise
        return self._feed

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._hearing.__aexit__(None, None, None)  # noqa: ASYNC102 - takes effect before its checkpoint
        finally:
            self._feeds.leave(self._feed)
