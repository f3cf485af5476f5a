"""A watch that was cut goes on where it was; what is kept no more is told; who lags holds up nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher_pb.v1 import job_event_pb2, job_pb2

from gopher.errors import InvalidRequestError
from gopher.job import Move
from gopher.service import watch
from gopher.service.feeds import Feed
from gopher.store.history import MAX_EVENTS, Histories, HistoryEvent
from gopher.wire.status import CursorTooOldError
from tests.service.watcher import PATIENCE_SECONDS, Watcher, say, watch_until, watched

if TYPE_CHECKING:
    from gopher.store.codec import ClaimedJob
    from tests.service.conftest import Rig


# --- cursors --------------------------------------------------------------------------------------------------------------------


async def test_watch_with_a_cursor_goes_on_behind_it(rig: Rig) -> None:
    """Wherever a stream was cut, what came before and what comes after are the whole, with no gap and nothing twice."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await say(rig, job, 1, 5)
    await rig.settle(job, Move.COMPLETE)
    whole = await watched(rig, job_id)

    rests = [await watched(rig, job_id, event.cursor) for event in whole]

    for at, rest in enumerate(rests, 1):
        assert rest == whole[at:]
    assert rests[-1] == []
    assert [event.sequence for event in whole] == list(range(1, 9))


async def test_watch_with_the_cursor_of_a_running_jobs_last_event_waits(rig: Rig) -> None:
    """Nothing is sent until something happens, and then only that."""
    job_id = await rig.submit()
    (known,) = await watch_until(rig, job_id, 1)
    watcher = Watcher(rig, job_id, known.cursor)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await trio.testing.wait_all_tasks_blocked(0.05)
            before = list(watcher.events)
            await rig.complete()

    assert before == []
    assert watcher.states == ["PROCESSING", "COMPLETED"]


async def test_watch_refuses_a_cursor_that_is_not_its_own(rig: Rig) -> None:
    """Of another job, changed, or made up: nothing is told."""
    one, other = await rig.submit(), await rig.submit()
    (event,) = await watch_until(rig, one, 1)
    (foreign,) = await watch_until(rig, other, 1)
    changed = ("B" if event.cursor[0] != "B" else "C") + event.cursor[1:]

    for cursor in (foreign.cursor, changed, "x", "é", "AAAA", event.cursor[:-4], event.cursor + "AAAA", "A" * 5000):
        with pytest.raises(InvalidRequestError) as raised:
            await watched(rig, one, cursor)
        assert raised.value.violations[0].reason == "BAD_CURSOR"


async def test_watch_refuses_a_cursor_older_than_what_is_kept(rig: Rig) -> None:
    """The error tells the oldest event and a cursor by which all that is kept can be read."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    (known, *_) = await watch_until(rig, job_id, 2)
    await say(rig, job, 1, MAX_EVENTS)
    await rig.settle(job, Move.COMPLETE)

    with pytest.raises(CursorTooOldError) as raised:
        await watched(rig, job_id, known.cursor)
    rest = await watched(rig, job_id, raised.value.metadata["oldest_cursor"])

    assert raised.value.metadata["oldest_sequence"] == "4"
    assert [event.sequence for event in rest] == list(range(4, MAX_EVENTS + 4))


async def test_watch_refuses_a_cursor_that_redis_has_lost(rig: Rig) -> None:
    """A failover may lose the last events: a reader who knows them is told so, rather than left waiting for others of their number."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await say(rig, job, 1, 3)
    known = await watch_until(rig, job_id, 5)
    await rig.store.link.call("XDEL", f"gopher:{{{rig.namespace}:default}}:history:{job_id}", "5-0")

    with pytest.raises(CursorTooOldError):
        await watched(rig, job_id, known[-1].cursor)


async def roll_back(rig: Rig, job: ClaimedJob, to: int) -> None:
    """Have Redis lose the events of a running attempt behind one, as a failover may; the attempt says others in their place."""
    key = f"gopher:{{{rig.namespace}:default}}:history:{job.id}"
    lost = await rig.store.link.call("XRANGE", key, f"{to + 1}-0", "+")
    # The stream takes up a number again only once its last one is forgotten.
    kept = await rig.store.link.call("XRANGE", key, "-", f"{to}-0")
    await rig.store.link.call("DEL", key)
    for place, fields in kept:
        await rig.store.link.call("XADD", key, place, *fields)
    await say(rig, job, 100, len(lost) - 1)
    await rig.settle(job, Move.COMPLETE)


async def test_watch_refuses_a_cursor_whose_number_another_event_has(rig: Rig) -> None:
    """A failover lost the event that a reader knows, and the history has grown to its number again: the reader is told, to the end."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await say(rig, job, 1, 3)
    known = await watch_until(rig, job_id, 5)
    await roll_back(rig, job, 3)

    with pytest.raises(CursorTooOldError) as raised:
        await watched(rig, job_id, known[-1].cursor)
    rest = await watched(rig, job_id, raised.value.metadata["oldest_cursor"])

    assert [event.sequence for event in rest] == [1, 2, 3, 4, 5]
    assert rest[-1].state == job_pb2.JOB_STATE_COMPLETED
    assert await watched(rig, job_id, known[2].cursor) == rest[3:]


async def test_watcher_is_told_of_events_that_took_the_numbers_of_lost_ones(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same while it watches: it goes on behind the last event that is left, and so comes to the end."""
    put_nowait = Feed.put_nowait
    monkeypatch.setattr(Feed, "put_nowait", lambda feed, change: put_nowait(feed, change) if change is None else None)
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await say(rig, job, 1, 3)
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(5)
            await roll_back(rig, job, 3)
            for note in rig.store.link.on_reconnect:
                note()
            await watcher.ended.wait()
    assert isinstance(watcher.error, CursorTooOldError)
    rest = await watched(rig, job_id, watcher.error.metadata["oldest_cursor"])

    assert [event.sequence for event in rest] == [4, 5]
    assert rest[-1].state == job_pb2.JOB_STATE_COMPLETED


# --- what is kept, and readers that lag -----------------------------------------------------------------------------------------


async def test_late_watcher_is_told_what_is_kept_no_more(rig: Rig) -> None:
    """Its first event says how many are gone and holds the whole job; then comes all that is kept."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await say(rig, job, 1, MAX_EVENTS)
    await rig.settle(job, Move.COMPLETE)

    events = await watched(rig, job_id)

    assert events[0].kind == job_event_pb2.JOB_EVENT_KIND_TRUNCATED
    assert (events[0].truncation.oldest_sequence, events[0].truncation.dropped_count, events[0].sequence) == (4, 3, 0)
    assert events[0].job.id == job_id
    assert [event.sequence for event in events[1:]] == list(range(4, MAX_EVENTS + 4))
    assert await watched(rig, job_id, events[0].cursor) == events[1:]


async def test_watcher_that_lags_misses_nothing_and_holds_up_nobody(rig: Rig) -> None:
    """What it has not taken yet waits in the history, not in our memory."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    slow, quick = Watcher(rig, job_id), Watcher(rig, job_id)
    slow.hold = trio.Event()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            nursery.start_soon(quick.run)
            await quick.until(2)
            await say(rig, job, 1, 1000)
            await quick.until(1002)
            before = len(slow.events)
            slow.hold.set()
            await slow.until(1002)
            await rig.settle(job, Move.COMPLETE)

    assert before == 1
    assert slow.sequences == quick.sequences == list(range(1, 1004))
    assert slow.events[-1].job.id == job_id


async def test_watcher_that_lags_behind_what_is_kept_is_told(rig: Rig) -> None:
    """In the middle of its stream: how many are gone, and then all the rest."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    slow = Watcher(rig, job_id)
    slow.hold = trio.Event()

    with trio.fail_after(2 * PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            await slow.until(1)
            await say(rig, job, 1, MAX_EVENTS + 500)
            slow.hold.set()
            await rig.settle(job, Move.COMPLETE)

    told = [event for event in slow.events if event.kind == job_event_pb2.JOB_EVENT_KIND_TRUNCATED]
    assert len(told) == 1
    at = slow.events.index(told[0])
    oldest = told[0].truncation.oldest_sequence
    assert slow.sequences[:at] == list(range(1, at + 1))
    assert slow.sequences[at + 1 :] == list(range(oldest, MAX_EVENTS + 504))
    assert told[0].truncation.dropped_count == oldest - 1 - at


async def test_watch_shows_that_it_lives_while_nothing_happens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is no event: it has the cursor of the last one, and no number."""
    monkeypatch.setattr(watch, "HEARTBEAT_SECONDS", 0.01)
    job_id = await rig.submit()

    first, *beats = await watch_until(rig, job_id, 4)

    assert [beat.kind for beat in beats] == [job_event_pb2.JOB_EVENT_KIND_HEARTBEAT] * 3
    assert {beat.cursor for beat in beats} == {first.cursor}
    assert [beat.sequence for beat in beats] == [0] * 3
    assert {beat.state for beat in beats} == {job_pb2.JOB_STATE_ENQUEUED}


async def test_watcher_that_goes_while_it_reads_for_all_leaves_that_to_another(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads what is new and wakes the others; when its client goes just then, none of them waits for ever."""
    job_id = await rig.submit()
    watchers = [Watcher(rig, job_id) for _ in range(3)]
    gone = trio.CancelScope()
    readers = 0
    whole = Histories.read

    async def read(self: Histories, namespace: str, queue: str, job_id: str, *, after: int, count: int) -> list[HistoryEvent]:
        nonlocal readers
        readers += 1
        if readers == 1:
            gone.cancel()
            await trio.sleep_forever()
        return await whole(self, namespace, queue, job_id, after=after, count=count)

    async def run_first() -> None:
        with gone:
            await watchers[0].run()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_first)
            await watchers[0].until(1)
            for watcher in watchers[1:]:
                nursery.start_soon(watcher.run)
                await watcher.until(1)
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(Histories, "read", read)
            await rig.complete()

    assert readers > 1
    assert [watcher.states[-1] for watcher in watchers[1:]] == ["COMPLETED"] * 2
