"""A queue's feed is all its changes as this server's watchers read them: read from Redis once, told to any number.

As a job's feed (`feeds`) it has no Trio task of its own: whoever waits reads what is new for all, and each watcher has his own place.
Watchers say again and again that they follow; a minute after the last one has, the queue's changes are kept no more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from gopher.store.changes import Kept

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from gopher.job import Failure
    from gopher.store.changes import Change, Entry, Facts
    from gopher.store.store import Store

NEWEST: Final = 256
"""Entries kept in memory; chosen: what a busy queue changes in some hundredths of a second, so that only who lags reads for himself."""
NEWEST_BYTES: Final = 4 << 20
"""Of what handlers say in these; chosen: four of the largest entries."""
CHUNK: Final = 64
FACTS: Final = 10_000
"""Jobs whose type and labels are known; chosen."""
RENEW_SECONDS: Final = 15.0
"""Chosen: three times before the minute is over."""


class QueueFeed:
    """The changes of one queue.

    Attributes:
        kept: Which entries there were when that was asked for last.
        losses: How often Redis was found to have lost what was told here; from then on it gives the same numbers to other entries.

    Args:
        store: Where they are.
        namespace: Of the queue.
        queue: Which.
    """

    def __init__(self, store: Store, namespace: str, queue: str) -> None:
        self._store = store
        self._namespace = namespace
        self._queue = queue
        self.watchers = 0
        self.losses = 0
        self.kept = Kept(0, 1)
        self._newest: deque[Entry] = deque()
        self._newest_bytes = 0
        self._last = 0
        self._fingerprint = 0
        self._facts: OrderedDict[str, Facts | None] = OrderedDict()
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_stale = True
        self._is_doubtful = False
        self._is_reading = False
        self._renew_at = 0.0

    async def begin(self) -> Kept:
        """Say that the queue is followed, and return which of its entries there are."""
        kept = await self._store.changes.watch(self._namespace, self._queue)
        self._renew_at = trio.current_time() + RENEW_SECONDS
        known = max(self._last, self.kept.last)
        self.kept = kept
        if kept.last < known:
            self._note_loss()
        if self._last < kept.oldest - 1:
            self._newest.clear()
            self._newest_bytes = 0
            self._last = kept.last
            self._fingerprint = await self.fingerprint(kept.last)
        return kept

    async def fingerprint(self, number: int) -> int:
        """Return the fingerprint of an entry; 0 of one that is not kept."""
        found = await self._store.changes.read(self._namespace, self._queue, after=number - 1, count=1)
        return found[0].fingerprint if found and found[0].number == number else 0

    async def renew(self) -> None:
        """Say again that the queue is followed, if it is time to."""
        if trio.current_time() >= self._renew_at:
            await self.begin()

    def note_news(self, _message: bytes = b"") -> None:
        """Note that something has changed, or that this may have been missed."""
        self._is_stale = True
        if not self._is_reading:
            self._waiting.unpark()

    def note_reconnect(self) -> None:
        """Note that Redis may have been started again, and may have lost its newest."""
        self._is_doubtful = True
        self.note_news()

    async def next(self, number: int, losses: int) -> list[Entry]:
        """Return the entries behind one as soon as there is one; the first may be later than the next. None after one more loss."""
        while self.losses == losses:
            if number < self._last:
                if self._newest and self._newest[0].number <= number + 1:
                    return [entry for entry in self._newest if entry.number > number]
                found = await self._read(number)
                if found:
                    return found
            await self._wait()
        return []

    async def facts(self, job_ids: Iterable[str]) -> dict[str, Facts | None]:
        """Return what is known of jobs that never changes; None of one that was gone before it was asked for."""
        wanted = list(dict.fromkeys(job_ids))
        unknown = [job_id for job_id in wanted if job_id not in self._facts]
        known = {job_id: self._facts[job_id] for job_id in wanted if job_id in self._facts}
        for job_id in known:
            self._facts.move_to_end(job_id)
        if unknown:
            read = await self._store.changes.facts(self._namespace, self._queue, unknown)
            found = dict(zip(unknown, read, strict=True))
            self._facts.update(found)
            known.update(found)
        while len(self._facts) > FACTS:
            self._facts.popitem(last=False)
        return known

    async def failures(self, changes: Sequence[Change]) -> list[Failure | None]:
        """Return why the attempts have failed of which changes say so, an entry a change."""
        return await self._store.histories.failures(self._namespace, self._queue, changes)

    async def _wait(self) -> None:
        if not self._is_stale or self._is_reading:
            await self._waiting.park()
            return
        self._is_reading = True
        self._is_stale = False
        is_doubtful, self._is_doubtful = self._is_doubtful, False
        is_done = False
        try:
            if is_doubtful:
                await self._verify()
            entries = await self._read(self._last)
            # Once for all who wait.
            await self.facts(change.job_id for entry in entries for change in entry.changes)
            self._keep(entries)
            self._is_stale |= len(entries) == CHUNK
            is_done = True
        finally:
            self._is_reading = False
            self._is_stale |= not is_done
            self._is_doubtful |= is_doubtful and not is_done
            self._waiting.unpark_all()

    def _keep(self, entries: list[Entry]) -> None:
        self._newest.extend(entries)
        self._newest_bytes += sum(map(_size, entries))
        if entries:
            self._last, self._fingerprint = entries[-1].number, entries[-1].fingerprint
        while len(self._newest) > NEWEST or (len(self._newest) > 1 and self._newest_bytes > NEWEST_BYTES):
            self._newest_bytes -= _size(self._newest.popleft())

    async def _verify(self) -> None:
        """Find out whether Redis still has what was told last."""
        last, known, losses = self._last, self._fingerprint, self.losses
        await self.begin()
        if known and self.losses == losses and await self.fingerprint(last) not in {0, known}:
            self._note_loss()

    def _note_loss(self) -> None:
        self.losses += 1
        self._newest.clear()
        self._newest_bytes = 0
        self._last, self._fingerprint = self.kept.last, 0
        self._waiting.unpark_all()

    async def _read(self, number: int) -> list[Entry]:
        return await self._store.changes.read(self._namespace, self._queue, after=number, count=CHUNK)


def _size(entry: Entry) -> int:
    return sum(len(change.event.detail) for change in entry.changes)


class QueueFeeds:
    """The feeds of all queues that are followed at this server.

    Args:
        store: Where the changes are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[tuple[str, str], QueueFeed] = {}
        store.link.on_reconnect.append(self._note_reconnect)

    @asynccontextmanager
    async def open(self, namespace: str, queue: str) -> AsyncIterator[QueueFeed]:
        """Share a queue's feed while the block lasts."""
        feed = self._feeds.get((namespace, queue))
        if feed is None:
            feed = self._feeds[namespace, queue] = QueueFeed(self._store, namespace, queue)
        feed.watchers += 1
        try:
            await self._store.changes.hear(namespace, queue, feed.note_news)
            try:
                yield feed
            finally:
                await self._store.changes.unhear(namespace, queue, feed.note_news)  # noqa: ASYNC102 - takes effect before its first checkpoint
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                del self._feeds[namespace, queue]

    def _note_reconnect(self) -> None:
        for feed in self._feeds.values():
            feed.note_reconnect()
