"""Streams across the threads: order, back-pressure, slow readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
import trio

from gopher_pb.v1 import job_service_pb2 as pb

from gopher.edge import grpc_server, handover
from gopher.errors import JobNotFoundError
from gopher.wire.status import SlowReaderError, from_rpc_error
from tests.edge.rig import ASK, PATIENCE_SECONDS, raw_stream, serving, stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pytest
    from google.protobuf.message import Message

    Send = Callable[[Message], Awaitable[None]]

BIG: Final = "x" * 16_384


def read_all(call: Iterator[bytes]) -> tuple[list[str], Exception | None]:
    """Return the ids that the stream's messages hold, and the error it ends with."""
    ids: list[str] = []
    try:
        ids.extend(pb.GetJobRequest.FromString(message).job_id for message in call)
    except grpc.RpcError as error:
        return ids, from_rpc_error(error)
    return ids, None


async def test_messages_come_in_order_and_whole() -> None:
    """A stream of many more messages than its buffer holds arrives as it was sent, and ends with OK."""

    async def count(_request: pb.GetJobRequest, send: Send) -> None:
        for number in range(1000):
            await send(pb.GetJobRequest(job_id=str(number)))

    async with serving(stream(count)) as rig:
        ids, error = await trio.to_thread.run_sync(read_all, raw_stream(rig.channel)(ASK))

    assert ids == [str(number) for number in range(1000)]
    assert error is None


async def test_refusal_comes_after_what_was_sent_before() -> None:
    """An error ends the stream; it carries code and reason as that of a unary call does."""

    async def refuse(_request: pb.GetJobRequest, send: Send) -> None:
        await send(pb.GetJobRequest(job_id="first"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        raise JobNotFoundError("j1")

    async with serving(stream(refuse)) as rig:
        ids, error = await trio.to_thread.run_sync(read_all, raw_stream(rig.channel)(ASK))

    assert ids == ["first"]
    assert isinstance(error, JobNotFoundError)


async def test_malformed_request_of_a_stream_is_refused() -> None:
    """Bytes that are no message end a stream before its handler starts."""

    async def never(_request: pb.GetJobRequest, _send: Send) -> None:
        await trio.lowlevel.checkpoint()
        raise AssertionError

    async with serving(stream(never)) as rig:
        ids, error = await trio.to_thread.run_sync(read_all, raw_stream(rig.channel)(b"\xff\xff"))

    assert ids == []
    assert error is not None
    assert vars(error)["reason"] == "MALFORMED_MESSAGE"


async def test_sender_waits_while_the_reader_does_not_read() -> None:
    """A handler gets no further ahead of its reader than the buffers hold."""
    sent = 0

    async def flood(_request: pb.GetJobRequest, send: Send) -> None:
        nonlocal sent
        for _ in range(2000):
            await send(pb.GetJobRequest(job_id=BIG))
            sent += 1

    async with serving(stream(flood)) as rig:
        call = raw_stream(rig.channel)(ASK)
        # Two looks with nothing sent between them: the sender stands still.
        before = -1
        while sent != before or sent == 0:
            before = sent
            await trio.testing.wait_all_tasks_blocked(0.2)
        held = sent
        ids, error = await trio.to_thread.run_sync(read_all, call)

    assert held < 1000
    assert len(ids) == 2000
    assert error is None


async def test_slow_reader_is_cut_off_and_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing for long is cut; when it reads again it finds the reason."""
    monkeypatch.setattr(handover, "STALL_SECONDS", 0.2)
    cut = trio.Event()

    async def flood(_request: pb.GetJobRequest, send: Send) -> None:
        try:
            while True:
                await send(pb.GetJobRequest(job_id=BIG))
        except SlowReaderError:
            cut.set()
            raise

    async with serving(stream(flood)) as rig:
        call = raw_stream(rig.channel)(ASK)
        await cut.wait()
        ids, error = await trio.to_thread.run_sync(read_all, call)

    assert ids
    assert isinstance(error, SlowReaderError)


async def test_reader_that_never_reads_again_does_not_delay_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop cuts a reader that takes not even the reason, long before the grace is over."""
    monkeypatch.setattr(grpc_server, "FLUSH_SECONDS", 0.1)
    started = trio.Event()

    async def flood(_request: pb.GetJobRequest, send: Send) -> None:
        while True:
            await send(pb.GetJobRequest(job_id=BIG))
            started.set()

    async with serving(stream(flood)) as rig:
        call = raw_stream(rig.channel)(ASK)
        await started.wait()
        await trio.testing.wait_all_tasks_blocked(0.2)
        rig.server.stop()
        with trio.fail_after(PATIENCE_SECONDS / 2):
            await rig.stopped.wait()

    assert call.code() is not grpc.StatusCode.OK


async def test_slow_reader_costs_others_nothing() -> None:
    """While one reader stands still, another's stream goes on."""

    async def flood_or_count(request: pb.GetJobRequest, send: Send) -> None:
        if request.job_id == "x":
            while True:
                await send(pb.GetJobRequest(job_id=BIG))
        for number in range(500):
            await send(pb.GetJobRequest(job_id=str(number)))

    async with serving(stream(flood_or_count)) as rig:
        with grpc.insecure_channel(rig.address) as other:
            stalled = raw_stream(rig.channel)(ASK)
            await trio.testing.wait_all_tasks_blocked(0.2)
            ids, error = await trio.to_thread.run_sync(read_all, raw_stream(other)(b""))
        stalled.cancel()

    assert len(ids) == 500
    assert error is None
