"""All changes of a queue's jobs, in one order: kept while somebody follows the queue, and for a minute after.

Each script call adds an entry with what it has changed, numbered with no gap. Who has not followed for longer than a minute has missed
some: then a number is left out, which tells him so. A queue that nobody follows pays a look at one field a call.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from gopher.event import EventKind
from gopher.job import JobState
from gopher.store import keys
from gopher.store.history import HistoryEvent
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.link import Link
    from gopher.store.resp import Reply

KEPT_MS: Final = 60_000
"""How long changes are kept for who does not say again that he follows."""
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
_MARKS: Final = {"cancel_requested": EventKind.CANCEL_REQUESTED}

Hear: TypeAlias = Callable[[bytes], None]


class Kept(NamedTuple):
    """Which entries of a queue there are.

    Attributes:
        last: Number of the last one.
        oldest: Of the oldest that is kept; `last + 1` where none is.
    """

    last: int
    oldest: int


class Change(NamedTuple):
    """One change.

    Attributes:
        job_id: Of the job.
        event: What has changed, as the job's own history would tell it, without its number there.
    """

    job_id: str
    event: HistoryEvent


class Entry(NamedTuple):
    """What one script call has changed.

    Attributes:
        number: Of the entry.
        changes: In order.
        fingerprint: Tells it from another entry of the same number, as a Redis that has lost its newest may give; never 0, 32 bits.
    """

    number: int
    changes: list[Change]
    fingerprint: int


class Facts(NamedTuple):
    """What never changes of a job.

    Attributes:
        type: Of the job.
        labels: Of the job.
        root_id: First ancestor; its own where it has none.
    """

    type: str
    labels: dict[str, str]
    root_id: str


class Changes:
    """Follows queues, of any namespace."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._watch_queue = Script.load("watch_queue")

    async def watch(self, namespace: str, queue: str) -> Kept:
        """Have a queue's changes kept for the next minute."""
        _, last, oldest = await self._watch_queue(self._link, [keys.settings(namespace, queue)], [KEPT_MS])
        return Kept(last, oldest)

    async def read(self, namespace: str, queue: str, *, after: int, count: int) -> list[Entry]:
        """Return the entries behind one, in order: with no gap between them, though there may be one before the first."""
        key = keys.changes(namespace, queue)
        entries = await self._link.call("XRANGE", key, f"{after + 1}-0", "+", "COUNT", count)
        return [_entry(entry) for entry in entries]

    async def facts(self, namespace: str, queue: str, job_ids: Sequence[str]) -> list[Facts | None]:
        """Return what never changes of jobs, in order; None of those that are gone."""
        commands = [("HMGET", keys.job(namespace, queue, each), "type", "labels", "root_id") for each in job_ids]
        replies = await self._link.call_many(commands) if commands else []
        return [_facts(job_id, reply) for job_id, reply in zip(job_ids, replies, strict=True)]

    async def hear(self, namespace: str, queue: str, receive: Hear) -> None:
        """Have something called at each change of a queue, until `unhear`."""
        await self._link.subscribe(keys.events(namespace, queue).encode(), receive)

    async def unhear(self, namespace: str, queue: str, receive: Hear) -> None:
        """End that; needs no shield."""
        await self._link.unsubscribe(keys.events(namespace, queue).encode(), receive)


def _facts(job_id: str, reply: Reply) -> Facts | None:
    job_type, labels, root_id = reply
    if job_type is None:
        return None
    return Facts(job_type.decode(), _decode_labels(labels or b"{}"), job_id if root_id is None else root_id.decode())


def _entry(entry: Reply) -> Entry:
    place, fields = entry
    pairs = iter(fields)
    at_ms, changes, head, fingerprint = 0, [], "", 0
    for name, value in zip(pairs, pairs, strict=True):
        fingerprint = zlib.crc32(value, fingerprint)
        match name:
            case b"at":
                at_ms = int(value)
            case b"c":
                changes += [_change(line, at_ms) for line in value.decode().split("\n")]
            case b"s":
                head = value.decode()
            case b"d":
                changes.append(_saying(head, at_ms, value))
            case _:
                pass  # a newer version's scripts may tell more
    return Entry(int(place.partition(b"-")[0]), changes, fingerprint or 1)


def _change(line: str, at_ms: int) -> Change:
    job_id, state, attempt, mark = line.split(" ", 3)
    # Of one that was deleted the mark says where it stood.
    kind = EventKind.DELETED if state == "deleted" else _MARKS.get(mark, EventKind.STATE)
    stood = JobState(mark if state == "deleted" else state)
    return Change(job_id, HistoryEvent(0, kind, stood, int(attempt), at_ms, kind is EventKind.CANCEL_REQUESTED, 0.0, b""))


def _saying(head: str, at_ms: int, detail: bytes) -> Change:
    job_id, kind, attempt, progress = head.split(" ")
    event = HistoryEvent(0, EventKind(kind), JobState.PROCESSING, int(attempt), at_ms, False, float(progress or 0), detail)
    return Change(job_id, event)
