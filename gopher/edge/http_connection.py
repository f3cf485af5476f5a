"""One HTTP/1.1 connection, by h11 on Trio: its requests, one after the other, each handed to an ASGI application.

HTTP/2 is answered with 505. An upgrade, to `h2c` or a WebSocket, is ignored, as RFC 9110 allows: the request is answered in HTTP/1.1.

A connection that sends no request is closed after a while. One that is answered before its request is whole stays open for a moment,
so that the client, still sending, sees the answer before the connection is reset.
"""

from __future__ import annotations

import re
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import h11
import structlog
import trio

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

STALL_SECONDS: Final = 10.0
"""How long a client may take nothing of what is sent to it; as for gRPC's streams."""
LINGER_SECONDS: Final = 1.0
"""How long the rest of a request is read once it is answered; chosen: long enough for a client to see the answer and stop."""
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_PIPELINED_BYTES: Final = 64 * 1024
PART_BYTES: Final = 64 * 1024
MAX_LOGGED: Final = 500
_AUTHORITY: Final = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)
_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Connection:
    """One connection: its requests, one after the other.

    Attributes:
        is_ending: Whether no further request is taken.
        is_gone: Whether the client takes nothing more.
        is_refused: Whether the answer was given here, so that the application has none to give.
    """

    def __init__(self, stream: trio.SocketStream, app: ASGIApp, head_seconds: float) -> None:
        self._stream = stream
        self._app = app
        self._head_seconds = head_seconds
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._waiting: trio.CancelScope | None = None
        self.is_ending = False
        self.is_gone = False
        self.is_refused = False

    def end_when_idle(self) -> None:
        """Take no further request; end at once if none is being served."""
        self.is_ending = True
        if self._waiting is not None:
            self._waiting.cancel(reason="the server stops")

    async def run(self) -> None:
        """Serve requests until the client has no more, or sends what is none."""
        while not self.is_ending and (request := await self._next_request()) is not None:
            await self._serve(request)
            if not await self._read_rest():
                return
            if self.is_gone or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                break
            self._http.start_next_cycle()
        await self._linger()

    async def _next_request(self) -> h11.Request | None:
        """Return the next request; None when there is none, or what came was refused."""
        event: h11.Event | None = None
        with trio.move_on_after(self._head_seconds) as self._waiting:
            event = await self.next_event()
        self._waiting = None
        if not isinstance(event, h11.Request):
            return None
        if not event.http_version.startswith(b"1."):
            await self.refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            return None
        if event.method == b"CONNECT":
            await self.refuse(HTTPStatus.NOT_IMPLEMENTED)
            return None
        return event

    async def _serve(self, request: h11.Request) -> None:
        exchange = _Exchange(self, request)
        try:
            await self._app(_scope(request), exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the application has failed: the client is answered 500
            log_failure("http.request_failed", error)
        if not exchange.has_ended:
            await self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def next_event(self) -> h11.Event | None:
        """Return what the client sends next; None when that is nothing, or no HTTP, which is answered."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[]))
                await self._read()
        except h11.RemoteProtocolError as error:
            await self.refuse(HTTPStatus(error.error_status_hint))
            return None
        return None if isinstance(event, type | h11.ConnectionClosed) else event

    async def wait_gone(self) -> None:
        """Wait until the client has closed its side; what it sends before that is its next request."""
        while await self._read():
            if len(self._http.trailing_data[0]) > MAX_PIPELINED_BYTES:
                await trio.sleep_forever()

    async def _read(self) -> bool:
        """Read from the network; tell whether anything came."""
        part = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            part = await self._stream.receive_some(PART_BYTES)
        self._http.receive_data(part)
        return bool(part)

    async def send(self, *events: h11.Event) -> None:
        """Send parts of an answer; nothing is sent to a client that has gone, or takes nothing."""
        data = b"".join(self._http.send(event) or b"" for event in events)
        for start in range(0, len(data), PART_BYTES):
            if self.is_gone:
                return
            try:
                with trio.fail_after(STALL_SECONDS):
                    await self._stream.send_all(data[start : start + PART_BYTES])
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self.is_gone = True
                # Whatever reads from it sees that too.
                self._stream.socket.close()

    async def refuse(self, status: HTTPStatus) -> None:
        """End the connection; answer with a status alone, unless an answer has begun, which is then cut short."""
        self.is_ending = True
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            headers = [*_date(), (b"content-length", b"0"), (b"connection", b"close")]
            await self.send(h11.Response(status_code=status, headers=headers), h11.EndOfMessage())
        self.is_refused = True

    async def _read_rest(self) -> bool:
        """Read what is left of the request, a moment long; tell whether its end was seen."""
        with trio.move_on_after(LINGER_SECONDS) as scope:
            while self._http.their_state is h11.SEND_BODY and await self.next_event() is not None:
                pass
        return not scope.cancelled_caught

    async def _linger(self) -> None:
        """Say that nothing follows, and read what the client still sends: else a reset may cost it the answer."""
        if self._http.their_state is h11.IDLE and not self._http.trailing_data[0]:
            return
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            while await self._stream.receive_some(PART_BYTES):
                pass


class _Exchange:
    """One request and its answer, as ASGI has them.

    Attributes:
        has_ended: Whether the answer is whole.
    """

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        self._connection = connection
        self._is_head = request.method == b"HEAD"
        self._is_whole = False
        self._start: h11.Response | None = None
        self._has_begun = False
        self.has_ended = False

    async def receive(self) -> Message:
        """Return the next part of the body; once it is whole, that the client has gone, when it has."""
        if self._is_whole or self.has_ended:
            await self._connection.wait_gone()
            return {"type": "http.disconnect"}
        event = await self._connection.next_event()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        self._is_whole = True
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer; its head leaves with the first part of its body."""
        if self.has_ended or self._connection.is_refused:
            return
        if message["type"] == "http.response.start":
            closing = [(b"connection", b"close")] if self._connection.is_ending else []
            self._start = h11.Response(status_code=message["status"], headers=[*message["headers"], *_date(), *closing])
            return
        assert self._start is not None  # noqa: S101 - ASGI: the start comes first
        events: list[h11.Event] = [] if self._has_begun else [self._start]
        body = message.get("body", b"")
        if body and not self._is_head and self._start.status_code not in _BODILESS:
            events.append(h11.Data(data=body))
        if not message.get("more_body", False):
            events.append(h11.EndOfMessage())
            self.has_ended = True
        self._has_begun = True
        await self._connection.send(*events)


def _scope(request: h11.Request) -> Scope:
    # A proxy's way to say it, `http://HOST/PATH`, means the path too (RFC 9112, 3.2.2).
    path, _, query = _AUTHORITY.sub(b"", request.target, count=1).partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(path.decode()) or "/",
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": None,
        "server": None,
    }


def _date() -> list[tuple[bytes, bytes]]:
    return [(b"date", formatdate(usegmt=True).encode())]


def log_failure(event: str, error: BaseException) -> None:
    """Log an error of one connection in a line."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    _log.error(event, error=repr(error)[:MAX_LOGGED])
