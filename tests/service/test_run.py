"""RunJob on a real Redis: what it streams, what bounds the job, and what becomes of the job when the call ends first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from google.protobuf import duration_pb2

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb
from gopher_pb.v1.job_stream_pb2 import RunJobRequest, RunJobResponse

from gopher.errors import (
    CallExpiredError,
    GopherError,
    InvalidRequestError,
    JobDetachedError,
    RequestError,
    StoreUnavailableError,
    UniqueKeyHeldError,
    UnknownTypeError,
)
from gopher.job import JobState, Move, Outcome
from gopher.store import keys
from gopher.wire.status import SlowReaderError
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from gopher.job import Job
    from tests.service.conftest import Rig


class Caller:
    """A call of RunJob: its scope, what it is sent and how it ends."""

    def __init__(
        self, rig: Rig, *, left_seconds: float | None = None, grace_seconds: int | None = None, **fields: object
    ) -> None:
        spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec
        grace = None if grace_seconds is None else duration_pb2.Duration(seconds=grace_seconds)
        self.request = RunJobRequest(namespace=rig.namespace, job=spec, grace=grace)
        self.scope = trio.CancelScope() if left_seconds is None else trio.CancelScope(relative_deadline=left_seconds)
        self.around = trio.CancelScope()
        self.events: list[RunJobResponse] = []
        self.error: GopherError | None = None
        self.has_ended = False
        self._rig = rig

    async def run(self) -> None:
        try:
            with self.around, self.scope:
                await self._rig.lax_runs.run_job(self.request, self.send, self.scope)
        except GopherError as error:
            self.error = error
        self.has_ended = True

    async def send(self, message: RunJobResponse) -> None:
        await trio.lowlevel.checkpoint()
        self.events.append(message)

    async def begun(self) -> str:
        """Wait for the first event and return the job's id."""
        await until(lambda: bool(self.events) or self.has_ended)
        assert self.events, self.error
        return self.events[0].event.job_id

    async def end(self) -> None:
        await until(lambda: self.has_ended)

    @property
    def states(self) -> list[str]:
        names = [job_pb2.JobState.Name(each.event.state).removeprefix("JOB_STATE_") for each in self.events]
        return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


async def get(rig: Rig, job_id: str) -> Job:
    return await rig.store.query.get(rig.namespace, job_id)


async def is_attached(rig: Rig, job_id: str) -> bool:
    return await rig.store.link.call("ZSCORE", keys.attached(rig.namespace, "default"), job_id) is not None


async def job_count(rig: Rig) -> int:
    reply = await rig.jobs.list_jobs(pb.ListJobsRequest(namespace=rig.namespace))
    return len(reply.jobs)


async def test_run_streams_the_job_to_its_end(rig: Rig, nursery: trio.Nursery) -> None:
    """The call ends with the final event, which holds the whole job; then nothing is attached."""
    caller = Caller(rig)
    nursery.start_soon(caller.run)
    job_id = await caller.begun()
    attached = await is_attached(rig, job_id)

    (claimed,) = await rig.claim()
    await until(lambda: "PROCESSING" in caller.states)
    await rig.settle(claimed, Move.COMPLETE)
    await caller.end()

    assert attached
    assert caller.error is None
    assert caller.states == ["ENQUEUED", "PROCESSING", "COMPLETED"]
    assert caller.events[-1].event.job.result == b'{"done":true}'
    assert not await is_attached(rig, job_id)


async def test_run_of_a_job_that_fails_ends_well(rig: Rig, nursery: trio.Nursery) -> None:
    """The stream tells of the failure; the call itself has gone as it should."""
    caller = Caller(rig)
    nursery.start_soon(caller.run)
    await caller.begun()

    await rig.fail()
    await caller.end()

    assert caller.error is None
    assert caller.states[-1] == "FAILED"


@pytest.mark.parametrize("is_processing", [False, True])
async def test_client_that_leaves_cancels_the_job(rig: Rig, nursery: trio.Nursery, is_processing: bool) -> None:
    """A waiting job ends at once, a processing one is told to, with the grace that was asked for."""
    caller = Caller(rig, grace_seconds=7)
    nursery.start_soon(caller.run)
    job_id = await caller.begun()
    if is_processing:
        await rig.claim()

    caller.scope.cancel()
    await caller.end()
    job = await get(rig, job_id)
    grace = await rig.store.link.call("HGET", keys.job(rig.namespace, "default", job_id), "cancel_grace_ms")

    assert job.state is (JobState.PROCESSING if is_processing else JobState.CANCELLED)
    assert job.cancel_reason == "the client of RunJob has cancelled it or has gone"
    assert grace == (b"7000" if is_processing else None)
    assert not await is_attached(rig, job_id)


async def test_deadline_of_the_call_bounds_the_job_and_cancels_it(rig: Rig, nursery: trio.Nursery) -> None:
    """The record holds the moment; when it comes the call ends and the running job is told to."""
    caller = Caller(rig, left_seconds=1.0)
    nursery.start_soon(caller.run)
    job_id = await caller.begun()
    await rig.claim()
    before = await get(rig, job_id)

    await caller.end()
    job = await get(rig, job_id)

    assert before.deadline_ms is not None
    assert 0 < before.deadline_ms - before.submitted_ms <= 1_001
    assert job.cancel_reason == "the deadline of the client's RunJob is over"


async def test_call_that_is_over_on_arrival_makes_no_job(rig: Rig) -> None:
    """B21: a deadline in the past stores nothing, and neither does a call whose client has gone already."""
    late, gone = Caller(rig, left_seconds=0.0), Caller(rig)
    gone.scope.cancel()

    await late.run()
    await gone.run()

    assert isinstance(late.error, CallExpiredError)
    assert late.events == gone.events == []
    assert await job_count(rig) == 0


async def test_server_that_stops_lets_the_job_go_and_the_client_comes_back(rig: Rig, nursery: trio.Nursery) -> None:
    """The job runs on, still attached; the same request id goes on with it, once, and leaving that call ends it."""
    first, second = Caller(rig, request_id="r1"), Caller(rig, request_id="r1")
    nursery.start_soon(first.run)
    job_id = await first.begun()
    await rig.claim()

    first.around.cancel()
    await first.end()
    between = await get(rig, job_id)
    stood = await is_attached(rig, job_id)
    nursery.start_soon(second.run)
    again = await second.begun()
    second.scope.cancel()
    await second.end()

    assert (between.state, between.cancel_reason, stood) == (JobState.PROCESSING, None, True)
    assert again == job_id
    assert (await get(rig, job_id)).cancel_reason is not None
    assert await job_count(rig) == 1


async def test_first_call_that_ends_after_the_client_came_back_ends_nothing(rig: Rig, nursery: trio.Nursery) -> None:
    """A connection that is found dead late must not end what its client runs over another one."""
    first, second = Caller(rig, request_id="r1"), Caller(rig, request_id="r1")
    nursery.start_soon(first.run)
    job_id = await first.begun()
    nursery.start_soon(second.run)
    await second.begun()

    first.scope.cancel()
    await first.end()
    after_first = await get(rig, job_id)
    await rig.complete()
    await second.end()

    assert after_first.state is JobState.ENQUEUED
    assert second.states[-1] == "COMPLETED"


async def test_run_again_after_the_end_streams_the_end(rig: Rig, nursery: trio.Nursery) -> None:
    """A client whose server went away just then learns how its job ended."""
    first, second = Caller(rig, request_id="r1"), Caller(rig, request_id="r1")
    nursery.start_soon(first.run)
    await first.begun()
    first.around.cancel()
    await first.end()
    job_id = await rig.complete()

    await second.run()

    assert second.error is None
    assert second.states[-1] == "COMPLETED"
    assert second.events[-1].event.job.id == job_id
    assert not await is_attached(rig, job_id)


async def test_reader_that_is_cut_off_counts_as_gone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not take what he asked for does not want the job."""
    caller = Caller(rig)
    sent: list[RunJobResponse] = []

    async def stall(message: RunJobResponse) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)
        raise SlowReaderError

    monkeypatch.setattr(caller, "send", stall)

    await caller.run()
    job = await get(rig, sent[0].event.job_id)

    assert isinstance(caller.error, SlowReaderError)
    assert (job.state, job.cancel_reason) == (JobState.CANCELLED, "the client of RunJob reads too slowly")


async def test_redis_that_fails_is_no_fault_of_the_client(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is let go of, as by a server that stops."""
    caller = Caller(rig)
    sent: list[RunJobResponse] = []

    async def fail(message: RunJobResponse) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)
        raise StoreUnavailableError("away", outcome_unknown=True)

    monkeypatch.setattr(caller, "send", fail)

    await caller.run()
    job_id = sent[0].event.job_id

    assert isinstance(caller.error, StoreUnavailableError)
    assert (await get(rig, job_id)).cancel_reason is None
    assert await is_attached(rig, job_id)
    await rig.store.lifecycle.cancel(rig.namespace, job_id, reason="", grace_ms=0)


async def test_attachment_of_a_call_is_renewed_until_it_ends(rig: Rig, nursery: trio.Nursery) -> None:
    """The keeping of the server finds each job under way, and none whose call has ended."""
    caller = Caller(rig)
    nursery.start_soon(caller.run)
    await caller.begun()
    during = len(rig.store.attachments._kept)

    await rig.complete()
    await caller.end()

    assert during == 1
    assert len(rig.store.attachments._kept) == 0


async def test_bad_jobs_are_refused_as_by_a_submit_and_make_none(rig: Rig) -> None:
    """Each answer names the fault; nothing is stored, nothing attached."""
    holder = await rig.submit(unique_key="u", request_id="taken")
    refusals: list[tuple[RunJobRequest, type[RequestError]]] = [
        (Caller(rig, type="no good").request, InvalidRequestError),
        (Caller(rig, payload=b"{").request, InvalidRequestError),
        (Caller(rig, grace_seconds=301).request, InvalidRequestError),
        (Caller(rig, grace_seconds=-1).request, InvalidRequestError),
        (RunJobRequest(namespace="no good"), InvalidRequestError),
        (RunJobRequest(namespace=rig.namespace), InvalidRequestError),
        (Caller(rig, unique_key="u").request, UniqueKeyHeldError),
        (Caller(rig, unique_key="u", request_id="taken").request, JobDetachedError),
    ]
    answers: list[Exception] = []

    for request, error in refusals:
        with pytest.raises(error) as caught:
            await rig.lax_runs.run_job(request, Caller(rig).send, trio.CancelScope())
        answers.append(caught.value)
    with pytest.raises(UnknownTypeError):
        await rig.runs.run_job(Caller(rig).request, Caller(rig).send, trio.CancelScope())

    assert len(answers) == len(refusals)
    assert await job_count(rig) == 1
    assert not await is_attached(rig, holder)


async def test_client_that_leaves_while_its_job_is_stored_leaves_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is over when the store answers: the job that it tells of is cancelled all the same."""
    caller = Caller(rig)
    submit = rig.store.attached_jobs.submit

    async def leave_and_submit(*args: object) -> object:
        caller.scope.cancel()
        return await submit(*args)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(rig.store.attached_jobs, "submit", leave_and_submit)

    await caller.run()
    (job,) = (await rig.store.query.list_jobs(rig.namespace, size=10))[0]

    assert (job.state, caller.events) == (JobState.CANCELLED, [])
    assert not await is_attached(rig, job.id)


async def test_cursor_goes_on_behind_the_last_event_that_is_known(rig: Rig, nursery: trio.Nursery) -> None:
    """A client that comes back is told what it missed, and nothing twice; a cursor that is none lets the job stand."""
    first, second, forged = Caller(rig, request_id="r1"), Caller(rig, request_id="r1"), Caller(rig, request_id="r1")
    nursery.start_soon(first.run)
    job_id = await first.begun()
    first.around.cancel()
    await first.end()
    second.request.cursor = first.events[-1].event.cursor
    forged.request.cursor = "no cursor"

    await forged.run()
    stood = await is_attached(rig, job_id)
    nursery.start_soon(second.run)
    await rig.complete()
    await second.end()

    assert isinstance(forged.error, InvalidRequestError)
    assert stood
    assert [each.event.sequence for each in (*first.events, *second.events)] == list(range(1, 4))
    assert second.states == ["PROCESSING", "COMPLETED"]


@pytest.mark.parametrize("request_id", ["", "r1"])
async def test_cursor_of_no_job_makes_no_job(rig: Rig, request_id: str) -> None:
    """A call that can only go on with a job, and has none to go on with, is refused and changes nothing."""
    caller = Caller(rig, request_id=request_id)
    caller.request.cursor = "no cursor"

    await caller.run()

    assert isinstance(caller.error, InvalidRequestError)
    assert [each.reason for each in caller.error.violations] == ["BAD_CURSOR"]
    assert await job_count(rig) == 0


async def test_submit_is_detached_from_its_call(rig: Rig, nursery: trio.Nursery) -> None:
    """The deadline of a SubmitJob bounds the call alone: its job has none, and is tied to no client."""
    with trio.fail_after(PATIENCE_SECONDS):
        job_id = await rig.submit()
    job = await get(rig, job_id)

    assert job.deadline_ms is None
    assert not await is_attached(rig, job_id)


async def test_job_whose_cancel_is_acknowledged_ends_the_call_that_came_back(rig: Rig, nursery: trio.Nursery) -> None:
    """A job that was swept while its client was away is streamed to its cancelled end."""
    first, second = Caller(rig, request_id="r1"), Caller(rig, request_id="r1")
    nursery.start_soon(first.run)
    job_id = await first.begun()
    (claimed,) = await rig.claim()
    first.around.cancel()
    await first.end()
    await rig.store.link.call("ZADD", keys.attached(rig.namespace, "default"), 1, job_id)
    await rig.store.lifecycle.reap(rig.namespace, "default")

    nursery.start_soon(second.run)
    await second.begun()
    await rig.settle(claimed, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)
    await second.end()

    assert second.error is None
    assert second.states[-1] == "CANCELLED"
    assert second.events[-1].event.job.cancel_reason == "its client has vanished"
