"""The looks: one job, pages of jobs, the figures of a queue and of Redis. Nothing here changes anything.

A list walks the indexes of one queue after another, each by (score, id). Where it stands is therefore told by the last entry
read, not by a rank: jobs that come and go meanwhile neither shift the others out of sight nor show one twice. A job that moves
between two calls may be seen in the index it left, in the one it came to, or, if it went back to one already walked, in neither. One
that a limit holds back may be shown twice where the names of limits come and go meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from gopher.errors import JobNotFoundError, QueueNotFoundError, invalid
from gopher.job import JobState, Priority
from gopher.limits import PriorityRatio
from gopher.store import codec, keys
from gopher.store.index_walk import STATES, IndexPlace, IndexWalk, state_of
from gopher.store.limits import WHOLE_QUEUE, read_limits
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gopher.job import Job
    from gopher.limits import Limits
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Argument

SCAN_LIMIT: Final = 1000
"""Records a call of `list_jobs` reads at most, an index that it finds empty counted as one. Chosen: some 50 ms."""
_SLICE: Final = 25
"""Entries read at once; chosen. Of the records only those are read that the page has room for."""
_PAGE_BYTES: Final = 1 << 20
"""Payloads, results and tracebacks a page holds, about; chosen: gRPC clients refuse messages over 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A queue and its figures.

    Attributes:
        name: Of the queue.
        paused: Whether nothing is claimed from it.
        ratio: Of claims to the three priorities.
        limits: Of the queue as a whole; None where there are none.
        enqueued: Jobs in each line; without the parked ones.
        parked: Enqueued jobs that a limit or a breaker holds back.
        counts: Jobs kept now, by state.
        oldest_wait_ms: How long the job at the head of a line has waited, the longest of all; None when all are empty. Of the parked
            jobs, those count that wait for a worker with their type.
        submitted_total: Since the queue was created, as are the other totals.
        completed_total: Jobs.
        failed_total: Jobs.
        cancelled_total: Jobs.
        retried_total: Attempts that failed and were to be followed by another.
    """

    name: str
    paused: bool
    ratio: PriorityRatio
    limits: Limits | None
    enqueued: dict[Priority, int]
    parked: int
    counts: dict[JobState, int]
    oldest_wait_ms: int | None
    submitted_total: int
    completed_total: int
    failed_total: int
    cancelled_total: int
    retried_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStats:
    """How Redis is.

    Attributes:
        version: As Redis says it.
        used_memory_bytes: Now.
        max_memory_bytes: 0 for no limit.
        maxmemory_policy: What Redis does at the limit; anything but `noeviction` loses jobs.
        connected_clients: Now.
        uptime_seconds: Whole seconds.
    """

    version: str
    used_memory_bytes: int
    max_memory_bytes: int
    maxmemory_policy: str
    connected_clients: int
    uptime_seconds: int


class _Place(NamedTuple):
    """Where a list stands: the last entry read, or, with no score, the beginning of an index."""

    queue: str
    index_name: str
    score: str = ""
    job_id: str = ""
    slice: str = ""


_encode_place = msgspec.json.Encoder().encode
_decode_place = msgspec.json.Decoder(_Place).decode


class Query:
    """Looks at jobs, queues and Redis."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._page = Script.load("page")

    async def get(self, namespace: str, job_id: str) -> Job:
        """Return a job.

        Raises:
            InvalidRequestError: BAD_ID.
            JobNotFoundError: There is no such job.
        """
        queue = await self._registry.queue_of(namespace, job_id)
        record, lease = await self._link.call_all(
            [
                ("HGETALL", keys.job(namespace, queue, job_id)),
                ("ZSCORE", keys.index(namespace, queue, JobState.PROCESSING), job_id),
            ]
        )
        if not record:
            raise JobNotFoundError(job_id)
        return codec.from_record(namespace, queue, job_id, record, None if lease is None else int(lease))

    async def list_jobs(
        self,
        namespace: str,
        *,
        queue: str | None = None,
        state: JobState | None = None,
        type: str | None = None,  # noqa: A002 - the glossary's word for it
        labels: Mapping[str, str] | None = None,
        size: int,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Return a page of jobs, oldest first within a queue and a state.

        Args:
            namespace: Of the jobs.
            queue: Only of this queue; None for all, by name.
            state: Only in this state; None for all.
            type: Only of this type; None for all.
            labels: Only with all of these labels.
            size: How many at most, >= 1.
            cursor: From the page before, with the same arguments; None for the first page.

        Returns:
            The jobs, and the cursor of the next page or None after the last. A page that is not the last may hold fewer than
            `size` jobs, even none: the work of a call and the bytes of a page are bounded.

        Raises:
            InvalidRequestError: BAD_PAGE_TOKEN, the cursor is none of ours.
        """
        listing = _Listing(size, type, labels or {})
        begin = None if cursor is None else _begin(cursor, state)
        queues = await self.queues(namespace) if queue is None else [queue]
        for name in queues:
            if begin is not None and name < begin.queue:
                continue
            walk = IndexWalk(self._link, namespace, name, None if state is None else [state])
            place = begin if begin is not None and begin.queue == name else await _following(walk, name, None)
            while place is not None:
                if listing.scans_left <= 0:
                    return listing.jobs, _encode_place(place).decode()
                # Once the page is full it is read on all the same, to learn whether anything follows.
                before, place = place, await self._read(namespace, place, listing)
                if place == before:
                    return listing.jobs, _encode_place(before).decode()
                place = place or await _following(walk, name, before)
        return listing.jobs, None

    async def queue_stats(self, namespace: str, queue: str) -> QueueStats:
        """Return the figures of a queue.

        Raises:
            QueueNotFoundError: Nobody has used it.
        """
        indexes = keys.indexes(namespace, queue)
        known, (paused, cycle), limited, counted, (seconds, micros), foreign, *rest = await self._link.call_all(
            [
                ("HEXISTS", keys.queues(namespace), queue),
                ("HMGET", keys.settings(namespace, queue), "paused", "cycle"),
                ("HGET", keys.limits(namespace, queue), WHOLE_QUEUE),
                ("HGETALL", keys.counters(namespace, queue)),
                ("TIME",),
                ("SMEMBERS", keys.foreign(namespace, queue)),
                *(("ZCARD", key) for _, _, key in indexes),
                *(("ZRANGE", keys.enqueued(namespace, queue, p), 0, 0, "WITHSCORES") for p in Priority),
            ]
        )
        if not known:
            raise QueueNotFoundError(queue)
        counts = dict.fromkeys(JobState, 0)
        enqueued = {}
        for (state, priority, _), count in zip(indexes, rest, strict=False):
            counts[state] += count
            if priority is not None:
                enqueued[priority] = count
        parked = int(counted.get(b"parked", 0))
        counts[JobState.ENQUEUED] += parked
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        lines = [keys.parked_line(f"type:{each.decode()}", priority) for each in foreign for priority in Priority]
        prefix = keys.queue(namespace, queue)
        heads = rest[len(indexes) :] + await self._link.call_all(
            [("ZRANGE", prefix + line, 0, 0, "WITHSCORES") for line in lines]
        )
        waits = [max(0, now_ms - int(head[0][1])) for head in heads if head]
        return QueueStats(
            name=queue,
            paused=paused is not None,
            ratio=PriorityRatio() if cycle is None else PriorityRatio.of_cycle(cycle.decode()),
            limits=None if limited is None else read_limits(limited.decode()),
            enqueued=enqueued,
            parked=parked,
            counts=counts,
            oldest_wait_ms=max(waits, default=None),
            submitted_total=int(counted.get(b"submitted_total", 0)),
            completed_total=int(counted.get(b"completed_total", 0)),
            failed_total=int(counted.get(b"failed_total", 0)),
            cancelled_total=int(counted.get(b"cancelled_total", 0)),
            retried_total=int(counted.get(b"retried_total", 0)),
        )

    async def queues(self, namespace: str) -> list[str]:
        """Return the names of the queues known, sorted."""
        return await self._registry.queues(namespace)

    async def redis_stats(self) -> RedisStats:
        """Return how Redis is."""
        text: bytes = await self._link.call("INFO", "server", "memory", "clients")
        info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        return RedisStats(
            version=info["redis_version"],
            used_memory_bytes=int(info["used_memory"]),
            max_memory_bytes=int(info["maxmemory"]),
            maxmemory_policy=info["maxmemory_policy"],
            connected_clients=int(info["connected_clients"]),
            uptime_seconds=int(info["uptime_in_seconds"]),
        )

    async def _read(self, namespace: str, place: _Place, listing: _Listing) -> _Place | None:
        """Read on from a place; return where that ended, None at the end of the index."""
        count = listing.slice
        flat = await self._page(
            self._link, [keys.settings(namespace, place.queue)], [place.index_name, place.score, place.job_id, count]
        )
        if not flat:
            listing.scans_left -= 1
            return None
        entries = await self._entries(namespace, place.queue, flat)
        # One whose record is gone or says otherwise has moved on.
        state = state_of(place.index_name).value
        wanted = listing.wanted(entry for entry in entries if entry.state == state)
        ids = [entry.job_id for entry in wanted[: listing.room_for(wanted)]]
        commands = [("HGETALL", keys.job(namespace, place.queue, job_id)) for job_id in ids]
        records = dict(zip(ids, await self._link.call_all(commands) if commands else [], strict=True))
        unread = {entry.job_id for entry in wanted[len(ids) :]}
        for entry in entries:
            if listing.is_full or entry.job_id in unread:
                return place
            listing.scans_left -= 1
            record = records.get(entry.job_id, {})
            if record.get(b"state") == state.encode():
                listing.add(codec.from_record(namespace, place.queue, entry.job_id, record, int(float(entry.score))))
            place = place._replace(score=entry.score, job_id=entry.job_id)
        return place if len(entries) == count else None

    async def _entries(self, namespace: str, queue: str, flat: Sequence[bytes]) -> list[_Entry]:
        """Return what an index gives, id, score, id, score, with what the records say that tells which of them are read."""
        commands: list[tuple[Argument, ...]] = []
        for job_id in flat[::2]:
            key = keys.job(namespace, queue, job_id.decode())
            commands += [("HMGET", key, "state", "type", "labels"), ("HSTRLEN", key, "payload"), ("HSTRLEN", key, "result")]
        heads = await self._link.call_all(commands)
        return [
            _Entry(
                job_id.decode(),
                score.decode(),
                (state or b"").decode(errors="replace"),
                (job_type or b"").decode(errors="replace"),
                codec.read_labels(labels or b"{}"),
                payload + result,
            )
            for job_id, score, (state, job_type, labels), payload, result in zip(
                flat[::2], flat[1::2], heads[::3], heads[1::3], heads[2::3], strict=True
            )
        ]


class _Entry(NamedTuple):
    """A job of an index, by what tells whether its record is to be read.

    Attributes:
        job_id: Which.
        score: In the index.
        state: As the record has it; empty where there is none.
        type: Likewise.
        labels: Likewise.
        size: Bytes of the payload and the result.
    """

    job_id: str
    score: str
    state: str
    type: str
    labels: dict[str, str]
    size: int


class _Listing:
    """A page in the making."""

    def __init__(self, size: int, job_type: str | None, labels: Mapping[str, str]) -> None:
        self.jobs: list[Job] = []
        self.scans_left = SCAN_LIMIT
        self._size = size
        self._bytes_left = _PAGE_BYTES
        self._type = job_type
        self._labels = labels.items()

    @property
    def is_full(self) -> bool:
        return len(self.jobs) >= self._size or self.scans_left <= 0 or self._bytes_left <= 0

    @property
    def slice(self) -> int:
        """How many entries to read next: one more than there is room for tells whether a page follows."""
        if self._type is not None or self._labels:
            return _SLICE
        return min(_SLICE, self._size - len(self.jobs) + 1)

    def wanted(self, entries: Iterable[_Entry]) -> list[_Entry]:
        """Return those that are asked for."""
        return [each for each in entries if self._type in {None, each.type} and self._labels <= each.labels.items()]

    def room_for(self, entries: Sequence[_Entry]) -> int:
        """How many of the entries the page has room for; the last may go beyond its bytes."""
        count, bytes_left = 0, self._bytes_left
        while count < min(len(entries), self._size - len(self.jobs)) and bytes_left > 0:
            bytes_left -= entries[count].size
            count += 1
        return count

    def add(self, job: Job) -> None:
        """Take a job in."""
        self.jobs.append(job)
        tracebacks = sum(len(attempt.traceback or "") for attempt in job.attempts)
        self._bytes_left -= len(job.payload) + len(job.result or b"") + tracebacks


def _begin(cursor: str, state: JobState | None) -> _Place:
    """Return the place that a cursor stands for."""
    try:
        place = _decode_place(cursor)
    except ValueError as error:
        raise invalid("page_token", "BAD_PAGE_TOKEN", "it was not made by this list; start again without one") from error
    is_index = place.index_name in STATES or (place.index_name.startswith("parked:") and place.slice.isdecimal())
    if not is_index or state not in {None, state_of(place.index_name)}:
        raise invalid("page_token", "BAD_PAGE_TOKEN", "it was not made by this list; start again without one")
    return place


async def _following(walk: IndexWalk, queue: str, place: _Place | None) -> _Place | None:
    """Return the beginning of the index after a place, or of the first; None after the last."""
    index = await walk.following(None if place is None else IndexPlace(place.index_name, place.slice))
    return None if index is None else _Place(queue, index.name, slice=index.slice)
