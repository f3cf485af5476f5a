"""What is attached to clients, on a real Redis: kept while it is wanted, ended by the reaper when it is not."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.errors import JobDetachedError, RequestIdConflictError, StoreUnavailableError, UniqueKeyHeldError
from gopher.job import JobState, Move, NewJob
from gopher.store import keys
from gopher.store.attached_jobs import LEASE_MS
from gopher.store.attachments import Attachment, Attachments
from gopher.store.submission import SubmitReceipt
from tests.store.rig import DEADLINE_MS
from tests.waiting import PATIENCE_SECONDS, until_async

if TYPE_CHECKING:
    from gopher.errors import GopherError
    from gopher.job import Job
    from gopher.store.store import Store
    from tests.store.rig import Rig

CALL = "call-1"


async def run(rig: Rig, call_id: str = CALL, left_ms: int | None = None, **fields: object) -> SubmitReceipt | GopherError:
    job = NewJob(**{"type": "email", "queue": rig.queue, **fields})  # type: ignore[arg-type]  # the test names fields of NewJob
    return await rig.store.attached_jobs.submit(rig.namespace, job, call_id, left_ms)


async def begin(rig: Rig, call_id: str = CALL, left_ms: int | None = None, **fields: object) -> str:
    answer = await run(rig, call_id, left_ms, **fields)
    assert isinstance(answer, SubmitReceipt), answer
    return answer.job_id


async def abandon(rig: Rig, job_id: str, call_id: str = CALL) -> bool:
    return await rig.store.attached_jobs.abandon(rig.namespace, rig.queue, job_id, call_id, reason="gone", grace_ms=7)


async def get(rig: Rig, job_id: str) -> Job:
    return await rig.store.query.get(rig.namespace, job_id)


async def attached(rig: Rig) -> dict[str, int]:
    """Return what is attached in the queue, with the moment until which it stands."""
    reply = await rig.store.link.call("ZRANGE", keys.attached(rig.namespace, rig.queue), 0, -1, "WITHSCORES")
    flat = [
        each.decode() if isinstance(each, bytes) else each
        for each in itertools.chain.from_iterable(each if isinstance(each, list) else [each] for each in reply)
    ]
    return {str(name): int(float(score)) for name, score in zip(flat[::2], flat[1::2], strict=True)}


def attachment(rig: Rig, name: str = "a", lease_ms: int = LEASE_MS, lost: list[str] | None = None) -> Attachment:
    said = [] if lost is None else lost
    return Attachment(rig.namespace, rig.queue, name, lease_ms, lambda: said.append(name))


async def test_job_is_attached_from_the_moment_it_is_stored(rig: Rig) -> None:
    """It stands in its line and among what is attached, for the lease, in one step."""
    job_id = await begin(rig)

    assert (await get(rig, job_id)).state is JobState.ENQUEUED
    assert await attached(rig) == {job_id: rig.now_ms + LEASE_MS}


async def test_job_nobody_attaches_again_is_cancelled_by_the_reaper(rig: Rig) -> None:
    """Not before its lease is over; a waiting one is cancelled at once, a processing one is told to its worker."""
    running, waiting = await begin(rig), await begin(rig)
    await rig.claim()

    await rig.advance(LEASE_MS)
    await rig.store.lifecycle.reap(rig.namespace, rig.queue)
    early = [(await get(rig, each)).cancel_reason for each in (running, waiting)]
    await rig.advance(1)
    await rig.store.lifecycle.reap(rig.namespace, rig.queue)
    jobs = [await get(rig, each) for each in (running, waiting)]

    assert early == [None, None]
    assert [job.state for job in jobs] == [JobState.PROCESSING, JobState.CANCELLED]
    assert {job.cancel_reason for job in jobs} == {"its client has vanished"}
    assert await attached(rig) == {}


@pytest.mark.parametrize(
    ("own_ms", "left_ms", "expected_ms"),
    [(None, 2_000, 2_000), (DEADLINE_MS, 2_000, 2_000), (DEADLINE_MS, DEADLINE_MS + 1, DEADLINE_MS), (None, None, None)],
)
async def test_deadline_is_the_earlier_of_the_jobs_and_the_calls(
    rig: Rig, own_ms: int | None, left_ms: int | None, expected_ms: int | None
) -> None:
    """The record, the index of deadlines and so the queue's expiry hold the minimum of both."""
    own = None if own_ms is None else rig.now_ms + own_ms

    job = await get(rig, await begin(rig, left_ms=left_ms, deadline_ms=own))
    score = await rig.store.link.call("ZSCORE", keys.deadlines(rig.namespace, rig.queue), job.id)

    expected = None if expected_ms is None else rig.now_ms + expected_ms
    assert job.deadline_ms == expected
    assert (None if score is None else int(float(score))) == expected


async def test_job_that_is_not_started_by_the_calls_deadline_expires(rig: Rig) -> None:
    """The call's deadline reaches the queue."""
    job_id = await begin(rig, left_ms=2_000)

    await rig.advance(2_001)
    await rig.store.lifecycle.promote(rig.namespace, rig.queue)
    job = await get(rig, job_id)

    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "EXPIRED"


async def test_request_id_takes_the_job_over_whatever_the_second_call_has_left(rig: Rig) -> None:
    """The same body again is the same job, with its first deadline; another body is refused. Its lease begins anew."""
    job_id = await begin(rig, left_ms=60_000, request_id="r1")
    await rig.advance(5_000)

    again = await run(rig, "call-2", 55_000, request_id="r1")
    other = await run(rig, "call-3", 55_000, request_id="r1", payload=b"2")

    assert again == SubmitReceipt(job_id, JobState.ENQUEUED, is_duplicate=True)
    assert isinstance(other, RequestIdConflictError)
    assert (await get(rig, job_id)).deadline_ms == rig.now_ms + 55_000
    assert await attached(rig) == {job_id: rig.now_ms + LEASE_MS}


async def test_job_taken_over_is_not_ended_by_its_first_call(rig: Rig) -> None:
    """A connection found dead after its client has come back by another one ends nothing."""
    job_id = await begin(rig, "call-1", request_id="r1")
    await begin(rig, "call-2", request_id="r1")

    by_first = await abandon(rig, job_id, "call-1")
    state_after_first = (await get(rig, job_id)).state
    by_second = await abandon(rig, job_id, "call-2")
    job = await get(rig, job_id)

    assert (by_first, state_after_first) == (False, JobState.ENQUEUED)
    assert (by_second, job.state, job.cancel_reason) == (True, JobState.CANCELLED, "gone")
    assert await attached(rig) == {}


async def test_abandoned_job_that_somebody_has_cancelled_keeps_his_reason(rig: Rig) -> None:
    """The first who asks for the end says why."""
    job_id = await begin(rig)
    await rig.claim()
    await rig.store.lifecycle.cancel(rig.namespace, job_id, reason="operator", grace_ms=1)

    await abandon(rig, job_id)

    assert (await get(rig, job_id)).cancel_reason == "operator"


async def test_abandon_leaves_a_final_job_and_knows_no_other(rig: Rig) -> None:
    """A completed job stays completed; one that is gone is no fault."""
    job_id = await begin(rig)
    (claimed,) = await rig.claim()
    await rig.settle(claimed.id, claimed.token, Move.COMPLETE)

    found = await abandon(rig, job_id)
    state = (await get(rig, job_id)).state
    await rig.store.lifecycle.delete(rig.namespace, job_id)

    assert (found, state) == (True, JobState.COMPLETED)
    assert await abandon(rig, job_id) is False


async def test_request_id_of_a_detached_job_is_refused(rig: Rig) -> None:
    """A job of SubmitJob is never tied to a client by another call; once it is final, its end can be seen."""
    job_id = await rig.submit(request_id="r1")

    refused = await run(rig, request_id="r1")
    tied = await attached(rig)
    (claimed,) = await rig.claim()
    await rig.settle(claimed.id, claimed.token, Move.COMPLETE)
    ended = await run(rig, request_id="r1")

    assert isinstance(refused, JobDetachedError)
    assert refused.metadata["job_id"] == job_id
    assert tied == {}
    assert ended == SubmitReceipt(job_id, JobState.COMPLETED, is_duplicate=True)
    assert await attached(rig) == {}


async def test_job_that_was_swept_is_answered_as_it_ends(rig: Rig) -> None:
    """A client that comes back after the lease finds its job cancelled, or on the way there, and attaches nothing."""
    job_id = await begin(rig, request_id="r1")
    await rig.claim()
    await rig.advance(LEASE_MS + 1)
    await rig.store.lifecycle.reap(rig.namespace, rig.queue)

    answer = await run(rig, "call-2", request_id="r1")

    assert answer == SubmitReceipt(job_id, JobState.PROCESSING, is_duplicate=True)
    assert await attached(rig) == {}


async def test_refused_job_leaves_nothing_attached(rig: Rig) -> None:
    """What a submit would refuse changes nothing."""
    holder = await rig.submit(unique_key="u")

    refused = await run(rig, unique_key="u")

    assert isinstance(refused, UniqueKeyHeldError)
    assert refused.metadata["job_id"] == holder
    assert await attached(rig) == {}


async def test_kept_attachment_is_renewed_before_its_lease_ends(store: Store, rig: Rig, nursery: trio.Nursery) -> None:
    """The loop attaches it again and again, without being asked; what is let go of is not."""
    attachments = Attachments(store.link)
    await nursery.start(attachments.run)
    kept, left = attachment(rig, "kept", 300), attachment(rig, "left", 300)
    for each in (kept, left):
        await attachments.attach(each)
    before = await attached(rig)

    attachments.let_go(left)

    async def was_renewed_twice() -> bool:
        return (await attached(rig))["kept"] > before["kept"] + 100

    await until_async(was_renewed_twice)
    after = await attached(rig)
    attachments.let_go(kept)
    assert after["left"] == before["left"]
    await attachments.detach(kept)
    await attachments.detach(left)


async def test_thousands_are_renewed_in_few_calls(store: Store, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are due together go together, 100 a call, and one let go of meanwhile costs nothing."""
    attachments = Attachments(store.link)
    all_of_them = [attachment(rig, f"n{number}", 30) for number in range(2_500)]
    for each in all_of_them:
        attachments.keep(each)
    for each in all_of_them[:500]:
        attachments.let_go(each)
    calls: list[int] = []
    renew = attachments._renew

    async def count(namespace: str, queue: str, batch: list[Attachment], word: str) -> set[str]:
        calls.append(len(batch))
        return await renew(namespace, queue, batch, word)

    monkeypatch.setattr(attachments, "_renew", count)
    await trio.sleep(0.03)

    await attachments.tick()

    assert calls == [100] * 20


async def test_attachment_that_was_swept_is_told_once(store: Store, rig: Rig) -> None:
    """Its owner hears of it, unless he has let it go; and it is not asked for again."""
    attachments = Attachments(store.link)
    lost: list[str] = []
    swept, left = attachment(rig, "swept", 30, lost), attachment(rig, "left", 30, lost)
    attachments.keep(swept)
    attachments.keep(left)
    attachments.let_go(left)

    for _ in range(2):
        await trio.sleep(0.03)
        await attachments.tick()

    assert lost == ["swept"]


async def test_renewal_that_redis_did_not_take_is_tried_again(
    store: Store, rig: Rig, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed call is no end of the loop, nor of what it was to attach."""
    monkeypatch.setattr("gopher.store.attachments._RETRY_SECONDS", 0.01)
    attachments = Attachments(store.link)
    renew = attachments._renew
    failures = [StoreUnavailableError("away", outcome_unknown=True)] * 3
    renewed = trio.Event()

    async def fail_first(namespace: str, queue: str, batch: list[Attachment], word: str) -> set[str]:
        if failures:
            await trio.lowlevel.checkpoint()
            raise failures.pop()
        renewed.set()
        return await renew(namespace, queue, batch, word)

    monkeypatch.setattr(attachments, "_renew", fail_first)
    await nursery.start(attachments.run)

    attachments.keep(attachment(rig, "a", 30))
    with trio.fail_after(PATIENCE_SECONDS):
        await renewed.wait()

    assert failures == []
