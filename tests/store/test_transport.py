"""The way to Redis: URLs, greeting, TLS, and what is said when there is no way."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest
import redis
import trio

from gopher.errors import StartError, StoreError, StoreUnavailableError
from gopher.store.link import Link
from gopher.store.transport import KEEPALIVE, Address, SocketTransport, open_transport
from tests.redis_peer import Peer, open_peer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_server import RedisServer

CERTIFICATE: Final = Path(__file__).parent.parent / "localhost.pem"
PASSWORD: Final = "p@ss"
PATIENCE_SECONDS: Final = 30.0


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://10.0.0.1", Address(host="10.0.0.1")),
        ("redis://example:7000/3", Address(host="example", port=7000, database=3)),
        ("redis://:p%40ss@example", Address(host="example", password=PASSWORD)),
        ("redis://ann:p%40ss@[::1]:7000?db=2", Address(host="::1", port=7000, username="ann", password=PASSWORD, database=2)),
        ("unix:///run/redis%20a.sock?db=4", Address(path="/run/redis a.sock", database=4)),
        ("unix://ann:p%40ss@/run/redis.sock", Address(path="/run/redis.sock", username="ann", password=PASSWORD)),
    ],
)
def test_address_is_read_from_a_url(url: str, address: Address) -> None:
    """Each form of a Redis URL gives host, port or path, database and credentials."""
    assert Address.from_url(url) == address


def test_address_shows_neither_place_nor_password() -> None:
    """The repr may be logged."""
    shown = repr(Address.from_url("redis://ann:secret@example:7000"))

    assert "secret" not in shown
    assert "example" not in shown


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://example", "malformed"),
        ("redis://ann:se#cret@example", "malformed"),
        ("redis://example?db=x", "malformed"),
        ("redis://example?decode_responses=1", "unknown option 'decode_responses'"),
        ("rediss://example?ssl_ca_certs=/nowhere.pem", "no such file or directory"),
    ],
)
def test_address_refuses_a_url_it_cannot_use(url: str, fault: str) -> None:
    """A URL that is malformed, or holds what would be ignored, is refused in a line without a part of the password."""
    with pytest.raises(StartError, match=fault) as caught:
        Address.from_url(url)

    assert "se" not in str(caught.value).replace("password", "").split()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "verifies", "checks_host"),
    [
        ("", True, True),
        ("?ssl_check_hostname=false", True, False),
        ("?ssl_cert_reqs=none", False, False),
        (f"?ssl_certfile={quote(str(CERTIFICATE))}&ssl_ca_certs={quote(str(CERTIFICATE))}", True, True),
    ],
)
def test_address_checks_the_server_unless_told_not_to(options: str, verifies: bool, checks_host: bool) -> None:
    """TLS verifies the certificate and the host name by default; the URL's options relax it."""
    tls = Address.from_url(f"rediss://example{options}").tls

    assert tls is not None
    assert (tls.verify_mode is ssl.CERT_REQUIRED, tls.check_hostname) == (verifies, checks_host)


async def test_greeting_names_the_client_and_chooses_the_database(redis_server: RedisServer, admin: redis.Redis) -> None:
    """After the greeting the connection speaks RESP3, has its name and its database."""
    address = Address.from_url(f"{redis_server.url}?db=5")

    transport = await open_transport(address, "gopher-x", within_seconds=PATIENCE_SECONDS)
    (client,) = [client for client in admin.client_list() if client["name"] == "gopher-x"]
    transport.close()

    assert (client["db"], client["resp"]) == ("5", "3")


async def test_greeting_carries_the_credentials(redis_server: RedisServer, admin: redis.Redis, nursery: trio.Nursery) -> None:
    """User and password of the URL open a server that asks for them; a wrong or missing password is said at once."""
    admin.acl_setuser("ann", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], categories=["+@all"])
    admin.acl_setuser("default", enabled=False)
    path = quote(str(redis_server.socket_path))
    link = Link(f"unix://ann:p%40ss@{path}")

    await nursery.start(link.run)
    faults = []
    for url in (f"unix://ann:wrong@{path}", f"unix://{path}"):
        with pytest.raises(StoreError) as caught:
            await Link(url, connect_grace_seconds=PATIENCE_SECONDS).run()
        faults.append(caught.value.message)

    assert await link.call("ACL", "WHOAMI") == b"ann"
    assert faults == [
        "redis refused the user name or the password",
        "redis asks for a password and was given none",
    ]


@pytest.mark.parametrize(
    ("greeting", "fault"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not redis"),
        (b"%1\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n+OK\r\n", r"version 6\.2\.14; the oldest that serves is 7\.0"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "redis is loading its data"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (b"", "it closed the connection|broken pipe"),
    ],
    ids=["another server", "too old", "loading", "full", "hangs up"],
)
async def test_greeting_that_fails_says_why(greeting: bytes, fault: str) -> None:
    """What answers in the place of a Redis that serves is named in one line, and the socket is closed."""
    async with open_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_answer, peer, greeting)
        with pytest.raises(StoreError, match=fault):
            await open_transport(Address.from_url(peer.url), "gopher", within_seconds=PATIENCE_SECONDS)


async def _answer(peer: Peer, greeting: bytes) -> None:
    conversation = await peer.accept()
    await conversation.hear()
    if greeting:
        await conversation.say(greeting)
    else:
        await conversation.hang_up()


async def test_connecting_gives_up_on_a_peer_that_says_nothing() -> None:
    """A listener that accepts and is silent costs `within_seconds`, no more."""
    async with open_peer() as peer:
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreUnavailableError, match=r"no answer within 0\.1 s"):
            await open_transport(Address.from_url(peer.url), "gopher", within_seconds=0.1)


async def test_tcp_connections_notice_a_dead_peer() -> None:
    """Keepalive is on, in step with what is written down, so that a subscriber does not wait for a dead peer for ever."""
    async with open_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.welcome)
        transport = await open_transport(Address.from_url(peer.url), "gopher", within_seconds=PATIENCE_SECONDS)
        assert isinstance(transport, SocketTransport)
        options = {name: getattr(socket, name) for name in KEEPALIVE if hasattr(socket, name)}
        values = {name: transport._socket.getsockopt(socket.IPPROTO_TCP, number) for name, number in options.items()}
        is_on = transport._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        transport.close()

    assert is_on
    assert values == {name: KEEPALIVE[name] for name in options}


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


async def test_link_speaks_tls(server_tls: ssl.SSLContext, redis_server: RedisServer, admin: redis.Redis) -> None:
    """Calls, huge ones too, and subscriptions work over TLS, and the connection is made anew when it breaks."""
    messages: list[bytes] = []
    payload = bytes(range(256)) * (1 << 14)

    async with open_peer(server_tls) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_relay, peer, redis_server, nursery)
        link = Link(f"{peer.url}?ssl_ca_certs={quote(str(CERTIFICATE))}")
        with trio.fail_after(PATIENCE_SECONDS):
            await nursery.start(link.run)
            await link.subscribe(b"ch", messages.append)
            replies: list[bytes] = []
            async with trio.open_nursery() as callers:
                for number in range(200):
                    callers.start_soon(_keep, replies, link, str(number).encode())
            huge = await link.call("ECHO", payload)
            await link.call("SPUBLISH", "ch", "1")
            renewed = trio.Event()
            link.on_reconnect.append(renewed.set)
            admin.client_kill_filter(_id=await link.call("CLIENT", "ID"))
            await renewed.wait()
            await link.call("SPUBLISH", "ch", "2")
        nursery.cancel_scope.cancel()

    assert sorted(replies) == sorted(str(number).encode() for number in range(200))
    assert huge == payload
    assert messages == [b"1", b"2"]


async def _keep(replies: list[bytes], link: Link, word: bytes) -> None:
    replies.append(await link.call("ECHO", word))


async def _relay(peer: Peer, redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Pass each connection on to a real Redis."""
    while True:
        nursery.start_soon(_pass_on, (await peer.accept()).stream, await trio.open_unix_socket(str(redis_server.socket_path)))


async def _pass_on(near: trio.abc.Stream, far: trio.abc.Stream) -> None:
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(_copy, near, far, nursery.cancel_scope)
        nursery.start_soon(_copy, far, near, nursery.cancel_scope)


async def _copy(source: trio.abc.Stream, target: trio.abc.Stream, life: trio.CancelScope) -> None:
    try:
        async for chunk in source:
            await target.send_all(chunk)
    except trio.BrokenResourceError:
        pass
    life.cancel()


@pytest.mark.parametrize(
    ("scheme", "fault", "kind"),
    [("rediss", "its certificate was refused", StoreError), ("redis", "cannot be reached|not redis", StoreError)],
)
async def test_link_refuses_a_server_it_cannot_trust(
    server_tls: ssl.SSLContext, scheme: str, fault: str, kind: type[StoreError]
) -> None:
    """A certificate that nobody vouches for is refused at once; plaintext to a TLS port is told apart from success."""
    async with open_peer(server_tls) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_shake_hands, peer)
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(kind, match=fault):
            await open_transport(Address.from_url(peer.url.replace("rediss", scheme)), "gopher", within_seconds=5)
        nursery.cancel_scope.cancel()


class NamesThisMachine(trio.abc.HostnameResolver):
    """Knows one address for every name."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def] # noqa: A002 - Trio's signature
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def] # Trio's signature
        raise NotImplementedError


async def test_link_refuses_a_certificate_for_another_host(server_tls: ssl.SSLContext) -> None:
    """A trusted certificate that does not name the host of the URL is refused."""
    trio.socket.set_custom_hostname_resolver(NamesThisMachine())
    async with open_peer(server_tls) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_shake_hands, peer)
        address = Address.from_url(f"rediss://redis.example:{peer.port}?ssl_ca_certs={quote(str(CERTIFICATE))}")
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreError, match="Hostname mismatch"):
            await open_transport(address, "gopher", within_seconds=5)
        nursery.cancel_scope.cancel()


async def _shake_hands(peer: Peer) -> None:
    conversation = await peer.accept()
    try:
        await conversation.hear()
    except (trio.BrokenResourceError, EOFError):
        await conversation.hang_up()
