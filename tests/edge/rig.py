"""A gRPC server with handlers of the test's own, and a client that is awaited in Trio."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import trio

from gopher_pb.v1 import job_service_pb2 as pb

from gopher.edge.grpc_server import GrpcServer, Limits
from gopher.edge.interceptors import BatchedMethod, DuplexMethod, StreamMethod, UnaryMethod
from gopher.wire.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from google.protobuf.message import Message

    from gopher.edge.interceptors import Method
    from gopher.errors import GopherError
    from gopher.service.requests import Requests

    Methods = Callable[[trio.Nursery, trio.Nursery], Sequence[Method]]

PATIENCE_SECONDS: Final = 30.0
"""Bounds every wait of a test; a busy machine makes it slow, not wrong."""
PATH: Final = "/test.Service/Method"
STREAM: Final = "/test.Service/Stream"
DUPLEX: Final = "/test.Service/Duplex"
ASK: Final = pb.GetJobRequest(job_id="x").SerializeToString()


def unary(handler: Callable[[pb.GetJobRequest], Awaitable[Message]]) -> Methods:
    """Return a table with one unary method."""
    return lambda calls, _streams: [UnaryMethod(PATH, pb.GetJobRequest, calls, handler)]


def stream(
    handler: Callable[[pb.GetJobRequest, Callable[[Message], Awaitable[None]]], Awaitable[None]],
    answer: Callable[[pb.GetJobRequest], Awaitable[Message]] | None = None,
) -> Methods:
    """Return a table with one stream, and a unary method if there is a handler for it."""

    def table(calls: trio.Nursery, streams: trio.Nursery) -> list[Method]:
        methods: list[Method] = [StreamMethod(STREAM, pb.GetJobRequest, streams, handler)]
        return methods if answer is None else [*methods, UnaryMethod(PATH, pb.GetJobRequest, calls, answer)]

    return table


def duplex(
    handler: Callable[[Requests[pb.GetJobRequest], Callable[[Message], Awaitable[None]]], Awaitable[None]],
) -> Methods:
    """Return a table with one method whose client streams too."""
    return lambda _calls, streams: [DuplexMethod(DUPLEX, pb.GetJobRequest, streams, handler)]


def batched(handler: Callable[[Sequence[pb.GetJobRequest]], Awaitable[Sequence[Message | GopherError]]]) -> Methods:
    """Return a table with one batched method."""
    return lambda calls, _streams: [BatchedMethod(PATH, pb.GetJobRequest, calls, handler)]


def raw_unary(channel: grpc.Channel, path: str = PATH) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    """Return what calls a unary method with bytes."""
    return channel.unary_unary(path)


def raw_stream(channel: grpc.Channel, path: str = STREAM) -> grpc.UnaryStreamMultiCallable[bytes, bytes]:
    """Return what calls a stream with bytes."""
    return channel.unary_stream(path)


def raw_stream_stream(channel: grpc.Channel, path: str = DUPLEX) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
    """Return what calls a method that is a stream both ways with bytes."""
    return channel.stream_stream(path)


@dataclass
class Rig:
    """A running server and a channel to it."""

    server: GrpcServer
    address: str
    channel: grpc.Channel
    stopped: trio.Event

    async def ask(self, request: bytes = ASK, *, path: str = PATH, deadline_seconds: float | None = None) -> bytes:
        """Make a unary call; cancelling this cancels the call.

        Raises:
            GopherError: What the call ended with.
        """
        return await ask(self.channel, request, path=path, deadline_seconds=deadline_seconds)


async def ask(channel: grpc.Channel, request: bytes = ASK, *, path: str = PATH, deadline_seconds: float | None = None) -> bytes:
    """Make a unary call over a channel."""
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    call = raw_unary(channel, path).future(request, timeout=deadline_seconds)

    def tell(_call: object) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    call.add_done_callback(tell)
    try:
        await ended.wait()
    except trio.Cancelled:
        call.cancel()
        raise
    try:
        return bytes(call.result())
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


@asynccontextmanager
async def serving(
    methods: Methods,
    *,
    limits: Limits | None = None,
    grace_seconds: float = PATIENCE_SECONDS,
    reflected: Sequence[str] = (),
    channelz: bool = False,
    on_stop: Callable[[], None] = lambda: None,
) -> AsyncIterator[Rig]:
    """Serve the methods while the block lasts."""
    server = GrpcServer(
        "127.0.0.1:0",
        methods,
        limits=limits or Limits(),
        grace_seconds=grace_seconds,
        reflected=reflected,
        channelz=channelz,
        on_stop=on_stop,
    )
    stopped = trio.Event()

    async def tell_end(running: Awaitable[None]) -> None:
        await running
        stopped.set()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(lambda task_status: tell_end(server.run(task_status=task_status)))
        # Only the test is bounded here: what the server runs must have no deadline but its own.
        with trio.fail_after(PATIENCE_SECONDS), grpc.insecure_channel(address) as channel:
            await trio.lowlevel.checkpoint()
            yield Rig(server, address, channel, stopped)
        server.stop()
        nursery.cancel_scope.deadline = trio.current_time() + PATIENCE_SECONDS
