"""The table of bad inputs over a real socket, against the whole server on a real Redis: code, reason, and nothing stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import grpc
import pytest
import trio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from gopher_pb.v1 import admin_service_pb2, job_pb2, queue_service_pb2, schedule_service_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.cli.server import Server
from gopher.config import ServerConfig
from gopher.store.store import Store
from gopher.wire.status import DETAILS_KEY, MAX_STATUS_BYTES, from_rpc_error
from tests.edge.rig import PATIENCE_SECONDS, raw_unary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

UNKNOWN: Final = "01a20c6c-0282-7492-ab17-767f938b0000"
INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION: Final = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
EXHAUSTED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def channel(redis_url: str, nursery: trio.Nursery) -> AsyncIterator[grpc.Channel]:
    """A channel to a server that takes known types only; `email` is known nowhere but in the tests that need it."""
    store = Store(redis_url, client_name="test")
    await nursery.start(store.run)
    server = Server(ServerConfig(grpc_address="127.0.0.1:0", max_payload_bytes=64 * 1024), store)
    addresses = await nursery.start(server.run)
    with grpc.insecure_channel(addresses.grpc) as opened:
        yield opened
    server.stop()


async def refused(channel: grpc.Channel, rpc: str, request: bytes) -> tuple[grpc.StatusCode, str, str]:
    """Make a call that is refused and return code, reason and text."""

    def call() -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            raw_unary(channel, f"/gopher.v1.{rpc}")(request, timeout=PATIENCE_SECONDS)
        return caught.value

    with trio.fail_after(PATIENCE_SECONDS):
        error = await trio.to_thread.run_sync(call)
    call_of_error = cast("grpc.Call", error)  # what is raised is also the call
    for key, value in call_of_error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            assert status_pb2.Status.FromString(value).ByteSize() <= MAX_STATUS_BYTES
    found = from_rpc_error(error)
    return call_of_error.code(), found.reason, found.message


def spec(**fields: object) -> job_pb2.JobSpec:
    return job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec


SUBMITS: Final = {
    "B27": (spec(type=""), INVALID, "REQUIRED", "job.type: must be set"),
    "B28": (spec(type="../../x"), INVALID, "BAD_NAME", "job.type: must match ^[a-z][a-z0-9_.-]{0,63}$, as mail.welcome does"),
    "B28-line": (spec(type="email\r\n"), INVALID, "BAD_NAME", "job.type"),
    "B29": (spec(), PRECONDITION, "UNKNOWN_JOB_TYPE", "no worker has registered the type 'email'"),
    "B30": (spec(queue="a}b"), INVALID, "BAD_NAME", "job.queue"),
    "B30-null": (spec(queue="\0"), INVALID, "BAD_NAME", "job.queue"),
    "B32": (spec(payload=b"1" * 65_537), INVALID, "PAYLOAD_TOO_LARGE", "must be at most 65536 bytes, got 65537"),
    "B33": (spec(payload=b'{"a": NaN}'), INVALID, "BAD_JSON", "at offset 6"),
    "B33-large": (spec(payload=b"1e400"), INVALID, "BAD_JSON", "at offset 0"),
    "B35": (spec(payload=b"[" * 60_000), INVALID, "BAD_JSON", "nested deeper than 64"),
    "B36": (spec(payload=b"9" * 5000), INVALID, "BAD_JSON", "out of range"),
    "key-twice": (spec(payload=b'{"a": {"b": ":", "b": 2}}'), INVALID, "BAD_JSON", "the key 'b' comes twice in an object"),
    "B39": (spec(content_type="application/x-python-serialize"), INVALID, "UNSUPPORTED_CONTENT_TYPE", "job.content_type"),
    "B40": (spec(priority=99), INVALID, "BAD_ENUM", "job.priority"),
    "B41": (spec(retry_policy=job_pb2.RetryPolicy(max_attempts=10**9)), INVALID, "OUT_OF_RANGE", "must be 1 to 100"),
    "B42": (spec(timeout=Duration()), INVALID, "OUT_OF_RANGE", "job.timeout"),
    "B42-sign": (spec(timeout=Duration(seconds=1, nanos=-1)), INVALID, "OUT_OF_RANGE", "job.timeout"),
    "B43": (spec(run_time=Timestamp(seconds=-62_167_219_200)), INVALID, "OUT_OF_RANGE", "job.run_time"),
    "B43-nanos": (spec(run_time=Timestamp(nanos=-1)), INVALID, "OUT_OF_RANGE", "job.run_time"),
    "B45": (spec(run_time=Timestamp(seconds=1), delay=Duration(seconds=1)), INVALID, "CONFLICT", "job.delay"),
    "B60": (spec(labels={str(n): "x" for n in range(65)}), INVALID, "LABELS", "must be at most 64, got 65"),
    "B60-value": (spec(labels={"k": "a\nb"}), INVALID, "LABELS", "control characters"),
}


@pytest.mark.parametrize("row", SUBMITS)
async def test_faulty_submit(channel: grpc.Channel, namespace: str, row: str) -> None:
    """SubmitJob and an item of SubmitJobs are refused alike, with code, reason and text of the row, and store nothing."""
    job, code, reason, text = SUBMITS[row]

    alone = await refused(
        channel, "JobService/SubmitJob", pb.SubmitJobRequest(namespace=namespace, job=job).SerializeToString()
    )
    many = pb.SubmitJobsRequest(namespace=namespace, jobs=[job]).SerializeToString()
    reply = await trio.to_thread.run_sync(raw_unary(channel, "/gopher.v1.JobService/SubmitJobs"), many)
    (result,) = pb.SubmitJobsResponse.FromString(reply).results

    assert alone[:2] == (code, reason)
    assert text in alone[2]
    assert result.error.code == code.value[0]
    assert result.job_id == ""
    listing = queue_service_pb2.ListQueuesRequest(namespace=namespace).SerializeToString()
    queues = await trio.to_thread.run_sync(raw_unary(channel, "/gopher.v1.QueueService/ListQueues"), listing)
    assert queues == b""


async def test_late_but_well_formed_times_are_no_fault(channel: grpc.Channel, namespace: str) -> None:
    """B44, B20: a run time in the past means now; the only objection is that nobody knows the type."""
    request = pb.SubmitJobRequest(namespace=namespace, job=spec(run_time=Timestamp(seconds=1)))

    code, reason, _ = await refused(channel, "JobService/SubmitJob", request.SerializeToString())

    assert (code, reason) == (PRECONDITION, "UNKNOWN_JOB_TYPE")


def scheduled(cron: str) -> schedule_service_pb2.CreateScheduleRequest:
    schedule = schedule_service_pb2.ScheduleSpec(name="nightly", cron=cron, job=spec())
    return schedule_service_pb2.CreateScheduleRequest(schedule=schedule)


CRONS: Final = ["* * *", "61 * * * *", "0 0 30 2 *", "*/0 * * * *", "*" * 4096, "@every 1ms", "*/" + "9" * 25 + " * * * *"]
OTHERS: Final[dict[str, tuple[str, bytes | Message, grpc.StatusCode, str]]] = {
    "B1": ("JobService/SubmitJob", b"\xff\xff\xff\xff", INVALID, "MALFORMED_MESSAGE"),
    "B2": ("JobService/SubmitJob", b"\x0a\x80", INVALID, "MALFORMED_MESSAGE"),
    "B3": ("JobService/SubmitJob", b"\x0a\x02\xff\xfe", INVALID, "MALFORMED_MESSAGE"),
    "B4": ("JobService/SubmitJob", b"\x0b" * 300 + b"\x0c" * 300, INVALID, "MALFORMED_MESSAGE"),
    "B1-queue": ("QueueService/GetQueue", b"\xff\xff\xff\xff", INVALID, "MALFORMED_MESSAGE"),
    "B5": ("JobService/SubmitJob", b"\xfa\x01\x01x", INVALID, "REQUIRED"),
    "B6": ("JobService/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"),
    "B6-service": ("NoService/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"),
    "B7": ("JobService/SubmitJob", b"x" * 2 * 1024 * 1024, EXHAUSTED, "RESOURCE_EXHAUSTED"),
    "B31": ("JobService/SubmitJob", pb.SubmitJobRequest(namespace="a:b", job=spec()), INVALID, "BAD_NAME"),
    "B31-get": ("JobService/GetJob", pb.GetJobRequest(namespace="a:b", job_id=UNKNOWN), INVALID, "BAD_NAME"),
    **{f"B46-{cron[:12]}": ("ScheduleService/CreateSchedule", scheduled(cron), INVALID, "BAD_CRON") for cron in CRONS},
    "B51": ("JobService/GetJob", pb.GetJobRequest(job_id=UNKNOWN), NOT_FOUND, "JOB_NOT_FOUND"),
    "B51-cancel": ("JobService/CancelJob", pb.CancelJobRequest(job_id=UNKNOWN), NOT_FOUND, "JOB_NOT_FOUND"),
    "B51-id": ("JobService/CancelJob", pb.CancelJobRequest(job_id="../x"), INVALID, "BAD_ID"),
    "B57": ("JobService/ListJobs", pb.ListJobsRequest(page_size=-1), INVALID, "OUT_OF_RANGE"),
    "B57-large": ("JobService/ListJobs", pb.ListJobsRequest(page_size=10**6), INVALID, "OUT_OF_RANGE"),
    "B57-token": ("JobService/ListJobs", pb.ListJobsRequest(page_token="forged"), INVALID, "BAD_PAGE_TOKEN"),
    "B59": ("JobService/SubmitJobs", pb.SubmitJobsRequest(), INVALID, "BATCH_SIZE"),
    "B59-many": ("JobService/SubmitJobs", pb.SubmitJobsRequest(jobs=[spec()] * 1001), INVALID, "BATCH_SIZE"),
    "B65": ("QueueService/PurgeQueue", queue_service_pb2.PurgeQueueRequest(queue="q"), NOT_FOUND, "QUEUE_NOT_FOUND"),
    "B65-name": ("QueueService/PurgeQueue", queue_service_pb2.PurgeQueueRequest(queue="*"), INVALID, "BAD_NAME"),
    "ids": (
        "AdminService/RequeueFailedJobs",
        admin_service_pb2.RequeueFailedJobsRequest(job_ids=["x"]),
        INVALID,
        "BAD_ID",
    ),
}


@pytest.mark.parametrize("row", OTHERS)
async def test_faulty_request(channel: grpc.Channel, row: str) -> None:
    """Code and reason of the row."""
    rpc, request, code, reason = OTHERS[row]
    raw = request if isinstance(request, bytes) else request.SerializeToString()

    found = await refused(channel, rpc, raw)

    assert found[:2] == (code, reason)
