from __future__ import annotations

import asyncio  # noqa: TID251 - what some of the handlers here are made of
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
import structlog
import trio
import trio.testing
import trio_asyncio

from gopher.job import Move, Outcome
from gopher.runtime.cutter import Cutter
from gopher.runtime.notices import CLEANUP_CUT, STUCK
from gopher.runtime.scopes import CancelReason
from tests.runtime.rig import Bench, claimed_job
from tests.waiting import runs, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.contexts import JobContext
    from gopher.runtime.scopes import RunningAttempt

LONG_SECONDS = 60.0


class Notices:
    """Cuts the attempts of a bench, and keeps what is told of them."""

    def __init__(self, bench: Bench) -> None:
        self.told: list[tuple[str, str]] = []
        self.cutter = Cutter(bench.scopes, bench.registry, self._notice)

    @property
    def reasons(self) -> list[str]:
        return [reason for reason, _ in self.told]

    def _notice(self, _attempt: RunningAttempt, reason: str, message: str) -> None:
        self.told.append((reason, message))


@pytest.fixture
async def notices(bench: Bench, nursery: trio.Nursery) -> Notices:
    made = Notices(bench)
    await nursery.start(made.cutter.run)
    return made


async def cancel(bench: Bench, nursery: trio.Nursery, attempt: RunningAttempt | None = None, *, grace: float = 0.2) -> float:
    """Start an attempt, cancel it once it waits, and return how long that took to end, in seconds."""
    attempt = attempt or bench.take()
    nursery.start_soon(bench.run_alone, attempt)
    await until(lambda: attempt.began_at is not None)
    await trio.testing.wait_all_tasks_blocked(0.01)
    began = time.monotonic()
    attempt.cancel(CancelReason.REQUESTED, grace)
    await until(lambda: attempt.is_over)
    return time.monotonic() - began


async def test_cut_ends_shielded_cleanup_when_the_grace_is_over(bench: Bench, nursery: trio.Nursery, notices: Notices) -> None:
    """A cleanup of a minute has its grace and no more; what it would have done last it does, and the job is cancelled."""
    steps: list[str] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            try:
                with trio.CancelScope(shield=True):  # what is to be cut
                    steps.append(f"cancelled {job.cancel_requested}")
                    await trio.sleep(LONG_SECONDS)
                steps.append("cleaned")
            finally:
                steps.append("left")

    took_seconds = await cancel(bench, nursery)

    assert 0.2 <= took_seconds < LONG_SECONDS / 2
    assert steps == ["cancelled True", "left"]
    assert (bench.outcome.move, bench.outcome.outcome, bench.outcome.failure) == (
        Move.ACKNOWLEDGE_CANCEL,
        Outcome.CANCELLED,
        b"",
    )
    ((reason, message),) = notices.told
    assert reason == CLEANUP_CUT
    assert "test_cutter.py" in message


async def test_cut_leaves_cleanup_alone_that_ends_within_its_grace(
    bench: Bench, nursery: trio.Nursery, notices: Notices
) -> None:
    """Within the grace a shield is a shield."""
    steps: list[str] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):  # what is to be cut
                await trio.sleep(0.3)
                steps.append("cleaned")

    await cancel(bench, nursery, grace=LONG_SECONDS)

    assert steps == ["cleaned"]
    assert notices.told == []


async def test_cut_comes_after_a_time_out_as_after_a_cancel(bench: Bench, notices: Notices) -> None:
    """A handler out of time has the same bound on its cleanup, and has timed out."""

    @bench.registry.handler("work", timeout_seconds=0.05)
    async def work(job: JobContext, payload: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):  # what is to be cut
                await trio.sleep(LONG_SECONDS)

    attempt = bench.take()
    attempt.grace_seconds = 0.1
    settlement = await bench.run(attempt)

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.TIMED_OUT)
    assert notices.reasons == [CLEANUP_CUT]


async def test_cut_goes_through_child_tasks_and_shields_one_after_another(
    bench: Bench, nursery: trio.Nursery, notices: Notices
) -> None:
    """Whoever opens the next shield is cut again, in each task of each nursery."""
    left: list[int] = []

    async def child(number: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            try:
                with trio.CancelScope(shield=True):  # what is to be cut
                    await trio.sleep(LONG_SECONDS)
            finally:
                with trio.CancelScope(shield=True):  # what is to be cut
                    await trio.sleep(LONG_SECONDS)
                left.append(number)

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        try:
            async with trio.open_nursery() as outer, trio.open_nursery() as inner:
                for number in range(5):
                    outer.start_soon(child, number)
                    inner.start_soon(child, number + 5)
        finally:
            left.append(-1)

    took_seconds = await cancel(bench, nursery)

    assert took_seconds < LONG_SECONDS / 2
    assert left == [-1]
    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert notices.reasons[0] == CLEANUP_CUT


async def test_a_second_cancel_shortens_the_grace_and_never_lengthens_it(
    bench: Bench, nursery: trio.Nursery, notices: Notices
) -> None:
    """Of all graces asked for, the end that comes first counts."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        with trio.CancelScope(shield=True):  # what is to be cut
            await trio.sleep(LONG_SECONDS)

    attempt = bench.take()
    nursery.start_soon(bench.run_alone, attempt)
    await until(lambda: attempt.began_at is not None)
    attempt.cancel(CancelReason.REQUESTED, LONG_SECONDS)
    attempt.cancel(CancelReason.SHUTDOWN, 0.1)
    attempt.cancel(CancelReason.REQUESTED, LONG_SECONDS)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert attempt.grace_seconds == 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
async def test_cut_kills_the_processes_that_a_handler_waits_for(bench: Bench, nursery: trio.Nursery, notices: Notices) -> None:
    """What `trio.run_process` shields is its wait for a process deaf to SIGTERM: that one is killed, with what it has started."""
    pids: list[int] = []
    script = "trap '' TERM; sleep 600 & echo $$ $!; while true; do sleep 1; done"

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        async with trio.open_nursery() as children:
            command = ["/bin/sh", "-c", script]
            process = await children.start(partial(trio.run_process, command, stdout=subprocess.PIPE))
            pids.extend(map(int, (await process.stdout.receive_some()).split()))

    attempt = bench.take()
    nursery.start_soon(bench.run_alone, attempt)
    await until(lambda: bool(pids))
    attempt.cancel(CancelReason.REQUESTED, 0.2)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert notices.reasons == [CLEANUP_CUT]
    await until(lambda: not any(runs(pid) for pid in pids))


@pytest.mark.parametrize("is_shared", [False, True], ids=["own-loop", "shared-loop"])
async def test_cut_cancels_asyncio_tasks_again_and_again(
    bench: Bench, nursery: trio.Nursery, notices: Notices, *, is_shared: bool
) -> None:
    """asyncio delivers a cancel once: cleanup that outlasts the grace is cancelled until it ends, in the handler and beside it."""
    steps: list[str] = []

    async def clean(name: str) -> None:
        try:
            await asyncio.sleep(LONG_SECONDS)
        finally:
            try:
                await asyncio.sleep(LONG_SECONDS)  # noqa: ASYNC102 - this is asyncio, where a cancel comes once
            finally:
                steps.append(name)

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> None:
        beside = asyncio.create_task(clean("beside"))
        steps.append("begun")
        await clean("handler")
        await beside

    if is_shared:
        bench.registry.lifespan(asyncio=True)(nothing)
    async with bench.open_lifespans():
        attempt = bench.take()
        nursery.start_soon(bench.run_alone, attempt)
        await until(lambda: bool(steps))
        attempt.cancel(CancelReason.REQUESTED, 0.1)
        await until(lambda: attempt.is_over)

    assert sorted(steps) == ["begun", "beside", "handler"]
    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
    assert CLEANUP_CUT in notices.reasons


@pytest.mark.parametrize("is_shared", [False, True], ids=["own-loop", "shared-loop"])
async def test_cut_opens_the_shields_of_trio_code_that_asyncio_calls(
    bench: Bench, nursery: trio.Nursery, notices: Notices, *, is_shared: bool
) -> None:
    """Of the attempt that is cut, and of no other that shares its loop."""
    steps: list[str] = []

    async def clean(name: str) -> None:
        try:
            async with trio.open_nursery() as children:
                children.start_soon(shielded)
                steps.append(name)
        finally:
            steps.append(f"left {name}")

    async def shielded() -> None:
        with trio.CancelScope(shield=True):  # what is to be cut
            await trio.sleep(LONG_SECONDS)

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: str) -> None:
        await trio_asyncio.trio_as_aio(clean)(payload)

    if is_shared:
        bench.registry.lifespan(asyncio=True)(nothing)
    async with bench.open_lifespans():
        first, second = bench.take(claimed_job(payload=b'"one"')), bench.take(claimed_job(payload=b'"two"'))
        nursery.start_soon(bench.run_alone, first)
        nursery.start_soon(bench.run_alone, second)
        await until(lambda: len(steps) == 2)
        first.cancel(CancelReason.REQUESTED, 0.1)
        await until(lambda: first.is_over)
        after_first = sorted(steps)
        second.cancel(CancelReason.REQUESTED, 0)
        await until(lambda: second.is_over)

    assert after_first == ["left one", "one", "two"]
    assert [settlement.move for settlement in bench.handed.settlements] == [Move.ACKNOWLEDGE_CANCEL] * 2


async def nothing() -> AsyncIterator[None]:
    await asyncio.sleep(0)
    yield


async def test_who_cannot_be_cut_is_named(bench: Bench, nursery: trio.Nursery, notices: Notices) -> None:
    """A handler that takes no cancel is told of once: which job, where in its own code, and by which calls it came there."""
    may_end = trio.Event()
    cancels: list[int] = []

    async def deaf() -> None:
        while not may_end.is_set():
            with trio.CancelScope(shield=True):  # what is to be cut
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:  # noqa: ASYNC103 - a handler that does what none should
                    cancels.append(1)

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        async with trio.open_nursery() as children:  # noqa: ASYNC112 - whoever hangs is found below it
            children.start_soon(deaf)

    with structlog.testing.capture_logs() as lines:
        attempt = bench.take(claimed_job())
        nursery.start_soon(bench.run_alone, attempt)
        await until(lambda: attempt.began_at is not None)
        attempt.cancel(CancelReason.REQUESTED, 0)
        await until(lambda: STUCK in notices.reasons)
        await until(lambda: len(cancels) > 2)
        (stuck,) = [line for line in lines if line["event"] == "attempt.stuck"]
        named = [each.job.id for each in bench.scopes.stuck()]
        may_end.set()
        await until(lambda: attempt.is_over)

    assert (stuck["job_id"], stuck["type"]) == (attempt.job.id, "work")
    assert stuck["hangs_at"] == attempt.hangs_at
    assert stuck["hangs_at"].endswith("in test_who_cannot_be_cut_is_named.<locals>.deaf")
    assert "sleep_forever" in stuck["stack"]
    assert notices.reasons == [CLEANUP_CUT, STUCK]
    assert named == [attempt.job.id]
    assert bench.scopes.stuck() == []
