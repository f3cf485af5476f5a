"""channelz: tells tools such as grpcdebug of this server's sockets and calls, and of the channels that this process has open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import aio

from gopher.edge.grpc_calls import refuse
from gopher.errors import invalid
from gopher.wire.status import to_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from gopher.edge.grpc_calls import Context, Handlers

    Serve = Callable[[Message, Context], Awaitable[Message]]

SERVICE: Final = "grpc.channelz.v1.Channelz"


def handlers() -> Handlers:
    """Return the handlers by path."""
    service = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
    return {
        f"/{SERVICE}/{method.name}": grpc.unary_unary_rpc_method_handler(_handler(method.name, method.input_type.name))
        for method in service.methods
    }


def _handler(name: str, request_name: str) -> Callable[[bytes, Context], object]:
    """Return a handler that takes and gives bytes, so that bytes which are no message are refused as everywhere."""
    serve = cast("Serve", getattr(aio.ChannelzServicer, name))
    request_type = cast("type[Message]", getattr(channelz_pb2, request_name))

    async def handle(request: bytes, context: Context) -> bytes:
        try:
            message = request_type.FromString(request)
        except DecodeError:
            expected = f"is not a valid {request_type.DESCRIPTOR.full_name}"
            return refuse(context, to_status(invalid("request", "MALFORMED_MESSAGE", expected)))
        return (await serve(message, context)).SerializeToString()

    return handle
