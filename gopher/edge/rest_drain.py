"""Takes what a client still sends once its request is answered, so that an early answer arrives and leaves nothing behind.

A connection that is closed while the client sends is reset, and the answer may be lost with it. And Hypercorn hands a body over
through a queue of ten parts: a refused upload that nobody reads would fill it and hold the connection and its tasks for ever. So
an answer that comes before the whole body waits, before it ends, for the rest of it, a moment long; and whatever comes then is
taken and dropped until the connection has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS: Final = 1.0
"""Chosen: long enough for a client to see the answer and stop."""


class Drain:
    """An ASGI application around another.

    Args:
        app: The other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            await self._app(scope, *_Exchange(receive, send).ends())
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_whole = False

    def ends(self) -> tuple[Receive, Send]:
        """Return what the application is given."""
        return self._take, self._give

    async def _take(self) -> Message:
        message = await self._receive()
        self._is_whole |= not message.get("more_body", False)
        return message

    async def _give(self, message: Message) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not is_last or self._is_whole:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with trio.move_on_after(LINGER_SECONDS):
            while not self._is_whole:
                await self._take()
        # While the answer ends.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drop)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async def _drop(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
