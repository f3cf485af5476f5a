"""The history of a job: every event, in order, without a gap, from the first watcher on or from the first thing its handler says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.errors import JobNotFoundError
from gopher.event import EventKind
from gopher.job import MAX_CRASHES, JobState, Move
from gopher.store.history import MAX_EVENTS, HistoryEvent, Saying
from tests.store.rig import DELAY_MS, LEASE_MS
from tests.store.test_query import UNKNOWN_ID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.store.rig import Rig

CHUNK = b"application/octet-stream " + b"x" * (64 * 1024)
KEPT_BYTES = 4 * 1024 * 1024


def told(events: Sequence[HistoryEvent]) -> list[str]:
    """Return what each event says, in short; the numbers must have no gap."""
    numbers = [event.sequence for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    moments = [event.at_ms for event in events]
    assert moments == sorted(moments)
    return [f"{event.state} {event.attempt}" if event.kind is EventKind.STATE else event.kind for event in events]


async def say_many(rig: Rig, job_id: str, token: int, details: Sequence[bytes], *, first: int = 1) -> None:
    sayings = [Saying(job_id, token, first + at, EventKind.OUTPUT, "", detail) for at, detail in enumerate(details)]
    for at in range(0, len(sayings), 50):
        await rig.store.histories.report(rig.namespace, rig.queue, sayings[at : at + 50])


async def test_history_holds_all_that_happens_after_it_was_opened(rig: Rig) -> None:
    """From the submit to the end, through a retry, with what the handlers of both attempts say."""
    job_id = await rig.submit()
    await rig.open_history(job_id)
    (first,) = await rig.claim()
    await rig.say(job_id, first.token, "info begun")
    await rig.settle(job_id, first.token, Move.RETRY, delay_ms=DELAY_MS)
    await rig.advance(DELAY_MS)
    await rig.promote()
    (second,) = await rig.claim()
    await rig.say(job_id, second.token, "half", EventKind.PROGRESS)
    await rig.cancel(job_id)
    await rig.settle(job_id, second.token, Move.ACKNOWLEDGE_CANCEL)

    events = await rig.history(job_id)

    assert told(events) == [
        "enqueued 0",
        "processing 1",
        "log",
        "retrying 1",
        "enqueued 1",
        "processing 2",
        "progress",
        "cancel_requested",
        "cancelled 2",
    ]
    assert events[0].sequence == 1
    assert [event.progress for event in events] == [0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5]
    assert [event.is_cancel_requested for event in events] == [False] * 7 + [True] * 2
    assert (events[2].detail, events[6].detail) == (b"info begun", b"half")
    assert events[6].attempt == 2


async def test_job_that_nobody_asks_about_has_no_history(rig: Rig) -> None:
    """Neither a key nor a field: it pays nothing."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await rig.settle(job_id, job.token, Move.COMPLETE)

    assert await rig.names("history:*") == []
    assert await rig.call("HGET", f"job:{job_id}", "history") is None


async def run_through(rig: Rig, steps: Sequence[Callable[[Rig], Awaitable[object]]], opened_after: int) -> list[str]:
    """Open a job's history after so many steps of its life; return what it tells at the end."""
    await rig.clear()
    await rig.set_clock()
    job_id = ""
    for at, step in enumerate(steps):
        answer = await step(rig)
        job_id = job_id or str(answer)
        if at == opened_after:
            await rig.open_history(job_id)
        await rig.advance(1)
    return [each for each in told(await rig.history(job_id)) if each != "progress"]


async def claim_and(rig: Rig, move: Move) -> None:
    (job,) = await rig.claim()
    await rig.settle(job.id, job.token, move)


async def claim_and_lose(rig: Rig) -> None:
    await rig.claim()
    await rig.advance(LEASE_MS + 1)
    await rig.reap()


LIVES: dict[str, list[Callable[[Rig], Awaitable[object]]]] = {
    "completed at once": [lambda rig: rig.submit(), lambda rig: claim_and(rig, Move.COMPLETE)],
    "failed twice": [
        lambda rig: rig.submit(),
        lambda rig: claim_and(rig, Move.RETRY),
        lambda rig: rig.promote(),
        lambda rig: claim_and(rig, Move.BURY),
    ],
    "lost for good": [lambda rig: rig.submit(), *[claim_and_lose] * MAX_CRASHES],
    "lost, then completed": [lambda rig: rig.submit(), claim_and_lose, lambda rig: claim_and(rig, Move.COMPLETE)],
    "scheduled": [lambda rig: rig.submit(delay_ms=DELAY_MS)],
    "running": [lambda rig: rig.submit(), lambda rig: rig.claim()],
}


@pytest.mark.parametrize("life", LIVES)
async def test_history_opened_late_tells_what_one_opened_at_once_tells(rig: Rig, life: str) -> None:
    """Whenever the first watcher comes, the record tells of what has happened until then, as long as nothing is requeued."""
    whole = await run_through(rig, LIVES[life], 0)

    late = [await run_through(rig, LIVES[life], after) for after in range(1, len(LIVES[life]))]

    assert all(each == whole for each in late), late


async def test_first_word_of_a_handler_opens_the_history(rig: Rig) -> None:
    """Before it stands what the record tells."""
    job_id = await rig.submit()
    (job,) = await rig.claim()

    await rig.say(job_id, job.token, "info hello")

    assert told(await rig.history(job_id)) == ["enqueued 0", "processing 1", "log"]


async def test_saying_that_is_repeated_is_kept_once(rig: Rig) -> None:
    """The reply may have been lost: each has its number in the attempt, which begins anew with the next."""
    job_id = await rig.submit()
    (job,) = await rig.claim()

    words = [await rig.say(job_id, job.token, f"info {number}", number=number) for number in (1, 1, 2, 1, 2, 3)]
    await rig.settle(job_id, job.token, Move.RETRY)
    await rig.promote()
    (again,) = await rig.claim()
    await rig.say(job_id, again.token, "info 1", number=1)

    assert words == ["OK"] * 6
    logs = [event.detail for event in await rig.history(job_id) if event.kind is EventKind.LOG]
    assert logs == [b"info 1", b"info 2", b"info 3", b"info 1"]


async def test_any_bytes_are_kept_as_they_are(rig: Rig) -> None:
    """Nothing a handler gives is read by a script: line ends, zeros and what is no UTF-8 come back."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    detail = b"application/octet-stream " + bytes(range(256)) + b" \n\r\0"

    await say_many(rig, job_id, job.token, [detail])

    assert (await rig.history(job_id))[-1].detail == detail


async def test_history_keeps_so_many_events_and_no_more(rig: Rig) -> None:
    """The oldest go; the numbers go on."""
    job_id = await rig.submit()
    (job,) = await rig.claim()

    await say_many(rig, job_id, job.token, [b"a b"] * (MAX_EVENTS + 1))

    events = await rig.history(job_id)
    assert len(events) == MAX_EVENTS
    assert (events[0].sequence, events[-1].sequence) == (4, MAX_EVENTS + 3)
    assert [event.sequence for event in await rig.history(job_id, after=1)] == [event.sequence for event in events]


async def test_history_keeps_so_many_bytes_and_no_more(rig: Rig) -> None:
    """Of large chunks fewer are kept than of small ones, and always the newest."""
    job_id = await rig.submit()
    (job,) = await rig.claim()

    size = 0
    for at in range(4):
        await say_many(rig, job_id, job.token, [b"a b"] * 200 + [CHUNK] * 40, first=1 + at * 240)
        events = await rig.history(job_id)
        size = sum(len(event.detail) for event in events)
        assert size <= KEPT_BYTES
        assert events[-1].sequence == 2 + (at + 1) * 240
        told(events)

    assert size >= KEPT_BYTES - 14 * len(CHUNK)


@pytest.mark.parametrize("is_purged", [False, True])
async def test_history_goes_with_its_job(rig: Rig, is_purged: bool) -> None:
    """By an operator's order, or at the end of the retention."""
    waiting, ended = await rig.submit(), await rig.job_in(JobState.CANCELLED, retention_ms=1)
    for job_id in (waiting, ended):
        await rig.open_history(job_id)

    if is_purged:
        await rig.store.lifecycle.purge(rig.namespace, rig.queue)
    else:
        await rig.store.lifecycle.delete(rig.namespace, waiting)
    await rig.advance(2)
    await rig.reap()

    assert await rig.names("*:" + waiting) == []
    assert await rig.names("*:" + ended) == []
    with pytest.raises(JobNotFoundError):
        await rig.open_history(waiting)


async def test_history_of_no_job_is_not_found(rig: Rig) -> None:
    """Nothing is written for it."""
    with pytest.raises(JobNotFoundError):
        await rig.open_history(UNKNOWN_ID)

    assert await rig.names("history:*") == []


async def test_requeue_goes_on_in_the_same_history(rig: Rig) -> None:
    """The numbers go on, and the cancel of the first generation is no cancel of the second."""
    job_id = await rig.submit()
    await rig.open_history(job_id)
    await rig.cancel(job_id)
    await rig.requeue(job_id)
    (job,) = await rig.claim()
    await rig.settle(job_id, job.token, Move.COMPLETE)

    events = await rig.history(job_id)

    assert told(events) == ["enqueued 0", "cancelled 0", "enqueued 0", "processing 1", "completed 1"]
    assert [event.is_cancel_requested for event in events] == [False, True, False, False, False]


async def test_history_that_is_gone_is_begun_anew(rig: Rig) -> None:
    """Somebody has deleted the key behind our back: no script stumbles over that."""
    job_id = await rig.submit()
    await rig.open_history(job_id)
    await rig.call("DEL", f"history:{job_id}")

    (job,) = await rig.claim()
    await rig.settle(job_id, job.token, Move.COMPLETE)

    assert told(await rig.history(job_id)) == ["enqueued 0", "processing 1", "completed 1"]


async def test_history_that_a_progress_opens_tells_it_once(rig: Rig) -> None:
    """The first thing that a handler says is a thing of its own, and not also one that the record told before."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await rig.say(job_id, job.token, "half", EventKind.PROGRESS)

    events = await rig.history(job_id)

    assert told(events) == ["enqueued 0", "processing 1", "progress"]
