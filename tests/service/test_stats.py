"""The figures of a namespace, as GetStats tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher_pb.v1 import admin_service_pb2 as pb
from gopher_pb.v1 import job_pb2

if TYPE_CHECKING:
    from tests.service.conftest import Rig

FIGURES = {
    "attempts:email:succeeded": 30,
    "attempts:email:raised": 6,
    "attempts:email:timed_out": 3,
    "attempts:email:cancelled": 1,
    "duration:email:-4": 39,
    "duration:email:4": 1,
    "duration_us:email": 12_000_000,
    "wait:high:0": 4,
    "wait_ms:high": 3_600,
    "leases_lost": 2,
}


async def stats(rig: Rig) -> pb.GetStatsResponse:
    return await rig.admin.get_stats(pb.GetStatsRequest(namespace=rig.namespace))


async def count(rig: Rig, number: int = 1) -> None:
    await rig.store.figures.count(rig.namespace, "default", worker="w1", number=number, fields=FIGURES)


async def test_attempts_of_a_type_are_told(rig: Rig) -> None:
    """How many ended how, how long they ran, and how many a second of late."""
    await rig.submit()
    await count(rig)

    reply = await stats(rig)

    (of_type,) = reply.types
    assert (of_type.queue, of_type.type) == ("default", "email")
    assert dict(of_type.attempts_total) == {"succeeded": 30, "raised": 6, "timed_out": 3, "cancelled": 1}
    assert of_type.duration.count == 40
    assert of_type.duration.recent
    assert of_type.duration.mean.ToMilliseconds() == 300
    assert of_type.duration.p50.ToMilliseconds() == pytest.approx(250, rel=0.42)
    assert of_type.duration.p99.ToMilliseconds() == pytest.approx(4000, rel=0.42)
    assert 0 < reply.succeeded_per_second <= 30 / 60
    assert reply.failed_per_second == pytest.approx(reply.succeeded_per_second * 9 / 30)
    assert reply.attempts_per_second == pytest.approx(reply.succeeded_per_second * 40 / 30)
    assert (of_type.succeeded_per_second, of_type.failed_per_second) == (reply.succeeded_per_second, reply.failed_per_second)
    assert reply.leases_lost_total == 2


async def test_waits_are_told_by_priority(rig: Rig) -> None:
    """Of the lines from which jobs were claimed."""
    await rig.submit()
    await count(rig)

    (wait,) = (await stats(rig)).waits

    assert (wait.queue, wait.priority, wait.wait.count) == ("default", job_pb2.PRIORITY_HIGH, 4)
    assert wait.wait.mean.ToMilliseconds() == 900
    assert wait.wait.p50.ToMilliseconds() == pytest.approx(1000, rel=0.42)


async def test_percentiles_of_all_time_stand_in_for_a_quiet_time(rig: Rig) -> None:
    """Where nothing was measured of late, what ever was is told, and said to be that."""
    await rig.submit()
    await count(rig)
    for name in await rig.store.link.call("KEYS", f"*{rig.namespace}*:figures:*"):
        await rig.store.link.call("UNLINK", name)

    reply = await stats(rig)

    assert [(each.duration.count, each.duration.recent) for each in reply.types] == [(40, False)]
    assert reply.attempts_per_second == 0


async def test_utilisation_weighs_workers_by_their_slots(rig: Rig) -> None:
    """A big worker that idles outweighs a small one that is full; with no worker it is nothing."""
    without = await stats(rig)
    await rig.add_worker("small", ["email"], slots=10, utilisation=1.0)
    await rig.add_worker("big", ["email"], slots=90, utilisation=0.0)

    reply = await stats(rig)

    assert without.utilisation == 0
    assert reply.utilisation == pytest.approx(0.1)
    assert [(each.id, each.utilisation, each.slot_count) for each in reply.workers] == [("big", 0.0, 90), ("small", 1.0, 10)]
