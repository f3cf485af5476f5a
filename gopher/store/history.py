"""The histories of jobs: what has happened to each, event by event, from 1 on with no gap.

A job has a history from its first watcher on, or from the first thing that its handler says; a job that has none costs nothing
here. Once it has one, every script that changes the job adds to it (`lua/lib/history.lua`), and it goes when the record does. It is
bounded, so its oldest events may be gone.

`Events` tells when to read; a message lost there is no event lost here.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from gopher.errors import JobNotFoundError, StoreError
from gopher.event import ChildChange, EventKind, LogLine, Notice, OutputChunk
from gopher.job import JobState
from gopher.store import codec, keys
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.event import EventDetail
    from gopher.job import Failure
    from gopher.store.codec import Field
    from gopher.store.link import Link
    from gopher.store.resp import Reply

MAX_EVENTS: Final = 10_000
"""Kept of a job; `lua/lib/history.lua` has the number, and 4 MiB as a bound of their bytes."""


class HistoryEvent(NamedTuple):
    """An event as it is kept.

    Attributes:
        sequence: Its place, from 1.
        kind: What it tells.
        state: Where the job stood after it.
        attempt: Likewise; 0 before the first.
        at_ms: Redis time, ms since the epoch; never less than that of the event before.
        is_cancel_requested: Whether a cancel has been asked for.
        progress: 0 to 1, as the attempt's handler last said.
        detail: What is told beside it, as `Saying.detail`.
    """

    sequence: int
    kind: EventKind
    state: JobState
    attempt: int
    at_ms: int
    is_cancel_requested: bool
    progress: float
    detail: bytes

    @property
    def fingerprint(self) -> int:
        """Tells it from another event of the same number, as a Redis that has lost its newest may give; never 0, 32 bits."""
        head = f"{self.kind} {self.state} {self.attempt} {self.at_ms} {self.is_cancel_requested} {self.progress} "
        return zlib.crc32(self.detail, zlib.crc32(head.encode())) or 1

    @property
    def has_failure(self) -> bool:
        """Whether it says that an attempt has failed."""
        return self.kind is EventKind.STATE and self.state in (JobState.RETRYING, JobState.FAILED)

    @property
    def told(self) -> EventDetail | None:
        """What is told beside it, as `Saying.detail` packs it; None for states, progress and the mark of a cancel."""
        word, _, rest = self.detail.partition(b" ")
        match self.kind:
            case EventKind.LOG:
                return LogLine(word.decode(), rest.decode())
            case EventKind.OUTPUT:
                return OutputChunk(rest, word.decode())
            case EventKind.CHILD:
                child_type, state = rest.decode().split(" ")
                return ChildChange(word.decode(), child_type, JobState(state))
            case EventKind.NOTICE:
                return Notice(word.decode(), rest.decode())
            case _:
                return None


class Saying(NamedTuple):
    """What a running attempt says: the arguments of `report.lua`.

    Attributes:
        job_id: Of the job.
        token: Lease token of the attempt.
        number: Of the saying in its attempt, from 1; one that was kept already is not kept again.
        kind: progress, log, output, child or notice.
        progress: How far, of progress: 0 to 1; else empty.
        detail: Of progress, the text beside it; of a log line `LEVEL TEXT`; of output `CONTENT_TYPE DATA`; of a child
            `ID TYPE STATE`; of a notice `REASON TEXT`.
    """

    job_id: str
    token: int
    number: int
    kind: EventKind
    progress: float | str
    detail: bytes


class Histories:
    """Opens, reads and writes histories."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open_history = Script.load("open_history")
        self._report = Script.load("report")

    async def open(self, namespace: str, queue: str, job_id: str) -> int:
        """Have a job's history kept from now on, and begin it with what the record tells of; return the number of its last event.

        Where it is kept already, what a script that was cut short has not told is told now.

        Raises:
            JobNotFoundError: There is no such job.
        """
        reply = await self._open_history(self._link, [keys.settings(namespace, queue)], [job_id])
        if reply[0] != b"OK":
            raise JobNotFoundError(job_id)
        return int(reply[1])

    async def read(self, namespace: str, queue: str, job_id: str, *, after: int, count: int) -> list[HistoryEvent]:
        """Return the events behind one, in order.

        Args:
            namespace: Of the queue.
            queue: Of the job.
            job_id: Of the job.
            after: Number of the event that is known; 0 for the oldest that is kept.
            count: How many at most.

        Returns:
            Without a gap between them; the first may have a greater number than `after + 1`, then those before are kept no more.
        """
        key = keys.history(namespace, queue, job_id)
        entries = await self._link.call("XRANGE", key, f"{after + 1}-0", "+", "COUNT", count)
        return [_event(entry) for entry in entries]

    async def failures(self, namespace: str, queue: str, events: Sequence[tuple[str, HistoryEvent]]) -> list[Failure | None]:
        """Return why the attempts have failed of which events say so, as far as that is kept.

        Args:
            namespace: Of the queue.
            queue: Of the jobs.
            events: Each with its job's id. Redis is asked only where some say retrying or failed.

        Returns:
            An entry an event, in order; None for those that say something else.
        """
        failures: list[Failure | None] = [None] * len(events)
        places = [place for place, (_, event) in enumerate(events) if event.has_failure]
        if not places:
            return failures
        commands = []
        for place in places:
            job_id, event = events[place]
            commands.append(("HMGET", keys.job(namespace, queue, job_id), *codec.FAILURE_FIELDS, f"attempt:{event.attempt}"))
        for place, reply in zip(places, await self._link.call_many(commands), strict=True):
            if isinstance(reply, StoreError):
                raise reply
            failures[place] = codec.failure_after(events[place][1].state, events[place][1].attempt, reply)
        return failures

    async def report(self, namespace: str, queue: str, sayings: Sequence[Saying]) -> list[str]:
        """Keep what running attempts say, at most 100 sayings; safe to repeat.

        Returns:
            An entry a saying, in order: `OK`, or `STALE_LEASE` or `NOT_FOUND`, which changed nothing.
        """
        args: list[Field] = []
        for saying in sayings:
            args += saying
        replies = await self._report(self._link, [keys.settings(namespace, queue)], args)
        return [reply.decode() for reply in replies]


def _event(entry: Reply) -> HistoryEvent:
    place, (_, head, _, detail) = entry
    kind, state, attempt, at_ms, _, _, _, cancelled, progress = head.decode().split(" ")
    return HistoryEvent(
        int(place.partition(b"-")[0]),
        EventKind(kind),
        JobState(state),
        int(attempt),
        int(at_ms),
        cancelled == "1",
        float(progress),
        detail,
    )
