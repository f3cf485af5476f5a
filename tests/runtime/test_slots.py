from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.lowlevel
import trio.testing

from gopher.job import Move
from gopher.runtime import slots
from gopher.runtime.scopes import CancelReason
from gopher.runtime.slots import Slots
from tests.runtime.rig import claimed_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from gopher.contexts import JobContext
    from gopher.runtime.scopes import RunningAttempt
    from tests.runtime.rig import Bench

TRACE: Final[ContextVar[str]] = ContextVar("TRACE", default="clean")


class Room:
    """Slots whose attempts a bench runs."""

    def __init__(self, bench: Bench, nursery: trio.Nursery) -> None:
        self.bench = bench
        self.slots = Slots(bench.runner, nursery)

    async def run(self, *payloads: bytes, timeout_ms: int | None = None) -> list[RunningAttempt]:
        """Hand attempts over and let them come as far as they can."""
        fields = {} if timeout_ms is None else {"timeout_ms": timeout_ms}
        attempts = [self.bench.take(claimed_job(payload=payload, record=fields)) for payload in payloads]
        for attempt in attempts:
            self.slots.put_nowait(attempt, self.bench.handed)
        self.slots.start_nowait()
        await trio.testing.wait_all_tasks_blocked()
        return attempts

    @property
    def moves(self) -> list[Move]:
        return [settlement.move for settlement in self.bench.handed.settlements]


@pytest.fixture
async def room(bench: Bench, nursery: trio.Nursery) -> Room:
    """Slots on a bench."""
    return Room(bench, nursery)


async def test_slots_run_all_attempts_at_once(bench: Bench, room: Room) -> None:
    """Handlers that wait are all under way, however many are handed over together."""
    begun: list[object] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        begun.append(payload)
        await finish.wait()

    finish = trio.Event()
    await room.run(*(b"%d" % number for number in range(25)))
    started = sorted(begun, key=str)
    finish.set()
    await trio.testing.wait_all_tasks_blocked()

    assert started == sorted(range(25), key=str)
    assert room.moves == [Move.COMPLETE] * 25


async def test_slot_serves_one_attempt_after_another(bench: Bench, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that return without waiting share a Trio task, and are run in the order of the claim."""
    # On a busy machine even three such handlers may take longer than a slot runs before it lets others look.
    monkeypatch.setattr(slots, "_LONGEST_SECONDS", 60.0)
    tasks: list[trio.lowlevel.Task] = []
    order: list[object] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:  # noqa: ASYNC124 - that it waits for nothing is the point
        tasks.append(trio.lowlevel.current_task())
        order.append(payload)

    await room.run(b"1", b"2", b"3")
    await room.run(b"4")

    assert order == [1, 2, 3, 4]
    assert len(set(tasks[:3])) == 1


@pytest.mark.parametrize("are_together", [False, True], ids=["apart", "together"])
@pytest.mark.parametrize("end", ["return", "raise", "cancel"])
async def test_attempt_sees_no_trace_of_an_earlier_one(bench: Bench, room: Room, end: str, are_together: bool) -> None:
    """What a handler leaves in context variables is gone when the next one begins, however the first one ended."""
    seen: list[str] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        seen.append(TRACE.get())
        TRACE.set("dirty")
        if payload == "raise":
            raise ValueError
        if payload == "cancel":
            await trio.sleep_forever()

    first, *_ = await room.run(f'"{end}"'.encode(), *[b'"return"'] * are_together)
    first.cancel(CancelReason.REQUESTED)
    await trio.testing.wait_all_tasks_blocked()
    await room.run(b'"return"')

    assert seen == ["clean"] * (2 + are_together)
    assert len(room.moves) == 2 + are_together


async def test_late_cancel_does_not_reach_the_next_attempt(bench: Bench, room: Room) -> None:
    """The cancel of an attempt that has ended is nobody's any more."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        if payload == "wait":
            await finish.wait()

    finish = trio.Event()
    (former,) = await room.run(b'"return"')
    (latter,) = await room.run(b'"wait"')

    former.cancel(CancelReason.LEASE_LOST)
    await trio.testing.wait_all_tasks_blocked()
    is_over = latter.is_over
    finish.set()
    await trio.testing.wait_all_tasks_blocked()

    assert not is_over
    assert room.moves == [Move.COMPLETE, Move.COMPLETE]


async def test_cancel_that_a_handler_outlived_does_not_reach_the_next_attempt(bench: Bench, room: Room) -> None:
    """A handler that returns all the same after its cancel hands no cancelled scope on."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        if payload == "insist":
            with trio.CancelScope(shield=True):  # the handler of the test insists
                await finish.wait()
        else:
            await trio.lowlevel.checkpoint()

    finish = trio.Event()
    (former,) = await room.run(b'"insist"')
    former.cancel(CancelReason.SHUTDOWN)
    # Put, and nobody woken: the slot that is about to be free takes it at once.
    room.slots.put_nowait(bench.take(claimed_job(payload=b'"next"')), bench.handed)
    finish.set()
    await trio.testing.wait_all_tasks_blocked()

    assert room.moves == [Move.COMPLETE, Move.COMPLETE]


async def test_time_limit_is_that_of_one_attempt(bench: Bench, room: Room, autojump_clock: trio.testing.MockClock) -> None:
    """The timeout of an attempt that returned in time does not end the next one."""

    @bench.handler
    async def work(job: JobContext, payload: float) -> None:
        await trio.sleep(payload)

    await room.run(b"1", timeout_ms=2_000)
    # Put, and nobody woken: the slot that is about to be free takes it at once.
    room.slots.put_nowait(bench.take(claimed_job(payload=b"60")), bench.handed)
    await trio.sleep(62)
    await room.run(b"60", timeout_ms=2_000)
    await trio.sleep(3)

    assert room.moves == [Move.COMPLETE, Move.COMPLETE, Move.RETRY]


async def test_slots_end_with_their_nursery(bench: Bench) -> None:
    """A worker that is torn down has no slot left, and every attempt that had begun is given back."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        if payload == "wait":
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        room = Room(bench, nursery)
        await room.run(b'"return"')
        await room.run(b'"wait"', b'"wait"')
        nursery.cancel_scope.cancel()

    assert room.moves == [Move.COMPLETE, Move.RELEASE, Move.RELEASE]
    assert not nursery.child_tasks


@pytest.mark.parametrize("opens", [trio.open_nursery, lambda: None], ids=["nursery", "scope"])
async def test_slot_that_a_handler_has_left_a_scope_open_in_runs_nothing_more(
    bench: Bench, room: Room, opens: Callable[[], AbstractAsyncContextManager[trio.Nursery] | None]
) -> None:
    """The job has succeeded, the next one is outside of what was left open, and the slots go on."""
    tasks: list[trio.lowlevel.Task] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        tasks.append(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()
        if payload == "leave":
            opened = opens()
            scope = trio.CancelScope().__enter__() if opened is None else (await opened.__aenter__()).cancel_scope
            scope.deadline = trio.current_time()
        else:
            await trio.lowlevel.checkpoint()

    await room.run(b'"leave"', b"1", b"2")

    assert room.moves == [Move.COMPLETE] * 3
    assert tasks[0] not in tasks[1:]
