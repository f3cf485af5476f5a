"""The worker's and the server's way to Redis: a connection for commands, and another for subscriptions.

`Link.run` owns both; `call` and `subscribe` may be used from any number of Trio tasks meanwhile. See `Connection` for what becomes of
calls when one breaks.

Subscriptions have a connection of their own, made with the first of them. Redis closes a subscriber's connection when more than 32 MB
of replies wait for it (`client-output-buffer-limit pubsub`), and replies to commands may be that large together; to a connection
without subscriptions it sets no limit. The two stand and fall together in one direction: when the one for commands breaks, Redis may
have failed over, so the other is made anew as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

import trio

from gopher.store.connection import Connection
from gopher.store.transport import Address
from gopher.telemetry.histogram import Durations

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.transport import Transport


class _Terms(TypedDict):
    """What both connections are given."""

    client_name: str
    connect_grace_seconds: float
    reply_seconds: float
    max_unanswered: int


class Link(Connection):
    """A way to one redis-server.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as `Address.from_url` reads it.
        client_name: What `CLIENT LIST` shows; no spaces.
        connect_grace_seconds: How long a call, and the first connect, waits for a connection, > 0.
        reply_seconds: How long Redis may be silent while it owes a reply, > 0; also bounds each attempt to connect.
        max_unanswered: From how many commands without a reply on callers wait; one batch may go beyond it.

    Raises:
        StartError: The URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        client_name: str = "gopher",
        connect_grace_seconds: float = 5.0,
        reply_seconds: float = 5.0,
        max_unanswered: int = 4096,
    ) -> None:
        address = Address.from_url(url)
        terms = _Terms(
            client_name=client_name,
            connect_grace_seconds=connect_grace_seconds,
            reply_seconds=reply_seconds,
            max_unanswered=max_unanswered,
        )
        super().__init__(address, **terms)
        self.script_durations = Durations()
        self._subscriber = _Subscriber(self, address, **terms)
        self._subscriber.on_reconnect = self.on_reconnect
        self._has_subscribed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, report that calls are answered, and keep the connections until cancelled.

        Raises:
            StoreUnavailableError: Nobody answered within the grace, at the first connect.
            StoreError: Redis refused us, at the first connect.
        """
        try:
            transport = await self.connect_first()
            task_status.started()
            # While there is a connection for commands.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_subscriber)
                await self.keep(transport)
        finally:
            self.close()
            self._subscriber.close()

    async def subscribe(self, channel: bytes, handler: Callable[[bytes], None]) -> None:
        """Do as `Connection.subscribe`, over the connection for subscriptions."""
        self._has_subscribed.set()
        await self._subscriber.subscribe(channel, handler)

    async def unsubscribe(self, channel: bytes, handler: Callable[[bytes], None]) -> None:
        """Do as `Connection.unsubscribe`, over the connection for subscriptions."""
        await self._subscriber.unsubscribe(channel, handler)

    def note_renewed(self) -> None:
        """Call the hooks, unless the other connection does once its subscriptions are confirmed."""
        if not self._has_subscribed.is_set():
            super().note_renewed()

    def note_broken(self) -> None:
        """Have the other connection made anew: Redis may have failed over."""
        self._subscriber.break_off("the connection for commands broke")

    async def _keep_subscriber(self) -> None:
        await self._has_subscribed.wait()
        await self._subscriber.keep_patiently()


class _Subscriber(Connection):
    """The connection for subscriptions. It is made only while there is one for commands, which all that its news wakes will use."""

    def __init__(self, commands: Link, address: Address, **terms: Unpack[_Terms]) -> None:
        super().__init__(address, **terms)
        self._commands = commands

    async def _connect(self, within_seconds: float) -> Transport:
        await self._commands.wait_connected()
        return await super()._connect(within_seconds)
