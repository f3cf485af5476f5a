"""What the clients share below the messages: the channel's options, the credentials, and the errors of gRPC in Gopher's words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import grpc

from gopher.errors import CallExpiredError, GopherError, StoreUnavailableError
from gopher.telemetry import tracing
from gopher.wire import status
from gopher.wire.keepalive import keepalive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"

CALL_SECONDS: Final = 30.0
"""Deadline of a call where the caller sets none; the server's own."""

OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # Chosen: a page of 100 jobs at their largest is 32 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A server that restarts is found again within a fraction of a second, not after gRPC's 20 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Chosen: streams of the server tell something every 12 s, and it lets us ask every 10 s.
    *keepalive(quiet_seconds=20, answer_seconds=10),
    ("grpc.http2.max_pings_without_data", 0),
    # Each client its own connection: one of them closed must not end another's calls.
    ("grpc.use_local_subchannel_pool", 1),
)

_CUT_IN_MID_WRITE: Final = "Internal error from Core"
"""What grpc.aio says of a stream whose connection breaks while a request is written."""
_CUT_ON_THE_WAY: Final = "Stream removed (RST_STREAM"
"""What gRPC says of a call that was reset with no status, as by a proxy that ends what was idle for too long."""

_HTTP_SIGNS: Final = ("http1.x server", "Received http2 header with status: 404")
"""In what gRPC says of a call that was answered by a server of plain HTTP."""


class ServerUnreachableError(StoreUnavailableError):
    """No server answers at the address: the way to Redis is cut before it."""

    reason = "SERVER_UNREACHABLE"


class NotGrpcError(GopherError):
    """What answers at the address does not speak gRPC."""

    reason = "NOT_GRPC"


class CallEndedError(GopherError):
    """The call was ended on this side, by closing the client or cancelling what waited for it."""

    reason = "CALL_ENDED"


Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]


def metadata_for(token: str | None) -> Metadata:
    """Return the metadata of each call."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


@contextmanager
def traced(path: str, metadata: Metadata) -> Iterator[Metadata]:
    """Record a call, where the program traces; gives the metadata to send, with the trace context in it."""
    with tracing.call_span(path) as traceparent:
        yield metadata if traceparent is None else (*metadata, (tracing.TRACEPARENT, traceparent))


def error_of(error: grpc.RpcError, address: str) -> GopherError:
    """Return the error that a call ended with: the server's own, or what became of the call on its way.

    Args:
        error: As gRPC raised it.
        address: Of the server, for the message.
    """
    call = cast("grpc.Call", error)  # what gRPC raises is also the call
    found = status.from_rpc_error(error)
    code, details = call.code(), call.details() or ""
    if found.reason != code.name:
        return found
    if any(sign in details for sign in _HTTP_SIGNS):
        return NotGrpcError(
            f"{address} speaks HTTP, not gRPC: is it the server's HTTP port? gRPC is on port 50051 unless told otherwise"
        )
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            cause = details.rpartition(": ")[2]
            return ServerUnreachableError(f"no server answers at {address}: {cause}", outcome_unknown=True)
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.CANCELLED if details == _CUT_IN_MID_WRITE or details.startswith(
            _CUT_ON_THE_WAY
        ):
            return ServerUnreachableError(f"the connection to {address} was cut", outcome_unknown=True)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return CallExpiredError(f"the server at {address} did not answer in time")
        case grpc.StatusCode.CANCELLED:
            return CallEndedError("the call was ended before its answer")
        case _:
            plain = GopherError(f"{details} ({code.name}, server {address})")
            vars(plain)["reason"] = code.name
            return plain
