"""A TCP proxy that cuts connections in the middle of what they carry, or carries nothing more and says so to nobody."""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINGER: Final = struct.pack("ii", 1, 0)
"""On, for 0 s: a close sends a reset, as a cable that is pulled or a balancer that has had enough."""


class CuttingProxy:
    """Passes bytes on to a server; cuts each connection once it has carried a random number of them, until it has cut often enough.

    Attributes:
        cuts: How many connections were cut so far.

    Args:
        target: `host:port` of the server.
        cuts: How many to cut.
        at_bytes: When to cut: bytes from the server, at the least and at the most.
        seed: Of the random numbers.
    """

    def __init__(self, target: str, *, cuts: int, at_bytes: tuple[int, int], seed: int) -> None:
        self.cuts = 0
        self.address = ""
        self._carrying: list[trio.CancelScope] = []
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._most = cuts
        self._lengths = _lengths(random.Random(seed), *at_bytes)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.start_soon(trio.serve_listeners, self._carry, [listener])
            task_status.started()

    def silence(self) -> None:
        """Carry nothing more on the connections that there are, and leave them open; later ones are carried."""
        for scope in self._carrying:
            scope.cancel()

    async def _carry(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream(*self._target)
        except OSError:
            await client.aclose()
            return
        async with client, server:
            with trio.CancelScope() as carrying:
                self._carrying.append(carrying)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, client, server, nursery.cancel_scope)
                    await self._pump_until_cut(server, client)
                    nursery.cancel_scope.cancel()
            if carrying.cancelled_caught:
                await trio.sleep_forever()

    async def _pump_until_cut(self, server: trio.SocketStream, client: trio.SocketStream) -> None:
        left = next(self._lengths)
        try:
            async for chunk in server:
                if len(chunk) > left and self.cuts < self._most:
                    self.cuts += 1
                    await client.send_all(chunk[:left])
                    for stream in (client, server):
                        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                    return
                left -= len(chunk)
                await client.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def _lengths(source: random.Random, least: int, most: int) -> Iterator[int]:
    while True:
        yield source.randint(least, most)


async def _pump(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        async for chunk in source:
            await target.send_all(chunk)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()
