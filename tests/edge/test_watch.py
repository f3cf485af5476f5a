"""A watch over gRPC whose reader does not read: it is cut off and told why, costs nobody anything, and can go on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import trio

from gopher_pb.v1 import job_service_pb2_grpc, job_stream_pb2

from gopher.client.trio_client import TrioClient
from gopher.edge import handover
from gopher.event import EventKind
from gopher.job import Move
from gopher.store.history import Saying
from gopher.wire.status import SlowReaderError, from_rpc_error

if TYPE_CHECKING:
    import pytest

    from gopher_pb.v1 import job_event_pb2

    from gopher.errors import GopherError
    from tests.edge.rest_rig import Rest

PATIENCE_SECONDS = 60.0
LINES = 1_500
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
"""What gRPC takes in while nobody reads; else it grows to some MB."""
LINE = b"info " + b"x" * 2_000


def read(call: grpc._CallIterator[job_stream_pb2.WatchJobResponse]) -> tuple[list[job_event_pb2.JobEvent], GopherError | None]:
    """Read a stream to its end; return what came, and why it ended early."""
    events = []
    try:
        for message in call:
            events.append(message.event)  # noqa: PERF401 - what came before an error counts
    except grpc.RpcError as error:
        return events, from_rpc_error(error)
    return events, None


async def test_reader_of_a_watch_that_stalls_is_cut_and_goes_on_by_its_cursor(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pushed to it is bounded; meanwhile others are told all, and in the end it has been told all too."""
    monkeypatch.setattr(handover, "STALL_SECONDS", 0.3)
    job_id = await rest.submit()
    job = await rest.claim()
    quick = []

    with trio.fail_after(PATIENCE_SECONDS):
        async with TrioClient(rest.grpc_address, namespace=rest.namespace) as client:
            with grpc.insecure_channel(rest.grpc_address, options=SMALL_WINDOW) as channel:
                stub = job_service_pb2_grpc.JobServiceStub(channel)
                request = job_stream_pb2.WatchJobRequest(namespace=rest.namespace, job_id=job_id)
                stalled = stub.WatchJob(request)
                for first in range(1, LINES, 100):
                    lines = [Saying(job_id, job.token, first + at, EventKind.LOG, "", LINE) for at in range(100)]
                    await rest.store.histories.report(rest.namespace, "default", lines)
                await rest.settle(job, Move.COMPLETE)
                async for event in client.watch(job_id):
                    quick.append(event.sequence)  # noqa: PERF401 - a list of what came, in order
                await trio.sleep(2 * handover.STALL_SECONDS)
                told, error = await trio.to_thread.run_sync(read, stalled)
                request.cursor = told[-1].cursor
                rest_told, no_error = await trio.to_thread.run_sync(read, stub.WatchJob(request))

    assert quick == list(range(1, LINES + 4))
    assert isinstance(error, SlowReaderError)
    assert len(told) < LINES
    assert no_error is None
    assert [event.sequence for event in told + rest_told] == quick
