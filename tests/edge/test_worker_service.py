"""WorkerService over a real socket, against the whole server: what its ends look like to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trio

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.client.trio_client import TrioClient
from gopher.edge import handover
from gopher.errors import InvalidRequestError
from gopher.job import JobState
from tests.edge.worker_rig import WorkerStream, hello
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.edge.rest_rig import Rest

CREDIT: Final = pb.ConnectRequest(credit=pb.Credit(jobs=1))
EXTEND: Final = pb.ConnectRequest(extend=pb.Extend())


@pytest.fixture
async def channel(rest: Rest) -> AsyncIterator[grpc.Channel]:
    """A channel to the server."""
    with grpc.insecure_channel(rest.grpc_address) as opened:
        yield opened


async def test_worker_is_given_a_job_and_completes_it(rest: Rest, channel: grpc.Channel) -> None:
    """Over the wire: welcome, assignment, outcome, and an orderly end."""
    stream = WorkerStream(channel, hello(rest.namespace), CREDIT)
    async with TrioClient(rest.grpc_address, namespace=rest.namespace) as client:
        welcome = await stream.hear()
        job_id = await client.submit("email", {"to": "a"})
        given = (await stream.hear()).assignment
        stream.say(pb.ConnectRequest(settle=pb.Settle(lease=given.lease, result=b'{"sent":true}')))
        settled = await stream.hear()
        stream.say(pb.ConnectRequest(leave=pb.Leave()))
        error = await stream.end()
        result = await client.result(job_id, wait=30)

    assert welcome.welcome.worker_id
    assert given.lease.job_id == job_id
    assert settled.settled.lease == given.lease
    assert (error, stream.code) == (None, grpc.StatusCode.OK)
    assert result == {"sent": True}


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([CREDIT], "OUT_OF_ORDER"),
        ([b"\xff\xff\xff"], "MALFORMED_MESSAGE"),
        ([b""], "OUT_OF_ORDER"),
        ([hello("default", types=["Not OK"])], "BAD_NAME"),
        ([hello("default", types=["t"] * 10_000)], "OUT_OF_RANGE"),
        ([hello("default", resume_token="forged")], "BAD_RESUME_TOKEN"),
    ],
    ids=["credit", "malformed", "empty", "bad name", "too many types", "forged token"],
)
async def test_lie_is_told_by_code_and_reason(
    rest: Rest, channel: grpc.Channel, frames: list[pb.ConnectRequest | bytes], reason: str
) -> None:
    """Every refusal carries its reason in the details, and the server goes on."""
    stream = WorkerStream(channel, *frames)

    error = await stream.end()

    assert stream.code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, InvalidRequestError)
    assert error.violations[0].reason == reason
    later = WorkerStream(channel, hello(rest.namespace))
    assert (await later.hear()).HasField("welcome")
    later.cut()


async def test_malformed_frame_after_the_hello_ends_the_stream(rest: Rest, channel: grpc.Channel) -> None:
    """Bytes that are no frame, amid others that are."""
    stream = WorkerStream(channel, hello(rest.namespace), EXTEND, b"\xff", EXTEND)

    error = await stream.end()

    assert isinstance(error, InvalidRequestError)
    assert error.violations[0].reason == "MALFORMED_MESSAGE"


async def test_worker_that_never_reads_is_cut_off(rest: Rest, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its answers have nowhere to go its stream ends, its leases stand, and others are served all the while."""
    monkeypatch.setattr(handover, "STALL_SECONDS", 0.2)
    lease = pb.Lease(job_id="x" * 60_000, token=1)
    unknown = pb.ConnectRequest(extend=pb.Extend(leases=[lease]))
    stream = WorkerStream(channel, hello(rest.namespace), *[unknown] * 500)

    await until_async(lambda: _has_connected(rest))
    await until_async(lambda: _is_connected(rest, streams=0))
    other = WorkerStream(channel, hello(rest.namespace))

    assert (await other.hear()).HasField("welcome")
    await stream.end()
    assert stream.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    other.cut()


async def _has_connected(rest: Rest) -> bool:
    return bool(await rest.store.registry.workers(rest.namespace))


async def _is_connected(rest: Rest, *, streams: int) -> bool:
    await trio.lowlevel.checkpoint()
    return sum(kept.users for kept in rest.server._upkeep._kept.values()) == streams


async def test_cut_of_the_connection_ends_the_session(rest: Rest, channel: grpc.Channel) -> None:
    """The server lets go of the stream; what the worker holds stays its own."""
    stream = WorkerStream(channel, hello(rest.namespace), CREDIT)
    await stream.hear()
    job_id = await rest.submit()
    await stream.hear()

    stream.cut()

    await until_async(lambda: _is_connected(rest, streams=0))
    assert (await rest.store.query.get(rest.namespace, job_id)).state is JobState.PROCESSING


async def test_server_that_stops_tells_its_workers_to_go_elsewhere(rest: Rest, channel: grpc.Channel) -> None:
    """UNAVAILABLE is what a worker connects again on."""
    stream = WorkerStream(channel, hello(rest.namespace))
    await stream.hear()

    rest.server.stop()
    error = await stream.end()

    assert stream.code is grpc.StatusCode.UNAVAILABLE
    assert error is not None
    assert error.reason == "SERVER_STOPPING"
