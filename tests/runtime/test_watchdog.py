from __future__ import annotations

import asyncio  # noqa: TID251 - the handlers under test are on asyncio
import threading
import time
from contextlib import asynccontextmanager
from contextvars import copy_context
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

import pytest
import structlog.testing
import trio

from gopher.handlers import Registry
from gopher.runtime import watchdog
from gopher.runtime.slots import Slots
from gopher.runtime.watchdog import Watchdog
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from structlog.typing import EventDict

    from gopher.runtime.scopes import RunningAttempt
    from tests.runtime.rig import Bench

LEASE_SECONDS: Final = 0.4
"""So that a tenth of a second is a block."""


class Kennel:
    """A watchdog over the loop of the test, which ends each block once it has told of it.

    Attributes:
        seen: Type, function and job of each block.
        notices: What attempts were told of.
        lines: The log.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.seen: list[tuple[str, str, str]] = []
        self.notices: list[tuple[RunningAttempt, str, str]] = []
        self.lines: list[EventDict] = []
        self._is_told = threading.Event()
        self.watchdog = Watchdog(
            bench.registry,
            charged=bench.lifespans.charged,
            on_change=self._note,
            notice=lambda *told: self.notices.append(told),
            lease_seconds=LEASE_SECONDS,
        )

    def _note(self) -> None:
        block = self.watchdog.block
        if block is not None:
            self.seen.append((block.type, block.function, block.job_id))

    def block(self) -> None:
        """Stop the loop until the watchdog has told of it; called by what is to be named."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(line["event"] == "loop.blocked" for line in list(self.lines)) and time.monotonic() < deadline:
            threading.Event().wait(0.001)

    async def run(self) -> str:
        """Run a job of type `work` in a slot of its own, and return its id once it and the block are over."""
        with structlog.testing.capture_logs() as self.lines:
            async with self.bench.open_lifespans(), trio.open_nursery() as nursery:
                await nursery.start(self.watchdog.run)
                attempt = self.bench.take()
                slots = Slots(self.bench.runner, nursery)
                slots.put_nowait(attempt, self.bench.handed)
                slots.start_nowait()
                await until(lambda: any(line["event"] == "loop.unblocked" for line in self.lines))
                await until(lambda: not len(self.bench.scopes))
                nursery.cancel_scope.cancel()
        return attempt.job.id

    @property
    def blocked(self) -> EventDict:
        return next(line for line in self.lines if line["event"] == "loop.blocked")


@pytest.fixture
def kennel(bench: Bench) -> Kennel:
    """A watchdog that runs with the job."""
    return Kennel(bench)


async def test_watchdog_names_the_handler_that_blocks_the_loop(kennel: Kennel, bench: Bench) -> None:
    """Log, register and the attempt's own notice say which job, which function and where; the total stays."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        kennel.block()

    job_id = await kennel.run()

    function = f"{__name__}.{work.__qualname__}"
    assert kennel.seen == [("work", function, job_id)]
    assert (kennel.blocked["job_id"], kennel.blocked["type"], kennel.blocked["function"]) == (job_id, "work", function)
    assert kennel.blocked["at"].startswith(f"{__file__}:")
    assert kennel.blocked["at"].endswith(" block")
    assert "kennel.block()" in kennel.blocked["stack"]
    assert "runner.py" not in kennel.blocked["stack"]
    assert kennel.blocked["seconds"] >= LEASE_SECONDS / 4
    assert not kennel.watchdog.is_blocked
    assert [(each.type, each.function, each.job_id) for each in kennel.watchdog.totals] == [("work", function, "")]
    assert kennel.watchdog.totals[0].seconds >= LEASE_SECONDS / 4
    ((attempt, reason, message),) = kennel.notices
    assert (attempt.job.id, reason) == (job_id, "LOOP_BLOCKED")
    assert message.startswith(f"{function} kept the worker's loop for ")


def test_stack_begins_at_the_step(kennel: Kennel, bench: Bench) -> None:
    """Whoever runs Trio, as a program of the application's own or this test, is not in it."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        kennel.block()

    trio.run(kennel.run)

    assert "kennel.block()" in kennel.blocked["stack"]
    assert "trio.run(kennel.run)" not in kennel.blocked["stack"]


async def test_watchdog_names_the_handler_whose_child_task_blocks_the_loop(kennel: Kennel, bench: Bench) -> None:
    """All that a handler starts is its own."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.lowlevel.checkpoint()

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        kennel.block()

    job_id = await kennel.run()

    assert [(of, job) for of, _, job in kennel.seen] == [("work", job_id)]
    assert "child" in kennel.blocked["stack"]


@pytest.mark.parametrize("is_shared", [False, True])
async def test_watchdog_names_the_asyncio_handler_that_blocks_the_loop(kennel: Kennel, bench: Bench, is_shared: bool) -> None:
    """In a loop of its own, and in one that all attempts share."""
    if is_shared:

        @bench.registry.lifespan(asyncio=True)
        @asynccontextmanager
        async def shared() -> AsyncIterator[None]:
            yield

    @bench.registry.handler("work", asyncio=True)
    async def work(job: object, payload: object) -> None:
        await asyncio.gather(child(), asyncio.sleep(0))

    async def child() -> None:
        await asyncio.sleep(0)
        kennel.block()

    kennel = Kennel(bench)
    job_id = await kennel.run()

    assert kennel.seen == [("work", f"{__name__}.{work.__qualname__}", job_id)]


async def test_watchdog_names_the_trio_task_where_no_handler_is_to_blame(kennel: Kennel, bench: Bench) -> None:
    """A block between two attempts, or by what a lifespan has started, is told of all the same."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()

    async def meddle() -> None:
        await trio.lowlevel.checkpoint()
        kennel.block()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(meddle, name="meddler")
        await kennel.run()

    assert kennel.seen == [("", "meddler", "")]
    assert (kennel.blocked["job_id"], kennel.blocked["type"], kennel.blocked["function"]) == (None, None, "meddler")
    assert kennel.notices == []


class Clocked:
    """A watchdog that is ticked by hand on a clock of its own, over a Trio task that is made to seem to run.

    Attributes:
        now: The moment.
        cpu: Processor time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.cpu = 100.0
        monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: self.now, process_time=lambda: self.cpu))
        self.changes = 0
        self.watchdog = Watchdog(
            Registry(),
            charged=lambda: None,
            on_change=self._count,
            notice=lambda *_: None,
            lease_seconds=30.0,
        )
        self._task = SimpleNamespace(
            coro=SimpleNamespace(cr_running=False, cr_frame=None), child_nurseries=[], context=copy_context(), name="task"
        )
        self.watchdog._root = cast("trio.lowlevel.Task", self._task)

    def _count(self) -> None:
        self.changes += 1

    def begin_round(self, *, runs: bool = True) -> None:
        """Begin a round of the loop, in which the task runs until told otherwise."""
        self.watchdog._rounds.after_io_wait(0.0)
        self._task.coro.cr_running = runs

    def look(self, after_seconds: float, times: int = 1, *, cpu_seconds: float = 0.0) -> None:
        """Let time pass before each of some looks."""
        for _ in range(times):
            self.now += after_seconds
            self.cpu += cpu_seconds
            self.watchdog.tick()

    @property
    def seconds(self) -> float | None:
        block = self.watchdog.block
        return None if block is None else block.seconds


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Clocked:
    """A watchdog with a clock of its own."""
    return Clocked(monkeypatch)


@pytest.fixture
def told() -> Iterator[Callable[[], list[tuple[str, float]]]]:
    """Gives the event and the seconds of each line of log."""
    with structlog.testing.capture_logs() as lines:
        yield lambda: [(line["event"], line["seconds"]) for line in lines]


def test_block_is_told_of_at_growing_intervals(clocked: Clocked, told: Callable[[], list[tuple[str, float]]]) -> None:
    """From the first second on, each time that it has lasted twice as long, and at its end."""
    clocked.begin_round()
    clocked.look(0.25, 3)
    early = clocked.seconds
    clocked.look(0.25, 37)
    clocked.begin_round(runs=False)
    clocked.look(0.25)

    assert early is None
    assert told() == [
        ("loop.blocked", 1.0),
        ("loop.blocked", 2.0),
        ("loop.blocked", 4.0),
        ("loop.blocked", 8.0),
        ("loop.unblocked", 10.2),
    ]
    assert clocked.changes == 2
    assert [each.seconds for each in clocked.watchdog.totals] == [10.25]


def test_total_grows_while_the_loop_is_blocked(clocked: Clocked) -> None:
    """It never falls, and adds up over blocks."""
    totals = []
    for _ in range(2):
        clocked.begin_round()
        clocked.look(0.25, 8)
        totals.append(clocked.watchdog.totals[0].seconds)
        clocked.begin_round()
        clocked.look(0.0)
        totals.append(clocked.watchdog.totals[0].seconds)

    assert totals == [2.0, 2.0, 4.0, 4.0]


def test_rounds_that_follow_each_other_are_no_block(clocked: Clocked) -> None:
    """However busy the loop, as long as it comes to an end."""
    for _ in range(20):
        clocked.begin_round()
        clocked.look(0.25, 3)

    assert clocked.changes == 0


def test_loop_that_waits_is_not_blocked(clocked: Clocked) -> None:
    """Nothing runs, and its last round has begun long ago."""
    clocked.begin_round(runs=False)
    clocked.look(0.25, 100)

    assert clocked.changes == 0


def test_stopped_process_is_not_blocked(clocked: Clocked) -> None:
    """It is counted from when it went on, as the processor time says that it took none meanwhile; so does a block that it was in."""
    clocked.begin_round()
    clocked.look(0.25, 2)
    clocked.look(60.0)
    stopped = clocked.seconds
    clocked.look(0.25, 4)
    blocked = clocked.seconds

    assert (stopped, blocked) == (None, 1.0)


def test_code_that_holds_the_interpreter_is_told_of_as_soon_as_it_lets_go(
    clocked: Clocked, told: Callable[[], list[tuple[str, float]]]
) -> None:
    """The watchdog comes late, like a stopped one, but the process was busy meanwhile."""
    clocked.look(0.25)
    clocked.begin_round()
    clocked.look(3.0, cpu_seconds=2.9)

    assert told() == [("loop.blocked", 3.0)]


def test_task_that_runs_late_in_a_long_round_is_not_blamed_for_all_of_it(clocked: Clocked) -> None:
    """Of many tasks that run one after another none blocks the loop for longer than its own step."""
    clocked.begin_round(runs=False)
    clocked.look(0.25, 20)
    clocked._task.coro.cr_running = True
    clocked.look(0.25, 3)
    young = clocked.seconds
    clocked.look(0.25)

    assert (young, clocked.seconds) == (None, 1.0)


def test_loop_does_not_count_as_blocked_once_the_watchdog_has_died(clocked: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are given back while it does."""
    clocked.begin_round()
    clocked.look(0.25, 4)
    before = clocked.watchdog.is_blocked
    monkeypatch.setattr(clocked.watchdog, "tick", lambda: (_ for _ in ()).throw(LookupError("a defect")))
    with pytest.raises(LookupError):
        clocked.watchdog._work()

    assert (before, clocked.watchdog.is_blocked) == (True, False)
