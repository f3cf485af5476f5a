"""Bulk operations carried out on a real Redis: which jobs they touch, each once, and who goes on when a server is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from gopher.bulk import DEFAULT_STATES, BulkKind, BulkOperation, BulkPlan, BulkState
from gopher.errors import BulkOperationEndedError, StoreUnavailableError, TooManyBulkOperationsError
from gopher.job import JobState
from gopher.limits import Limits, RateLimit
from gopher.service.bulk_runner import BulkRunner
from gopher.store import bulk as store_bulk
from gopher.store import bulk_walk, keys
from gopher.store.bulk import MOST_RUNNING, ClaimedBulk
from gopher.store.bulk_walk import BulkWalk
from tests.waiting import until_async

if TYPE_CHECKING:
    from tests.service.conftest import Rig

LEASE_SECONDS: Final = 1.0


async def states(rig: Rig, ids: list[str]) -> list[JobState]:
    return [(await rig.store.query.get(rig.namespace, job_id)).state for job_id in ids]


async def start(rig: Rig, kind: BulkKind, **fields: object) -> BulkOperation:
    plan = BulkPlan(**{"kind": kind, "states": DEFAULT_STATES[kind], **fields})  # type: ignore[arg-type]  # the test names fields of BulkPlan
    return await rig.store.bulk.start(rig.namespace, plan)


async def take(rig: Rig, lease_ms: int = 60_000) -> ClaimedBulk:
    """Take up an operation, as a server does in the ms after its start."""
    with trio.fail_after(30):
        while not isinstance(claimed := await rig.store.bulk.claim(lease_ms), ClaimedBulk):
            assert claimed is not None
            await trio.sleep(claimed)
    return claimed


async def finish(rig: Rig, operation: BulkOperation, runner: BulkRunner | None = None) -> BulkOperation:
    """Let a runner work until the operation has ended."""
    runner = runner or BulkRunner(rig.store, lease_seconds=LEASE_SECONDS)
    with trio.fail_after(30):
        while not (found := await rig.store.bulk.get(rig.namespace, operation.id)).has_ended:  # noqa: ASYNC110 - a lease has to end
            await trio.sleep(min(0.05, await runner.tick()))
    return found


def counts(operation: BulkOperation) -> tuple[BulkState, int, int, int, int]:
    return operation.state, operation.matched, operation.done, operation.skipped, operation.failed


async def test_retry_moves_each_dead_letter_that_matches_once(rig: Rig) -> None:
    """Of many pages those of the type and label go back to their queue with new attempts; the others stay."""
    for number in range(230):
        await rig.submit(type="email" if number % 2 else "report", labels={"tenant": "a" if number < 200 else "b"})
    failed = [await rig.fail() for _ in range(230)]

    ended = await finish(rig, await start(rig, BulkKind.RETRY, type="email", labels={"tenant": "a"}))

    assert counts(ended) == (BulkState.COMPLETED, 100, 100, 0, 0)
    assert (ended.total, ended.scanned) == (230, 230)
    assert sorted(await states(rig, failed)) == [JobState.ENQUEUED] * 100 + [JobState.FAILED] * 130


async def test_cancel_ends_waiting_jobs_of_every_queue_and_marks_running_ones(rig: Rig) -> None:
    """Scheduled, enqueued and processing jobs of all queues; a job that is cancelled already is not counted again."""
    ids = [await rig.submit(queue=queue) for queue in ("a", "b", "default")]
    ids.append(await rig.submit(queue="b", delay={"seconds": 60}))
    (running,) = await rig.claim("default")

    ended = await finish(rig, await start(rig, BulkKind.CANCEL, reason="not wanted"))
    again = await finish(rig, await start(rig, BulkKind.CANCEL))

    assert counts(ended) == (BulkState.COMPLETED, 4, 4, 0, 0)
    assert counts(again) == (BulkState.COMPLETED, 0, 0, 0, 0)
    job = await rig.store.query.get(rig.namespace, running.id)
    assert (job.state, job.cancel_reason, job.cancel_actor) == (JobState.PROCESSING, "not wanted", f"bulk {ended.id}")
    assert await states(rig, [each for each in ids if each != running.id]) == [JobState.CANCELLED] * 3


@pytest.mark.parametrize("kind", [BulkKind.CANCEL, BulkKind.DELETE])
async def test_parked_jobs_are_found(rig: Rig, kind: BulkKind) -> None:
    """What a limit holds back is enqueued all the same, and nothing of it is left behind."""
    await rig.store.limits.set_limits(rig.namespace, "default", "email", Limits(rate=RateLimit(1)))
    for _ in range(3):
        await rig.submit()
    assert len(await rig.claim(count=3)) == 1

    ended = await finish(rig, await start(rig, kind, states=(JobState.ENQUEUED,), type="email"))

    stats = await rig.store.query.queue_stats(rig.namespace, "default")
    assert counts(ended) == (BulkState.COMPLETED, 2, 2, 0, 0)
    assert (ended.total, stats.parked, stats.counts[JobState.ENQUEUED]) == (2, 0, 0)


async def test_delete_leaves_what_runs_and_what_comes_later(rig: Rig) -> None:
    """Jobs of one queue are removed but for the running one, one submitted after the start, and those of other queues."""
    for _ in range(3):
        await rig.submit()
    other = await rig.submit(queue="other")
    (running,) = await rig.claim()
    await rig.complete()
    operation = await start(rig, BulkKind.DELETE, queue="default")
    now_ms = operation.created_ms
    with trio.fail_after(10):
        while now_ms == operation.created_ms:
            now_ms = await rig.store.registry.now_ms()
    later = await rig.submit()

    ended = await finish(rig, operation)

    assert counts(ended) == (BulkState.COMPLETED, 2, 2, 0, 0)
    jobs, _ = await rig.store.query.list_jobs(rig.namespace, size=10)
    assert {job.id for job in jobs} == {running.id, later, other}


async def test_retry_of_a_job_whose_key_is_held_is_counted_as_failed(rig: Rig) -> None:
    """It stays a dead letter, and the operation goes on."""
    await rig.submit(unique_key="k")
    dead = await rig.fail()
    await rig.submit(unique_key="k")

    ended = await finish(rig, await start(rig, BulkKind.RETRY))

    assert counts(ended) == (BulkState.COMPLETED, 1, 0, 0, 1)
    assert await states(rig, [dead]) == [JobState.FAILED]


async def test_job_that_fails_again_meanwhile_is_not_retried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead letter that was retried, ran and failed comes into the index behind the cursor, and is left there."""
    monkeypatch.setattr(bulk_walk, "BATCH", 1)
    for _ in range(3):
        await rig.submit()
    failed = [await rig.fail() for _ in range(3)]
    operation = await start(rig, BulkKind.RETRY)
    claimed = await take(rig)
    walk = BulkWalk(rig.store.link, claimed)
    await walk.open()

    await walk.step()
    again = await rig.fail()
    while not walk.is_over:
        await walk.step()
    await rig.store.bulk.advance(claimed)

    assert counts(await rig.store.bulk.get(rig.namespace, operation.id)) == (BulkState.COMPLETED, 3, 3, 0, 0)
    assert again in failed
    assert sorted(await states(rig, failed)) == [JobState.ENQUEUED, JobState.ENQUEUED, JobState.FAILED]


async def test_another_server_goes_on_where_the_first_stopped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first takes one step and is heard of no more; the second waits for its lease, does the rest, and each job is done once."""
    monkeypatch.setattr(bulk_walk, "BATCH", 10)
    for _ in range(35):
        await rig.submit()
    failed = [await rig.fail() for _ in range(35)]
    operation = await start(rig, BulkKind.RETRY)
    first = await take(rig, round(LEASE_SECONDS * 1000))
    walk = BulkWalk(rig.store.link, first)
    await walk.open()
    await walk.step()

    waiting = await rig.store.bulk.claim(1000)
    ended = await finish(rig, operation)
    await walk.step()
    kept = await rig.store.bulk.keep(first, 1000)

    assert isinstance(waiting, float)
    assert 0 < waiting <= LEASE_SECONDS
    assert counts(ended) == (BulkState.COMPLETED, 35, 35, 0, 0)
    assert (ended.scanned, kept) == (35, False)
    assert {(await rig.store.query.get(rig.namespace, each)).generation for each in failed} == {1}


async def test_step_of_a_server_that_was_overtaken_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that work at once take each step once; the slower one finds out and goes on from there."""
    monkeypatch.setattr(bulk_walk, "BATCH", 1)
    for _ in range(4):
        await rig.submit()
    for _ in range(4):
        await rig.fail()
    operation = await start(rig, BulkKind.RETRY)
    claimed = await take(rig)
    walks = [BulkWalk(rig.store.link, claimed) for _ in range(2)]
    for walk in walks:
        await walk.open()

    await walks[0].step()
    await walks[1].step()
    found = await rig.store.bulk.get(rig.namespace, operation.id)
    await walks[1].step()

    assert (found.done, found.scanned) == (1, 1)
    assert (await rig.store.bulk.get(rig.namespace, operation.id)).done == 2
    await rig.store.bulk.cancel(rig.namespace, operation.id)


async def test_step_that_comes_after_its_queue_was_closed_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stood still finds its operation completed: a job that has failed anew since is not retried again."""
    await rig.submit()
    await rig.fail()
    operation = await start(rig, BulkKind.RETRY)
    claimed = await take(rig)
    late, other = [BulkWalk(rig.store.link, claimed) for _ in range(2)]
    await late.open()
    await other.open()
    ids, scanned, cursor = await late._collect(await late._behind(late._cursor))
    while not other.is_over:
        await other.step()
    assert await rig.store.bulk.advance(claimed) is None
    await rig.fail()

    async def read_before(_: bulk_walk._Cursor) -> tuple[list[str], int, bulk_walk._Cursor]:
        await trio.lowlevel.checkpoint()
        return ids, scanned, cursor

    monkeypatch.setattr(late, "_collect", read_before)
    await late.step()

    assert (await rig.store.bulk.get(rig.namespace, operation.id)).done == 1
    assert (await rig.queues.queue(rig.namespace, "default")).failed == 1


async def test_cancelled_operation_stops_and_tells_what_it_did(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done stays done; cancelled twice is as good as once, completed it cannot be cancelled."""
    monkeypatch.setattr(bulk_walk, "BATCH", 1)
    for _ in range(3):
        await rig.submit()
    for _ in range(3):
        await rig.fail()
    operation = await start(rig, BulkKind.RETRY)
    claimed = await take(rig)
    walk = BulkWalk(rig.store.link, claimed)
    await walk.open()
    await walk.step()

    cancelled, again = [await rig.store.bulk.cancel(rig.namespace, operation.id) for _ in range(2)]
    kept = await rig.store.bulk.keep(claimed, 1000)
    nothing = await finish(rig, await start(rig, BulkKind.RETRY, type="none"))

    assert counts(cancelled) == (BulkState.CANCELLED, 1, 1, 0, 0)
    assert cancelled.ended_ms is not None
    assert (again, kept) == (cancelled, False)
    with pytest.raises(BulkOperationEndedError):
        await rig.store.bulk.cancel(rig.namespace, nothing.id)


async def test_running_operations_of_a_namespace_are_bounded_and_old_ones_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than may run is refused; those that ended make room, the oldest first."""
    monkeypatch.setattr(store_bulk, "MOST_KEPT", MOST_RUNNING + 2)
    started = [await start(rig, BulkKind.RETRY) for _ in range(MOST_RUNNING)]

    with pytest.raises(TooManyBulkOperationsError):
        await start(rig, BulkKind.RETRY)
    for operation in started:
        await finish(rig, operation)
    later = [await start(rig, BulkKind.RETRY) for _ in range(3)]

    assert all(each.state is BulkState.RUNNING for each in later)
    kept = [each.id for each in await rig.store.bulk.list_all(rig.namespace)]
    assert kept == [each.id for each in [*started, *later][::-1]][: MOST_RUNNING + 2]
    for operation in later:
        await finish(rig, operation)


@pytest.mark.leaves_keys
async def test_operation_that_cannot_go_on_fails_with_the_reason(rig: Rig) -> None:
    """An index that is no index ends the operation, and not the runner."""
    await rig.submit()

    ended = await finish(rig, await start(rig, BulkKind.DELETE, states=(JobState.COMPLETED,)))
    failing = await start(rig, BulkKind.DELETE, states=(JobState.COMPLETED,))
    await rig.store.link.call("SET", keys.index(rig.namespace, "default", JobState.COMPLETED), "x", "EX", 600)
    failed = await finish(rig, failing)

    assert ended.state is BulkState.COMPLETED
    assert failed.state is BulkState.FAILED
    assert "WRONGTYPE" in failed.fault


async def test_runner_hears_of_an_operation_at_once_and_outlives_faults_of_redis(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sweep has to come: the operation is over long before one; and a fault before it does not end the runner."""
    monkeypatch.setattr("gopher.service.bulk_runner.PAUSE_SECONDS", 0.01)
    runner = BulkRunner(rig.store)
    whole, faults = runner.tick, 0

    async def tick() -> float:
        nonlocal faults
        faults += 1
        if faults == 1:
            raise StoreUnavailableError("away")
        return await whole()

    monkeypatch.setattr(runner, "tick", tick)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await rig.submit()
        operation = await start(rig, BulkKind.CANCEL)

        async def is_over() -> bool:
            return (await rig.store.bulk.get(rig.namespace, operation.id)).has_ended

        await until_async(is_over)
        nursery.cancel_scope.cancel()

    assert faults >= 2
    assert (await rig.store.bulk.get(rig.namespace, operation.id)).done == 1
