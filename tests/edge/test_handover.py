"""The lanes between the threads, without threads: who is woken, when, and what is carried out."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import grpc.aio
import pytest

from gopher.edge.handover import GATHER_MOST, GATHER_SAMPLE, GatheringLane, Lane, StreamCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.edge.handover import Handover


class OtherSide:
    """A loop that runs what it was woken for when it is told to."""

    def __init__(self) -> None:
        self.wake_ups: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def wake(self, act: Callable[[], None]) -> None:
        self.wake_ups.append(act)

    def run(self) -> None:
        wake_ups, self.wake_ups = self.wake_ups, []
        for wake_up in wake_ups:
            wake_up()

    def call_later(self, _seconds: float, act: Callable[[], None]) -> Timer:
        self.timers.append(Timer(act))
        return self.timers[-1]

    def ring(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.is_cancelled:
                timer.act()


class Timer:
    """One `call_later`."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


def gathering_lane(side: OtherSide) -> GatheringLane:
    return GatheringLane(side.wake, RuntimeError, side)  # type: ignore[arg-type]  # all it needs of a loop is `time` and `call_later`


def test_lane_wakes_once_and_keeps_the_order() -> None:
    """Whatever is posted before the other side has woken up travels with the first, in order."""
    side, done = OtherSide(), list[int]()
    lane = Lane(side.wake, RuntimeError)

    for number in range(5):
        lane.post(lambda number=number: done.append(number))  # type: ignore[misc]  # the default binds the number
    wake_ups = len(side.wake_ups)
    side.run()

    assert wake_ups == 1
    assert done == [0, 1, 2, 3, 4]


def test_act_posted_by_an_act_has_a_wake_up_of_its_own() -> None:
    """A flood of acts that post acts cannot hold the other side's loop."""
    side, done = OtherSide(), list[str]()
    lane = Lane(side.wake, RuntimeError)

    lane.post(lambda: lane.post(lambda: done.append("second")))
    side.run()
    after_one = list(done)
    side.run()

    assert after_one == []
    assert done == ["second"]


def test_act_for_a_loop_that_has_ended_is_dropped() -> None:
    """Posting to a side that is gone neither raises nor keeps anything."""

    def refuse(_act: Callable[[], None]) -> None:
        raise RuntimeError

    lane = Lane(refuse, RuntimeError)

    lane.post(pytest.fail)
    lane.post(pytest.fail)

    assert not lane._acts


def test_calls_one_after_another_never_wait() -> None:
    """A client that makes one call at a time finds the other side woken at once, however long it goes on."""
    side = OtherSide()
    lane = gathering_lane(side)

    for _ in range(20 * GATHER_SAMPLE):
        side.now += 0.0001
        lane.post(lambda: None)
        assert len(side.wake_ups) == 1
        side.run()

    assert side.timers == []


def test_lane_gathers_what_comes_together_anyway() -> None:
    """Where four acts come a wake-up the lane soon waits for as many; each act is still carried out once."""
    side, done = OtherSide(), list[int]()
    lane = gathering_lane(side)

    for _ in range(50 * GATHER_SAMPLE):
        side.now += 0.001
        for _ in range(4):
            lane.post(lambda: done.append(1))
        side.run()
    side.ring()
    side.run()

    assert len(done) == 200 * GATHER_SAMPLE
    assert lane._wanted >= 4


def test_lane_does_not_gather_at_a_low_rate() -> None:
    """Calls that come in pairs, but seldom, are not kept waiting; a lane that had gathered stops when the rate has fallen."""
    side = OtherSide()
    lane = gathering_lane(side)
    lane._wanted = 2

    for _ in range(3 * GATHER_SAMPLE):
        side.now += 0.01
        lane.post(lambda: None)
        lane.post(lambda: None)
        side.run()

    assert lane._wanted == 1


def test_lane_that_waits_in_vain_wants_fewer() -> None:
    """When the time is over the acts there are leave, and the lane waits for no more than those next time."""
    side = OtherSide()
    lane = gathering_lane(side)
    lane._wanted = GATHER_MOST

    lane.post(lambda: None)
    lane.post(lambda: None)
    before = len(side.wake_ups)
    side.ring()

    assert before == 0
    assert len(side.wake_ups) == 1
    assert lane._wanted == 2


def test_timer_of_a_lane_that_has_gathered_enough_is_cancelled() -> None:
    """A wake-up by number leaves no timer behind that would wake the other side for nothing."""
    side = OtherSide()
    lane = gathering_lane(side)
    lane._wanted = 2

    lane.post(lambda: None)
    lane.post(lambda: None)

    assert [timer.is_cancelled for timer in side.timers] == [True]
    assert len(side.wake_ups) == 1


def test_stream_that_is_cut_in_mid_write_is_one_whose_client_has_gone() -> None:
    """What serves it is cancelled, whatever gRPC raises; an idle one would otherwise be served for ever."""
    acts: list[Callable[[], None]] = []

    async def write(_message: bytes) -> None:
        await asyncio.sleep(0)
        raise grpc.aio.InternalError("cut")

    async def main() -> StreamCall:
        handover = SimpleNamespace(to_trio=SimpleNamespace(post=acts.append), loop=asyncio.get_running_loop())
        call = StreamCall(cast("Handover", handover), lambda _: None, b"", math.inf, None)
        call._add(b"message")
        with pytest.raises(asyncio.CancelledError):
            await call.stream(write)
        return call

    call = asyncio.run(main())
    acts[-1]()

    assert call.scope.cancel_called
