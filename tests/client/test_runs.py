"""Attached jobs with each of the clients against a real server and worker: the job never outlives its block."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from gopher.client import CallEndedError, Client, ServerUnreachableError
from gopher.client.runs import LEFT
from gopher.errors import (
    CallExpiredError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    RequestIdConflictError,
    StoreUnavailableError,
    UnknownTypeError,
    WaitTimeoutError,
)
from gopher.job import JobState
from tests.client.faces import FACES, AsyncioFace, Attached, Face
from tests.client.test_clients import PATIENCE, fresh
from tests.client.test_reconnect import RestartableServer, client, server

if TYPE_CHECKING:
    from gopher.client import JobEvent
    from gopher.job import Job

__all__ = ["client", "server"]


def has_begun(event: JobEvent) -> bool:
    return event.progress > 0


async def result_of(job: Attached) -> object:
    return await job.result(PATIENCE)


def job_of(face: Face, job_id: str) -> Job:
    return face.get(job_id)  # type: ignore[return-value]  # a Job


def test_block_gets_the_result(face: Face) -> None:
    """A job that completes gives what its handler returned, and leaving the block changes nothing of it."""
    seen: list[Attached] = []

    async def act(job: Attached) -> object:
        seen.append(job)
        return await job.result()

    answer = face.attach(act, "echo", {"n": 1})

    assert answer == {"n": 1}
    assert seen[0].job.state is JobState.COMPLETED
    assert job_of(face, seen[0].job.id).state is JobState.COMPLETED


def test_block_gets_the_events(face: Face) -> None:
    """They come in order, from the first to the final one, and again to whoever asks again."""

    async def act(job: Attached) -> tuple[list[JobEvent], list[JobEvent]]:
        return await job.events(), await job.events()

    first, second = face.attach(act, "steps", "once")

    assert first == second
    assert first[-1].is_final
    assert first[-1].job is not None
    assert first[-1].job.result == b'"done"'
    assert [event.is_final for event in first].count(True) == 1


def test_block_that_is_left_early_cancels_the_job(face: Face) -> None:
    """Once the block is left the job has ended, cancelled, with the reason kept."""

    async def act(job: Attached) -> str:
        await job.events(has_begun)
        return job.job.id

    job = job_of(face, face.attach(act, "steps", "endless"))

    assert (job.state, job.cancel_reason) == (JobState.CANCELLED, LEFT)


def test_error_in_the_block_cancels_the_job_and_comes_out_as_it_is(face: Face) -> None:
    """Nobody gets a group in place of his own error."""
    ids: list[str] = []

    async def act(job: Attached) -> None:
        await job.events(has_begun)
        ids.append(job.job.id)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        face.attach(act, "steps", "endless")

    assert job_of(face, ids[0]).state is JobState.CANCELLED


def test_job_that_waits_is_cancelled_too(face: Face) -> None:
    """A block left before a worker has taken the job leaves no job that would run later."""

    async def act(job: Attached) -> str:
        (first,) = await job.events(lambda event: event.state is JobState.SCHEDULED)
        return first.job_id

    job = job_of(face, face.attach(act, "echo", 1, delay_seconds=3600))

    assert (job.state, job.attempt) == (JobState.CANCELLED, 0)


def test_job_that_fails_raises_where_its_result_is_asked_for(face: Face) -> None:
    """The failure is no fault of the run: it comes from `result` alone."""

    async def act(job: Attached) -> JobState:
        events = await job.events()
        return events[-1].state

    with pytest.raises(JobFailedError, match="no way"):
        face.attach(result_of, "fail", "no way")
    assert face.attach(act, "fail", "no way") is JobState.FAILED


def test_job_that_is_cancelled_by_another_raises(face: Face, dev_address: str) -> None:
    """Whoever waits for the result learns who has cancelled."""

    async def act(job: Attached) -> object:
        await job.events(has_begun)
        with Client(dev_address) as other:
            other.cancel(job.job.id, reason="an operator")
        return await job.result()

    with pytest.raises(JobCancelledError, match="an operator"):
        face.attach(act, "steps", "endless")


def test_wait_that_is_too_short_leaves_the_job(face: Face) -> None:
    """It raises within the block, in which the job goes on."""

    async def act(job: Attached) -> JobState:
        with pytest.raises(WaitTimeoutError):
            await job.result(0.01)
        return job.job.state

    state = face.attach(act, "echo", 1, delay_seconds=3600)

    assert state is JobState.SCHEDULED


def test_time_of_the_run_bounds_the_job(face: Face) -> None:
    """When it is over the wait raises, and the job has ended once the block is left."""
    ids: list[str] = []

    async def act(job: Attached) -> object:
        ids.append(job.job.id)
        return await job.result()

    with pytest.raises(CallExpiredError, match="within the time of its run"):
        face.attach(act, "steps", "endless", within=1.0)
    job = job_of(face, ids[0])

    assert job.state.is_final
    assert job.deadline_ms is not None
    assert job.result is None


def test_bad_runs_are_refused_at_the_blocks_door(face: Face) -> None:
    """As by `submit`: the block is never entered, and there is no job."""
    queue, request_id = fresh("q"), fresh("r")

    async def never(job: Attached) -> None:
        raise AssertionError(await job.result())

    with pytest.raises(UnknownTypeError):
        face.attach(never, "no-such-type", queue=queue)
    with pytest.raises(InvalidRequestError, match="priority"):
        face.attach(never, "echo", queue=queue, priority="urgent")
    with pytest.raises(InvalidRequestError, match="grace"):
        face.attach(never, "echo", queue=queue, grace=301.0)
    assert face.list(queue=queue) == []
    face.attach(result_of, "echo", 1, request_id=request_id)
    with pytest.raises(RequestIdConflictError):
        face.attach(never, "echo", 2, request_id=request_id)


def test_server_that_is_not_there_is_an_error(request: pytest.FixtureRequest) -> None:
    """After a few tries the block is not entered."""
    face = AsyncioFace("127.0.0.1:1")
    request.addfinalizer(face.close)

    async def never(job: Attached) -> None:
        raise AssertionError(await job.result())

    with pytest.raises(ServerUnreachableError):
        face.attach(never, "echo")


def test_client_closed_in_the_block_ends_the_wait(dev_address: str) -> None:
    """Nothing hangs, and the server cancels the job."""
    client = Client(dev_address)
    with pytest.raises(CallEndedError), client.run("steps", "endless") as job:
        next(iter(job.events()))
        threading.Timer(0.1, client.close).start()
        job.result(PATIENCE)

    with Client(dev_address) as other:
        assert other.wait(job.id, PATIENCE).state is JobState.CANCELLED


@pytest.mark.parametrize("name", FACES)
def test_blocks_of_many_run_side_by_side(name: str, dev_address: str) -> None:
    """Each block has its own job."""
    answers: list[object] = []

    def run(number: int) -> None:
        face = FACES[name](dev_address)
        answers.append(face.attach(result_of, "echo", number))
        face.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert sorted(answers) == list(range(8))  # type: ignore[type-var]  # numbers


def test_block_goes_on_over_a_restart_of_the_server(server: RestartableServer, client: Face, namespace: str) -> None:
    """kill -9 and a new start: the block is attached again to the same job, there is no second one, and no event comes twice."""

    async def act(job: Attached) -> tuple[str, list[JobEvent]]:
        server.kill()
        server.start()
        cancelling = threading.Thread(target=cancel_once_attached, args=(job.job.id,))
        cancelling.start()
        events = await job.events()
        cancelling.join(PATIENCE)
        return job.job.id, events

    def cancel_once_attached(job_id: str) -> None:
        with Client(server.address, namespace=namespace) as other:
            for _ in range(1_000):
                try:
                    other.cancel(job_id, reason="meanwhile")
                except StoreUnavailableError:
                    time.sleep(0.01)  # noqa: TID251 - until the server is there
                else:
                    return

    job_id, events = client.attach(act, "echo", delay_seconds=3600)
    jobs = client.list()

    assert [event.state for event in events] == [JobState.SCHEDULED, JobState.CANCELLED]
    assert events[-1].job is not None
    assert events[-1].job.cancel_reason == "meanwhile"
    assert [job.id for job in jobs] == [job_id]  # type: ignore[attr-defined]  # a list of jobs
