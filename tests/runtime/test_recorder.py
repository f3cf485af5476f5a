"""Bringing figures to Redis: once each, whatever becomes of the replies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing

from gopher.errors import StoreUnavailableError
from gopher.runtime.meter import QueueMeter
from gopher.runtime.recorder import Recorder
from gopher.store.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from gopher.store.store import Store


class WilfulFigures(Figures):
    """The real ones, which rob so many of the next calls of their replies."""

    calls = 0
    lose = 0

    async def count(self, namespace: str, queue: str, *, worker: str, number: int, fields: Mapping[str, int]) -> None:
        self.calls += 1
        await super().count(namespace, queue, worker=worker, number=number, fields=fields)
        if self.lose:
            self.lose -= 1
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)


class Rig:
    def __init__(self, store: Store, namespace: str) -> None:
        self.namespace = namespace
        self.figures = WilfulFigures(store.link)
        self.meter = QueueMeter()
        self.recorder = Recorder(self.figures, self.meter, namespace=namespace, queue="default", worker="w1")

    async def lost(self) -> int:
        (found,) = await self.figures.read(self.namespace, ["default"])
        return found.total.leases_lost


@pytest.fixture
def rig(store: Store, namespace: str) -> Rig:
    return Rig(store, namespace)


async def test_only_what_has_grown_is_sent(rig: Rig) -> None:
    """Nothing measured, nothing sent."""
    await rig.recorder.tick()
    calls_of_nothing = rig.figures.calls
    rig.meter.count_lost(1)
    await rig.recorder.tick()
    await rig.recorder.tick()

    assert (calls_of_nothing, rig.figures.calls, await rig.lost()) == (0, 1, 1)


async def test_lost_reply_counts_nothing_twice(rig: Rig) -> None:
    """The same call is made again; what was measured meanwhile goes with the next."""
    rig.figures.lose = 2
    rig.meter.count_lost(1)
    with structlog.testing.capture_logs() as lines:
        await rig.recorder.tick()
        rig.meter.count_lost(5)
        await rig.recorder.tick()
        await rig.recorder.tick()

    assert await rig.lost() == 6
    assert [line["event"] for line in lines] == ["figures.delayed"] * 2


async def test_ticks_at_the_same_time_send_everything_once(rig: Rig, nursery: trio.Nursery) -> None:
    """A drain brings the last figures while the recorder may be at work."""
    rig.meter.count_lost(1)
    nursery.start_soon(rig.recorder.tick)
    nursery.start_soon(rig.recorder.tick)
    await rig.recorder.tick()
    rig.meter.count_lost(1)
    await rig.recorder.tick()

    assert await rig.lost() == 2
