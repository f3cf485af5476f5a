"""What attempts wait for, once claimed, before their handlers begin; the tests of `gopher.runtime.runner` that concern it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from gopher.job import Failure, Move, Outcome
from tests.runtime import process_app
from tests.runtime.rig import CLAIMED_MS, Bench, claimed_job
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.runtime.scopes import RunningAttempt


def held_back(bench: Bench, **record: object) -> RunningAttempt:
    """Take an attempt that may not begin yet."""
    attempt = bench.take(claimed_job(record=record))
    attempt.may_begin = trio.Event()
    return attempt


def let_begin(attempt: RunningAttempt) -> None:
    assert attempt.may_begin is not None
    attempt.may_begin.set()


async def test_waiting_is_not_counted_by_the_timeout(
    bench: Bench, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """An attempt that has waited for longer than its time limit has all of it when its handler begins."""

    @bench.registry.handler("work", timeout_seconds=10)
    async def work(job: object, payload: object) -> str:
        await trio.sleep(9)
        return "in time"

    attempt = held_back(bench)
    nursery.start_soon(bench.run, attempt)

    await trio.sleep(60)
    let_begin(attempt)
    await trio.sleep(20)

    assert bench.outcome.result == b'"in time"'


async def test_waiting_is_counted_by_the_deadline(
    bench: Bench, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A handler that begins late ends at the deadline of its job all the same, and not as much later."""
    ended_at = 0.0

    @bench.registry.handler("work", timeout_seconds=60)
    async def work(job: object, payload: object) -> None:
        nonlocal ended_at
        try:
            await trio.sleep_forever()
        finally:
            ended_at = trio.current_time()

    begun_at = trio.current_time()
    attempt = held_back(bench, deadline_ms=CLAIMED_MS + 30_000)
    nursery.start_soon(bench.run, attempt)

    await trio.sleep(20)
    let_begin(attempt)
    await trio.sleep(20)

    assert ended_at - begun_at == pytest.approx(30, abs=0.1)
    assert msgspec.json.decode(bench.outcome.failure, type=Failure).reason == "EXPIRED"


async def test_deadline_that_passes_in_waiting_expires_the_job(bench: Bench, autojump_clock: trio.testing.MockClock) -> None:
    """It is the deadline that has passed, also where the time limit is shorter, and the handler does not begin."""
    has_begun = False

    @bench.registry.handler("work", timeout_seconds=1)
    async def work(job: object, payload: object) -> None:  # noqa: ASYNC124 - it must not begin
        nonlocal has_begun
        has_begun = True

    settlement = await bench.run(held_back(bench, deadline_ms=CLAIMED_MS + 30_000))

    assert (settlement.move, has_begun) == (Move.BURY, False)
    assert msgspec.json.decode(settlement.failure, type=Failure).reason == "EXPIRED"


async def test_drain_gives_back_what_waits(bench: Bench, nursery: trio.Nursery) -> None:
    """What has not begun when the drain begins is released at once, unspent; what runs goes on."""
    gate = trio.Event()

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await gate.wait()

    running, waiting = bench.take(), held_back(bench)
    nursery.start_soon(bench.run_alone, running)
    nursery.start_soon(bench.run_alone, waiting)
    await trio.testing.wait_all_tasks_blocked()

    bench.scopes.release_waiting()
    await trio.testing.wait_all_tasks_blocked()
    given_back = list(bench.handed.settlements)
    gate.set()
    await trio.testing.wait_all_tasks_blocked()

    assert [(each.job_id, each.move, each.outcome) for each in given_back] == [
        (waiting.job.id, Move.RELEASE, Outcome.CANCELLED)
    ]
    assert bench.handed.settlements[1].move is Move.COMPLETE


async def test_nothing_waits_once_the_worker_drains(bench: Bench) -> None:
    """What a claim under way has brought, and would have to wait, is given back at once."""
    bench.handler(no_work)
    bench.is_draining = True

    with trio.fail_after(PATIENCE_SECONDS):
        settlement = await bench.run(held_back(bench))

    assert settlement.move is Move.RELEASE


async def no_work(job: object, payload: object) -> None:
    pass


@pytest.fixture
def narrow() -> Iterator[Bench]:
    """A bench that runs one subprocess at a time."""
    made = Bench("tests.runtime.process_app:registry", subprocesses=1)
    made.registry = process_app.registry
    yield made
    made.executors.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
async def test_subprocesses_beyond_the_limit_wait(narrow: Bench, nursery: trio.Nursery) -> None:
    """The second begins when the first has ended, whatever way; a payload that does not fit keeps no room either."""
    first = narrow.take(claimed_job("sleep-trio"))
    second = narrow.take(claimed_job("raise", b"[]"))
    third = narrow.take(claimed_job("echo"))
    nursery.start_soon(narrow.run_alone, first)
    await until(lambda: bool(narrow.reports))
    nursery.start_soon(narrow.run_alone, second)
    await until(lambda: second.is_waiting)
    nursery.start_soon(narrow.run_alone, third)
    await until(lambda: third.is_waiting)

    narrow.scopes.request_cancel(first.job.id, first.job.token, PATIENCE_SECONDS)
    await until(lambda: len(narrow.handed.settlements) == 3)

    assert [each.move for each in narrow.handed.settlements] == [Move.ACKNOWLEDGE_CANCEL, Move.BURY, Move.COMPLETE]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
async def test_subprocess_that_waits_can_be_cancelled(narrow: Bench, nursery: trio.Nursery) -> None:
    """It gives way at once, and takes no room later."""
    first = narrow.take(claimed_job("sleep-trio"))
    second = narrow.take(claimed_job("echo"))
    nursery.start_soon(narrow.run_alone, first)
    await until(lambda: bool(narrow.reports))
    nursery.start_soon(narrow.run_alone, second)
    await until(lambda: second.is_waiting)

    narrow.scopes.request_cancel(second.job.id, second.job.token, PATIENCE_SECONDS)
    await until(lambda: bool(narrow.handed.settlements))

    (settlement,) = narrow.handed.settlements
    assert (settlement.job_id, settlement.move) == (second.job.id, Move.ACKNOWLEDGE_CANCEL)
    assert not first.is_over
