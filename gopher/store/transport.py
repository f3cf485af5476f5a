"""One byte stream to a redis-server: where it is, how to get in, and the bytes of both directions.

A transport takes bytes without waiting where it can (`send_nowait`): that is what lets a lone command leave in the very task that
issued it. Over TCP and unix sockets it is a bare non-blocking socket; over TLS, where a send may have to wait for a receive, every
byte goes the waiting way.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import trio
from hiredis import HiredisError, Reader
from redis.connection import parse_url

from gopher.errors import StartError, StoreError, StoreUnavailableError
from gopher.store.resp import error_from_reply, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

RECEIVE_BYTES: Final = 65_536
"""Chosen: about 500 replies of a claim's size; twice as much made no difference."""

KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}
"""Chosen: a subscriber, which may have nothing to send for hours, notices a dead peer within 20 s."""

PORT: Final = 6379
OLDEST_VERSION: Final = 7
"""The first with script flags and sharded pub/sub."""

TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
OPTIONS: Final = TLS_OPTIONS | {"host", "port", "path", "db", "username", "password", "connection_class"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a redis-server is and how to get in; shows neither in its repr.

    Attributes:
        host: Name or IP address; unused with a path.
        port: TCP port.
        path: The unix socket, or None.
        database: Number of the database.
        username: User of the access control list.
        password: Its password; None when Redis asks for none.
        tls: How to check the server; None for plaintext.
    """

    host: str = field(default="localhost", repr=False)
    port: int = field(default=PORT, repr=False)
    path: str | None = field(default=None, repr=False)
    database: int = 0
    username: str = "default"
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def place(self) -> str:
        """Where it is, for the logs: HOST:PORT or the path of a socket."""
        return self.path or f"{self.host}:{self.port}"

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read `redis://[[user]:password@]host[:port][/db]`, `rediss://...` or `unix://PATH[?db=N]`.

        A `rediss://` URL may end in redis-py's options `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs=none` and
        `ssl_check_hostname=false`.

        Raises:
            StartError: The URL is malformed or holds an option that is not known.
        """
        try:
            options: dict[str, object] = dict(parse_url(url))  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        except ValueError:
            # What the parser says may quote a part of the password.
            raise StartError("the redis URL is malformed: expected redis://, rediss:// or unix://", exit_code=2) from None
        if unknown := options.keys() - OPTIONS:
            raise StartError(f"the redis URL holds the unknown option {min(unknown)!r}", exit_code=2)
        is_tls = url.startswith("rediss:")
        return cls(
            host=str(options.get("host", "localhost")),
            port=int(str(options.get("port", PORT))),
            path=str(options["path"]) if "path" in options else None,
            database=int(str(options.get("db", 0))),
            username=str(options.get("username") or "default"),
            password=str(options["password"]) if "password" in options else None,
            tls=_tls_context(options) if is_tls else None,
        )


def _tls_context(options: Mapping[str, object]) -> ssl.SSLContext:
    text = {name: str(value) for name, value in options.items() if name in TLS_OPTIONS}
    try:
        context = ssl.create_default_context(cafile=text.get("ssl_ca_certs"))
        if "ssl_certfile" in text:
            context.load_cert_chain(text["ssl_certfile"], text.get("ssl_keyfile"))
    except OSError as error:
        raise StartError(f"cannot use the certificates that the redis URL names: {describe(error)}", exit_code=2) from error
    is_trusting = text.get("ssl_cert_reqs", "required").lower() == "none"
    if is_trusting or text.get("ssl_check_hostname", "true").lower() == "false":
        context.check_hostname = False
    if is_trusting:
        context.verify_mode = ssl.CERT_NONE
    return context


class Transport(Protocol):
    """What a pipeline needs of a byte stream. Each method but `close` raises one of BREAKS when the stream is broken."""

    def send_nowait(self, data: bytes) -> int:
        """Send what the kernel takes at once and return how many bytes that was."""

    async def send_all(self, data: bytes) -> None:
        """Send everything."""

    async def receive(self) -> bytes:
        """Wait for bytes; empty when the peer has closed the stream."""

    def close(self) -> None:
        """Close the stream; nobody may be waiting for it any more."""


BREAKS: Final = (OSError, trio.BrokenResourceError)


class SocketTransport:
    """A non-blocking socket, without the layers of Trio's streams."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)

    def send_nowait(self, data: bytes) -> int:
        """Send what the kernel takes at once and return how many bytes that was."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send_all(self, data: bytes) -> None:
        """Send everything."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(data):
                await trio.lowlevel.wait_writable(self._socket)
                try:
                    sent += self._socket.send(view[sent:])
                except BlockingIOError:  # woken for nothing
                    continue

    async def receive(self) -> bytes:
        """Wait for bytes; empty when the peer has closed the stream."""
        while True:
            # Trio's own recv tries first and waits then; here the answer is never there yet, so that the first try is wasted.
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:  # woken for nothing
                continue

    def close(self) -> None:
        """Close the stream; nobody may be waiting for it any more."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class TlsTransport:
    """A TLS stream over a socket."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    def send_nowait(self, data: bytes) -> int:  # noqa: ARG002 - the interface's signature; TLS has no sending without waiting
        """Send nothing: TLS may have to wait."""
        return 0

    async def send_all(self, data: bytes) -> None:
        """Send everything."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Wait for bytes; empty when the peer has closed the stream."""
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))

    def close(self) -> None:
        """Close the socket under the TLS stream, without its farewell: Redis does not wait for one."""
        self._stream.transport_stream.socket.close()


async def open_transport(address: Address, client_name: str, *, within_seconds: float) -> Transport:
    """Connect, introduce ourselves (`HELLO 3`) and choose the database.

    Args:
        address: Where to.
        client_name: What `CLIENT LIST` shows; no spaces.
        within_seconds: When to give up on a peer that does not answer, > 0.

    Raises:
        StoreUnavailableError: Nobody answers there, or Redis does not serve now.
        StoreError: Redis or TLS refuses us, and will again.
    """
    try:
        with trio.fail_after(within_seconds):
            transport = await _open(address)
            try:
                await _greet(transport, address, client_name)
            except BaseException:
                transport.close()
                raise
            return transport
    except BREAKS as error:
        cause = cause_of(error)
        refused = isinstance(cause, ssl.SSLCertVerificationError)
        raise (StoreError if refused else StoreUnavailableError)(f"redis cannot be reached: {describe(error)}") from error
    except trio.TooSlowError as error:
        raise StoreUnavailableError(f"redis cannot be reached: no answer within {within_seconds:g} s") from error


async def _open(address: Address) -> Transport:
    if address.path is not None:
        stream = await trio.open_unix_socket(address.path)
    else:
        stream = await trio.open_tcp_stream(address.host, address.port)
        _keep_alive(stream)
    if address.tls is None:
        return SocketTransport(stream)
    secure = trio.SSLStream(stream, address.tls, server_hostname=address.host)
    try:
        await secure.do_handshake()
    except BaseException:
        stream.socket.close()
        raise
    return TlsTransport(secure)


def _keep_alive(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        # Linux names the idle time TCP_KEEPIDLE, macOS TCP_KEEPALIVE.
        if hasattr(socket, name):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _greet(transport: Transport, address: Address, client_name: str) -> None:
    hello: tuple[str, ...] = ("HELLO", "3")
    if address.password is not None:
        hello += ("AUTH", address.username, address.password)
    commands = [(*hello, "SETNAME", client_name), ("SELECT", str(address.database))]
    await transport.send_all(b"".join(map(pack, commands)))
    parser = Reader(replyError=error_from_reply, notEnoughData=_MORE)
    for _ in commands:
        while (reply := _next_reply(parser)) is _MORE:
            received = await transport.receive()
            if not received:
                raise BrokenPipeError(errno.EPIPE, "it closed the connection")
            parser.feed(received)
        if isinstance(reply, StoreError):
            raise reply
        if isinstance(reply, dict) and int(reply[b"version"].partition(b".")[0]) < OLDEST_VERSION:
            raise StoreError(f"redis is of version {reply[b'version'].decode()}; the oldest that serves is {OLDEST_VERSION}.0")


_MORE: Final = object()


def _next_reply(parser: Reader) -> object:
    try:
        reply: object = parser.gets()
    except HiredisError as error:
        raise StoreError("what answers there is not redis") from error
    return reply


def cause_of(error: BaseException) -> BaseException:
    """Return the error at the bottom: Trio wraps those of all the addresses it tried."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return error


def describe(error: BaseException) -> str:
    """Return what went wrong, without an address: the texts of Trio and of the system may hold one."""
    match cause_of(error):
        case ssl.SSLCertVerificationError() as cause:
            return f"its certificate was refused: {cause.verify_message}"
        case ssl.SSLError() as cause:
            return f"TLS failed: {(cause.reason or 'protocol error').replace('_', ' ').lower()}"
        case socket.gaierror():
            return "its host name is not known"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case cause:
            return type(cause).__name__
