"""How the runner reads the outcome of an attempt that was ended: by its time limit, by us, or with the worker."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from gopher.job import Failure, Move, Outcome
from gopher.runtime.scopes import CancelReason
from tests.runtime.rig import CLAIMED_MS, Bench, claimed_job

if TYPE_CHECKING:
    from gopher.store.lifecycle import Settlement


def failure_of(settlement: Settlement) -> Failure:
    return msgspec.json.decode(settlement.failure, type=Failure)


@pytest.mark.parametrize(
    ("declared_seconds", "submitted_ms", "limit_seconds"), [(10.0, None, 10.0), (None, 10_000, 10.0), (5.0, 10_000, 10.0)]
)
async def test_runner_ends_an_attempt_at_its_timeout(
    bench: Bench,
    autojump_clock: trio.testing.MockClock,
    declared_seconds: float | None,
    submitted_ms: int | None,
    limit_seconds: float,
) -> None:
    """The submitter's timeout goes before the handler's; the attempt is retried."""

    @bench.registry.handler("work", timeout_seconds=declared_seconds)
    async def work(job: object, payload: object) -> None:
        await trio.sleep_forever()

    fields = {} if submitted_ms is None else {"timeout_ms": submitted_ms}
    began = trio.current_time()
    settlement = await bench.run(bench.take(claimed_job(record=fields)))

    assert trio.current_time() - began == pytest.approx(limit_seconds)
    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.TIMED_OUT)
    assert failure_of(settlement).reason == "TIMED_OUT"


async def test_runner_ends_an_attempt_at_the_deadline_of_its_job(bench: Bench, autojump_clock: trio.testing.MockClock) -> None:
    """When the deadline comes before the timeout, the job has expired and is not retried."""

    @bench.registry.handler("work", timeout_seconds=60)
    async def work(job: object, payload: object) -> None:
        await trio.sleep_forever()

    settlement = await bench.run(bench.take(claimed_job(record={"deadline_ms": CLAIMED_MS + 20_000})))

    assert (settlement.move, settlement.outcome) == (Move.BURY, Outcome.TIMED_OUT)
    assert failure_of(settlement).reason == "EXPIRED"


async def test_runner_takes_a_return_after_the_timeout_for_success(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """Work that finished, finished."""

    @bench.registry.handler("work", timeout_seconds=1)
    async def work(job: object, payload: object) -> str:
        with trio.CancelScope(shield=True):  # the handler of the test insists
            await trio.sleep(2)
        return "done"

    settlement = await bench.run()

    assert settlement.move is Move.COMPLETE
    assert settlement.result == b'"done"'


async def test_runner_tells_an_error_before_the_timeout_from_the_timeout(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """A handler that raises in time has raised; one that turns its cancellation into an error has timed out."""

    @bench.registry.handler("work", timeout_seconds=1)
    async def work(job: object, payload: float) -> None:
        try:
            await trio.sleep(payload)
        except trio.Cancelled:  # noqa: ASYNC103 - the fault that is tested
            raise ValueError("turned") from None  # noqa: ASYNC104 - likewise
        raise ValueError("its own")

    in_time = await bench.run(bench.take(claimed_job(payload=b"0.5")))
    bench.handed.settlements.clear()
    too_late = await bench.run(bench.take(claimed_job(payload=b"5")))

    assert in_time.outcome is Outcome.RAISED
    assert too_late.outcome is Outcome.TIMED_OUT


ENDED = [
    (CancelReason.REQUESTED, Move.ACKNOWLEDGE_CANCEL),
    (CancelReason.LEASE_LOST, Move.RELEASE),
    (CancelReason.SHUTDOWN, Move.RELEASE),
]
by_reason = pytest.mark.parametrize(("reason", "move"), ENDED, ids=lambda value: value.value)


@by_reason
async def test_runner_ends_an_attempt_for_a_reason(
    bench: Bench, nursery: trio.Nursery, reason: CancelReason, move: Move
) -> None:
    """A cancel that was asked for is acknowledged; a lost lease and a shutdown give the job back, unspent."""
    bench.handler(sleeper)
    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await trio.testing.wait_all_tasks_blocked()

    attempt.cancel(reason)
    await trio.testing.wait_all_tasks_blocked()

    settlement = bench.outcome
    assert (settlement.move, settlement.outcome, settlement.failure) == (move, Outcome.CANCELLED, b"")
    assert attempt.is_over


@by_reason
async def test_runner_survives_a_child_that_fails_while_it_is_cancelled(
    bench: Bench, nursery: trio.Nursery, reason: CancelReason, move: Move
) -> None:
    """The group of error and Cancelled that a handler's nursery raises is neither the worker's end nor another outcome."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        async with trio.open_nursery() as children:
            children.start_soon(trio.sleep_forever)
            children.start_soon(fail_once_cancelled)

    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await trio.testing.wait_all_tasks_blocked()

    attempt.cancel(reason)
    await trio.testing.wait_all_tasks_blocked()

    assert (bench.outcome.move, bench.outcome.outcome) == (move, Outcome.CANCELLED)


@by_reason
async def test_runner_takes_a_return_after_a_cancel_for_success(
    bench: Bench, nursery: trio.Nursery, reason: CancelReason, move: Move
) -> None:
    """A handler that returns all the same has succeeded, whatever it was cancelled for."""

    @bench.handler
    async def work(job: object, payload: object) -> str:
        with trio.move_on_after(math.inf) as inner:
            inner.shield = True
            await finish.wait()
        return "done"

    finish = trio.Event()
    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await trio.testing.wait_all_tasks_blocked()

    attempt.cancel(reason)
    finish.set()
    await trio.testing.wait_all_tasks_blocked()

    assert bench.outcome.move is Move.COMPLETE


@by_reason
async def test_runner_starts_no_handler_whose_cancel_came_first(
    bench: Bench, nursery: trio.Nursery, reason: CancelReason, move: Move
) -> None:
    """A cancel between the claim and the handler's first line keeps it from running at all."""
    started: list[object] = []

    @bench.handler
    async def work(job: object, payload: object) -> None:
        started.append(job)
        await trio.lowlevel.checkpoint()

    attempt = bench.take()
    attempt.cancel(reason)
    settlement = await bench.run(attempt)

    assert (settlement.move, started) == (move, [])


async def test_runner_gives_the_job_back_when_the_worker_is_torn_down(bench: Bench) -> None:
    """When the nursery around it is cancelled the handler ends, its job is released and the cancellation goes on up."""
    bench.handler(sleeper)
    ended_normally = False

    with trio.CancelScope() as worker:
        async with trio.open_nursery() as attempts:
            attempts.start_soon(bench.run, bench.take())
            await trio.testing.wait_all_tasks_blocked()
            worker.cancel()
        ended_normally = True

    assert not ended_normally
    assert bench.outcome.move is Move.RELEASE


async def test_runner_gives_the_job_back_when_a_child_fails_as_the_worker_is_torn_down(bench: Bench) -> None:
    """The handler's error is not the end of the worker, and does not hide its cancellation."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        async with trio.open_nursery() as children:
            children.start_soon(trio.sleep_forever)
            children.start_soon(fail_once_cancelled)

    with trio.CancelScope() as worker:
        async with trio.open_nursery() as attempts:
            attempts.start_soon(bench.run, bench.take())
            await trio.testing.wait_all_tasks_blocked()
            worker.cancel()

    assert worker.cancelled_caught
    assert bench.outcome.move is Move.RELEASE


async def test_runner_reports_a_handler_that_outlasts_its_timeout_as_stuck(
    bench: Bench, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stuck is who has outlasted the end that was set, whoever set it, and its grace; who has ended is not."""

    @bench.registry.handler("work", timeout_seconds=0.01)
    async def work(job: object, payload: object) -> None:
        with trio.CancelScope(shield=True):  # the handler of the test will not end
            await finish.wait()

    finish = trio.Event()
    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await trio.testing.wait_all_tasks_blocked()

    in_time = bench.scopes.stuck()
    monkeypatch.setattr("time.monotonic", lambda: attempt.is_late_at + 1)
    too_late = bench.scopes.stuck()
    finish.set()
    await trio.testing.wait_all_tasks_blocked()

    assert (in_time, too_late) == ([], [attempt])
    assert bench.scopes.stuck() == []


async def sleeper(job: object, payload: object) -> None:
    await trio.sleep_forever()


async def fail_once_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        if isinstance(sys.exception(), trio.Cancelled):
            raise ValueError("while cancelled")  # noqa: TRY004 - any error will do
