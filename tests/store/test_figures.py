"""What the workers have measured, added up in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.job import Outcome, Priority
from gopher.store import keys

if TYPE_CHECKING:
    from gopher.store.figures import QueueFigures
    from tests.store.rig import Rig

EMAILS = {"attempts:email:succeeded": 3, "attempts:email:raised": 1, "duration:email:-4": 4, "duration_us:email": 900_000}
WAITS = {"wait:high:0": 2, "wait_ms:high": 1_800, "leases_lost": 1}


async def count(rig: Rig, number: int, fields: dict[str, int], *, worker: str = "w1") -> None:
    await rig.store.figures.count(rig.namespace, rig.queue, worker=worker, number=number, fields=fields)


async def read(rig: Rig) -> QueueFigures:
    (found,) = await rig.store.figures.read(rig.namespace, [rig.queue])
    return found


async def test_figures_of_workers_add_up(rig: Rig) -> None:
    """Whatever each of them brings is added to what was there."""
    await count(rig, 1, EMAILS)
    await count(rig, 1, EMAILS | WAITS, worker="w2")
    await count(rig, 2, {"leases_lost": 2})

    total = (await read(rig)).total

    assert total.attempts == {("email", Outcome.SUCCEEDED): 6, ("email", Outcome.RAISED): 2}
    assert total.durations["email"].count == 8
    assert total.durations["email"].sum_seconds == pytest.approx(1.8)
    assert total.durations["email"].percentile(0.5) == pytest.approx(0.25, rel=0.4)
    assert total.waits[Priority.HIGH].count == 2
    assert total.leases_lost == 3


async def test_same_call_again_adds_nothing(rig: Rig) -> None:
    """A call whose reply was lost is made again under its number; another worker's number is another."""
    await count(rig, 7, WAITS)
    await count(rig, 7, WAITS)
    await count(rig, 7, WAITS, worker="w2")

    assert (await read(rig)).total.leases_lost == 2


async def test_recent_figures_and_rates_forget(rig: Rig) -> None:
    """A rate is that of the last sixty seconds, recent is five minutes, and the total stays."""
    await count(rig, 1, EMAILS)
    now = await rig.store.registry.now_ms() // 60_000
    minute = keys.figures_of_minute(rig.namespace, rig.queue, 0)[: -len("0")]
    (name,) = await rig.store.link.call("KEYS", minute.replace("{", "\\{") + "*")
    fresh = await read(rig)

    async def move(minutes_ago: int) -> QueueFigures:
        await rig.store.link.call("RENAME", name, f"{minute}{now - minutes_ago}")
        found = await read(rig)
        await rig.store.link.call("RENAME", f"{minute}{now - minutes_ago}", name)
        return found

    some, old = await move(3), await move(30)

    assert 0 < fresh.per_second["email", Outcome.SUCCEEDED] <= 3 / 60
    assert fresh.recent.attempts == fresh.total.attempts
    assert some.per_second["email", Outcome.SUCCEEDED] == 0
    assert some.recent.attempts == some.total.attempts
    assert old.recent.attempts == {}
    assert old.total.attempts == fresh.total.attempts


async def test_what_another_version_measured_is_left_out(rig: Rig) -> None:
    """A field that is not known spoils nothing."""
    await count(rig, 1, {"attempts:email:vanished": 1, "duration:email:999": 1, "wait:urgent:0": 1, "news:x:y:z": 1} | WAITS)

    total = (await read(rig)).total

    assert total.leases_lost == 1
    assert total.attempts == {}
    assert total.durations["email"].count == 0


async def test_figures_of_many_queues_come_in_their_order(rig: Rig) -> None:
    """And a queue of which nothing was measured has none."""
    await count(rig, 1, WAITS)

    found = await rig.store.figures.read(rig.namespace, ["other", rig.queue])

    assert [(each.queue, each.total.leases_lost) for each in found] == [("other", 0), (rig.queue, 1)]
    assert await rig.store.figures.read(rig.namespace, []) == []
