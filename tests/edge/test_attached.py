"""RunJob through real gRPC on a real Redis: cancel, disconnect and deadline of the call reach the job; a stop of the server does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trio

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb
from gopher_pb.v1.job_stream_pb2 import RunJobRequest, RunJobResponse

from gopher.edge.grpc_server import Limits
from gopher.edge.interceptors import AttachedMethod, UnaryMethod
from gopher.errors import CallExpiredError, GopherError, InvalidRequestError
from gopher.job import JobState
from gopher.service.jobs import Jobs
from gopher.service.pages import Pages
from gopher.service.run import Runs
from gopher.service.watch import Watch
from gopher.store import keys
from gopher.store.store import Store
from gopher.wire.status import ServerStoppingError, from_rpc_error
from tests.edge.rig import ask, raw_stream, serving
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.edge.interceptors import Method
    from gopher.job import Job

RUN: Final = "/gopher.v1.JobService/RunJob"
SUBMIT: Final = "/gopher.v1.JobService/SubmitJob"


class Bench:
    """The services behind a server, and the jobs they make."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        self.jobs = Jobs(store, Pages(store.registry), accept_unknown_types=True, max_payload_bytes=1024)
        self.runs = Runs(store, self.jobs, Watch(store))

    def methods(self, calls: trio.Nursery, streams: trio.Nursery) -> list[Method]:
        return [
            AttachedMethod(RUN, RunJobRequest, streams, self.runs.run_job),
            UnaryMethod(SUBMIT, pb.SubmitJobRequest, calls, self.jobs.submit_job),
        ]

    def request(self, request_id: str = "") -> bytes:
        spec = job_pb2.JobSpec(type="email", request_id=request_id)
        return RunJobRequest(namespace=self.namespace, job=spec).SerializeToString()

    async def all(self) -> list[Job]:
        return (await self.store.query.list_jobs(self.namespace, size=100))[0]

    async def job(self, job_id: str) -> Job:
        return await self.store.query.get(self.namespace, job_id)

    async def cancelled(self, job_id: str) -> Job:
        async def is_cancelled() -> bool:
            return (await self.job(job_id)).state is JobState.CANCELLED

        await until_async(is_cancelled)
        return await self.job(job_id)


@pytest.fixture
async def bench(redis_url: str, namespace: str, nursery: trio.Nursery) -> Bench:
    store = Store(redis_url, client_name="test")
    await nursery.start(store.run)
    return Bench(store, namespace)


async def first_id(call: Iterator[bytes]) -> str:
    """Wait for the first event of a run and return the job's id."""
    return RunJobResponse.FromString(await trio.to_thread.run_sync(next, call)).event.job_id


def end_of(call: Iterator[bytes]) -> GopherError | None:
    """Read a run to its end and return the error it ends with."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return None


async def test_cancel_of_the_call_cancels_the_job(bench: Bench) -> None:
    """The client's cancel travels to the job."""
    async with serving(bench.methods) as rig:
        call = raw_stream(rig.channel, RUN)(bench.request())
        job_id = await first_id(call)

        call.cancel()
        job = await bench.cancelled(job_id)

    assert job.cancel_reason == "the client of RunJob has cancelled it or has gone"


async def test_client_that_disconnects_cancels_the_job(bench: Bench) -> None:
    """So does a connection that goes without a word."""
    async with serving(bench.methods) as rig:
        with grpc.insecure_channel(rig.address) as other:
            call = raw_stream(other, RUN)(bench.request())
            job_id = await first_id(call)
        job = await bench.cancelled(job_id)

    assert job.cancel_reason == "the client of RunJob has cancelled it or has gone"


async def test_deadline_of_the_call_is_the_jobs(bench: Bench) -> None:
    """It bounds the job, ends the call with DEADLINE_EXCEEDED, and cancels the job."""
    async with serving(bench.methods) as rig:
        call = raw_stream(rig.channel, RUN)(bench.request(), timeout=1.0)
        job_id = await first_id(call)
        bound_ms = (await bench.job(job_id)).deadline_ms
        error = await trio.to_thread.run_sync(end_of, call)
        job = await bench.cancelled(job_id)

    assert error is not None
    assert error.reason in {"DEADLINE_EXCEEDED", CallExpiredError.reason}
    assert bound_ms is not None
    assert 0 < bound_ms - job.submitted_ms <= 1_100  # gRPC rounds what it sends up to three digits
    assert job.cancel_reason == "the deadline of the client's RunJob is over"


async def test_call_without_a_deadline_leaves_the_job_without_one(bench: Bench) -> None:
    """Nothing is invented."""
    async with serving(bench.methods) as rig:
        call = raw_stream(rig.channel, RUN)(bench.request())
        job_id = await first_id(call)
        job = await bench.job(job_id)
        call.cancel()
        await bench.cancelled(job_id)

    assert job.deadline_ms is None


async def test_deadline_that_is_over_makes_no_job(bench: Bench) -> None:
    """B21: whatever reaches the server of such a call, no job comes of it."""
    async with serving(bench.methods) as rig:
        errors = [
            await trio.to_thread.run_sync(end_of, raw_stream(rig.channel, RUN)(bench.request(), timeout=timeout))
            for timeout in (0.0, -1.0, 1e-9)
        ]
        await ask(
            rig.channel,
            pb.SubmitJobRequest(namespace=bench.namespace, job=job_pb2.JobSpec(type="last")).SerializeToString(),
            path=SUBMIT,
        )
    jobs = await bench.all()

    assert {error.reason for error in errors if error is not None} <= {"DEADLINE_EXCEEDED", CallExpiredError.reason}
    assert None not in errors
    assert [job.type for job in jobs if job.state is not JobState.CANCELLED] == ["last"]


async def test_deadline_of_a_submit_does_not_bound_its_job(bench: Bench) -> None:
    """SubmitJob is detached: its call's deadline is the call's alone."""
    request = pb.SubmitJobRequest(namespace=bench.namespace, job=job_pb2.JobSpec(type="email"))

    async with serving(bench.methods) as rig:
        reply = await ask(rig.channel, request.SerializeToString(), path=SUBMIT, deadline_seconds=20.0)
    job = await bench.job(pb.SubmitJobResponse.FromString(reply).job_id)

    assert job.deadline_ms is None
    assert job.state is JobState.ENQUEUED


async def test_server_that_stops_lets_the_job_go(bench: Bench) -> None:
    """Its client is told to call again; the job stands and is taken up by another server."""
    async with serving(bench.methods) as first:
        call = raw_stream(first.channel, RUN)(bench.request("r1"))
        job_id = await first_id(call)
        first.server.stop()
        error = await trio.to_thread.run_sync(end_of, call)
    between = await bench.job(job_id)
    score = await bench.store.link.call("ZSCORE", keys.attached(bench.namespace, "default"), job_id)
    async with serving(bench.methods) as second:
        again = raw_stream(second.channel, RUN)(bench.request("r1"))
        same_id = await first_id(again)
        again.cancel()
        await bench.cancelled(job_id)

    assert isinstance(error, ServerStoppingError)
    assert (between.state, score is not None) == (JobState.ENQUEUED, True)
    assert same_id == job_id
    assert len(await bench.all()) == 1


async def test_run_outlives_the_age_of_its_connection(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is told to take no more calls keeps the run that it has: its job is not cancelled."""
    options = Limits.options
    monkeypatch.setattr(
        Limits, "options", lambda self: [(name, 100 if "connection_age" in name else value) for name, value in options(self)]
    )

    async with serving(bench.methods) as rig:
        call = raw_stream(rig.channel, RUN)(bench.request())
        job_id = await first_id(call)
        await trio.testing.wait_all_tasks_blocked(1.0)
        job = await bench.job(job_id)
        call.cancel()
        await bench.cancelled(job_id)

    assert (job.state, job.cancel_reason) == (JobState.ENQUEUED, None)


async def test_bytes_that_are_no_request_make_no_job(bench: Bench) -> None:
    """They are refused as every other rpc refuses them."""
    async with serving(bench.methods) as rig:
        error = await trio.to_thread.run_sync(end_of, raw_stream(rig.channel, RUN)(b"\xff\xff"))

    assert isinstance(error, InvalidRequestError)
    assert error.reason == "MALFORMED_MESSAGE"
    assert await bench.all() == []
