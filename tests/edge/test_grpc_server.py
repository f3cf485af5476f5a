"""gRPC over a real socket: answers, refusals, deadlines, cancels, limits."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import grpc
import pytest
import trio

from gopher_pb.v1 import job_service_pb2 as pb

from gopher.edge.grpc_server import GrpcServer, Limits
from gopher.errors import GopherError, InvalidRequestError, JobNotFoundError, StartError, StoreError, StoreUnavailableError
from gopher.wire.status import from_rpc_error
from tests.cutting_proxy import CuttingProxy
from tests.edge.rig import ASK, PATIENCE_SECONDS, raw_stream, raw_unary, serving, stream, unary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message


async def echo(request: pb.GetJobRequest) -> Message:
    await trio.lowlevel.checkpoint()
    return request


async def test_unary_call_answers_with_the_handlers_message() -> None:
    """What the handler returns is what the client gets."""
    async with serving(unary(echo)) as rig:
        reply = await rig.ask()

    assert pb.GetJobRequest.FromString(reply).job_id == "x"


async def test_a_hundred_calls_at_once_are_each_answered_with_their_own() -> None:
    """Answers never cross, however many calls share the lanes."""
    answers: dict[str, str] = {}

    async def ask(name: str) -> None:
        reply = await rig.ask(pb.GetJobRequest(job_id=name).SerializeToString())
        answers[name] = pb.GetJobRequest.FromString(reply).job_id

    async with serving(unary(echo)) as rig, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(ask, f"job-{number}")

    assert answers == {f"job-{number}": f"job-{number}" for number in range(100)}


async def test_more_calls_at_once_than_streams_allowed_all_get_through() -> None:
    """A client with more to send than a connection may have under way waits its turn; nothing is refused."""
    count = 0

    async def ask() -> None:
        nonlocal count
        await rig.ask()
        count += 1

    async with serving(unary(echo), limits=Limits(streams_a_connection=10)) as rig, trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(ask)

    assert count == 200


async def test_refusal_carries_code_reason_and_metadata() -> None:
    """A GopherError reaches the client as the same error."""

    async def refuse(_request: pb.GetJobRequest) -> Message:
        await trio.lowlevel.checkpoint()
        raise JobNotFoundError("j1")

    async with serving(unary(refuse)) as rig:
        with pytest.raises(JobNotFoundError) as caught:
            await rig.ask()

    assert caught.value.metadata == {"job_id": "j1"}
    assert caught.value.reason == "JOB_NOT_FOUND"


async def test_refusal_inside_of_a_handlers_nursery_is_still_a_refusal() -> None:
    """A group of one error is that error."""

    async def refuse(_request: pb.GetJobRequest) -> Message:
        async with trio.open_nursery():
            raise JobNotFoundError("j1")

    async with serving(unary(refuse)) as rig:
        with pytest.raises(JobNotFoundError):
            await rig.ask()


async def test_redis_failure_says_nothing_of_where_redis_is() -> None:
    """UNAVAILABLE comes with a text that holds no address."""

    async def fail(_request: pb.GetJobRequest) -> Message:
        await trio.lowlevel.checkpoint()
        raise StoreUnavailableError("the connection to redis.internal:6379 broke")

    async with serving(unary(fail)) as rig:
        with pytest.raises(StoreUnavailableError) as caught:
            await rig.ask()

    assert caught.value.reason == "BROKER_UNAVAILABLE"
    assert "internal" not in caught.value.message


async def test_defect_shows_an_error_id_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    """What a bug raises stays in the log, found there by the id that the client is told."""

    async def break_down(_request: pb.GetJobRequest) -> Message:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("secret")

    async with serving(unary(break_down)) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask()

    error_id = caught.value.metadata["error_id"]
    assert caught.value.reason == "INTERNAL"
    assert caught.value.message == f"internal error {error_id}"
    logged = capfd.readouterr()
    assert error_id in logged.out + logged.err


async def test_redis_that_refuses_us_is_our_own_failure() -> None:
    """A password or a permission that is missing is the operator's to mend; the caller learns an error id."""

    async def fail(_request: pb.GetJobRequest) -> Message:
        await trio.lowlevel.checkpoint()
        raise StoreError("the redis user lacks a permission that gopher needs")

    async with serving(unary(fail)) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask()

    assert caught.value.reason == "INTERNAL"
    assert "permission" not in caught.value.message


@pytest.mark.parametrize("request_bytes", [b"\xff\xff\xff\xff", b"\x0a\x80", b"\x0a\x02\xff\xfe", b"\x12\x02\xc3\x28"])
async def test_bytes_that_are_no_message_are_refused(request_bytes: bytes) -> None:
    """Random bytes, a cut varint, text that is no UTF-8: INVALID_ARGUMENT with the name of the message."""
    async with serving(unary(echo)) as rig:
        with pytest.raises(InvalidRequestError) as caught:
            await rig.ask(request_bytes)

    assert caught.value.reason == "MALFORMED_MESSAGE"
    assert "gopher.v1.GetJobRequest" in caught.value.message


async def test_unknown_method_is_unimplemented() -> None:
    """A path that is in no table is answered by gRPC itself."""
    async with serving(unary(echo)) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask(path="/test.Service/Nothing")

    assert caught.value.reason == "UNIMPLEMENTED"


async def test_message_over_the_limit_is_refused() -> None:
    """A request larger than the limit is RESOURCE_EXHAUSTED, and the connection lives on."""
    async with serving(unary(echo), limits=Limits(message_bytes=1024)) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask(b"x" * 1025)
        await rig.ask()

    assert caught.value.reason == "RESOURCE_EXHAUSTED"


async def test_compressed_message_counts_by_its_full_size() -> None:
    """A small body that unpacks to a large one is stopped at the limit."""
    async with serving(unary(echo), limits=Limits(message_bytes=64 * 1024)) as rig:
        call = raw_unary(rig.channel)
        bomb = pb.GetJobRequest(job_id="x" * 10_000_000).SerializeToString()

        def send() -> grpc.RpcError:
            with pytest.raises(grpc.RpcError) as caught:
                call(bomb, compression=grpc.Compression.Gzip, timeout=PATIENCE_SECONDS)
            return caught.value

        error = await trio.to_thread.run_sync(send)

    assert from_rpc_error(error).reason == "RESOURCE_EXHAUSTED"


async def test_metadata_over_the_limit_is_refused() -> None:
    """20 KiB of metadata are refused, and the connection lives on."""
    async with serving(unary(echo)) as rig:
        call = raw_unary(rig.channel)

        def send() -> grpc.RpcError:
            with pytest.raises(grpc.RpcError) as caught:
                call(ASK, metadata=(("x-large", "x" * 20_480),), timeout=PATIENCE_SECONDS)
            return caught.value

        error = await trio.to_thread.run_sync(send)
        await rig.ask()

    assert from_rpc_error(error).reason == "RESOURCE_EXHAUSTED"


async def test_calls_over_the_limit_are_refused() -> None:
    """While as many calls as allowed are under way, one more is RESOURCE_EXHAUSTED."""
    entered = trio.Event()
    release = trio.Event()

    async def hold(request: pb.GetJobRequest) -> Message:
        entered.set()
        await release.wait()
        return request

    async with serving(unary(hold), limits=Limits(calls=1)) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(rig.ask)
        await entered.wait()
        with pytest.raises(GopherError) as caught:
            await rig.ask()
        release.set()

    assert caught.value.reason == "RESOURCE_EXHAUSTED"


async def test_unary_calls_over_their_own_limit_are_refused() -> None:
    """While as many unary calls as allowed are under way, one more is TOO_MANY_CALLS; a stream is let in, and then a call again."""
    entered = trio.Event()
    release = trio.Event()

    async def hold(request: pb.GetJobRequest) -> Message:
        entered.set()
        await release.wait()
        return request

    async def tell(request: pb.GetJobRequest, send: Callable[[Message], Awaitable[None]]) -> None:
        await send(request)

    async with serving(stream(tell, hold), limits=Limits(unary_calls=1)) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.ask)
            await entered.wait()
            with pytest.raises(GopherError) as caught:
                await rig.ask()
            told = await trio.to_thread.run_sync(lambda: list(raw_stream(rig.channel)(ASK)))
            release.set()
        await rig.ask()

    assert caught.value.reason == "TOO_MANY_CALLS"
    assert told == [ASK]


async def test_calls_of_a_client_that_has_fallen_silent_are_cancelled() -> None:
    """As after its cable was cut: its connection stays open and tells nothing, not even that it is there."""
    entered, left = trio.Event(), trio.Event()

    async def hold(_request: pb.GetJobRequest, _send: Callable[[Message], Awaitable[None]]) -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    async with (
        serving(stream(hold), limits=Limits(quiet_seconds=1, answer_seconds=1)) as rig,
        trio.open_nursery() as nursery,
    ):
        proxy = CuttingProxy(rig.address, cuts=0, at_bytes=(1, 1), seed=0)
        await nursery.start(proxy.run)
        with grpc.insecure_channel(proxy.address) as channel:
            call = raw_stream(channel)(ASK)
            await entered.wait()
            proxy.silence()
            await left.wait()
            call.cancel()
        nursery.cancel_scope.cancel()


async def test_busy_port_is_told_in_one_line() -> None:
    """An address that is taken is a StartError that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = GrpcServer(address, unary(echo), limits=Limits(), grace_seconds=1)

        with pytest.raises(StartError) as caught:
            await server.run()

    assert caught.value.message == f"cannot listen on {address}: address already in use"


async def test_second_server_does_not_share_the_port() -> None:
    """gRPC's own default would let two servers listen on one port, each getting some of the calls."""
    async with serving(unary(echo)) as rig:
        with pytest.raises(StartError, match="already in use"):
            await GrpcServer(rig.address, unary(echo), limits=Limits(), grace_seconds=1).run()


async def test_what_breaks_grpcs_thread_is_raised_where_the_server_was_started() -> None:
    """A thread that ends of an error takes the server down with it; nothing waits for it in vain."""
    server = GrpcServer("127.0.0.1:0", unary(echo), limits=Limits(calls=-1), grace_seconds=1)

    with trio.fail_after(PATIENCE_SECONDS), pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await server.run()


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.7"])
async def test_address_of_another_machine_is_told_in_one_line(host: str) -> None:
    """A host that is not this machine's is a StartError."""
    with pytest.raises(StartError) as caught:
        await GrpcServer(f"{host}:0", unary(echo), limits=Limits(), grace_seconds=1).run()

    assert caught.value.message.startswith(f"cannot listen on {host}:0: ")
    assert "\n" not in caught.value.message
