"""What people ask of a job or a queue: cancel, requeue, delete, purge, pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.errors import InvalidRequestError, JobAlreadyFinalError, JobNotFoundError, JobStateError, UniqueKeyHeldError
from gopher.job import FINAL_STATES, JobState, Move, NewJob, Priority
from gopher.store import keys
from gopher.store.submission import BATCH, SubmitReceipt
from tests.store.rig import DELAY_MS, LEASE_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.store import Store
    from tests.store.rig import Rig

UNKNOWN_ID = "01998c2e-7a00-7000-8000-000000000000"
WAITING = [JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING]


async def purge(rig: Rig) -> int:
    return await rig.store.lifecycle.purge(rig.namespace, rig.queue)


async def delete(rig: Rig, job_id: str) -> None:
    await rig.store.lifecycle.delete(rig.namespace, job_id)


# --- cancel -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WAITING)
async def test_cancel_of_a_waiting_job_ends_it_for_good(rig: Rig, state: JobState) -> None:
    """A cancelled job is never started afterwards, keeps who asked and why, and frees its unique key."""
    job_id = await rig.job_in(state, unique_key="k")

    after = await rig.cancel(job_id)
    await rig.advance(DELAY_MS)
    await rig.promote()

    job = await rig.get(job_id)
    assert after is job.state is JobState.CANCELLED
    assert (job.cancel_reason, job.cancel_actor) == ("not wanted", "ann@desk")
    assert await rig.claim() == []
    assert isinstance(await rig.try_submit(unique_key="k"), SubmitReceipt)


async def test_cancel_of_a_processing_job_marks_it_and_tells_its_worker(rig: Rig) -> None:
    """The job stays processing until its handler has ended; the worker hears token, grace and reason at once and at each beat."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    heard: list[bytes] = []
    await rig.store.link.subscribe(keys.control(rig.namespace, rig.queue).encode(), heard.append)

    after = await rig.cancel(job_id)
    replies = await rig.extend([(job_id, job.token)])

    assert after is JobState.PROCESSING
    assert heard == [f"cancel {job_id} {job.token} 5000 not wanted".encode()]
    assert replies == [[b"CANCEL", job_id.encode(), 5000, b"not wanted"]]
    marked = await rig.get(job_id)
    assert (marked.cancel_reason, marked.cancel_actor) == ("not wanted", "ann@desk")


@pytest.mark.parametrize(("second_ms", "grace_ms"), [(100, 100), (5000, 5000), (60_000, 5000)])
async def test_second_cancel_of_a_processing_job_can_only_shorten_the_grace(rig: Rig, second_ms: int, grace_ms: int) -> None:
    """Reason and actor are the first one's; the worker is told again, with the shorter grace of the two."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await rig.cancel(job_id)
    heard: list[bytes] = []
    await rig.store.link.subscribe(keys.control(rig.namespace, rig.queue).encode(), heard.append)

    after = await rig.cancel(job_id, reason="quick", actor="bob@desk", grace_ms=second_ms)

    marked = await rig.get(job_id)
    assert after is JobState.PROCESSING
    assert (marked.cancel_reason, marked.cancel_actor) == ("not wanted", "ann@desk")
    assert heard == [f"cancel {job_id} {job.token} {grace_ms} not wanted".encode()]
    assert await rig.extend([(job_id, job.token)]) == [[b"CANCEL", job_id.encode(), grace_ms, b"not wanted"]]


async def test_cancel_of_a_cancelled_job_is_answered_as_the_first(rig: Rig) -> None:
    """A cancel may be repeated."""
    job_id = await rig.job_in(JobState.CANCELLED)
    before = await rig.dump()

    after = await rig.cancel(job_id)

    assert after is JobState.CANCELLED
    assert await rig.dump() == before


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED])
async def test_cancel_of_an_ended_job_is_refused(rig: Rig, state: JobState) -> None:
    """What has ended otherwise cannot be cancelled any more."""
    job_id = await rig.job_in(state)

    with pytest.raises(JobAlreadyFinalError) as caught:
        await rig.cancel(job_id)

    assert caught.value.metadata == {"job_id": job_id, "state": state.value}


# --- requeue ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
async def test_requeue_starts_a_new_generation(rig: Rig, state: JobState) -> None:
    """The job keeps payload and history, loses what ended it and its deadline, and its spent attempts count no more."""
    job_id = await rig.job_in(state, payload=b"[1]", deadline_ms=rig.now_ms + 1)
    before = await rig.get(job_id)
    await rig.advance(DELAY_MS)

    await rig.requeue(job_id)

    job = await rig.get(job_id)
    assert (job.state, job.generation, job.enqueued_ms) == (JobState.ENQUEUED, 1, rig.now_ms)
    assert (job.payload, job.attempts, job.attempt) == (b"[1]", before.attempts, before.attempt)
    assert [job.failure, job.cancel_reason, job.cancel_actor, job.finished_ms, job.deadline_ms] == [None] * 5
    (claimed,) = await rig.claim()
    assert (claimed.id, claimed.attempt, claimed.number(b"spent")) == (job_id, before.attempt + 1, before.attempt)


async def test_requeue_after_a_crash_loop_forgives_the_crashes(rig: Rig) -> None:
    """The new generation has all its crashes before it again."""
    job_id = await rig.submit()
    for _ in range(3):
        (job,) = await rig.claim()
        await rig.begin(job)
        await rig.advance(LEASE_MS + 1)
        await rig.reap()

    await rig.requeue(job_id)
    await rig.claim()
    await rig.advance(LEASE_MS + 1)
    await rig.reap()

    found = await rig.get(job_id)
    assert (found.state, found.crashes, found.generation) == (JobState.ENQUEUED, 1, 1)


async def test_requeue_takes_the_unique_key_again(rig: Rig) -> None:
    """A requeued job holds its key like a new one."""
    job_id = await rig.job_in(JobState.FAILED, unique_key="k")

    await rig.requeue(job_id)

    refusal = await rig.try_submit(unique_key="k")
    assert isinstance(refusal, UniqueKeyHeldError)
    assert refusal.metadata["job_id"] == job_id


async def test_requeue_is_refused_while_another_job_holds_the_unique_key(rig: Rig) -> None:
    """Two jobs that are not final never share a key; the refusal names the holder and changes nothing."""
    job_id = await rig.job_in(JobState.FAILED, unique_key="k")
    holder = await rig.submit(unique_key="k")
    before = await rig.dump()

    with pytest.raises(UniqueKeyHeldError) as caught:
        await rig.requeue(job_id)

    assert caught.value.metadata == {"unique_key": "k", "job_id": holder}
    assert await rig.dump() == before


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.RETRYING])
async def test_requeue_of_a_job_that_waits_for_its_time_enqueues_it_now(rig: Rig, state: JobState) -> None:
    """It keeps its attempts and its generation: only the waiting ends."""
    job_id = await rig.job_in(state, deadline_ms=rig.now_ms + 2 * DELAY_MS)
    before = await rig.get(job_id)

    await rig.requeue(job_id)

    job = await rig.get(job_id)
    assert (job.state, job.generation, job.attempt) == (JobState.ENQUEUED, 0, before.attempt)
    assert job.deadline_ms == before.deadline_ms
    assert await rig.audit() == []


async def test_requeue_answers_each_job_by_itself(rig: Rig) -> None:
    """Of many jobs those that cannot be requeued are named, and the others are; one that is named twice is requeued once."""
    failed = await rig.job_in(JobState.FAILED)
    completed = await rig.job_in(JobState.COMPLETED)

    answers = await rig.store.lifecycle.requeue(rig.namespace, [failed, completed, UNKNOWN_ID, failed])

    assert answers[0] is answers[3] is None
    assert isinstance(answers[1], JobStateError)
    assert isinstance(answers[2], JobNotFoundError)
    assert (await rig.get(failed)).generation == 1


async def test_requeue_of_many_jobs_moves_each_once(rig: Rig) -> None:
    """A hundred and more dead letters leave together, none twice."""
    await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t")] * (BATCH + 5))
    jobs, _ = await rig.store.query.list_jobs(rig.namespace, size=BATCH + 5)
    for job in jobs:
        await rig.cancel(job.id)

    answers = await rig.store.lifecycle.requeue(rig.namespace, [job.id for job in jobs])

    stats = await rig.store.query.queue_stats(rig.namespace, rig.queue)
    assert answers == [None] * (BATCH + 5)
    assert (stats.counts[JobState.ENQUEUED], stats.counts[JobState.CANCELLED]) == (BATCH + 5, 0)


# --- delete and purge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*WAITING, *sorted(FINAL_STATES)])
async def test_delete_leaves_nothing_of_a_job(rig: Rig, state: JobState) -> None:
    """Record, index, deadline and unique key all go."""
    job_id = await rig.job_in(state, unique_key="k", deadline_ms=rig.now_ms + 5 * DELAY_MS)

    await delete(rig, job_id)

    with pytest.raises(JobNotFoundError):
        await rig.get(job_id)
    assert {name.partition(":")[0] for name in await rig.dump()} <= {"settings", "counters", "claim"}


async def test_delete_of_a_processing_job_is_refused(rig: Rig) -> None:
    """A job that runs is to be cancelled first."""
    job_id = await rig.job_in(JobState.PROCESSING)
    before = await rig.dump()

    with pytest.raises(JobStateError, match="cancel it first"):
        await delete(rig, job_id)

    assert await rig.dump() == before


async def test_purge_removes_all_that_waits_and_nothing_else(rig: Rig) -> None:
    """Waiting jobs go with their keys; running and final ones stay."""
    final = [await rig.job_in(state) for state in sorted(FINAL_STATES)]
    retrying = await rig.job_in(JobState.RETRYING)
    running = await rig.job_in(JobState.PROCESSING, unique_key="running")
    scheduled = await rig.job_in(JobState.SCHEDULED, unique_key="k", deadline_ms=rig.now_ms + DELAY_MS)
    lines = [await rig.submit(priority=priority) for priority in Priority]

    removed = await purge(rig)

    assert removed == 5
    for job_id in (retrying, scheduled, *lines):
        assert await rig.places(job_id) == []
    for job_id in (*final, running):
        assert len(await rig.places(job_id)) == 1
    assert isinstance(await rig.try_submit(unique_key="k"), SubmitReceipt)
    assert isinstance(await rig.try_submit(unique_key="running"), UniqueKeyHeldError)


async def test_purge_never_removes_a_job_that_does_not_wait(rig: Rig) -> None:
    """An id that was left behind in a line, by a claim that was cut short, goes; the running job stays."""
    job_id = await rig.job_in(JobState.PROCESSING, unique_key="k")
    await rig.call("ZADD", "enqueued:high", 1, job_id)

    await purge(rig)

    assert await rig.state(job_id) is JobState.PROCESSING
    assert await rig.places(job_id) == ["processing"]
    assert isinstance(await rig.try_submit(unique_key="k"), UniqueKeyHeldError)


async def test_purge_goes_on_until_the_queue_is_empty(rig: Rig) -> None:
    """More jobs than a script call takes are all removed, and counted."""
    await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t")] * (2 * BATCH + 3))

    removed = await purge(rig)

    assert removed == 2 * BATCH + 3
    assert await purge(rig) == 0


# --- any of them --------------------------------------------------------------------------------------------------------------


async def test_pause_of_a_queue_not_yet_used_creates_it(store: Store, namespace: str) -> None:
    """Pausing ahead of the first submit is remembered."""
    await store.lifecycle.pause(namespace, "new")

    stats = await store.query.queue_stats(namespace, "new")
    assert stats.paused


MOVES: list[Callable[[Rig, str], Awaitable[object]]] = [
    lambda rig, job_id: rig.cancel(job_id),
    lambda rig, job_id: rig.requeue(job_id),
    delete,
]


@pytest.mark.parametrize("move", MOVES, ids=["cancel", "requeue", "delete"])
async def test_moves_of_an_unknown_job_find_nothing(rig: Rig, move: Callable[[Rig, str], Awaitable[object]]) -> None:
    """An id of a queue that exists, and one of a queue that does not, name no job."""
    before_any_queue = pytest.raises(JobNotFoundError)
    with before_any_queue:
        await move(rig, UNKNOWN_ID)
    await rig.submit()
    before = await rig.dump()

    with pytest.raises(JobNotFoundError):
        await move(rig, UNKNOWN_ID)

    assert await rig.dump() == before


@pytest.mark.parametrize("move", MOVES, ids=["cancel", "requeue", "delete"])
async def test_moves_of_what_is_no_id_are_refused(rig: Rig, move: Callable[[Rig, str], Awaitable[object]]) -> None:
    """Text that is no job id is the caller's fault."""
    with pytest.raises(InvalidRequestError):
        await move(rig, "no-id")


async def test_moves_never_reach_into_another_namespace(rig: Rig) -> None:
    """The id of a job names nothing elsewhere, even where a queue has the same number."""
    job_id = await rig.submit()
    other = rig.namespace + "x"
    await rig.store.registry.queue_number(other, rig.queue)

    with pytest.raises(JobNotFoundError):
        await rig.store.lifecycle.cancel(other, job_id, reason="", grace_ms=0)

    assert await rig.state(job_id) is JobState.ENQUEUED
    await rig.store.link.call("DEL", keys.queues(other))


async def test_cancel_that_comes_after_the_outcome_is_refused(rig: Rig) -> None:
    """Cancel and outcome race: exactly one wins, and the loser is told."""
    job_id = await rig.submit()
    (job,) = await rig.claim()

    words = [await rig.settle(job_id, job.token, Move.COMPLETE)]
    with pytest.raises(JobAlreadyFinalError):
        await rig.cancel(job_id)
    words.append(await rig.settle(job_id, job.token, Move.ACKNOWLEDGE_CANCEL))

    assert words == ["completed", "ALREADY"]
