"""gRPC reflection: tells tools such as grpcurl which services there are and what their messages hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, aio

if TYPE_CHECKING:
    from collections.abc import Sequence

V1ALPHA: Final[str] = SERVICE_NAME
V1: Final = "grpc.reflection.v1.ServerReflection"
"""Its messages are those of v1alpha, which is all that grpcio-reflection brings."""


def handlers(services: Sequence[str]) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """Return the handlers by path: one for each version that clients ask for; none when there is nothing to tell.

    Args:
        services: Full names of those to tell of.
    """
    if not services:
        return {}
    handler: object = grpc.stream_stream_rpc_method_handler(
        aio.ReflectionServicer([*services, V1ALPHA]).ServerReflectionInfo,
        request_deserializer=_parse,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    # Seen from outside it takes and gives bytes.
    of_bytes = cast("grpc.RpcMethodHandler[bytes, bytes]", handler)
    return {f"/{service}/ServerReflectionInfo": of_bytes for service in (V1, V1ALPHA)}


def _parse(request: bytes) -> reflection_pb2.ServerReflectionRequest:
    """Return the request; bytes that are none ask for nothing, which the servicer answers with INVALID_ARGUMENT."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(request)
    except DecodeError:
        return reflection_pb2.ServerReflectionRequest()
