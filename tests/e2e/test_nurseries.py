"""Nurseries of jobs on real workers: one slot for a deep tree, and workers that are killed under their trees."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from gopher.job import JobState
from tests.e2e.farm import Farm, end_of, states
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from gopher.job import Job

APP: Final = "tests.e2e.apps.tree:registry"
LEASE_SECONDS: Final = 1.0
RUNS: Final = {"start": 1, "wake": 1, "rest": -1, "end": -1}


def most_running(farm: Farm) -> tuple[int, int]:
    """Return how many handlers ran code at most at once, and how many do after all."""
    running = most = 0
    for line in farm._sink.read_text().splitlines():
        running += RUNS[json.loads(line)["event"]]
        most = max(most, running)
    return most, running


async def jobs_of(farm: Farm, job_type: str) -> list[Job]:
    found: list[Job] = []
    cursor = None
    while True:
        page, cursor = await farm.store.query.list_jobs(farm.namespace, type=job_type, size=100, cursor=cursor)
        found += page
        if cursor is None:
            return found


async def no_families(farm: Farm) -> bool:
    """Tell whether every family has been looked after."""
    return not await farm.store.link.call("KEYS", f"gopher:{{{farm.namespace}:*:family:*")


async def test_one_slot_is_enough_for_a_nursery_a_hundred_deep(farm: Farm) -> None:
    """All of them end, other jobs too, and never does more than one handler run code."""
    await farm.worker("--concurrency", "1", app=APP)

    ids = [*await farm.submit("chain", 100), *await farm.submit("chain", 0, count=20)]
    jobs = await farm.finals(ids)
    chain = await jobs_of(farm, "chain")

    assert states(jobs) == states(chain) == {JobState.COMPLETED}
    assert [job.result for job in jobs] == [b"101"] + [b"1"] * 20
    assert max(job.depth or 0 for job in chain) == 100
    assert most_running(farm) == (1, 0)
    assert await farm.findings() == []


async def test_two_slots_are_shared_by_many_deep_nurseries(farm: Farm) -> None:
    """As many handlers as there are slots run code, and no more."""
    await farm.worker("--concurrency", "2", app=APP)

    jobs = await farm.finals(await farm.submit("chain", 20, count=8))

    assert {job.result for job in jobs} == {b"21"}
    assert most_running(farm) == (2, 0)


async def test_tree_whose_root_is_killed_leaves_no_orphan(farm: Farm) -> None:
    """Of 111 jobs on four workers none is left running or waiting, though nothing else would end them; the root's next attempt completes."""
    for _ in range(4):
        await farm.worker("--concurrency", "40", lease_seconds=LEASE_SECONDS, app=APP)
    (root,) = await farm.submit("tree", {"widths": [10, 10], "gate": str(farm.gate)})

    async def has_grown() -> bool:
        jobs = await jobs_of(farm, "tree")
        return len(jobs) == 111 and states(jobs) == {JobState.PROCESSING}

    await until_async(has_grown)
    old = {job.id for job in await jobs_of(farm, "tree")} - {root}
    (begun,) = farm.events("start", [root])
    os.kill(begun.pid, signal.SIGKILL)

    async def are_gone() -> bool:
        return all(job.state.is_final for job in await farm.jobs(old))

    await until_async(are_gone)
    gone = await farm.jobs(old)
    farm.open_gate()
    (job,) = await farm.finals([root])
    await until_async(lambda: no_families(farm))

    assert states(gone) == {JobState.CANCELLED}
    assert (job.state, job.result, job.attempt, job.crashes) == (JobState.COMPLETED, b"100", 2, 1)
    assert await farm.findings() == []


@pytest.mark.parametrize("is_early", [True, False])
async def test_children_of_a_killed_worker_are_adopted(farm: Farm, is_early: bool) -> None:
    """They run once, whether they end before or after the next attempt begins, and it has their results."""
    victim = await farm.worker(lease_seconds=LEASE_SECONDS, app=APP)
    await farm.worker("--queues", "side", lease_seconds=LEASE_SECONDS, app=APP)
    (parent,) = await farm.submit("adopter", {"count": 5, "gate": str(farm.gate)})

    async def are_running() -> bool:
        held = await jobs_of(farm, "held")
        return len(held) == 5 and states(held) == {JobState.PROCESSING}

    await until_async(are_running)
    ids = [job.id for job in await jobs_of(farm, "held")]
    victim.process.kill()
    assert await end_of(victim) == -9
    if is_early:
        farm.open_gate()
        await farm.finals(ids)
    await farm.worker(lease_seconds=LEASE_SECONDS, app=APP)
    await until(lambda: len(farm.events("start", [parent])) == 2)
    farm.open_gate()
    (job,) = await farm.finals([parent])
    held = await jobs_of(farm, "held")
    await until_async(lambda: no_families(farm))

    assert (job.state, job.result, job.attempt, job.crashes) == (JobState.COMPLETED, b"[0,1,2,3,4]", 2, 1)
    assert {each.id for each in held} == {*ids}
    assert len(farm.events("start", ids)) == len(farm.events("end", ids)) == 5
    assert await farm.findings() == []
