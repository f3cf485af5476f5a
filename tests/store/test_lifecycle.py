"""The moves of a job, one by one: what each promises beyond the table of moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.errors import (
    RequestIdConflictError,
    UniqueKeyHeldError,
)
from gopher.job import JobState, Move, NewJob, Outcome, Priority
from gopher.store.ids import number_text
from gopher.store.lifecycle import Settlement
from gopher.store.submission import BATCH, SubmitReceipt
from tests.store.rig import DELAY_MS, LEASE_MS, Rig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.store import Store

FAILED_RETENTION_MS = 30 * 24 * 3600 * 1000
UNKNOWN_ID = "01998c2e-7a00-7000-8000-000000000000"

# --- submit -------------------------------------------------------------------------------------------------------------------


async def test_submit_stores_what_was_said(rig: Rig) -> None:
    """A job is found again with every field as submitted, at the moment of Redis."""
    job_id = await rig.submit(
        payload=b"[1]", priority=Priority.HIGH, labels={"a": "b"}, max_attempts=7, parent_id="p", trace="t"
    )

    job = await rig.get(job_id)

    assert (job.payload, job.priority, job.labels, job.max_attempts) == (b"[1]", Priority.HIGH, {"a": "b"}, 7)
    assert (job.parent_id, job.trace, job.namespace, job.queue) == ("p", "t", rig.namespace, rig.queue)
    assert (job.state, job.submitted_ms, job.enqueued_ms, job.attempt) == (JobState.ENQUEUED, rig.now_ms, rig.now_ms, 0)


@pytest.mark.parametrize(
    ("run", "state"),
    [
        ({"delay_ms": 1}, JobState.SCHEDULED),
        ({"delay_ms": 0}, JobState.ENQUEUED),
        ({"run_ms": 1_800_000_000_001}, JobState.SCHEDULED),
        ({"run_ms": 1_800_000_000_000}, JobState.ENQUEUED),
        ({"run_ms": 0}, JobState.ENQUEUED),
    ],
)
async def test_submit_schedules_only_what_is_due_later(rig: Rig, run: dict[str, int], state: JobState) -> None:
    """A run time that has come, or that lies in the past, means now."""
    job_id = await rig.submit(**run)

    assert await rig.state(job_id) is state


async def test_submit_with_the_same_request_id_gives_the_first_job(rig: Rig) -> None:
    """A submit that is repeated, with its reply lost, makes one job only and tells where that stands."""
    first = await rig.submit(request_id="r", payload=b"1")
    await rig.claim()
    before = await rig.dump()

    again = await rig.try_submit(request_id="r", payload=b"1", trace="another call's")

    assert again == SubmitReceipt(first, JobState.PROCESSING, is_duplicate=True)
    assert await rig.dump() == before


async def test_submit_with_the_same_request_id_twice_in_a_batch_makes_one_job(rig: Rig) -> None:
    """Duplicates are found within one call too, and told the state of the first."""
    job = NewJob(type="email", request_id="r", delay_ms=5)

    first, second = await rig.store.lifecycle.submit(rig.namespace, [job, job])

    assert isinstance(first, SubmitReceipt)
    assert second == SubmitReceipt(first.job_id, JobState.SCHEDULED, is_duplicate=True)


async def test_submit_with_a_used_request_id_and_another_body_is_refused(rig: Rig) -> None:
    """A request id stands for one body."""
    first = await rig.submit(request_id="r", payload=b"1")
    before = await rig.dump()

    refusal = await rig.try_submit(request_id="r", payload=b"2")

    assert isinstance(refusal, RequestIdConflictError)
    assert refusal.metadata == {"request_id": "r", "job_id": first}
    assert await rig.dump() == before


async def test_submit_remembers_a_request_longer_than_the_job(rig: Rig) -> None:
    """A repeated submit makes no second job even when the first one's retention is over."""
    first = await rig.submit(request_id="r")
    await rig.store.lifecycle.delete(rig.namespace, first)

    again = await rig.try_submit(request_id="r")

    assert again == SubmitReceipt(first, JobState.COMPLETED, is_duplicate=True)


async def test_submit_script_repeated_with_the_same_ids_changes_nothing(rig: Rig) -> None:
    """The very same script call made twice is the same as once: jobs without a request id are known by their id."""
    number = await rig.store.registry.queue_number(rig.namespace, rig.queue)
    job_id = UNKNOWN_ID[:-4] + number_text(number)
    script, args = rig.store.lifecycle._submit, _submission(job_id)
    first = await script(rig.store.link, [rig.settings], args)
    before = await rig.dump()

    second = await script(rig.store.link, [rig.settings], args)

    assert first == [b"enqueued"]
    assert second == [[b"DUPLICATE", job_id.encode(), b"enqueued"]]
    assert await rig.dump() == before


async def test_submit_with_a_held_unique_key_is_refused_and_leaves_nothing(rig: Rig) -> None:
    """At most one job that is not final holds a key; the refusal names it."""
    holder = await rig.submit(unique_key="k")
    before = await rig.dump()

    refusal = await rig.try_submit(unique_key="k", request_id="r")

    assert isinstance(refusal, UniqueKeyHeldError)
    assert refusal.metadata == {"unique_key": "k", "job_id": holder}
    assert await rig.dump() == before


@pytest.mark.parametrize("end", [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED])
async def test_unique_key_is_free_once_its_job_is_final(rig: Rig, end: JobState) -> None:
    """The key is held exactly as long as its job is not final."""
    await rig.job_in(end, unique_key="k")

    second = await rig.submit(unique_key="k")

    assert await rig.state(second) is JobState.ENQUEUED


async def test_unique_key_is_released_by_its_holder_only(rig: Rig) -> None:
    """The end of a job never frees a key that another one holds by now."""
    loser = await rig.submit(unique_key="k")
    await rig.call("DEL", "unique:k")
    holder = await rig.submit(unique_key="k")

    await rig.cancel(loser)

    refusal = await rig.try_submit(unique_key="k")
    assert isinstance(refusal, UniqueKeyHeldError)
    assert refusal.metadata["job_id"] == holder


async def test_submit_answers_each_job_by_itself_across_queues(store: Store, namespace: str) -> None:
    """One refused job does not keep the others out, and each gets its answer in its place."""
    jobs = [NewJob(type="t", queue=f"q{at % 3}", unique_key="k", payload=b"%d" % at) for at in range(6)]

    answers = await store.lifecycle.submit(namespace, jobs)

    assert [isinstance(answer, SubmitReceipt) for answer in answers] == [True, True, True, False, False, False]
    for at, answer in enumerate(answers[:3]):
        assert isinstance(answer, SubmitReceipt)
        job = await store.query.get(namespace, answer.job_id)
        assert (job.queue, job.payload) == (f"q{at}", b"%d" % at)


async def test_submit_of_any_number_of_jobs_is_cut_into_batches(store: Store, namespace: str) -> None:
    """More jobs than a script call takes, and more bytes, are all stored, in order."""
    jobs = [NewJob(type="t", payload=b"x" * (40_000 if at < 50 else 1)) for at in range(2 * BATCH + 60)]

    answers = await store.lifecycle.submit(namespace, jobs)

    ids = [answer.job_id for answer in answers if isinstance(answer, SubmitReceipt)]
    assert len(ids) == len(jobs)
    assert ids == sorted(ids)
    assert (await store.query.queue_stats(namespace, "default")).counts[JobState.ENQUEUED] == len(jobs)


# --- claim --------------------------------------------------------------------------------------------------------------------


async def test_claim_gives_jobs_in_the_order_in_which_they_were_enqueued(rig: Rig) -> None:
    """A line is first in, first out."""
    ids = []
    for _ in range(4):
        ids.append(await rig.submit())
        await rig.advance(1)

    jobs = await rig.claim(3)

    assert [job.id for job in jobs] == ids[:3]
    assert [(job.attempt, job.claimed_ms) for job in jobs] == [(1, rig.now_ms)] * 3


async def test_claim_repeated_with_its_id_gives_the_same_jobs_and_leases(rig: Rig) -> None:
    """A claim whose reply was lost is asked for again and gives what it gave, while those are still its own."""
    ids = [await rig.submit() for _ in range(4)]
    first = await rig.claim(3, claim_id="c-1")
    await rig.settle(first[1].id, first[1].token, Move.COMPLETE)
    before = await rig.dump()

    again = await rig.claim(3, claim_id="c-1")

    assert [(job.id, job.token, job.attempt) for job in again] == [(j.id, j.token, j.attempt) for j in (first[0], first[2])]
    assert await rig.dump() == before
    assert [job.id for job in await rig.claim(3, claim_id="c-2")] == ids[3:]


async def test_claim_id_that_begins_like_the_last_one_is_another_claim(rig: Rig) -> None:
    """Claim ids are compared whole."""
    ids = [await rig.submit() for _ in range(2)]

    first = await rig.claim(claim_id="c-12")
    second = await rig.claim(claim_id="c-1")

    assert [job.id for job in (*first, *second)] == ids


async def test_claim_repeated_after_its_leases_were_reaped_takes_jobs_anew(rig: Rig) -> None:
    """A repeated claim never revives a lease that was taken away."""
    job_id = await rig.submit()
    (first,) = await rig.claim(claim_id="c")
    await rig.advance(LEASE_MS + 1)
    await rig.reap()

    again = await rig.claim(claim_id="c")

    assert again == [] or again[0].token > first.token
    assert await rig.state(job_id) in {JobState.ENQUEUED, JobState.PROCESSING}


async def test_claim_repeated_after_another_worker_took_over_gives_nothing_of_its(rig: Rig) -> None:
    """A repeated claim does not give jobs that are by now another worker's."""
    job_id = await rig.submit()
    await rig.claim(worker="slow", claim_id="c")
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    (taken,) = await rig.claim(worker="quick")

    again = await rig.claim(worker="slow", claim_id="c")

    assert again == []
    assert (await rig.get(job_id)).token == taken.token


@pytest.mark.parametrize("batch", [1, 4, 6, 7])
async def test_claim_takes_from_the_lines_in_the_ratio_3_2_1(rig: Rig, batch: int) -> None:
    """While all lines have jobs, any six claims in a row take three high, two normal and one low, however they are batched."""
    for priority in Priority:
        await _submit_many(rig, 60, priority)

    taken: list[Priority] = []
    while len(taken) < 84:
        taken += [Priority((await rig.get(job.id)).priority) for job in await rig.claim(batch)]

    for start in range(78):
        window = taken[start : start + 6]
        assert [window.count(p) for p in (Priority.HIGH, Priority.NORMAL, Priority.LOW)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("backlog", "shares"),
    [
        ({Priority.HIGH: 60, Priority.LOW: 60}, {Priority.HIGH: 3, Priority.LOW: 1}),
        ({Priority.NORMAL: 60, Priority.LOW: 60}, {Priority.NORMAL: 2, Priority.LOW: 1}),
        ({Priority.HIGH: 60, Priority.NORMAL: 60}, {Priority.HIGH: 3, Priority.NORMAL: 2}),
        ({Priority.LOW: 60}, {Priority.LOW: 1}),
    ],
)
async def test_claim_gives_the_share_of_an_empty_line_away(
    rig: Rig, backlog: dict[Priority, int], shares: dict[Priority, int]
) -> None:
    """A line that is empty costs no claim; the others share by their own ratio."""
    for priority, count in backlog.items():
        await _submit_many(rig, count, priority)
    cycles, weight = 6, sum(shares.values())

    jobs = await rig.claim(cycles * weight)

    priorities = [(await rig.get(job.id)).priority for job in jobs]
    assert len(jobs) == cycles * weight
    assert {p: priorities.count(p) for p in shares} == {p: cycles * share for p, share in shares.items()}


async def test_claim_empties_the_lines_when_it_may(rig: Rig) -> None:
    """A claim for more than there is takes all of every line."""
    for priority, count in ((Priority.HIGH, 1), (Priority.NORMAL, 5), (Priority.LOW, 3)):
        await _submit_many(rig, count, priority)

    jobs = await rig.claim(BATCH)

    assert len(jobs) == 9
    assert await rig.claim(BATCH) == []


async def test_claim_fails_a_job_that_is_past_its_deadline(rig: Rig) -> None:
    """What was not started by its deadline is never started: it fails as EXPIRED, and the claim goes on to the next."""
    late = await rig.submit(deadline_ms=rig.now_ms + 10)
    await rig.advance(10)
    good = await rig.submit(deadline_ms=rig.now_ms + 10)

    jobs = await rig.claim(5)

    assert [job.id for job in jobs] == [good]
    job = await rig.get(late)
    assert (job.state, job.failure and job.failure.reason, job.attempt) == (JobState.FAILED, "EXPIRED", 0)
    assert await rig.audit() == []


async def test_claim_from_a_paused_queue_gives_nothing_until_resumed(rig: Rig) -> None:
    """A paused queue accepts jobs and gives none; a claim repeated for its lost reply is still answered."""
    first = await rig.submit()
    await rig.claim(claim_id="before")
    await rig.store.lifecycle.pause(rig.namespace, rig.queue)
    second = await rig.submit()

    paused = await rig.store.lifecycle.claim(
        rig.namespace, rig.queue, worker="w", count=1, lease_ms=LEASE_MS, claim_id="during"
    )
    repeated = await rig.claim(claim_id="before")
    await rig.store.lifecycle.resume(rig.namespace, rig.queue)
    resumed = await rig.claim()

    assert paused is None
    assert [job.id for job in repeated] == [first]
    assert [job.id for job in resumed] == [second]


# --- settle -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("move", "state"),
    [
        (Move.COMPLETE, "completed"),
        (Move.RETRY, "retrying"),
        (Move.BURY, "failed"),
        (Move.SNOOZE, "scheduled"),
        (Move.RELEASE, "enqueued"),
        (Move.ACKNOWLEDGE_CANCEL, "cancelled"),
    ],
)
async def test_settle_repeated_is_answered_already_and_changes_nothing(rig: Rig, move: Move, state: str) -> None:
    """An outcome whose reply was lost may be written again under its token."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    first = await rig.settle(job_id, job.token, move, delay_ms=DELAY_MS)
    before = await rig.dump()

    second = await rig.settle(job_id, job.token, move, delay_ms=DELAY_MS)

    assert (first, second) == (state, "ALREADY")
    assert await rig.dump() == before


async def test_settle_writes_many_outcomes_each_by_itself(rig: Rig) -> None:
    """One stale outcome in a batch does not keep the others from being written."""
    ids = [await rig.submit() for _ in range(3)]
    jobs = await rig.claim(3)
    settlements = [Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, 0, b"1") for job in jobs]
    settlements[1] = settlements[1]._replace(token=0)

    words = await rig.store.lifecycle.settle(
        rig.namespace, rig.queue, [*settlements, settlements[0]._replace(job_id=UNKNOWN_ID), settlements[0]]
    )

    assert words == ["completed", "STALE_LEASE", "completed", "NOT_FOUND", "ALREADY"]
    assert [await rig.state(job_id) for job_id in ids] == [JobState.COMPLETED, JobState.PROCESSING, JobState.COMPLETED]


async def test_settle_keeps_result_and_attempt_of_a_completed_job(rig: Rig) -> None:
    """A completed job tells its result and the attempt that made it."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim(worker="w-7")
    await rig.advance(250)

    await rig.settle(job_id, claimed.token, Move.COMPLETE, result=b'{"n":9007199254740993}')

    job = await rig.get(job_id)
    (attempt,) = job.attempts
    assert (job.result, job.failure, job.finished_ms) == (b'{"n":9007199254740993}', None, rig.now_ms)
    assert (attempt.number, attempt.outcome, attempt.worker) == (1, Outcome.SUCCEEDED, "w-7")
    assert (attempt.started_ms, attempt.finished_ms) == (rig.now_ms - 250, rig.now_ms)


async def test_settle_with_a_retry_waits_for_the_delay_and_counts_the_attempt(rig: Rig) -> None:
    """A retrying job is not claimable before its delay has passed; then it is, as the next attempt, and remembers the failure."""
    job_id = await rig.submit(priority=Priority.HIGH)
    (first,) = await rig.claim()
    await rig.settle(job_id, first.token, Move.RETRY, delay_ms=500)
    await rig.advance(499)
    early = (await rig.promote(), await rig.claim())
    await rig.advance(1)

    moved, (second,) = await rig.promote(), await rig.claim()

    assert early == (0, [])
    assert (moved, second.attempt) == (1, 2)
    job = await rig.get(job_id)
    assert [(a.number, a.outcome, a.failure and a.failure.reason) for a in job.attempts] == [
        (1, Outcome.RAISED, "HANDLER_RAISED")
    ]


async def test_settle_of_a_later_attempt_leaves_the_earlier_failure_to_the_history(rig: Rig) -> None:
    """A job that completes after a retry has not failed."""
    job_id = await rig.submit()
    (first,) = await rig.claim()
    await rig.settle(job_id, first.token, Move.RETRY)
    retrying = await rig.get(job_id)
    await rig.promote()
    (second,) = await rig.claim()

    await rig.settle(job_id, second.token, Move.COMPLETE)

    job = await rig.get(job_id)
    assert retrying.failure is not None
    assert (job.failure, [attempt.outcome for attempt in job.attempts]) == (None, [Outcome.RAISED, Outcome.SUCCEEDED])


async def test_settle_with_a_snooze_spends_no_attempt(rig: Rig) -> None:
    """A snoozed job runs later, under the same attempt number, and leaves no failed attempt behind."""
    job_id = await rig.submit()
    (first,) = await rig.claim()

    await rig.settle(job_id, first.token, Move.SNOOZE, delay_ms=500)
    await rig.advance(500)
    await rig.promote()
    (second,) = await rig.claim()

    assert (first.attempt, second.attempt) == (1, 1)
    assert (await rig.get(job_id)).attempts == ()


async def test_settle_with_a_release_gives_the_job_back_unspent_and_at_its_place(rig: Rig) -> None:
    """A released job is the next to be claimed, still as attempt 1."""
    released = await rig.submit()
    await rig.advance(5)
    behind = await rig.submit()
    (first,) = await rig.claim()
    await rig.advance(5)

    await rig.settle(released, first.token, Move.RELEASE)
    jobs = await rig.claim(2)

    assert [(job.id, job.attempt) for job in jobs] == [(released, 1), (behind, 1)]
    assert (await rig.get(released)).attempts == ()


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("move", [Move.SNOOZE, Move.RELEASE])
async def test_settle_keeps_no_record_of_an_attempt_that_was_not_spent(rig: Rig, move: Move, outcome: Outcome) -> None:
    """However a snoozed or released attempt ended, it never was."""
    job_id = await rig.submit()
    (job,) = await rig.claim()

    await rig.settle(job_id, job.token, move, outcome=outcome)

    found = await rig.get(job_id)
    assert (found.attempts, found.attempt) == ((), 0)


async def test_settle_keeps_the_last_20_attempts(rig: Rig) -> None:
    """The history of a job that fails again and again stays bounded."""
    job_id = await rig.submit()
    for _ in range(23):
        (job,) = await rig.claim()
        await rig.settle(job_id, job.token, Move.RETRY)
        await rig.promote()

    assert [attempt.number for attempt in (await rig.get(job_id)).attempts] == list(range(4, 24))


# --- what the tests above share -----------------------------------------------------------------------------------------------


def _submission(job_id: str) -> Sequence[str | int]:
    return [1000, job_id, "normal", "", 4, "type", "t", "payload", "null"]


async def _submit_many(rig: Rig, count: int, priority: Priority) -> None:
    jobs = [NewJob(type="email", queue=rig.queue, priority=priority)] * count
    await rig.store.lifecycle.submit(rig.namespace, jobs)
