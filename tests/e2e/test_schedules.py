"""Schedules and real worker processes: each fire time makes one job, also while a worker is killed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio

from gopher.job import NewJob
from gopher.schedule import CatchUpPolicy, NewSchedule, OverlapPolicy
from gopher.store import keys
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.e2e.farm import Farm

MISSED_MS: Final = 50 * 60_000
QUEUE: Final = "default"


async def miss_fifty(farm: Farm, name: str) -> None:
    """Turn a schedule back as if nobody had been there for fifty minutes, and say that it is due."""
    link, record = farm.store.link, keys.schedule(farm.namespace, QUEUE, name)
    next_ms = int(await link.call("HGET", record, "next_ms")) - MISSED_MS
    await link.call("HSET", record, "next_ms", next_ms, "due_ms", next_ms)
    await link.call("ZADD", keys.schedules(farm.namespace, QUEUE), next_ms, name)


async def test_workers_fire_each_time_once_though_one_is_killed(farm: Farm) -> None:
    """Three workers wake to 1,000 missed firings, one is killed at it: each (schedule, fire time) has one job, and it runs."""
    victim, *_ = [await farm.worker(lease_seconds=1) for _ in range(3)]
    schedules = farm.store.schedules
    for n in range(20):
        schedule = NewSchedule(
            name=f"s{n}",
            cron="* * * * *",
            job=NewJob(type="quick", queue=QUEUE),
            overlap=OverlapPolicy.QUEUE,
            catch_up=CatchUpPolicy.ALL,
        )
        await schedules.create(farm.namespace, schedule)
    for n in range(20):
        await miss_fifty(farm, f"s{n}")

    await farm.store.link.call("SPUBLISH", keys.control(farm.namespace, QUEUE), "schedule 1")
    with trio.fail_after(PATIENCE_SECONDS):
        while (await schedules.get(farm.namespace, QUEUE, "s0")).fired_total == 0:  # noqa: ASYNC110 - Redis tells nobody
            await trio.sleep(0.001)
        victim.process.kill()
        while sum([(await schedules.get(farm.namespace, QUEUE, f"s{n}")).fired_total for n in range(20)]) < 1000:  # noqa: ASYNC110 - Redis tells nobody
            await trio.sleep(0.02)

    names = await farm.store.link.call("KEYS", keys.job(farm.namespace, QUEUE, "*"))
    records = await farm.store.link.call_many([("HGET", name, "labels") for name in names])
    times = [re.search(rb'"gopher.fire_time":"([^"]+)","gopher.schedule":"([^"]+)"', each) for each in records]
    origins = [match.groups() for match in times if match]
    assert len(origins) == len(records) >= 1000
    assert len(set(origins)) == len(origins)
    await farm.finals(name.decode()[-36:] for name in names)
    assert await farm.findings() == []
