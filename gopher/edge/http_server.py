"""HTTP/1.1 for an ASGI application, on Trio: its addresses, its bounds, its start and its stop.

Every connection is contained: whatever happens in one ends that one, with a line in the log.
"""

from __future__ import annotations

import math
import resource
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.config import join_address, split_address
from gopher.edge.http_connection import Connection, log_failure
from gopher.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

GRACE_SECONDS: Final = 2.0
"""How long a stop lets requests finish; chosen: nearly each is answered at once, and one that waits may be repeated."""
NO_ROOM_SECONDS: Final = 0.1
"""Between two attempts to accept while the system has no descriptor or memory left; as `trio.serve_listeners` has it."""
COMPLAINT_SECONDS: Final = 10.0
"""Between two lines of log about that."""
MAX_CONNECTIONS: Final = 4096


_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class HttpServer:
    """Serves an application.

    Args:
        app: The application.
        address: `HOST:PORT`; port 0 picks a free one.
        head_seconds: How long the head of a request may take, and a connection may do nothing.
    """

    def __init__(self, app: ASGIApp, address: str, *, head_seconds: float) -> None:
        self._app = app
        self._address = address
        self._head_seconds = head_seconds
        self._places = trio.Semaphore(_most_connections())
        self._connections: set[Connection] = set()
        self._stopping = trio.Event()
        self._complained_at = -math.inf

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until told to stop; report the address.

        Raises:
            StartError: The address cannot be used.
        """
        listeners = await _listen(self._address)
        # While the server serves.
        async with trio.open_nursery() as serving:
            # While it takes connections.
            async with trio.open_nursery() as accepting:
                for each in listeners:
                    accepting.start_soon(self._accept, each, serving)
                task_status.started(_name(listeners[0]))
                await self._stopping.wait()
                accepting.cancel_scope.cancel(reason="the server stops")
            for connection in self._connections:
                connection.end_when_idle()
            serving.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS

    def stop(self) -> None:
        """Begin to stop; `run` returns when the last request is answered, at the latest when the grace is over."""
        self._stopping.set()

    async def _accept(self, listener: trio.SocketListener, serving: trio.Nursery) -> None:
        async with listener:
            while True:
                await self._places.acquire()
                serving.start_soon(self._contain, await self._next(listener))

    async def _next(self, listener: trio.SocketListener) -> trio.SocketStream:
        while True:
            try:
                return await listener.accept()
            except OSError as error:
                if trio.current_time() >= self._complained_at + COMPLAINT_SECONDS:
                    self._complained_at = trio.current_time()
                    _log.error("http.cannot_accept", error=error.strerror or str(error), again_seconds=NO_ROOM_SECONDS)
                await trio.sleep(NO_ROOM_SECONDS)

    async def _contain(self, stream: trio.SocketStream) -> None:
        """Serve a connection; nothing that goes wrong in it reaches the others."""
        connection = Connection(stream, self._app, self._head_seconds)
        self._connections.add(connection)
        try:
            await connection.run()
        except BaseException as error:  # noqa: BLE001, ASYNC103 - nothing follows in this task; if the server is cancelled it ends too
            if trio.current_effective_deadline() > -math.inf:
                log_failure("http.connection_failed", error)
        finally:
            self._connections.discard(connection)
            self._places.release()
            stream.socket.close()


async def _listen(address: str) -> Sequence[trio.SocketListener]:
    host, port = split_address(address)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}") from error
    # Of a name with several addresses, each would be given a free port of its own.
    for surplus in listeners[1:] if port == 0 else ():
        await surplus.aclose()
    return listeners[:1] if port == 0 else listeners


def _name(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return join_address(host, port)


def _most_connections() -> int:
    """Return a bound that leaves half of the process's descriptors to gRPC and Redis."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 2))
