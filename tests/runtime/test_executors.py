from __future__ import annotations

import asyncio  # noqa: TID251 - what some of the handlers here are made of
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from gopher.job import Failure, Move, Outcome
from gopher.runtime.scopes import CancelReason
from tests.runtime.rig import Bench, claimed_job
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.contexts import JobContext, SyncJobContext


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a thread handler waits for; opened at the end whatever happens, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


def failure_message(bench: Bench) -> str:
    return msgspec.json.decode(bench.outcome.failure, type=Failure).message


# --- threads --------------------------------------------------------------------------------------------------------------------


async def test_thread_handler_runs_beside_the_loop(bench: Bench, nursery: trio.Nursery, gate: threading.Event) -> None:
    """A plain function runs in a thread: the loop goes on meanwhile, and progress reaches it."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> object:
        job.progress(0.25, "begun")
        gate.wait(PATIENCE_SECONDS)
        return [job.attempt, payload, threading.current_thread() is threading.main_thread()]

    nursery.start_soon(bench.run, bench.take(claimed_job(payload=b"7")))
    await until(lambda: bool(bench.reports))
    gate.set()
    await until(lambda: bool(bench.handed.settlements))

    assert bench.reports == [(0.25, "begun")]
    assert bench.outcome.result == b"[1,7,false]"


async def test_every_kind_of_handler_can_speak(bench: Bench) -> None:
    """On Trio, in a thread and on asyncio, log lines and output arrive in the order in which they were given."""

    @bench.registry.handler("on-trio")
    async def on_trio(job: JobContext, payload: object) -> None:
        await job.log("one")
        await job.emit(2)

    @bench.registry.handler("in-thread")
    def in_thread(job: SyncJobContext, payload: object) -> None:
        job.log("one")
        job.emit(2)

    @bench.registry.handler("on-asyncio", asyncio=True)
    async def on_asyncio(job: JobContext, payload: object) -> None:
        await job.log("one")
        await job.emit(2)

    for kind in ("on-trio", "in-thread", "on-asyncio"):
        await bench.run_alone(bench.take(claimed_job(kind)))

    assert bench.said == [("log", b"info one"), ("output", b"application/json 2")] * 3


async def test_cancel_waits_for_a_thread_handler(bench: Bench, nursery: trio.Nursery, gate: threading.Event) -> None:
    """A thread cannot be ended: it keeps its slot and is reported as stuck until it returns, and then has succeeded."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> str:
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        return "done"

    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await until(lambda: bool(bench.reports))

    attempt.cancel(CancelReason.REQUESTED, grace_seconds=0)
    await until(lambda: bench.scopes.stuck() == [attempt])
    held, outcomes = len(bench.scopes), len(bench.handed.settlements)
    gate.set()
    await until(lambda: attempt.is_over)

    assert (held, outcomes) == (1, 0)
    assert bench.scopes.stuck() == []
    assert bench.outcome.move is Move.COMPLETE


async def test_cancel_ends_a_thread_handler_that_reports(bench: Bench, nursery: trio.Nursery, gate: threading.Event) -> None:
    """Progress is where a thread can be told: it raises there once the attempt is cancelled."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> str:
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        job.progress(1, "nearly done")
        return "done"

    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await until(lambda: bool(bench.reports))

    attempt.cancel(CancelReason.REQUESTED)
    gate.set()
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert len(bench.reports) == 1


async def test_teardown_of_the_worker_waits_for_a_thread_handler(bench: Bench, gate: threading.Event) -> None:
    """When the nursery around it is cancelled the thread is awaited, not left behind."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> str:
        job.progress(0, "begun")
        gate.wait(PATIENCE_SECONDS)
        return "done"

    with trio.CancelScope() as worker:
        async with trio.open_nursery() as attempts:
            attempts.start_soon(bench.run, bench.take())
            await until(lambda: bool(bench.reports))
            worker.cancel()
            gate.set()

    assert bench.outcome.move is Move.COMPLETE


# --- asyncio --------------------------------------------------------------------------------------------------------------------


async def test_asyncio_handler_runs_in_an_event_loop(bench: Bench) -> None:
    """Code for asyncio finds its loop, and progress works there too."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> object:
        await job.progress(0.5, "half")
        return await asyncio.gather(*(asyncio.sleep(0.001, number) for number in range(3)))

    settlement = await bench.run()

    assert settlement.result == b"[0,1,2]"
    assert bench.reports == [(0.5, "half")]


async def test_asyncio_handler_leaves_no_task_behind(bench: Bench) -> None:
    """What the handler started and did not await is cancelled and awaited before the outcome is written."""
    said: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)  # noqa: ASYNC102 - this is asyncio, where a cancel comes once
            said.append("cleaned up")

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> str:
        left.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        return "done"

    left: list[asyncio.Task[None]] = []
    settlement = await bench.run()

    assert settlement.move is Move.COMPLETE
    assert said == ["cleaned up"]


async def test_cancel_ends_an_asyncio_handler_with_its_tasks(bench: Bench, nursery: trio.Nursery) -> None:
    """A cancel reaches the handler as CancelledError; its background tasks end before the outcome is written."""
    said: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            said.append("background")

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:
        left.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            said.append("handler")

    # Not by what it reports: the cancel may come before that call has returned.
    begun = trio.Event()
    left: list[asyncio.Task[None]] = []
    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await begun.wait()

    attempt.cancel(CancelReason.REQUESTED)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert said == ["handler", "background"]


async def test_asyncio_handler_that_returns_after_a_cancel_has_succeeded(bench: Bench, nursery: trio.Nursery) -> None:
    """Work that finished, finished: also when it took the CancelledError for an order to hurry."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:  # noqa: ASYNC103 - what handlers do is tested
            await asyncio.sleep(0.001)  # noqa: ASYNC102 - likewise
        return "done"

    # Not by what it reports: the cancel may come before that call has returned.
    begun = trio.Event()
    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await begun.wait()

    attempt.cancel(CancelReason.REQUESTED)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.COMPLETE
    assert bench.outcome.result == b'"done"'


async def test_asyncio_handler_may_let_a_cancelled_error_out(bench: Bench) -> None:
    """A CancelledError that is the handler's own affair is its attempt's failure, and not the end of the worker."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:
        task = asyncio.create_task(asyncio.sleep(3600))
        task.cancel()
        await task

    settlement = await bench.run()

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.RAISED)
    assert failure_message(bench).startswith("CancelledError")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["handler", "task", "callback"])
async def test_exit_of_an_asyncio_handler_is_its_failure(bench: Bench, error: BaseException, where: str) -> None:
    """What would end asyncio's loop ends the attempt: raised by the handler, by a task that it awaits, or by a callback."""

    async def fail() -> None:  # noqa: ASYNC124 - for a task
        raise error

    def call() -> None:
        raise error

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:
        if where == "callback":
            asyncio.get_running_loop().call_soon(call)
            await asyncio.sleep(3600)
        await (asyncio.create_task(fail()) if where == "task" else fail())  # noqa: ASYNC300 - awaited at once

    with trio.fail_after(PATIENCE_SECONDS):
        settlement = await bench.run()

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.RAISED)
    assert failure_message(bench).startswith(type(error).__name__)


async def test_asyncio_handler_cannot_stop_its_loop(bench: Bench) -> None:
    """What waits for it would never be resumed."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(3600)

    with trio.fail_after(PATIENCE_SECONDS):
        await bench.run()

    assert failure_message(bench).startswith("RuntimeError: the event loop is the worker's")


async def test_cancel_of_trio_that_an_asyncio_handler_raises_is_its_failure(bench: Bench) -> None:
    """One whose scope is over is no cancel, and the handler has not returned."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:  # noqa: ASYNC124 - a handler
        raise kept

    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:  # noqa: ASYNC103 - the fault that is tested
            kept = error
    await bench.run()

    assert failure_message(bench).startswith("Cancelled")


async def test_asyncio_handlers_do_not_share_a_loop(bench: Bench, nursery: trio.Nursery) -> None:
    """A callback that fails tears down the loop of its own attempt and nobody else's."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> str:
        if payload == "fail":
            asyncio.get_running_loop().call_soon(int, "no number")
            await asyncio.sleep(3600)
        await other.wait()
        return "done"

    other = asyncio.Event()
    attempt = bench.take(claimed_job(payload=b'"stay"'))
    nursery.start_soon(bench.run_alone, attempt)
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(PATIENCE_SECONDS):
        await bench.run_alone(bench.take(claimed_job(payload=b'"fail"')))
    (failed,) = bench.handed.settlements
    is_over = attempt.is_over
    attempt.cancel(CancelReason.SHUTDOWN)
    await until(lambda: attempt.is_over)

    assert not is_over
    assert failed.outcome is Outcome.RAISED
    assert msgspec.json.decode(failed.failure, type=Failure).message.startswith("ValueError")


async def test_teardown_of_the_worker_ends_an_asyncio_handler(bench: Bench) -> None:
    """When the nursery around it is cancelled the handler ends and its job is given back."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:
        await job.progress(0, "begun")
        await asyncio.sleep(3600)

    with trio.CancelScope() as worker:
        async with trio.open_nursery() as attempts:
            attempts.start_soon(bench.run, bench.take())
            await until(lambda: bool(bench.reports))
            worker.cancel()

    assert worker.cancelled_caught
    assert bench.outcome.move is Move.RELEASE
