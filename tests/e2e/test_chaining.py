"""Children of real workers that are killed: all of them, each once."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio

from gopher.job import DEFAULT_QUEUE, JobState
from gopher.store import keys
from tests.e2e.apps.chain import KILL_VARIABLE, PLACES
from tests.e2e.farm import Farm, end_of, states
from tests.waiting import until_async

if TYPE_CHECKING:
    from pathlib import Path

    from gopher.job import Job

APP: Final = "tests.e2e.apps.chain:registry"
LEASE_SECONDS: Final = 1.0
QUEUES: Final = ["default", "left", "right", "left"]
SERVED: Final = "default=1,left=1,right=1"
STORM: Final = 40


async def children(farm: Farm) -> list[Job]:
    """Return every job that was submitted by a handler."""
    found: list[Job] = []
    cursor = None
    while True:
        page, cursor = await farm.store.query.list_jobs(farm.namespace, type="child", size=100, cursor=cursor)
        found += page
        if cursor is None:
            return found


async def all_have_run(farm: Farm, count: int) -> None:
    """Wait until so many children have completed and every outbox is empty."""

    async def have_run() -> bool:
        outbox = await farm.store.link.call("EXISTS", keys.outbox(farm.namespace, DEFAULT_QUEUE))
        jobs = await children(farm)
        return not outbox and sum(job.state is JobState.COMPLETED for job in jobs) >= count

    await until_async(have_run)


@pytest.mark.parametrize("place", PLACES)
async def test_worker_killed_on_the_way_of_its_children_makes_all_of_them_once(farm: Farm, tmp_path: Path, place: str) -> None:
    """Wherever kill -9 strikes, the parent completes, and each of its children comes to be once, and runs."""
    options = ("--queues", SERVED)
    mark = tmp_path / "killed"
    victim = await farm.worker(*options, lease_seconds=LEASE_SECONDS, app=APP, variables={KILL_VARIABLE: f"{place} {mark}"})
    parents = await farm.submit("parent", QUEUES)

    killed = await end_of(victim)
    await farm.worker(*options, lease_seconds=LEASE_SECONDS, app=APP)
    (parent,) = await farm.finals(parents)
    await all_have_run(farm, len(QUEUES))
    jobs = await children(farm)

    assert (killed, mark.exists()) == (-9, True)
    assert (parent.state, parent.crashes) == (JobState.COMPLETED, 1 if place == "before settle" else 0)
    assert parent.result is not None
    assert sorted(job.id for job in jobs) == sorted(msgspec.json.decode(parent.result, type=list[str]))
    assert sorted((job.payload, job.queue) for job in jobs) == [(b"%d" % at, queue) for at, queue in enumerate(QUEUES)]
    assert {(job.parent_id, job.root_id) for job in jobs} == {(parent.id, parent.id)}
    # The victim may have begun with a child of its own queue, and been lost with it.
    assert all(len(farm.events("start", [job.id])) <= 1 + job.crashes for job in jobs)
    assert await farm.findings() == []


async def test_storm_of_kills_makes_all_children_once(farm: Farm) -> None:
    """Three workers of many parents are killed wherever they stand: in the end each parent has its children, each once."""
    options = ("--queues", SERVED, "--concurrency", "8")
    parents = await farm.submit("parent", QUEUES, count=STORM)
    for _ in range(3):
        worker = await farm.worker(*options, lease_seconds=LEASE_SECONDS, app=APP)
        await trio.sleep(random.uniform(0, 0.1))  # where the fault strikes
        worker.process.kill()
        await end_of(worker)
        parents += await farm.submit("parent", QUEUES, count=STORM)
    await farm.worker(*options, lease_seconds=LEASE_SECONDS, app=APP)

    finals = await farm.finals(parents)
    await all_have_run(farm, len(parents) * len(QUEUES))
    jobs = await children(farm)

    assert states(finals) == states(jobs) == {JobState.COMPLETED}
    made = Counter((job.parent_id, job.payload) for job in jobs)
    assert made == {(parent, b"%d" % at): 1 for parent in parents for at in range(len(QUEUES))}
    assert await farm.findings() == []
