"""Workers of several services share a queue: each runs the jobs that it has handlers for, and never meets the others' twice.

No worker here looks for jobs by itself while a test lasts: what runs was picked up because a worker was told of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from gopher.job import JobState
from gopher.waiting import WaitingKind
from tests.e2e.farm import end_of, states
from tests.programs import Program
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gopher.job import Job
    from tests.e2e.farm import Farm, FarmServer

LONG_SECONDS: Final = "600"
JOBS: Final = 100
REMOTE: Final = "conformance.echo"


async def worker_of(farm: Farm, service: str) -> Program:
    """Start the worker of a service."""
    return await farm.worker("--poll-interval", LONG_SECONDS, app=f"tests.e2e.apps.services:{service}")


async def submit_in_turn(farm: Farm, *types: str, count: int = JOBS) -> dict[str, list[str]]:
    """Submit so many jobs of each type, one by one, and return their ids."""
    ids: dict[str, list[str]] = {each: [] for each in types}
    for _ in range(count):
        for each in types:
            ids[each] += await farm.submit(each)
    return ids


def pids(farm: Farm, ids: Iterable[str]) -> set[int]:
    """Return the processes in which jobs have begun."""
    return {event.pid for event in farm.events("start", ids)}


def require_never_bounced(jobs: list[Job], *workers: Program) -> None:
    """No job was given to a worker that could not run it, and none ran twice."""
    assert states(jobs) == {JobState.COMPLETED}
    assert {(job.attempt, job.crashes, len(job.attempts)) for job in jobs} == {(1, 0, 1)}
    # Who is sent away and comes back becomes claimable later than it was submitted.
    assert {(job.enqueued_ms or job.submitted_ms) - job.submitted_ms for job in jobs} == {0}
    assert not [line for worker in workers for line in worker.errors if "unhandled" in line]


async def test_each_worker_runs_jobs_of_its_own_type(farm: Farm) -> None:
    """Two workers with a type each are given what is theirs, from the first claim on."""
    mailer, painter = [await worker_of(farm, service) for service in ("mails", "pictures")]

    ids = await submit_in_turn(farm, "mail", "picture")
    jobs = await farm.finals([*ids["mail"], *ids["picture"]])

    require_never_bounced(jobs, mailer, painter)
    assert pids(farm, ids["mail"]) == {mailer.process.pid}
    assert pids(farm, ids["picture"]) == {painter.process.pid}
    assert await farm.findings() == []


async def why(farm: Farm, server: FarmServer, job_id: str) -> str:
    command = farm.command(server.address, "why", job_id)
    lines = []
    while (line := await trio.to_thread.run_sync(command.next_line)) is not None:
        lines.append(line)
    assert await end_of(command) == 0, command.errors
    return "".join(lines)


async def test_type_that_no_worker_serves_waits_for_one(farm: Farm) -> None:
    """It waits enqueued, says so, and starts when a worker with the type comes; jobs around it go on."""
    server = await farm.server()
    mailer = await worker_of(farm, "mails")
    ids = await submit_in_turn(farm, "picture", "mail", count=10)
    mails = await farm.finals(ids["mail"])

    waiting = await farm.jobs(ids["picture"])
    reasons = {(await farm.store.waiting.explain(job)).kind for job in waiting}  # type: ignore[union-attr] # the test fails so
    told = await why(farm, server, ids["picture"][0])
    painter = await worker_of(farm, "pictures")
    pictures = await farm.finals(ids["picture"])

    assert {(job.state, job.attempt, job.attempts) for job in waiting} == {(JobState.ENQUEUED, 0, ())}
    assert reasons == {WaitingKind.TYPE_NOT_SERVED}
    assert "enqueued: " in told
    assert "picture" in told
    require_never_bounced([*mails, *pictures], mailer, painter)
    assert pids(farm, ids["picture"]) == {painter.process.pid}


async def test_replacement_with_other_types_under_load_loses_nothing(farm: Farm) -> None:
    """A worker drains while others with a part of its types, and with a new one, begin; jobs of all of them keep coming."""
    old = await worker_of(farm, "mails_and_pictures")
    types = ("mail", "picture", "report")
    ids: list[str] = []
    is_replaced = False

    async def submit_all() -> None:
        count = 0
        while count < JOBS or not is_replaced:
            found = await submit_in_turn(farm, *types, count=1)
            ids.extend(found["mail"] + found["picture"] + found["report"])
            # Of these types there is a worker all the time.
            await farm.finals(found["mail"] + found["picture"])
            count += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit_all)
        await until(lambda: len(ids) > JOBS)
        new = [await worker_of(farm, service) for service in ("pictures_and_reports", "mails")]
        old.process.terminate()
        code = await end_of(old)
        is_replaced = True
    jobs = await farm.finals(ids)

    assert code == 0
    assert {(job.state, job.attempt, job.crashes) for job in jobs} == {(JobState.COMPLETED, 1, 0)}
    assert len(farm.events("start", ids)) == len(ids)
    assert not [line for worker in (old, *new) for line in worker.errors if "unhandled" in line]
    assert await farm.findings() == []


async def test_remote_worker_beside_a_local_one_of_another_type(farm: Farm) -> None:
    """The server claims for it no other jobs than those of its types."""
    server = await farm.server()
    mailer = await worker_of(farm, "mails")
    variables = {"GOPHER_SERVER": server.address, "GOPHER_NAMESPACE": farm.namespace, "GOPHER_CONCURRENCY": "10"}
    with Program("tests.conformance.reference_worker", environ={**os.environ, **variables}) as remote:

        async def is_registered() -> bool:
            return len(await farm.store.registry.workers(farm.namespace)) == 2

        await until_async(is_registered)
        ids = await submit_in_turn(farm, "mail", REMOTE)
        jobs = await farm.finals([*ids["mail"], *ids[REMOTE]])
        remote.process.terminate()

    require_never_bounced(jobs, mailer)
    assert pids(farm, ids["mail"]) == {mailer.process.pid}
    assert len({job.worker for job in jobs[JOBS:]} - {jobs[0].worker}) == 1
