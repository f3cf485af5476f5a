"""What the promoter and the reaper do for a queue: run times, deadlines, lost leases, retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.errors import JobNotFoundError
from gopher.job import MAX_CRASHES, JobState, Move, NewJob, Outcome, Priority
from gopher.store import keys
from gopher.store.submission import BATCH, SubmitReceipt
from tests.store.rig import DELAY_MS, LEASE_MS

if TYPE_CHECKING:
    from tests.store.rig import Rig

FAILED_RETENTION_MS = 30 * 24 * 3600 * 1000
DEFAULT_RETENTION_MS = 3600 * 1000
RETENTION_MS = 5000


async def lose_lease(rig: Rig) -> None:
    (job,) = await rig.claim(worker="lost")
    await rig.begin(job)
    await rig.advance(LEASE_MS + 1)
    await rig.reap()


async def hear_control(rig: Rig) -> list[bytes]:
    """Return a list that takes every message to the queue's workers from now on."""
    heard: list[bytes] = []
    await rig.store.link.subscribe(keys.control(rig.namespace, rig.queue).encode(), heard.append)
    return heard


# --- promote ------------------------------------------------------------------------------------------------------------------


async def test_promote_enqueues_at_the_run_time_and_not_before(rig: Rig) -> None:
    """A scheduled job becomes claimable in the very ms of its run time."""
    job_id = await rig.submit(delay_ms=1000)
    await rig.advance(999)
    early = await rig.promote()
    await rig.advance(1)

    moved = await rig.promote()

    assert (early, moved) == (0, 1)
    job = await rig.get(job_id)
    assert (job.state, job.enqueued_ms, job.run_ms) == (JobState.ENQUEUED, rig.now_ms, rig.now_ms)


async def test_promote_puts_each_job_into_its_own_line(rig: Rig) -> None:
    """A scheduled job keeps its priority."""
    for priority in Priority:
        await rig.submit(priority=priority, delay_ms=1)
    await rig.advance(1)

    await rig.promote()

    stats = await rig.store.query.queue_stats(rig.namespace, rig.queue)
    assert stats.enqueued == dict.fromkeys(Priority, 1)


async def test_promote_says_how_long_until_the_next_is_due(rig: Rig) -> None:
    """The promoter may sleep exactly until then: the nearest of run times, retries and deadlines."""
    lifecycle = rig.store.lifecycle
    nothing = await lifecycle.promote(rig.namespace, rig.queue)
    await rig.submit(delay_ms=9000)
    scheduled = await lifecycle.promote(rig.namespace, rig.queue)
    await rig.submit(deadline_ms=rig.now_ms + 5000)
    dated = await lifecycle.promote(rig.namespace, rig.queue)
    (job,) = await rig.claim()
    await rig.settle(job.id, job.token, Move.RETRY, delay_ms=2000)

    retrying = await lifecycle.promote(rig.namespace, rig.queue)

    waits = [promotion.next_seconds for promotion in (nothing, scheduled, dated, retrying)]
    assert waits == [None, 9.0, 5.0, 2.0]


async def test_promote_moves_a_bounded_number_a_call(rig: Rig) -> None:
    """A herd that is due at once is moved in batches, and the rest is due at once again."""
    await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t", delay_ms=5)] * (BATCH + 1))
    await rig.advance(5)

    first = await rig.store.lifecycle.promote(rig.namespace, rig.queue)
    second = await rig.store.lifecycle.promote(rig.namespace, rig.queue)

    assert (first.moved, first.next_seconds) == (BATCH, 0.0)
    assert (second.moved, second.next_seconds) == (1, None)


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING])
async def test_promote_fails_what_waits_past_its_deadline(rig: Rig, state: JobState) -> None:
    """A job that was not started by its deadline fails as EXPIRED, wherever it waits, and frees its unique key."""
    job_id = await rig.job_in(state, deadline_ms=rig.now_ms + DELAY_MS, unique_key="k")
    await rig.advance(DELAY_MS)

    await rig.promote()

    job = await rig.get(job_id)
    assert (job.state, job.failure and job.failure.reason, job.finished_ms) == (JobState.FAILED, "EXPIRED", rig.now_ms)
    assert isinstance(await rig.try_submit(unique_key="k"), SubmitReceipt)
    assert await rig.audit() == []


async def test_deadline_does_not_bind_an_attempt_that_runs(rig: Rig) -> None:
    """The store leaves a processing job alone past its deadline; given back, it fails as EXPIRED."""
    job_id = await rig.submit(deadline_ms=rig.now_ms + 1000)
    (job,) = await rig.claim()
    await rig.advance(1000)
    await rig.promote()
    running = await rig.state(job_id)
    await rig.settle(job_id, job.token, Move.RELEASE)

    await rig.promote()

    assert running is JobState.PROCESSING
    assert await rig.state(job_id) is JobState.FAILED


async def test_submit_tells_the_promoters_of_an_earlier_moment_only(rig: Rig) -> None:
    """Promoters are woken when something is due earlier than all before, and not otherwise."""
    heard = await hear_control(rig)

    for delay_ms in (9000, 9500, 4000, 6000):
        await rig.submit(delay_ms=delay_ms)
    await rig.store.link.call("PING")

    assert heard == [b"due %d" % (rig.now_ms + 9000), b"due %d" % (rig.now_ms + 4000)]


# --- reap ---------------------------------------------------------------------------------------------------------------------


async def test_reap_takes_a_job_back_after_its_lease_and_not_before(rig: Rig) -> None:
    """A lease stands to its last ms by the clock of Redis."""
    job_id = await rig.submit()
    await rig.claim()
    await rig.advance(LEASE_MS)
    early = await rig.reap()
    await rig.advance(1)

    late = await rig.reap()

    assert (early, late) == ((), (job_id,))
    job = await rig.get(job_id)
    assert (job.state, job.crashes, job.attempt, job.lease_ms) == (JobState.ENQUEUED, 1, 1, None)
    assert [(attempt.number, attempt.outcome) for attempt in job.attempts] == [(1, Outcome.LOST)]


async def test_reap_leaves_an_extended_lease_alone(rig: Rig) -> None:
    """An extension counts from the moment it was asked for."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await rig.advance(LEASE_MS)
    await rig.extend([(job_id, job.token)])
    await rig.advance(LEASE_MS)

    reaped = await rig.reap()

    assert reaped == ()
    assert (await rig.get(job_id)).lease_ms == rig.now_ms


async def test_reap_puts_a_job_back_to_its_place_in_the_line(rig: Rig) -> None:
    """A job that lost its worker has waited already: it goes before those enqueued after it."""
    lost = await rig.submit()
    await rig.claim()
    await rig.advance(1)
    behind = await rig.submit()
    await rig.advance(LEASE_MS)
    await rig.reap()

    jobs = await rig.claim(2)

    assert [(job.id, job.attempt) for job in jobs] == [(lost, 2), (behind, 1)]


async def test_reap_ends_a_job_in_a_crash_loop_at_the_third_loss(rig: Rig) -> None:
    """A job whose workers die with it is taken to be the killer: it fails, with every loss in its history."""
    job_id = await rig.submit(unique_key="k")
    for _ in range(MAX_CRASHES - 1):
        await lose_lease(rig)
    before_last = await rig.state(job_id)

    await lose_lease(rig)

    job = await rig.get(job_id)
    assert before_last is JobState.ENQUEUED
    assert (job.state, job.failure and job.failure.reason, job.crashes) == (JobState.FAILED, "CRASH_LOOP", MAX_CRASHES)
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.LOST] * MAX_CRASHES
    assert isinstance(await rig.try_submit(unique_key="k"), SubmitReceipt)


async def test_reap_is_not_stopped_by_a_damaged_record(rig: Rig) -> None:
    """A record that lacks what every record has does not keep the queue's other jobs from being taken back."""
    damaged, sound = await rig.submit(), await rig.submit()
    await rig.claim(2)
    await rig.call("HDEL", f"job:{damaged}", "attempt", "submitted_ms")
    await rig.advance(LEASE_MS + 1)

    taken = await rig.reap()

    assert set(taken) == {damaged, sound}


async def test_reap_counts_crashes_apart_from_failures(rig: Rig) -> None:
    """A failed attempt between two losses neither counts as a crash nor forgives one."""
    job_id = await rig.submit()
    await lose_lease(rig)
    (job,) = await rig.claim()
    await rig.settle(job_id, job.token, Move.RETRY)
    await rig.promote()
    await lose_lease(rig)

    found = await rig.get(job_id)

    assert (found.state, found.crashes, found.attempt) == (JobState.ENQUEUED, 2, 3)
    assert [attempt.outcome for attempt in found.attempts] == [Outcome.LOST, Outcome.RAISED, Outcome.LOST]


async def test_reap_takes_a_bounded_number_a_call(rig: Rig) -> None:
    """The leases of a dead worker are taken back in batches."""
    await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t")] * (BATCH + 1))
    await rig.claim(BATCH)
    await rig.claim(1)
    await rig.advance(LEASE_MS + 1)

    first = await rig.store.lifecycle.reap(rig.namespace, rig.queue)
    second = await rig.store.lifecycle.reap(rig.namespace, rig.queue)

    assert (first.leases, second.leases) == (BATCH, 1)
    assert len(set(first.job_ids + second.job_ids)) == BATCH + 1


@pytest.mark.parametrize(
    ("state", "retention_ms", "kept_ms"),
    [
        (JobState.COMPLETED, RETENTION_MS, RETENTION_MS),
        (JobState.CANCELLED, RETENTION_MS, RETENTION_MS),
        (JobState.COMPLETED, None, DEFAULT_RETENTION_MS),
        (JobState.CANCELLED, None, DEFAULT_RETENTION_MS),
        (JobState.FAILED, RETENTION_MS, FAILED_RETENTION_MS),
    ],
)
async def test_reap_removes_a_final_job_when_its_retention_ends(
    rig: Rig, state: JobState, retention_ms: int | None, kept_ms: int
) -> None:
    """A final job is kept as long as it asked for, a dead letter for 30 days, and not one ms longer."""
    job_id = await rig.job_in(state, retention_ms=retention_ms, unique_key="k", deadline_ms=rig.now_ms + 1)
    await rig.advance(kept_ms - 1)
    await rig.reap()
    kept = await rig.state(job_id)
    await rig.advance(1)

    reaping = await rig.store.lifecycle.reap(rig.namespace, rig.queue)

    assert (kept, reaping.removed) == (state, 1)
    with pytest.raises(JobNotFoundError):
        await rig.get(job_id)
    assert {name.partition(":")[0] for name in await rig.dump()} <= {"settings", "counters", "claim"}


async def test_reap_never_removes_a_job_that_is_not_final(rig: Rig) -> None:
    """An id that was left behind in the index of a final state, by a requeue that was cut short, goes; the job stays."""
    job_id = await rig.submit()
    await rig.call("ZADD", "failed", 1, job_id)

    await rig.reap()

    assert await rig.state(job_id) is JobState.ENQUEUED
    assert await rig.places(job_id) == ["enqueued:normal"]
