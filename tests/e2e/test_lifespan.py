from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.job import JobState
from tests.e2e.apps.pool import MODE_VARIABLE
from tests.e2e.farm import end_of, states
from tests.waiting import until

if TYPE_CHECKING:
    from tests.e2e.farm import Farm

APP = "tests.e2e.apps.pool:registry"
GRACE_SECONDS = 1.0


async def test_sigterm_closes_the_lifespan_after_the_last_attempt(farm: Farm) -> None:
    """Opened before the worker is ready and once for all jobs; those cut at the grace's end still find it open."""
    worker = await farm.worker(app=APP, grace_seconds=GRACE_SECONDS)
    opened = len(farm.events("opened", [""]))
    short = [*await farm.submit("use", str(farm.gate), 3), *await farm.submit("use-asyncio", str(farm.gate), 3)]
    never = f"{farm.gate}-never"
    long = [*await farm.submit("use", never), *await farm.submit("use-asyncio", never)]
    await farm.started([*short, *long])

    farm.open_gate()
    completed = await farm.finals(short)
    worker.process.terminate()
    code = await end_of(worker)
    released = await farm.jobs(long)

    assert code == 0
    assert (opened, len(farm.events("opened", [""])), len(farm.events("closed", [""]))) == (1, 1, 1)
    assert states(completed) == {JobState.COMPLETED}
    assert len(farm.events("end", [*short, *long])) == 8
    assert [(job.state, job.attempt, job.crashes) for job in released] == [(JobState.ENQUEUED, 0, 0)] * 2
    assert await farm.findings() == []


async def test_worker_whose_lifespan_fails_does_not_start(farm: Farm) -> None:
    """One line says why, with the exit code of any other start error; it is never ready and claims nothing."""
    worker = farm.start_worker(app=APP, variables={MODE_VARIABLE: "open-fails"})

    code = await end_of(worker)

    assert code == 1
    assert worker.errors[-1].strip() == "gopher: the lifespan cannot be opened: OSError: no database"
    assert worker.next_line() is None


async def test_sigterm_while_the_lifespan_opens_ends_the_worker(farm: Farm) -> None:
    """A database that does not answer does not keep a worker from going; it has not said that it is ready."""
    worker = farm.start_worker(app=APP, variables={MODE_VARIABLE: "open-hangs"})
    await until(lambda: bool(farm.events("opened", [""])))

    worker.process.terminate()
    code = await end_of(worker)

    assert code == 0
    assert worker.next_line() is None


@pytest.mark.parametrize("mode", ["close-fails", "close-hangs"])
async def test_lifespan_that_does_not_close_loses_no_outcome(farm: Farm, mode: str) -> None:
    """Outcomes are written before; the log reports it, and the worker exits with 0 though the lifespan would hang forever."""
    worker = await farm.worker(app=APP, grace_seconds=GRACE_SECONDS, variables={MODE_VARIABLE: mode})
    farm.open_gate()
    ids = await farm.submit("use", str(farm.gate), 20)
    await farm.started(ids)

    worker.process.terminate()
    code = await end_of(worker)

    assert code == 0
    assert states(await farm.jobs(ids)) == {JobState.COMPLETED}
    assert len(farm.events("closed", [""])) == 1
    assert any("lifespan.close" in line for line in worker.errors)
