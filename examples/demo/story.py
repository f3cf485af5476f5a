"""What happens in the demo: jobs are submitted, one is retried, one becomes a dead letter and is requeued, all are completed.

It speaks to the product as any program would: over gRPC, by `gopher.client`.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from examples.demo.checks import check_all, require
from examples.demo.plan import NOT_YET
from examples.demo.product import DemoError
from gopher import JobState

if TYPE_CHECKING:
    from examples.demo.board import Board
    from examples.demo.plan import PlannedJob
    from examples.demo.post_office import PostOffice
    from gopher import Job
    from gopher.client import JobEvent, JobItem, TrioClient


async def run_jobs(client: TrioClient, plan: list[PlannedJob], office: PostOffice, board: Board) -> None:
    """Submit the jobs, follow them to their end, mend what fails, and check what has come of it.

    Raises:
        DemoError: It went another way than it ought to.
    """
    items: list[JobItem] = [{"type": job.type, "payload": job.payload, "priority": job.priority} for job in plan]
    planned = dict(zip(await client.submit_many(items), plan, strict=True))
    for job_id, job in planned.items():
        board.add(job_id, job.title, job.type)

    finished: dict[str, Job] = {}

    async def follow(job_id: str) -> None:
        finished[job_id] = await _follow(client, job_id, board)

    async with trio.open_nursery() as nursery:  # until every job is final
        for job_id in planned:
            nursery.start_soon(follow, job_id)
    (dead_id,) = [job_id for job_id, job in planned.items() if NOT_YET in job.title]
    finished[dead_id] = await _mend(client, dead_id, office, board)

    for job_id, outcome in check_all(planned, finished, office).items():
        board.note(job_id, outcome)


async def _follow(client: TrioClient, job_id: str, board: Board) -> Job:
    """Show each change of a job until it is final, and return it then."""
    async with aclosing(client.watch(job_id)) as events:
        async for event in events:
            share = 1.0 if event.state is JobState.COMPLETED else event.progress
            board.update(job_id, state=event.state, attempt=event.attempt, share=share, note=await _note(client, event))
            if event.is_final and event.job is not None:
                return event.job
    raise DemoError(f"the status stream of job {job_id} ended before the job did")


async def _note(client: TrioClient, event: JobEvent) -> str:
    """Return what the job says of itself while it runs, and why it failed when it did."""
    if event.state is JobState.PROCESSING:
        return event.progress_message
    if event.state not in {JobState.RETRYING, JobState.FAILED}:
        return ""
    job = event.job or await client.get(event.job_id)
    return f"{job.failure.reason}: {job.failure.message}" if job.failure is not None else ""


async def _mend(client: TrioClient, job_id: str, office: PostOffice, board: Board) -> Job:
    """Be the operator: look at the dead letter, remove its cause, requeue it, and follow it to its end."""
    dead = await client.list_failed()
    require([job.id for job in dead] == [job_id], f"the dead letters are {[job.id for job in dead]}, not only {job_id}")
    reason = dead[0].failure.message if dead[0].failure is not None else ""
    require("550" in reason, f"job {job_id} did not fail because its mailbox is missing, but: {reason}")
    board.say(f"One dead letter is listed: {reason}")
    board.say(f"The operator opens the mailbox {NOT_YET} and requeues the job.")
    office.open_mailbox(NOT_YET)
    require(await client.requeue_failed(job_ids=[job_id]) == 1, f"job {job_id} was not requeued")
    job = await _follow(client, job_id, board)
    require(not await client.list_failed(), "there are dead letters left")
    return job
