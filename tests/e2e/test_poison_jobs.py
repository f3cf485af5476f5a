"""Whatever a handler raises, or leaves behind, ends its attempt: the worker runs on, and so do the jobs beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from gopher.job import JobState
from tests.e2e.apps import poison
from tests.e2e.farm import end_of, states

if TYPE_CHECKING:
    from tests.e2e.farm import Farm

APP: Final = "tests.e2e.apps.poison:registry"
PLAIN: Final = 100
HARMLESS: Final = ("leaked-scope", "leaked-nursery", "fork", "fork-and-wait", "fork-in-thread", "fork-in-process")
"""The types whose handlers return, and leave something behind."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks beside threads")


async def test_poison_jobs_become_dead_letters_and_stop_no_worker(farm: Farm) -> None:
    """Beside 100 plain jobs on two worker processes: all plain jobs complete, each poison job has a reason, and nothing restarts."""
    parent = await farm.worker("--processes", "2", "--concurrency", "10", app=APP)

    plain: list[str] = []
    harmless: list[str] = []
    poisonous: dict[str, str] = {}
    for number in range(PLAIN):
        plain += await farm.submit("quick")
        if number % 5 == 0:
            poisonous |= {(await farm.submit(job_type))[0]: job_type for job_type in poison.raising[number // 5 :: 20]}
            harmless += [(await farm.submit(job_type))[0] for job_type in HARMLESS[number // 5 :: 20]]
    dead = await farm.finals(poisonous)
    done = await farm.finals([*plain, *harmless])
    parent.process.terminate()
    code = await end_of(parent)

    assert {poisonous[job.id]: (job.state, job.failure and job.failure.reason) for job in dead} == dict.fromkeys(
        poison.raising, (JobState.FAILED, "HANDLER_RAISED")
    )
    assert [job.attempt for job in dead] == [2] * len(dead)
    assert {job.crashes for job in [*dead, *done]} == {0}
    assert states(done) == {JobState.COMPLETED}
    assert len(farm.events("start", plain)) == PLAIN
    assert not [line for line in parent.errors if "worker.restarting" in line or "lease.lost" in line or "link.broken" in line]
    assert code == 0
    assert await farm.findings() == []
