"""Following many jobs: what matches is told once and in order, across cuts, and nothing is kept for nobody."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import job_event_pb2, job_pb2, job_stream_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import InvalidRequestError, QueueNotFoundError
from gopher.event import EventKind
from gopher.job import Move
from gopher.service import queue_feeds, watch_jobs
from gopher.service.watch_jobs import WatchJobs
from gopher.store import keys
from gopher.store.changes import KEPT_MS
from gopher.store.history import Saying
from gopher.wire.events import KIND_OF
from gopher.wire.status import CursorTooOldError, TooManyCallsError, failure_from_status
from tests.service.watcher import PATIENCE_SECONDS, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.service.conftest import Rig

QUEUE = "default"


class Reader:
    """Takes what a WatchJobs sends."""

    def __init__(self) -> None:
        self.events: list[job_event_pb2.JobEvent] = []
        self.hold = trio.Event()
        self.hold.set()
        self._news = trio.Event()

    async def send(self, message: job_stream_pb2.WatchJobsResponse) -> None:
        self.events.append(message.event)
        self._news.set()
        self._news = trio.Event()
        await self.hold.wait()

    @property
    def told(self) -> list[job_event_pb2.JobEvent]:
        """All but signs of life."""
        return [event for event in self.events if event.kind != job_event_pb2.JOB_EVENT_KIND_HEARTBEAT]

    @property
    def words(self) -> list[str]:
        """What each event says, in short."""
        return [
            f"{job_pb2.JobState.Name(event.state).removeprefix('JOB_STATE_').lower()} {event.attempt}"
            if event.kind == job_event_pb2.JOB_EVENT_KIND_STATE
            else KIND_OF[event.kind].value
            for event in self.told
        ]

    async def until(self, count: int) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while len(self.told) < count:
                await self._news.wait()


@asynccontextmanager
async def reading(rig: Rig, service: WatchJobs | None = None, **fields: object) -> AsyncIterator[Reader]:
    """Follow while the block lasts, from when the stream has begun."""
    reader = Reader()
    await rig.store.registry.queue_number(rig.namespace, QUEUE)
    request = job_stream_pb2.WatchJobsRequest(namespace=rig.namespace, **fields)  # type: ignore[arg-type]  # the test names fields of it
    async with trio.open_nursery() as nursery:
        nursery.start_soon((service or WatchJobs(rig.store)).watch_jobs, request, reader.send)
        with trio.fail_after(PATIENCE_SECONDS):
            while not reader.events:
                await reader._news.wait()
        yield reader
        nursery.cancel_scope.cancel()


async def work(rig: Rig, *, move: Move = Move.COMPLETE) -> None:
    (job,) = await rig.claim()
    await say(rig, job, 1, 2)
    await rig.settle(job, move)


def sole(group: BaseExceptionGroup[CursorTooOldError]) -> list[CursorTooOldError]:
    """Return what nurseries have put groups around."""
    return [found for each in group.exceptions for found in (sole(each) if isinstance(each, BaseExceptionGroup) else [each])]


async def test_all_that_happens_is_told_in_order(rig: Rig) -> None:
    """From the submit to the end, with what handlers say, each with its queue and type."""
    async with reading(rig, queue=QUEUE) as reader:
        job_id = await rig.submit()
        await work(rig)
        await rig.store.lifecycle.delete(rig.namespace, job_id)
        await reader.until(6)

    assert reader.words == ["enqueued 0", "processing 1", "log", "log", "completed 1", "deleted"]
    assert {(event.job_id, event.queue, event.type) for event in reader.told[:5]} == {(job_id, QUEUE, "email")}
    assert [event.log.message for event in reader.told[2:4]] == ["1", "2"]


async def test_failed_attempts_are_told_with_their_failure(rig: Rig) -> None:
    """Of each job the reason stands beside the state, as in the stream of one job."""
    async with reading(rig, queue=QUEUE) as reader:
        await rig.submit()
        await rig.fail()
        await reader.until(3)

    assert reader.words == ["enqueued 0", "processing 1", "failed 1"]
    assert [event.HasField("failure") for event in reader.told] == [False, False, True]
    failure = failure_from_status(reader.told[2].failure)
    assert (failure.reason, failure.message) == ("HANDLER_RAISED", "no")


async def test_stream_goes_on_behind_every_cursor(rig: Rig) -> None:
    """Wherever it was cut, at whichever server, what came before and what comes after are the whole."""
    async with reading(rig, queue=QUEUE) as reader:
        for _ in range(3):
            await rig.submit()
        for _ in range(3):
            await work(rig)
        await reader.until(15)
    whole = reader.told

    for at in range(14):
        async with reading(rig, queue=QUEUE, cursor=whole[at].cursor) as rest:
            await rest.until(14 - at)
        assert rest.told == whole[at + 1 :]


async def test_filters_let_through_what_matches(rig: Rig) -> None:
    """By type, labels, tree and kind, all of which must match."""
    root = await rig.submit(labels={"team": "a"})
    await rig.submit(labels={"team": "b"})

    async with (
        reading(rig, labels={"team": "a"}) as labelled,
        reading(rig, root_id=root) as tree,
        reading(rig, type="other") as other,
        reading(rig, kinds=[job_event_pb2.JOB_EVENT_KIND_LOG]) as logs,
    ):
        for _ in range(2):
            await work(rig)
        await labelled.until(4)
        await tree.until(4)
        await logs.until(4)

    assert {event.job_id for event in (*labelled.told, *tree.told)} == {root}
    assert logs.words == ["log"] * 4
    assert other.told == []


async def test_every_queue_is_followed_also_a_new_one(rig: Rig) -> None:
    """Without a queue all are, those too that are created meanwhile, from the next look on."""
    service = WatchJobs(rig.store, heartbeat_seconds=0.05)
    await rig.submit(queue="one")

    async with reading(rig, service) as reader:
        await rig.submit(queue="one")
        await reader.until(1)
        await rig.store.registry.queue_number(rig.namespace, "two")
        with trio.fail_after(PATIENCE_SECONDS):
            while not await rig.store.link.call("HGET", keys.settings(rig.namespace, "two"), "watched_until"):  # noqa: ASYNC110 - Redis tells nobody
                await trio.sleep(0.01)
        await rig.submit(queue="two")
        await reader.until(2)

    assert [event.queue for event in reader.told] == ["one", "two"]


async def test_new_queue_is_followed_also_while_another_is_busy(rig: Rig) -> None:
    """It waits for no silence."""
    service = WatchJobs(rig.store, heartbeat_seconds=0.3)

    async with reading(rig, service):
        await rig.store.registry.queue_number(rig.namespace, "two")
        with trio.fail_after(PATIENCE_SECONDS):
            while not await rig.store.link.call("HGET", keys.settings(rig.namespace, "two"), "watched_until"):
                await rig.submit()

        assert await rig.store.link.call("HEXISTS", keys.settings(rig.namespace, "two"), "watched_until") == 1


async def test_cancel_that_is_asked_for_again_is_told_once(rig: Rig) -> None:
    """Also of a job with a history, where it stands is told once more only where that is news."""
    async with reading(rig, queue=QUEUE) as reader:
        for says in (True, False):
            job_id = await rig.submit()
            (job,) = await rig.claim()
            if says:
                await say(rig, job, 1)
            request = pb.CancelJobRequest(namespace=rig.namespace, job_id=job_id)
            await rig.jobs.cancel_job(request)
            await rig.jobs.cancel_job(request)
            await rig.settle(job, Move.ACKNOWLEDGE_CANCEL)
            await rig.jobs.cancel_job(request)
        await rig.submit()
        await reader.until(10)

    cancelled = ["cancel_requested", "cancelled 1"]
    assert reader.words == [
        *("enqueued 0", "processing 1", "log"),
        *cancelled,
        "enqueued 0",
        "processing 1",
        *cancelled,
        "enqueued 0",
    ]


async def test_what_is_kept_is_bounded_in_bytes(rig: Rig) -> None:
    """However much handlers say, and the newest is there."""
    async with reading(rig, queue=QUEUE):
        await rig.submit()
        (job,) = await rig.claim()
        for first in range(1, 601, 15):
            sayings = [Saying(job.id, job.token, first + at, EventKind.OUTPUT, "", b"x" * 60_000) for at in range(15)]
            await rig.store.histories.report(rig.namespace, QUEUE, sayings)
    kept = await rig.store.changes.watch(rig.namespace, QUEUE)
    entries = await rig.store.changes.read(rig.namespace, QUEUE, after=kept.oldest - 1, count=1_000)

    size = sum(len(change.event.detail) for entry in entries for change in entry.changes)
    assert 14 << 20 < size < 18 << 20
    assert entries[-1].number == kept.last


async def test_nobody_pays_for_a_queue_that_is_not_followed(rig: Rig) -> None:
    """No stream is kept, and none is left for ever once nobody follows."""
    key = keys.changes(rig.namespace, QUEUE)
    await rig.submit()
    before = await rig.store.link.call("EXISTS", key)

    async with reading(rig, queue=QUEUE) as reader:
        await work(rig)
        await reader.until(4)

    assert before == 0
    assert 0 < await rig.store.link.call("PTTL", key) <= 3 * KEPT_MS


async def test_cursor_from_before_a_time_that_nobody_followed_is_refused(rig: Rig) -> None:
    """What happened meanwhile was kept by nobody; the error tells how to go on."""
    async with reading(rig, queue=QUEUE) as reader:
        await rig.submit()
        await reader.until(1)
    await rig.store.link.call("HSET", keys.settings(rig.namespace, QUEUE), "watched_until", 1)
    await rig.submit()

    with pytest.RaisesGroup(pytest.RaisesExc(CursorTooOldError), flatten_subgroups=True) as caught:
        async with reading(rig, queue=QUEUE, cursor=reader.told[0].cursor):
            pass

    (error,) = sole(caught.value)
    async with reading(rig, queue=QUEUE, cursor=error.metadata["oldest_cursor"]) as rest:
        await work(rig)
        await rest.until(4)
    assert rest.words[0] == "processing 1"


async def test_reader_that_lags_behind_what_is_kept_is_told(rig: Rig) -> None:
    """Entries that were trimmed before he came to them are counted, and he goes on behind them."""
    async with reading(rig, queue=QUEUE) as reader:
        reader.hold = trio.Event()
        await rig.submit()
        await reader.until(1)
        for _ in range(4):
            await rig.submit()
        await rig.store.link.call("XTRIM", keys.changes(rig.namespace, QUEUE), "MAXLEN", 1)
        reader.hold.set()
        await reader.until(3)

    assert reader.words[-2:] == ["truncated", "enqueued 0"]
    truncation = next(event.truncation for event in reader.told if event.HasField("truncation"))
    assert len(reader.told) - 1 + truncation.dropped_count == 5


@pytest.mark.parametrize("rewritten", [1, 3, 5])
async def test_reader_is_told_that_redis_has_lost_what_he_knows(
    rig: Rig, rewritten: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that came back without its newest numbers others as those: fewer, as many or more, none is taken for what follows."""
    note_news = queue_feeds.QueueFeed.note_news
    deaf = False
    monkeypatch.setattr(queue_feeds.QueueFeed, "note_news", lambda feed, word=b"": None if deaf else note_news(feed, word))
    with pytest.RaisesGroup(CursorTooOldError, flatten_subgroups=True):
        async with reading(rig, queue=QUEUE) as reader:
            for _ in range(3):
                await rig.submit()
            await reader.until(3)
            await rig.store.link.call("DEL", keys.changes(rig.namespace, QUEUE))
            await rig.store.link.call("HINCRBY", keys.counters(rig.namespace, QUEUE), "changes", -3)
            deaf = True  # as while the connection is away
            for _ in range(rewritten):
                await rig.submit()
            deaf = False
            for note in rig.store.link.on_reconnect:
                note()
            with trio.fail_after(PATIENCE_SECONDS):
                await trio.sleep_forever()

    assert len(reader.told) == 3


async def lose_changes(rig: Rig, count: int) -> None:
    """Have Redis lose the newest entries, as a failover may."""
    key = keys.changes(rig.namespace, QUEUE)
    entries = await rig.store.link.call("XRANGE", key, "-", "+")
    await rig.store.link.call("DEL", key)
    for place, fields in entries[:-count]:
        await rig.store.link.call("XADD", key, place, *fields)
    await rig.store.link.call("HINCRBY", keys.counters(rig.namespace, QUEUE), "changes", -count)


@pytest.mark.parametrize("rewritten", [1, 3])
async def test_cursor_whose_number_another_entry_has_is_refused(rig: Rig, rewritten: int) -> None:
    """Redis lost what the reader knows, and has numbered others so since: as many or more; one that it still has is good."""
    async with reading(rig, queue=QUEUE) as reader:
        for _ in range(3):
            await rig.submit()
        await reader.until(3)
        await lose_changes(rig, 1)
        for _ in range(rewritten):
            await rig.submit()

    with pytest.RaisesGroup(CursorTooOldError, flatten_subgroups=True):
        async with reading(rig, queue=QUEUE, cursor=reader.told[2].cursor):
            pass
    async with reading(rig, queue=QUEUE, cursor=reader.told[1].cursor) as rest:
        await rest.until(rewritten)
    assert rest.words == ["enqueued 0"] * rewritten


async def test_reader_that_has_been_told_nothing_is_told_of_a_loss(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before he came is compared too: it may hold what happened since he listens."""
    note_news = queue_feeds.QueueFeed.note_news
    deaf = False
    monkeypatch.setattr(queue_feeds.QueueFeed, "note_news", lambda feed, word=b"": None if deaf else note_news(feed, word))
    async with reading(rig, queue=QUEUE) as first:
        await rig.submit()
        await first.until(1)
    with pytest.RaisesGroup(CursorTooOldError, flatten_subgroups=True):
        async with reading(rig, queue=QUEUE):
            await lose_changes(rig, 1)
            deaf = True  # as while the connection is away
            await rig.submit()
            deaf = False
            for note in rig.store.link.on_reconnect:
                note()
            with trio.fail_after(PATIENCE_SECONDS):
                await trio.sleep_forever()


async def test_queues_that_readers_follow_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused by name, and has its place again once another reader has gone."""
    monkeypatch.setattr(watch_jobs, "MOST_FOLLOWED", 1)
    service = WatchJobs(rig.store)

    async with reading(rig, service, queue=QUEUE):
        with pytest.RaisesGroup(TooManyCallsError, flatten_subgroups=True):
            async with reading(rig, service, queue=QUEUE):
                pass
    async with reading(rig, service, queue=QUEUE) as reader:
        await rig.submit()
        await reader.until(1)

    assert reader.words == ["enqueued 0"]


@pytest.mark.parametrize("cursor", ["x", "é", "AAAA", "A" * 5000])
async def test_cursor_that_was_made_up_is_refused(rig: Rig, cursor: str) -> None:
    """Nothing is told."""
    await rig.submit()
    request = job_stream_pb2.WatchJobsRequest(namespace=rig.namespace, cursor=cursor)

    with pytest.raises(InvalidRequestError) as caught:
        await WatchJobs(rig.store).watch_jobs(request, Reader().send)

    assert caught.value.violations[0].reason == "BAD_CURSOR"


async def test_cursor_of_another_filter_is_refused(rig: Rig) -> None:
    """Between two streams with different filters what the one has not told would be lost to the other."""
    async with reading(rig, queue=QUEUE) as reader:
        await rig.submit()
        await reader.until(1)
    request = job_stream_pb2.WatchJobsRequest(namespace=rig.namespace, queue=QUEUE, type="email", cursor=reader.told[0].cursor)

    with pytest.raises(InvalidRequestError):
        await WatchJobs(rig.store).watch_jobs(request, Reader().send)


async def test_bad_filters_are_refused_by_name(rig: Rig) -> None:
    """Each fault is told, and an unknown queue is not found."""
    watch = WatchJobs(rig.store)
    bad = job_stream_pb2.WatchJobsRequest(namespace=rig.namespace, type="A b", root_id="x", kinds=[99])  # type: ignore[list-item]  # no such kind

    with pytest.raises(InvalidRequestError) as caught:
        await watch.watch_jobs(bad, Reader().send)
    with pytest.raises(QueueNotFoundError):
        await watch.watch_jobs(job_stream_pb2.WatchJobsRequest(namespace=rig.namespace, queue="nowhere"), Reader().send)

    assert [(fault.field, fault.reason) for fault in caught.value.violations] == [
        ("type", "BAD_NAME"),
        ("root_id", "BAD_ID"),
        ("kinds", "BAD_ENUM"),
    ]
