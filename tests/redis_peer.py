"""A server in place of Redis that says what a test tells it to say, byte for byte, and is silent when told to be."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import hiredis
import trio

from gopher.errors import StoreError
from gopher.store.connection import Connection
from gopher.store.link import Link
from gopher.store.transport import Address

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gopher.store.resp import Reply

WELCOME: Final = b"%1\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n+OK\r\n"
"""What Redis says to HELLO and SELECT."""


class Conversation:
    """One connection, seen from the server's side."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self._parser = hiredis.Reader(notEnoughData=self)

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hear(self) -> list[bytes]:
        """Wait for the next command."""
        while (command := self._parser.gets()) is self:
            data = await self.stream.receive_some(1 << 20)
            if not data:
                raise EOFError
            self._parser.feed(bytes(data))
        return command if isinstance(command, list) else [command]

    async def welcome(self) -> None:
        """Take the greeting and answer it as Redis does."""
        assert (await self.hear())[0] == b"HELLO"
        assert (await self.hear())[0] == b"SELECT"
        await self.say(WELCOME)

    async def hang_up(self) -> None:
        await trio.aclose_forcefully(self.stream)


class Peer:
    """A listener on the loopback address whose connections the test takes one by one."""

    def __init__(self, listener: trio.SocketListener, tls: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._tls = tls
        self.port = listener.socket.getsockname()[1]
        self.url = f"{'rediss' if tls else 'redis'}://127.0.0.1:{self.port}"
        self._conversations: list[Conversation] = []

    async def accept(self) -> Conversation:
        """Wait for the next connection and say nothing."""
        stream = await self._listener.accept()
        conversation = Conversation(
            stream if self._tls is None else trio.SSLStream(stream, self._tls, server_side=True),
        )
        self._conversations.append(conversation)
        return conversation

    async def welcome(self) -> Conversation:
        """Wait for the next connection and answer its greeting."""
        conversation = await self.accept()
        await conversation.welcome()
        return conversation

    async def aclose(self) -> None:
        await self._listener.aclose()
        for conversation in self._conversations:
            await conversation.hang_up()


@asynccontextmanager
async def open_peer(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Listen on a free port while the block runs."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer = Peer(listener, tls)
    try:
        yield peer
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):  # closing is local: it waits for nobody
            await peer.aclose()


@asynccontextmanager
async def open_linked_peer(
    *,
    client_name: str = "gopher",
    connect_grace_seconds: float = 5.0,
    reply_seconds: float = 60.0,
    max_unanswered: int = 4096,
) -> AsyncIterator[tuple[Link, Peer, Conversation]]:
    """Run a link while the block runs, with a peer at its other end that has welcomed it."""
    async with open_peer() as peer, trio.open_nursery() as nursery:
        link = Link(
            peer.url,
            client_name=client_name,
            connect_grace_seconds=connect_grace_seconds,
            reply_seconds=reply_seconds,
            max_unanswered=max_unanswered,
        )
        async with trio.open_nursery() as greeting:
            greeting.start_soon(nursery.start, link.run)
            conversation = await peer.welcome()
        yield link, peer, conversation
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_connected_peer() -> AsyncIterator[tuple[Connection, Peer, Conversation]]:
    """Keep a connection while the block runs, with a peer at its other end that has welcomed it."""
    async with open_peer() as peer, trio.open_nursery() as nursery:
        connection = Connection(
            Address.from_url(peer.url), client_name="gopher", connect_grace_seconds=5.0, reply_seconds=60.0, max_unanswered=4096
        )
        nursery.start_soon(connection.keep_patiently)
        conversation = await peer.welcome()
        yield connection, peer, conversation
        nursery.cancel_scope.cancel()


class Answers:
    """What becomes of calls that are under way at the same time."""

    def __init__(self) -> None:
        self.came: dict[str, Reply] = {}

    async def keep(self, name: str, call: Callable[[], Awaitable[Reply]]) -> None:
        """Make a call and keep its reply, or the error it raises."""
        try:
            self.came[name] = await call()
        except StoreError as error:
            self.came[name] = error
