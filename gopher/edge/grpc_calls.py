"""What gRPC's thread does with each rpc: makes a `Call` of it, and a status of a reply that is not bytes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Self, TypeAlias, cast

import grpc
import grpc.aio

from gopher.edge.duplex import DuplexCall
from gopher.edge.handover import StreamCall, UnaryCall
from gopher.edge.interceptors import DEFAULT_SECONDS, LONGEST_SECONDS, expired
from gopher.telemetry import tracing
from gopher.wire.status import CODE_BY_NUMBER, DETAILS_KEY, TooManyCallsError, to_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.rpc.status_pb2 import Status

    from gopher.edge.handover import Handover, Reply
    from gopher.edge.interceptors import Method
    from gopher.telemetry.histogram import Durations

    Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
    Handlers: TypeAlias = dict[str, grpc.RpcMethodHandler[bytes, bytes]]


class Places:
    """How many unary calls may still be taken on; used in gRPC's thread alone.

    Args:
        count: When none is under way.
    """

    __slots__ = ("left",)

    def __init__(self, count: int) -> None:
        self.left = count


def handlers_of(handover: Handover, methods: Sequence[Method], durations: Durations, places: Places) -> Handlers:
    """Return a handler a method. They take and give bytes, so that bytes which are no message are ours to refuse."""
    return {method.path: _handler(handover, method, durations, places) for method in methods}


def _handler(handover: Handover, method: Method, durations: Durations, places: Places) -> grpc.RpcMethodHandler[bytes, bytes]:
    if method.is_duplex:
        return grpc.stream_stream_rpc_method_handler(_duplex_handler(handover, method, durations))
    if method.is_stream:
        return grpc.unary_stream_rpc_method_handler(_stream_handler(handover, method, durations))
    return grpc.unary_unary_rpc_method_handler(_unary_handler(handover, method, durations, places))


def _unary_handler(
    handover: Handover, method: Method, durations: Durations, places: Places
) -> Callable[[bytes, Context], object]:
    accept = method.accept

    async def handle(request: bytes, context: Context) -> bytes:
        remaining_seconds = _remaining_seconds(context)
        left_seconds = DEFAULT_SECONDS if remaining_seconds is None else min(remaining_seconds, LONGEST_SECONDS)
        if left_seconds <= 0:
            return refuse(context, expired())
        if places.left <= 0:
            return refuse(context, to_status(TooManyCallsError()))
        call = UnaryCall(handover, accept, request, left_seconds, _traceparent(context))
        places.left -= 1
        try:
            with _Timing(durations, method) as timing:
                reply = await call.answer()
                timing.end(reply)
        finally:
            places.left += 1
        return reply if isinstance(reply, bytes) else refuse(context, reply)

    return handle


def _stream_handler(handover: Handover, method: Method, durations: Durations) -> Callable[[bytes, Context], object]:
    accept = method.accept

    async def handle(request: bytes, context: Context) -> None:
        remaining_seconds = _remaining_seconds(context)
        left_seconds = math.inf if remaining_seconds is None else remaining_seconds
        call = StreamCall(handover, accept, request, left_seconds, _traceparent(context))
        with _Timing(durations, method) as timing:
            reply = await call.stream(context.write)
            timing.end(reply)
        if not isinstance(reply, bytes):
            refuse(context, reply)

    return handle


def _duplex_handler(handover: Handover, method: Method, durations: Durations) -> Callable[[object, Context], object]:
    accept = method.accept

    async def handle(_requests: object, context: Context) -> None:
        remaining_seconds = _remaining_seconds(context)
        left_seconds = math.inf if remaining_seconds is None else remaining_seconds
        call = DuplexCall(handover, accept, left_seconds, _traceparent(context))

        async def read() -> bytes | None:
            try:
                message = cast("object", await context.read())  # grpc's stubs do not know of EOF
            except grpc.aio.UsageError:
                # The call has been answered meanwhile.
                return None
            return message if isinstance(message, bytes) else None

        with _Timing(durations, method) as timing:
            reply = await call.converse(read, context.write)
            timing.end(reply)
        if not isinstance(reply, bytes):
            refuse(context, reply)

    return handle


class _Timing:
    """Counts how long a call takes, and with which code it ends; CANCELLED when its client does not wait for that."""

    __slots__ = ("_began_at", "_code", "_durations", "_method")

    def __init__(self, durations: Durations, method: Method) -> None:
        self._durations = durations
        self._method = method.path[1:]
        self._code = grpc.StatusCode.CANCELLED.name
        self._began_at = time.perf_counter()

    def end(self, reply: Reply) -> None:
        """Note how the call was answered."""
        self._code = grpc.StatusCode.OK.name if isinstance(reply, bytes) else CODE_BY_NUMBER[reply.code].name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._durations.observe((self._method, self._code), time.perf_counter() - self._began_at)


def _remaining_seconds(context: Context) -> float | None:
    """Return the time until the caller's deadline; None when it set none, which grpc's stubs do not know."""
    return cast("float | None", context.time_remaining())


def _traceparent(context: Context) -> str | None:
    """Return the caller's trace context, where this process traces."""
    if not tracing.is_on():
        return None
    for key, value in context.invocation_metadata() or ():
        if key == tracing.TRACEPARENT and isinstance(value, str):
            return value
    return None


def refuse(context: Context, status: Status) -> bytes:
    """End an rpc with a status that is not OK; return what stands for its response."""
    context.set_code(CODE_BY_NUMBER[status.code])
    context.set_details(status.message)
    context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
    return b""
