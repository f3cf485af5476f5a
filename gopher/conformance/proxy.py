"""A TCP proxy that cuts connections, or lets nothing through them, when told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable

_CHUNK_BYTES: Final = 65_536


class Proxy:
    """Stands before one server.

    Args:
        target: `HOST:PORT` of the server.
    """

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._connections: set[trio.CancelScope] = set()
        self._is_cut = False
        self._may_flow = trio.Event()
        self._may_flow.set()

    def __len__(self) -> int:
        """Connections that stand."""
        return len(self._connections)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; report the address."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()[:2]
        task_status.started(f"{host}:{port}")
        await trio.serve_listeners(self._serve, listeners)

    def cut(self) -> None:
        """End every connection, and each that is made from now on."""
        self._is_cut = True
        for scope in list(self._connections):
            scope.cancel(reason="cut")

    def silence(self) -> None:
        """Let nothing through from now on; connections stand, as to a machine that has lost its network."""
        self._may_flow = trio.Event()

    def restore(self) -> None:
        """Let all through again."""
        self._is_cut = False
        self._may_flow.set()

    async def _serve(self, client: trio.SocketStream) -> None:
        if self._is_cut:
            return
        try:
            async with await trio.open_tcp_stream(self._host, self._port) as server:
                with trio.CancelScope() as scope:
                    self._connections.add(scope)
                    try:
                        await _first_to_end(self._carry(client, server), self._carry(server, client))
                    finally:
                        self._connections.discard(scope)
        except OSError:
            # The server is gone: the client finds its connection closed.
            pass

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await self._may_flow.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def _first_to_end(*ways: Awaitable[None]) -> None:
    # While either side of a connection stands.
    async with trio.open_nursery() as nursery:

        async def carry(way: Awaitable[None]) -> None:
            await way
            nursery.cancel_scope.cancel(reason="one side has ended")

        for way in ways:
            nursery.start_soon(carry, way)
