"""gRPC: `grpc.aio` on uvloop in a thread of its own; its limits, its start and its stop.

`GrpcServer` is the Trio side. Every handler runs in one of its two nurseries. When it is told to stop, the health service says so
first, gRPC takes no more calls, unary calls get the grace and are then cancelled, and the streams, which may go on for days, end
when no unary call is left. Only when both nurseries have closed, so when every handler has ended, is gRPC's thread let go:
`grpc.aio` itself may return from its stop before that (grpc/grpc#37239).

`_Host` is the other side, asyncio's; `grpc_calls` is what it does with each rpc.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog
import trio
import uvloop

from gopher.config import join_address, split_address
from gopher.edge import channelz as channelz_service
from gopher.edge import reflection
from gopher.edge.grpc_calls import Places, handlers_of
from gopher.edge.handover import Handover
from gopher.errors import StartError
from gopher.telemetry.histogram import Durations
from gopher.wire.keepalive import keepalive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gopher.edge.grpc_calls import Handlers
    from gopher.edge.interceptors import Method

FLUSH_SECONDS: Final = 2.0
"""How long the last replies may take to leave; then their connections are cut."""
THREAD_SECONDS: Final = 3.0
"""How long gRPC's thread may take to end after that."""

WINDOW_BYTES: Final = 256 * 1024
"""Of what a stream may send before it is read. Measured: at 64 KiB, gRPC's default, a SubmitJobStream with 5 KB a job is a third slower."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may ask of this server at once.

    Attributes:
        message_bytes: Largest request, also after decompression.
        calls: Calls under way, of all clients: ten thousand watchers, idle nearly always, and what else there is. An idle stream takes
            some 30 KB, most of it gRPC's; and one that is not read holds no more than its unsent messages.
        unary_calls: Of these, unary ones: each holds a whole request, and each is work that is waiting.
        streams_a_connection: Calls under way, of one connection.
        quiet_seconds: A connection that sends nothing for so long is asked for a sign of life.
        answer_seconds: How long that may take; then the connection is gone, and its calls are cancelled.
        ping_interval_ms: How soon after one another a client may ask for a sign of life; what it asks oftener ends its connection.
    """

    message_bytes: int = 1024 * 1024
    calls: int = 16_384
    unary_calls: int = 4096
    streams_a_connection: int = 100
    quiet_seconds: int = 30
    answer_seconds: int = 10
    ping_interval_ms: int = 10_000

    def options(self) -> list[tuple[str, int]]:
        """Return gRPC's options."""
        return [
            ("grpc.so_reuseport", 0),  # else a second server on the same port would silently share it
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_concurrent_streams", self.streams_a_connection),
            # On, which is gRPC's default, a stream's window grows with the speed of its client, also where nobody takes what it sends
            # (measured: 30 to 60 MB each). Off it is this, and for a message that is being read as much as that takes.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            # On, which is gRPC's default, it also counts streams that the client has seen the end of, and refuses calls of an honest
            # client with more than the limit to send (measured: 300 callers at a limit of 100 had 4,800 of 6,000 calls refused).
            ("grpc.http.overload_protection", 0),
            # Of calls that have not come to our thread yet gRPC cancels some at random from 1,000 on, so that a rush of 1,500 clients
            # has had 1 % of its calls ended as CANCELLED (measured). What is too many is to be refused by name instead, by `calls`.
            ("grpc.server.max_pending_requests", self.calls),
            ("grpc.server.max_pending_requests_hard_limit", self.calls),
            ("grpc.max_metadata_size", 8 * 1024),
            ("grpc.absolute_max_metadata_size", 16 * 1024),
            # What a server heeds as the shortest interval between the pings it receives, whatever its name says; 5 minutes unless set.
            ("grpc.http2.min_ping_interval_without_data_ms", self.ping_interval_ms),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.keepalive_permit_without_calls", 1),
            *keepalive(quiet_seconds=self.quiet_seconds, answer_seconds=self.answer_seconds),
            ("grpc.max_connection_idle_ms", 300_000),
            # New calls then go to another connection, and so maybe to another server. Streams of the old one stay, without a grace
            # that would cut them: a RunJob that is cut is a job that is cancelled.
            ("grpc.max_connection_age_ms", 1_800_000),
        ]


class GrpcServer:
    """Serves a table of methods over gRPC.

    Args:
        address: `HOST:PORT`; port 0 picks a free one.
        methods: Makes the table, given the nursery of the unary calls and that of the streams.
        limits: What clients may ask at once.
        grace_seconds: How long a stop lets unary calls finish.
        reflected: Full names of the services that reflection tells of; none: no reflection.
        channelz: Whether to tell of sockets, calls and channels.
        on_stop: Called when the stop begins.
        durations: Where the time that calls took is counted, by method and code.
    """

    def __init__(
        self,
        address: str,
        methods: Callable[[trio.Nursery, trio.Nursery], Sequence[Method]],
        *,
        limits: Limits,
        grace_seconds: float,
        reflected: Sequence[str] = (),
        channelz: bool = False,
        on_stop: Callable[[], None] = lambda: None,
        durations: Durations | None = None,
    ) -> None:
        self._address = address
        self._methods = methods
        self._limits = limits
        self._grace_seconds = grace_seconds
        self._tools = reflection.handlers(reflected) | (channelz_service.handlers() if channelz else {})
        self._on_stop = on_stop
        self._durations = Durations() if durations is None else durations
        self._stopping = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until told to stop; report the address.

        Raises:
            StartError: The address cannot be used.

        Cancellation:
            All handlers are cancelled at once, and awaited; their callers are told that the server stops.
        """
        host = await _require_free(self._address)
        grpc_host = _Host(self._address, self._limits, self._durations)
        try:
            # While the server serves.
            async with trio.open_nursery() as streams:
                async with trio.open_nursery() as calls:
                    port = await grpc_host.start(self._methods(calls, streams), self._tools)
                    streams.start_soon(grpc_host.watch)
                    task_status.started(join_address(host, port))
                    await self._stopping.wait()
                    self._on_stop()
                    grpc_host.refuse_calls(self._grace_seconds + FLUSH_SECONDS)
                    calls.cancel_scope.deadline = trio.current_time() + self._grace_seconds
                streams.cancel_scope.cancel(reason="the server stops")
        finally:
            # Also when this is cancelled gRPC's thread must not outlive its handlers' nurseries; bounded, should it hang.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_SECONDS + THREAD_SECONDS):
                await grpc_host.end()

    def stop(self) -> None:
        """Begin to stop; `run` returns when every handler has ended."""
        self._stopping.set()


async def _require_free(address: str) -> str:
    """Return the host of an address that can be listened on. gRPC would say in several lines of its own that it cannot.

    Raises:
        StartError: It cannot.
    """
    host, port = split_address(address)
    try:
        for listener in await trio.open_tcp_listeners(port, host=host):
            await listener.aclose()
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}") from error
    return host


class _Host:
    """gRPC's thread, as seen from Trio (`start`, `watch`, `refuse_calls`, `end`), and what runs in it."""

    def __init__(self, address: str, limits: Limits, durations: Durations) -> None:
        self._durations = durations
        self._address = address
        self._limits = limits
        self._token = trio.lowlevel.current_trio_token()
        self._started = trio.Event()
        self._ended = trio.Event()
        self._error: Exception | None = None
        self._port = 0
        # Made in the thread, before `_started` is set.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grace_seconds: asyncio.Future[float]
        self._release: asyncio.Event

    async def start(self, methods: Sequence[Method], tools: Handlers) -> int:
        """Start the thread and return the port on which gRPC listens; `tools` are served in the thread itself."""
        threading.Thread(target=self._run, args=(methods, tools), name="grpc", daemon=True).start()
        await self._started.wait()
        if self._error is not None:
            raise self._error
        return self._port

    async def watch(self) -> None:
        """Wait for the thread to end.

        Raises:
            Exception: What it ended of.
        """
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def refuse_calls(self, grace_seconds: float) -> None:
        """Take no more calls; those under way may go on for the grace."""
        self._post(lambda: self._set_grace(grace_seconds))

    async def end(self) -> None:
        """Let the thread end, and wait for that; every handler has ended before."""
        if self._loop is None:
            return
        self.refuse_calls(FLUSH_SECONDS)
        self._post(self._release.set)
        try:
            await self._ended.wait()
        except trio.Cancelled:
            _log.error("grpc.thread_stuck")
            raise

    def _post(self, act: Callable[[], object]) -> None:
        # A loop that has ended already needs no telling.
        with suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(act)

    # --- in gRPC's thread ---

    def _run(self, methods: Sequence[Method], tools: Handlers) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(methods, tools))
        except Exception as error:  # noqa: BLE001 - it is raised again where the thread was started
            self._error = error
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended.set)
                self._token.run_sync_soon(self._started.set)

    def _set_grace(self, grace_seconds: float) -> None:
        if not self._grace_seconds.done():
            self._grace_seconds.set_result(grace_seconds)

    async def _serve(self, methods: Sequence[Method], tools: Handlers) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_stray)
        self._grace_seconds, self._release = loop.create_future(), asyncio.Event()
        handlers = handlers_of(Handover(self._token, loop), methods, self._durations, Places(self._limits.unary_calls)) | tools
        server = grpc.aio.server(options=self._limits.options(), maximum_concurrent_rpcs=self._limits.calls)
        server.add_generic_rpc_handlers([_Router(handlers)])
        try:
            self._port = server.add_insecure_port(join_address(*split_address(self._address)))
        except RuntimeError as error:
            raise StartError(f"cannot listen on {self._address}: gRPC cannot bind it") from error
        await server.start()
        self._loop = loop
        self._token.run_sync_soon(self._started.set)
        stopping = loop.create_task(server.stop(await self._grace_seconds))
        await self._release.wait()
        # The last replies leave; whoever does not take his is cut off, however long the grace was.
        await server.stop(FLUSH_SECONDS)
        await stopping


class _Router(grpc.GenericRpcHandler):
    """Finds the handler of a method by its path; gRPC answers UNIMPLEMENTED where there is none."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler."""
        return self._handlers.get(handler_call_details.method)


def _log_stray(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log what no coroutine has caught; gRPC's own wake-ups raise BlockingIOError now and then (grpc/grpc#25364), which is nothing."""
    error = context.get("exception")
    if not isinstance(error, BlockingIOError):
        _log.error("grpc.stray_error", message=str(context.get("message")), exc_info=error)
