from __future__ import annotations

import asyncio  # noqa: TID251 - what some of the handlers here are made of
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

import gopher
from gopher.job import Failure, Move, Outcome
from gopher.runtime.scopes import CancelReason
from tests.runtime.rig import Bench, claimed_job
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from gopher.surroundings import CallNext


async def test_middleware_wraps_in_the_order_of_registration(bench: Bench) -> None:
    """The first one is the outermost; each sees the job and the decoded payload, and may replace the result."""
    seen: list[object] = []

    @bench.registry.middleware
    async def outer(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        seen.append(("outer", job.type, payload))
        return [await call_next()]

    @bench.registry.middleware
    async def inner(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        seen.append("inner")
        return await call_next()

    @bench.handler
    async def work(job: gopher.JobContext, payload: int) -> int:
        await trio.lowlevel.checkpoint()
        seen.append("handler")
        return payload + 1

    settlement = await bench.run(bench.take(claimed_job(payload=b"6")))

    assert settlement.result == b"[7]"
    assert seen == [("outer", "work", 6), "inner", "handler"]


@pytest.mark.parametrize("is_outer", [True, False], ids=["around middleware", "around the handler"])
async def test_middleware_may_run_the_rest_once(bench: Bench, is_outer: bool) -> None:
    """A second call_next fails the attempt and names who made it, and neither the handler nor what is between runs again."""
    runs: list[str] = []

    async def twice(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        await call_next()
        return await call_next()

    async def once(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        runs.append("once")
        return await call_next()

    for each in (twice, once) if is_outer else (once, twice):
        bench.registry.middleware(each)

    @bench.handler
    async def work(job: gopher.JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        runs.append("handler")

    settlement = await bench.run(bench.take(claimed_job()))

    assert settlement.outcome is Outcome.RAISED
    assert settlement.failure is not None
    assert "twice has called call_next twice" in msgspec.json.decode(settlement.failure, type=Failure).message
    assert runs == ["once", "handler"]


async def test_middleware_may_run_the_rest_in_each_attempt(bench: Bench) -> None:
    """Once means once an attempt: the next job finds a call_next of its own."""

    @bench.registry.middleware
    async def once(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        return await call_next()

    @bench.handler
    async def work(job: gopher.JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()

    for _ in range(2):
        await bench.run_alone(bench.take(claimed_job()))

    assert [each.outcome for each in bench.handed.settlements] == [Outcome.SUCCEEDED] * 2


@pytest.mark.parametrize("kind", ["thread", "asyncio", "process"])
async def test_middleware_wraps_every_kind_of_handler(kind: str) -> None:
    """It runs on Trio in the worker, wherever the handler does."""
    bench = Bench("tests.runtime.process_app:registry")
    seen: list[str] = []

    @bench.registry.middleware
    async def note(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        await trio.lowlevel.checkpoint()
        seen.append(job.type)
        return await call_next()

    def plain(job: gopher.SyncJobContext, payload: object) -> object:
        return payload

    async def on_asyncio(job: gopher.JobContext, payload: object) -> object:
        await asyncio.sleep(0)
        return payload

    if kind == "asyncio":
        bench.registry.handler("echo", asyncio=True)(on_asyncio)
    else:
        bench.registry.handler("echo", process=kind == "process")(plain)
    settlement = await bench.run(bench.take(claimed_job("echo", payload=b"7")))

    assert settlement.move is Move.COMPLETE
    assert seen == ["echo"]


async def test_middleware_sees_errors_and_verdicts(bench: Bench) -> None:
    """What a handler raises comes through as it was raised, verdicts too, and middleware may turn one into another."""
    seen: list[BaseException] = []

    @bench.registry.middleware
    async def turn(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        try:
            return await call_next()
        except gopher.Snooze as error:
            seen.append(error)
            raise
        except ValueError as error:
            seen.append(error)
            raise gopher.Discard("no use") from error

    @bench.handler
    async def work(job: gopher.JobContext, payload: bool) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("bad") if payload else gopher.Snooze(5)

    await bench.run_alone(bench.take(claimed_job(payload=b"true")))
    await bench.run_alone(bench.take(claimed_job(payload=b"false")))
    discarded, snoozed = bench.handed.settlements

    assert [type(error) for error in seen] == [ValueError, gopher.Snooze]
    assert msgspec.json.decode(discarded.failure, type=Failure).reason == "DISCARDED"
    assert (snoozed.move, snoozed.delay_ms) == (Move.SNOOZE, 5000)


async def test_middleware_that_swallows_a_cancel_does_not_undo_it(bench: Bench, nursery: trio.Nursery) -> None:
    """A job whose handler a cancel has ended is cancelled, whatever the middleware returns instead."""

    @bench.registry.middleware
    async def careless(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        with suppress(BaseException):
            return await call_next()
        return "all is well"

    @bench.handler
    async def work(job: gopher.JobContext, payload: object) -> None:
        await job.progress(0, "begun")
        await trio.sleep_forever()

    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    await until(lambda: bool(bench.reports))
    attempt.cancel(CancelReason.REQUESTED)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL


async def test_middleware_may_bound_the_handler_by_a_scope_of_its_own(bench: Bench) -> None:
    """What it cancels itself is its own affair: it may answer in the handler's place."""

    @bench.registry.middleware
    async def impatient(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        with trio.move_on_after(0):
            return await call_next()
        return "too late"

    @bench.handler
    async def work(job: gopher.JobContext, payload: object) -> None:
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE_SECONDS):
        settlement = await bench.run()

    assert (settlement.move, settlement.result) == (Move.COMPLETE, b'"too late"')


async def test_middleware_that_fails_fails_the_attempt(bench: Bench) -> None:
    """An error of its own is handled as the handler's."""

    @bench.registry.middleware
    async def broken(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        await trio.lowlevel.checkpoint()
        raise KeyError("tenant")

    @bench.handler
    async def work(job: gopher.JobContext, payload: object) -> None:
        pass

    settlement = await bench.run()

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.RAISED)
