"""The test kit for handler authors, used as they use it."""

from __future__ import annotations

import pytest

import gopher
import gopher.testing
from gopher.errors import UniqueKeyHeldError

registry = gopher.Registry()


@registry.handler("double")
async def double(job: gopher.JobContext, payload: int) -> int:
    """Return twice the payload."""
    await job.progress(1.0, f"attempt {job.attempt}")
    return 2 * payload


@registry.handler("second_time", max_attempts=2)
def second_time(job: gopher.SyncJobContext, payload: str) -> str:
    """Fail the first attempt."""
    if job.attempt == 1:
        raise ValueError(payload)
    return payload


@registry.handler("apart", process=True)
def apart(job: gopher.SyncJobContext, payload: list[int]) -> int:
    """Run in a subprocess."""
    return sum(payload)


def test_run_job_tests_a_handler_in_three_lines(redis_program: str) -> None:
    """A handler is tested with no server and nothing started by hand."""
    job = gopher.testing.run_job(registry, "double", 21)

    assert job.state is gopher.JobState.COMPLETED
    assert job.result == b"42"
    assert job.progress_message == "attempt 1"


async def test_open_runtime_drains_all_that_was_submitted_retries_included(redis_program: str) -> None:
    """Drain returns every job once it is final, and retries do not wait for their backoff."""
    async with gopher.testing.open_runtime(registry) as runtime:
        quick = await runtime.submit("double", 1, labels={"a": "b"})
        retried = await runtime.submit("second_time", "again")
        unfit = await runtime.submit("double", "no number")
        jobs = await runtime.drain()

    assert list(runtime.submitted) == [quick, retried, unfit]
    assert runtime.submitted[quick].labels == {"a": "b"}
    assert (jobs[quick].state, jobs[quick].result) == (gopher.JobState.COMPLETED, b"2")
    assert (jobs[retried].state, jobs[retried].attempt) == (gopher.JobState.COMPLETED, 2)
    failure = jobs[unfit].failure
    assert failure is not None
    assert failure.reason == "PAYLOAD_MISMATCH"


def test_run_job_runs_process_handlers_of_a_named_application(redis_program: str) -> None:
    """A handler marked `process=True` runs in a subprocess when the registry is given by name."""
    job = gopher.testing.run_job("tests.test_testing:registry", "apart", [1, 2, 3])

    assert (job.state, job.result) == (gopher.JobState.COMPLETED, b"6")


async def test_open_runtime_raises_what_the_test_raises(redis_program: str) -> None:
    """A refused submit, or a failed assertion, reaches the test as it is, with no group around it."""
    with pytest.raises(UniqueKeyHeldError):
        async with gopher.testing.open_runtime(registry) as runtime:
            await runtime.submit("double", 1, unique_key="one", delay_ms=60_000)
            await runtime.submit("double", 1, unique_key="one")
