"""HTTP/1.1 over real sockets: what one connection cannot do to the others, and how a connection ends."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from gopher.edge import http_server
from gopher.edge.http_server import HttpServer
from tests.edge.http_attacks import ATTACKS, attack, mutations
from tests.edge.rest_rig import PATIENCE_SECONDS, connection, head, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Receive, Scope, Send

FUZZ: Final = 300


class Boom(BaseException):
    """What no application should raise."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what the path says; tell it where it says nothing."""
    act = BY_PATH.get(scope["path"])
    if act is None:
        await _tell(send, scope["path"].encode())
    else:
        await act(receive, send)


async def fail(_receive: Receive, _send: Send) -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError("two\nlines")


async def fail_half_way(_receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    raise ExceptionGroup("", [ValueError("no")])


async def boom(_receive: Receive, _send: Send) -> None:
    await trio.lowlevel.checkpoint()
    raise Boom


async def raise_stray_cancel(_receive: Receive, _send: Send) -> None:
    caught: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            caught.append(error)
            raise
    raise caught[0]


async def answer_nothing(_receive: Receive, _send: Send) -> None:
    await trio.lowlevel.checkpoint()


async def wait_for_ever(_receive: Receive, _send: Send) -> None:
    await trio.sleep_forever()


async def wait_gone(receive: Receive, _send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def echo(receive: Receive, send: Send) -> None:
    body, is_whole = b"", False
    while not is_whole:
        message = await receive()
        body += message.get("body", b"")
        is_whole = not message.get("more_body")
    await _tell(send, body)


BY_PATH: Final[dict[str, Callable[[Receive, Send], Awaitable[None]]]] = {
    "/raise": fail,
    "/half": fail_half_way,
    "/base": boom,
    "/cancelled": raise_stray_cancel,
    "/nothing": answer_nothing,
    "/wait": wait_for_ever,
    "/gone": wait_gone,
    "/body": echo,
}
gone = trio.Event()


async def _tell(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(*, head_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[str]:
    server = HttpServer(app, "127.0.0.1:0", head_seconds=head_seconds)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(server.run)
            server.stop()


async def ask(address: str, *requests: bytes) -> bytes:
    """Send requests over one connection, and return all that comes until the server closes it."""
    async with connection(address) as stream:
        await stream.send_all(b"".join(requests))
        await stream.send_eof()
        return b"".join([part async for part in stream])


def get(path: str, method: str = "GET", **headers: str) -> bytes:
    return head(method, path, {"Host": "x", **headers})


@pytest.mark.parametrize("name", ATTACKS)
async def test_bad_connection_ends_alone(name: str) -> None:
    """The server goes on, and no word of it is in the log: it is the client's fault."""
    with capture_logs() as logs:
        async with serving() as address:
            await trio.to_thread.run_sync(attack, address, ATTACKS[name])
            answer = parse(await ask(address, get("/x")))

    assert (answer.status, answer.body) == (200, b"/x")
    assert logs == []


async def test_mutated_connections_end_alone() -> None:
    """Whatever the bytes, of HTTP/1.1 or of frames: nothing is raised, and the next is served."""
    with capture_logs() as logs:
        async with serving() as address, trio.open_nursery() as nursery:
            room = trio.CapacityLimiter(20)
            for each in mutations(1, FUZZ):
                nursery.start_soon(partial(trio.to_thread.run_sync, attack, address, each, limiter=room))
        async with serving() as address:
            answer = parse(await ask(address, get("/x")))

    assert answer.status == 200
    assert {each["event"] for each in logs} <= {"http.request_failed"}  # by a path of the application that raises


@pytest.mark.parametrize(("name", "status"), [("h2-path", 505), ("h2c-settings", 200), ("websocket-frame", 200)])
async def test_other_protocols_are_not_spoken(name: str, status: int) -> None:
    """HTTP/2 is refused; an upgrade is answered as if it had not been asked for."""
    async with serving() as address:
        answer = parse(await trio.to_thread.run_sync(attack, address, ATTACKS[name]))

    assert answer.status == status


@pytest.mark.parametrize("path", ["/raise", "/nothing"])
async def test_application_that_fails_is_answered_for(path: str) -> None:
    """500, and the connection ends."""
    async with serving() as address:
        answer = parse(await ask(address, get(path), get("/next")))

    assert (answer.status, answer.headers["connection"], answer.body) == (500, "close", b"")


@pytest.mark.parametrize(("path", "event"), [("/raise", "http.request_failed"), ("/half", "http.request_failed"), ("/base", "http.connection_failed"), ("/cancelled", "http.connection_failed")])  # fmt: skip
async def test_failure_of_a_connection_is_a_line_of_log(path: str, event: str) -> None:
    """Whatever is raised, the server goes on."""
    with capture_logs() as logs:
        async with serving() as address:
            await ask(address, get(path))
            answer = parse(await ask(address, get("/x")))

    assert answer.status == 200
    assert [each["event"] for each in logs] == [event]
    assert "\n" not in logs[0]["error"]


async def test_answer_that_is_cut_short_shows_it() -> None:
    """An answer that failed on its way has no end."""
    async with serving() as address:
        received = await ask(address, get("/half"))

    assert received.endswith(b"1\r\nx\r\n")


async def test_idle_connection_is_closed() -> None:
    """A client that asks nothing is not waited for, before its first request and after."""
    async with serving(head_seconds=0.1) as address, connection(address) as silent, connection(address) as served:
        await served.send_all(get("/x"))
        answer = parse(b"".join([part async for part in served]))
        received = await silent.receive_some()

    assert (answer.status, received) == (200, b"")


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    """As HTTP/1.1 has it."""
    async with serving() as address:
        received = await ask(address, get("/1"), get("/2"), get("/3", "HEAD"), get("/4", Connection="close"), get("/5"))

    assert received.count(b"HTTP/1.1 200") == 4
    assert received.endswith(b"\r\n\r\n/4")
    assert b"/3" not in received


@pytest.mark.parametrize(
    ("target", "path"), [("http://x/a?b=http://y/", b"/a"), ("HTTP://x", b"/"), ("/a%2Fb?c", b"/a/b"), ("*", b"*")]
)
async def test_path_is_told_however_it_is_said(target: str, path: bytes) -> None:
    """Also with the host before it, as to a proxy."""
    async with serving() as address:
        answer = parse(await ask(address, get(target)))

    assert answer.body == path


async def test_leave_to_send_a_body_is_given() -> None:
    """A client that waits for 100 gets it once the body is wanted, and no sooner."""
    async with serving() as address, connection(address) as stream:
        await stream.send_all(get("/body", "POST", Expect="100-continue", **{"Content-Length": "1", "Connection": "close"}))
        leave = await stream.receive_some()
        await stream.send_all(b"y")
        answer = parse(b"".join([part async for part in stream]))

    assert leave.startswith(b"HTTP/1.1 100 ")
    assert answer.body == b"y"


async def test_client_that_goes_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that waits for its client to go learns it, also when more was sent before."""
    monkeypatch.setitem(globals(), "gone", trio.Event())

    async with serving() as address:
        async with connection(address) as stream:
            await stream.send_all(get("/gone") + get("/next"))
        await gone.wait()


async def test_stop_ends_what_is_idle_at_once_and_the_rest_after_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a client that is silent nor a request that does not end keeps the server."""
    monkeypatch.setattr(http_server, "GRACE_SECONDS", 0.1)

    async with serving() as address:
        host, _, port = address.rpartition(":")
        silent, waiting = await trio.open_tcp_stream(host, int(port)), await trio.open_tcp_stream(host, int(port))
        await waiting.send_all(get("/wait"))
        await trio.testing.wait_all_tasks_blocked(0.01)
    # The server has stopped.
    async with silent, waiting:
        received = [await each.receive_some() for each in (silent, waiting)]

    assert received == [b"", b""]


async def test_descriptors_that_run_out_are_a_line_and_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    """While the system has none the server waits, says so once in ten seconds, and goes on."""
    server = HttpServer(app, "127.0.0.1:0", head_seconds=1)

    with capture_logs() as logs:
        accepted = await server._next(cast("trio.SocketListener", Exhausted(until=15)))

    assert accepted is Exhausted.STREAM
    assert [each["error"] for each in logs] == ["Too many open files"] * 2
    assert autojump_clock.current_time() < 16


class Exhausted:
    """A listener that finds no descriptor until a moment."""

    STREAM: Final = object()

    def __init__(self, until: float) -> None:
        self._until = trio.current_time() + until

    async def accept(self) -> object:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._until:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.STREAM


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many waits until another has ended, and is then served."""
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 1)

    async with serving() as address:
        async with connection(address) as first:
            await first.send_all(get("/1"))
            await first.receive_some()
            host, _, port = address.rpartition(":")
            late = await trio.open_tcp_stream(host, int(port))
            await late.send_all(get("/2"))
            with trio.move_on_after(0.05) as waited:
                await late.receive_some()
        async with late:
            received = await late.receive_some()

    assert waited.cancelled_caught
    assert received.endswith(b"/2")
