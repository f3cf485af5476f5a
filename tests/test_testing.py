"""The test kit for handler authors, used as they use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

import gopher
import gopher.testing
from gopher.errors import StartError, UniqueKeyHeldError
from gopher.event import LogLine, OutputChunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@registry.handler("order")
async def order(job: gopher.JobContext, payload: int) -> list[str]:
    """Submit an invoice and a parcel to the warehouse, unless the order is for nothing."""
    ids = [await job.submit("invoice", payload), await job.submit("parcel", {"order": payload}, queue="warehouse")]
    if payload == 0:
        raise gopher.Discard("an order for nothing")
    return ids


@registry.handler("invoice")
async def invoice(job: gopher.JobContext, payload: int) -> str:
    """Submit the mail that tells of it."""
    return await job.submit("double", payload, labels={"mail": "yes"})


@registry.handler("parcel")
def parcel(job: gopher.SyncJobContext, payload: object) -> None:
    """Run in a queue that is not under test."""


async def test_drain_runs_what_handlers_submit_and_children_tells_of_it(redis_program: str) -> None:
    """Children and theirs are run; those of a queue that is not under test are there to be looked at."""
    async with gopher.testing.open_runtime(registry) as runtime:
        placed = await runtime.submit("order", 2)
        refused = await runtime.submit("order", 0)
        jobs = await runtime.drain()
        bill, package = await runtime.children(placed)
        (mail,) = await runtime.children(bill.id)
        none = await runtime.children(refused)

    assert jobs[placed].result == msgspec.json.encode([bill.id, package.id])
    assert (bill.type, bill.payload, jobs[bill.id].state) == ("invoice", b"2", gopher.JobState.COMPLETED)
    assert (package.queue, package.payload, package.state) == ("warehouse", b'{"order":2}', gopher.JobState.ENQUEUED)
    assert (mail.labels, jobs[mail.id].result) == ({"mail": "yes"}, b"4")
    assert (mail.parent_id, mail.root_id) == (bill.id, placed)
    assert (jobs[refused].state, none) == (gopher.JobState.FAILED, [])
    assert jobs.keys() == {placed, refused, bill.id, package.id, mail.id}


async def test_open_runtime_opens_and_closes_lifespans(redis_program: str) -> None:
    """Resources are there for the block's jobs, and closed after it."""
    said: list[str] = []
    pooled = gopher.Registry()

    @pooled.lifespan
    async def opened() -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        said.append("opened")
        yield "pool"
        said.append("closed")

    @pooled.handler("look")
    async def look(job: gopher.JobContext, payload: object) -> object:
        await trio.lowlevel.checkpoint()
        said.append("handler")
        return job.resources

    async with gopher.testing.open_runtime(pooled) as runtime:
        job_id = await runtime.submit("look")
        jobs = await runtime.drain()

    assert jobs[job_id].result == b'"pool"'
    assert said == ["opened", "handler", "closed"]


def test_run_job_tells_of_a_lifespan_that_fails(redis_program: str) -> None:
    """The error comes as it is, with no group around it."""
    broken = gopher.Registry()
    broken.register_handler("double", double)

    @broken.lifespan
    async def opened() -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise OSError("no database")
        yield

    with pytest.raises(StartError, match="OSError: no database"):
        gopher.testing.run_job(broken, "double", 1)


async def test_said_tells_what_a_handler_has_said(redis_program: str) -> None:
    """Log lines and output, in order, whichever attempt has said them; nothing of a handler that was silent."""
    talkative = gopher.Registry()

    @talkative.handler("talk", max_attempts=2)
    async def talk(job: gopher.JobContext, payload: str) -> None:
        await job.log(payload, level="debug")
        await job.emit({"attempt": job.attempt})
        if job.attempt == 1:
            raise ValueError(payload)

    @talkative.handler("still")
    async def still(job: gopher.JobContext, payload: str) -> None:
        await trio.lowlevel.checkpoint()

    async with gopher.testing.open_runtime(talkative) as runtime:
        told, silent = await runtime.submit("talk", "hello"), await runtime.submit("still", "hush")
        await runtime.drain()
        said, nothing = await runtime.said(told), await runtime.said(silent)

    line = LogLine("debug", "hello")
    chunks = [OutputChunk(b'{"attempt":%d}' % attempt, "application/json") for attempt in (1, 2)]
    assert said == [line, chunks[0], line, chunks[1]]
    assert nothing == []
