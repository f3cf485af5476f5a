from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

import gopher
from gopher.job import Move, Outcome
from gopher.runtime import threads
from gopher.runtime.cutter import Cutter
from gopher.runtime.notices import STUCK, THREAD_ABANDONED, THREAD_AWAITED
from gopher.runtime.scopes import CancelReason
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.contexts import SyncJobContext
    from gopher.runtime.scopes import RunningAttempt
    from tests.runtime.rig import Bench


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a thread handler waits for; opened at the end whatever happens, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
async def told(bench: Bench, nursery: trio.Nursery) -> list[str]:
    """The reasons of the notices given of the bench's attempts, which are cut."""
    reasons: list[str] = []

    def notice(_attempt: RunningAttempt, reason: str, _message: str) -> None:
        reasons.append(reason)

    await nursery.start(Cutter(bench.scopes, bench.registry, notice).run)
    return reasons


async def start(bench: Bench, nursery: trio.Nursery) -> RunningAttempt:
    """Start an attempt, and wait for its handler's first word."""
    said = len(bench.reports)
    attempt = bench.take()
    nursery.start_soon(bench.run_alone, attempt)
    await until(lambda: len(bench.reports) > said)
    return attempt


async def test_wait_holds_the_slot_until_the_thread_returns(
    bench: Bench, nursery: trio.Nursery, told: list[str], gate: threading.Event
) -> None:
    """By default a thread is awaited: its attempt goes on beyond the grace, is stuck by name, and what it returns counts."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> str:
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        return "done"

    attempt = await start(bench, nursery)
    attempt.cancel(CancelReason.REQUESTED, 0)
    await until(lambda: STUCK in told)
    stuck, where, handed = bench.scopes.stuck(), attempt.hangs_at, len(bench.handed.settlements)
    gate.set()
    await until(lambda: attempt.is_over)

    assert (stuck, handed) == ([attempt], 0)
    assert where.endswith("in test_wait_holds_the_slot_until_the_thread_returns.<locals>.work")
    assert told == [THREAD_AWAITED, STUCK]
    assert bench.outcome.move is Move.COMPLETE


async def test_abandon_ends_the_attempt_when_the_grace_is_over(
    bench: Bench, nursery: trio.Nursery, told: list[str], gate: threading.Event
) -> None:
    """The attempt is cancelled while its thread goes on, and what that says afterwards is refused there and kept nowhere."""
    refused: list[BaseException] = []

    @bench.registry.handler("work", on_cancel="abandon")
    def work(job: SyncJobContext, payload: object) -> str:
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        for say in (lambda: job.progress(1, "late"), lambda: job.submit("work"), job.check_cancelled):
            try:
                say()
            except gopher.AttemptCancelled as error:
                refused.append(error)
        return "nobody's"

    attempt = await start(bench, nursery)
    attempt.cancel(CancelReason.REQUESTED, 0.1)
    await until(lambda: attempt.is_over)
    gate.set()
    await until(lambda: len(refused) == 3)

    assert (bench.outcome.move, bench.outcome.outcome) == (Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)
    assert told == [THREAD_ABANDONED]
    assert [message for _, message in bench.reports] == ["begun"]


async def test_abandon_after_a_time_out(bench: Bench, told: list[str], gate: threading.Event) -> None:
    """A thread out of time is left behind like one that was cancelled; the attempt has timed out."""

    @bench.registry.handler("work", on_cancel="abandon", timeout_seconds=0.05)
    def work(job: SyncJobContext, payload: object) -> bool:
        return gate.wait(PATIENCE_SECONDS)

    attempt = bench.take()
    attempt.grace_seconds = 0.1
    settlement = await bench.run(attempt)

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.TIMED_OUT)
    assert told == [THREAD_ABANDONED]


async def test_threads_left_behind_are_counted_and_bounded(
    bench: Bench, nursery: trio.Nursery, told: list[str], gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a thread is awaited; once one of the others has returned, it is left behind as its handler says."""
    monkeypatch.setattr(threads, "MOST_ABANDONED", 1)
    gates = [threading.Event(), gate]
    waiting = iter(gates)

    @bench.registry.handler("work", on_cancel="abandon")
    def work(job: SyncJobContext, payload: object) -> None:
        own = next(waiting)
        job.progress(0, "begun")
        own.wait(PATIENCE_SECONDS)

    first, second = await start(bench, nursery), await start(bench, nursery)
    first.cancel(CancelReason.REQUESTED, 0)
    await until(lambda: first.is_over)
    second.cancel(CancelReason.REQUESTED, 0)
    await until(lambda: THREAD_AWAITED in told)
    is_held = not second.is_over
    gates[0].set()
    await until(lambda: second.is_over)

    assert is_held
    assert told == [THREAD_ABANDONED, THREAD_AWAITED, THREAD_ABANDONED] or told == [
        THREAD_ABANDONED,
        THREAD_AWAITED,
        STUCK,
        THREAD_ABANDONED,
    ]


@pytest.mark.parametrize("policy", ["wait", "abandon"])
async def test_a_thread_that_looks_ends_as_cancelled(
    bench: Bench, nursery: trio.Nursery, gate: threading.Event, policy: str
) -> None:
    """`cancel_requested` tells a thread, and `check_cancelled` ends it: cancelled, with no failure of its own."""
    seen: list[bool] = []

    @bench.registry.handler("work", on_cancel="wait" if policy == "wait" else "abandon")
    def work(job: SyncJobContext, payload: object) -> str:
        seen.append(job.cancel_requested)
        job.check_cancelled()
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        seen.append(job.cancel_requested)
        try:
            job.check_cancelled()
        except Exception:  # noqa: BLE001 - what a handler may well say must not catch it
            return "caught"
        return "done"

    attempt = await start(bench, nursery)
    attempt.cancel(CancelReason.REQUESTED, PATIENCE_SECONDS)
    gate.set()
    await until(lambda: attempt.is_over)

    assert seen == [False, True]
    assert (bench.outcome.move, bench.outcome.failure) == (Move.ACKNOWLEDGE_CANCEL, b"")


async def test_a_thread_that_looks_ends_as_timed_out(bench: Bench) -> None:
    """A time-out tells it as a cancel does."""

    @bench.registry.handler("work", timeout_seconds=0.05)
    def work(job: SyncJobContext, payload: object) -> None:
        while True:
            job.check_cancelled()

    with trio.fail_after(PATIENCE_SECONDS):
        settlement = await bench.run()

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.TIMED_OUT)


@pytest.mark.parametrize(
    ("said", "is_async", "is_process"), [("abandon", True, False), ("abandon", False, True), ("other", False, False)]
)
def test_policy_is_refused_where_it_means_nothing(said: str, *, is_async: bool, is_process: bool) -> None:
    """Only a thread can be left behind, and there are two words."""
    registry = gopher.Registry()

    async def on_trio(job: object, payload: object) -> None: ...

    def plain(job: object, payload: object) -> None: ...

    handler = on_trio if is_async else plain
    with pytest.raises(ValueError, match="on_cancel"):
        registry.handler("work", process=is_process, on_cancel=said)(handler)  # type: ignore[arg-type]  # a word that is none


async def test_cut_opens_the_shields_of_trio_code_that_a_thread_waits_for(
    bench: Bench, nursery: trio.Nursery, told: list[str]
) -> None:
    """A thread that waits in Trio is told by Trio."""

    async def shielded() -> None:
        with trio.CancelScope(shield=True):  # what is to be cut
            await trio.sleep(2 * PATIENCE_SECONDS)

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> None:
        job.progress(0, "begun")
        trio.from_thread.run(shielded)

    attempt = await start(bench, nursery)
    attempt.cancel(CancelReason.REQUESTED, 0)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert told == [THREAD_AWAITED]


async def test_a_thread_that_may_be_left_behind_opens_no_nursery(bench: Bench) -> None:
    """Its children would outlive it unseen."""

    @bench.registry.handler("work", on_cancel="abandon")
    def work(job: SyncJobContext, payload: object) -> None:
        with job.open_nursery():
            pass

    settlement = await bench.run()

    assert settlement.outcome is Outcome.RAISED
    assert b"has no nursery of jobs" in settlement.failure
