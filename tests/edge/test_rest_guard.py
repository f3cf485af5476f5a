"""Over a real socket: pages of other origins, bodies that are no JSON, too large, too slow or never ended."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio
import trio.testing

from gopher.edge import http_connection, http_server
from gopher.edge.health import Health
from gopher.edge.rest import RestServer
from gopher.edge.rest_bodies import Query
from gopher.edge.rest_calls import POST, Bounds, Call
from tests.edge.rest_rig import PATIENCE_SECONDS, connection, head, parse, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.edge.rest_rig import Answer

PATH: Final = "/api/echo"
MAX_BYTES: Final = 1000
JSON: Final = {"Content-Type": "application/json"}
CHUNKED: Final = JSON | {"Transfer-Encoding": "chunked"}


class Echo(msgspec.Struct, forbid_unknown_fields=True):
    word: str = ""


async def echo(_name: str, _query: Query, body: Echo) -> Echo:
    await trio.lowlevel.checkpoint()
    return body


@asynccontextmanager
async def serving(
    body_seconds: float = PATIENCE_SECONDS, head_seconds: float = PATIENCE_SECONDS, max_bytes: int = MAX_BYTES
) -> AsyncIterator[str]:
    """Serve one operation that takes a body."""
    operation = Call(POST, PATH, "Say it again.", echo, query=Query, body=Echo, answer=Echo)
    bounds = Bounds(body_bytes=max_bytes, body_seconds=body_seconds, head_seconds=head_seconds)
    server = RestServer("127.0.0.1:0", [operation], Health([]), bounds)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE_SECONDS):
            yield await nursery.start(server.run)
        server.stop()


async def post(address: str, body: bytes, headers: dict[str, str]) -> Answer:
    said = {"Host": address, "Connection": "close", "Content-Length": str(len(body))} | headers
    async with connection(address) as stream:
        await stream.send_all(head("POST", PATH, said) + body)
        return parse(b"".join([part async for part in stream]))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Origin": "http://[::1"},
        {"Origin": ""},
        {"Origin": "null", "Host": ""},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_pages_of_other_origins_are_refused(headers: dict[str, str]) -> None:
    """A page that somebody else serves cannot submit, even as JSON."""
    async with serving() as address:
        answer = await post(address, b"{}", JSON | headers)

    assert (answer.status, answer.reason, answer.error["code"]) == (403, "CSRF", "PERMISSION_DENIED")


async def test_pages_of_the_same_origin_are_let_in() -> None:
    """A page that came from this very address may call."""
    async with serving() as address:
        answer = await post(address, b"{}", JSON | {"Origin": f"http://{address}", "Sec-Fetch-Site": "same-origin"})

    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "text/plain; application/json"},
        {},
    ],
)
async def test_bodies_that_a_form_could_send_are_refused(headers: dict[str, str]) -> None:
    """Plain text and forms need no permission in a browser; they get 415, as does a body that is not said to be anything."""
    async with serving() as address:
        answer = await post(address, b'{"word":"x"}', headers)

    assert (answer.status, answer.reason) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_empty_form_is_refused_too() -> None:
    """Where a body may be left out, a form without fields still is a form."""
    async with serving() as address:
        answer = await post(address, b"", {"Content-Type": "application/x-www-form-urlencoded"})

    assert answer.status == 415


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_taken_however_it_is_said(content_type: str) -> None:
    """Parameters and case of the media type do not matter."""
    async with serving() as address:
        answer = await post(address, b'{"word":"x"}', {"Content-Type": content_type})

    assert (answer.status, answer.json) == (200, {"word": "x"})


async def test_large_body_is_refused_by_its_length() -> None:
    """What says that it is too large is refused before it is sent."""
    async with serving() as address, connection(address) as stream:
        await stream.send_all(head("POST", PATH, {"Host": address, "Content-Length": str(10**9)} | JSON))
        answer = parse(b"".join([part async for part in stream]))

    assert (answer.status, answer.reason) == (413, "BODY_TOO_LARGE")


async def test_large_body_is_refused_while_it_comes() -> None:
    """A chunked body tells no length; it is cut off at the limit, the client gets the answer, and the connection ends."""
    chunk = b"%x\r\n%s\r\n" % (MAX_BYTES // 2, b" " * (MAX_BYTES // 2))

    async with serving() as address, connection(address) as stream:
        await stream.send_all(head("POST", PATH, {"Host": address} | CHUNKED))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_until_cut, stream, chunk)
            received = await _whole(stream)

    answer = parse(received)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert answer.reason == "BODY_TOO_LARGE"


async def _send_until_cut(stream: trio.SocketStream, part: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(part)


async def test_many_refused_uploads_leave_nothing_behind() -> None:
    """A refused upload whose rest nobody reads does not hold its connection and its tasks."""
    chunk = b"%x\r\n%s\r\n" % (MAX_BYTES // 2, b" " * (MAX_BYTES // 2))

    async with serving() as address:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            async with connection(address) as stream:
                await stream.send_all(head("POST", PATH, {"Host": address} | CHUNKED) + chunk * 50)
        while trio.lowlevel.current_statistics().tasks_living > before:
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("headers", [CHUNKED, JSON | {"Content-Length": "100"}])
async def test_body_that_never_ends_is_given_up(headers: dict[str, str]) -> None:
    """However its length is told, a body that does not come in time is answered by 408."""
    async with serving(body_seconds=0.05) as address, connection(address) as stream:
        await stream.send_all(head("POST", PATH, {"Host": address} | headers) + b"1\r\n{\r\n")
        answer = parse(b"".join([part async for part in stream]))

    assert (answer.status, answer.reason) == (408, "BODY_TIMEOUT")
    assert answer.error["message"] == "the body did not come within 0.05 s"


async def test_trickling_body_is_given_up() -> None:
    """A byte now and then does not buy more time."""
    async with serving(body_seconds=0.2) as address, connection(address) as stream:
        await stream.send_all(head("POST", PATH, {"Host": address} | CHUNKED))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_trickle, stream)
            received = await stream.receive_some()
            nursery.cancel_scope.cancel()

    assert parse(received).status == 408


async def _trickle(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b"1\r\n \r\n")
        await trio.sleep(0.01)  # this client is slow: that is what is tested


async def test_client_that_goes_in_mid_body_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that ends before the body does is given up without a word in the log."""
    async with serving() as address:
        before = trio.lowlevel.current_statistics().tasks_living
        async with connection(address) as stream:
            await stream.send_all(head("POST", PATH, {"Host": address, "Content-Length": "100"} | JSON) + b"{")
        while trio.lowlevel.current_statistics().tasks_living > before:
            await trio.testing.wait_all_tasks_blocked(0.01)

    assert caplog.records == []


async def test_connection_is_kept_for_the_next_request() -> None:
    """Two requests over one connection are both answered, the first one a refusal."""
    async with serving() as address, connection(address) as stream:
        answers = []
        for body in (b'{"what":1}', b'{"word":"x"}'):
            await stream.send_all(head("POST", PATH, {"Host": address, "Content-Length": str(len(body))} | JSON) + body)
            answers.append(parse(await _whole(stream)))

    assert [each.status for each in answers] == [400, 200]


async def _whole(stream: trio.SocketStream) -> bytes:
    """Return one answer, whose length its head tells."""
    received = b""
    while b"\r\n\r\n" not in received or len(parse(received).body) < int(parse(received).headers["content-length"]):
        received += await stream.receive_some()
    return received


async def test_head_in_slow_motion_is_given_up() -> None:
    """A request whose head does not come is not waited for: the connection ends."""
    async with serving(head_seconds=0.1) as address, connection(address) as stream:
        await stream.send_all(b"POST /api/echo HTTP/1.1\r\nHost: x\r\n")
        received = b"".join([part async for part in stream])

    assert received == b""


async def test_client_that_reads_nothing_does_not_hold_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that takes nothing is cut off, and the server ends."""
    monkeypatch.setattr(http_connection, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "GRACE_SECONDS", 0.1)
    large = b'{"word":"%s"}' % (b"x" * 20_000_000)

    async with serving(max_bytes=len(large)) as address:
        host, _, port = address.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(head("POST", PATH, {"Host": address, "Content-Length": str(len(large))} | JSON) + large)
        received = await stream.receive_some()
    # The server has stopped while the connection was open.
    await stream.aclose()

    assert received.startswith(b"HTTP/1.1 200")


async def test_answer_says_that_nobody_may_keep_it() -> None:
    """Answers are about now; neither caches nor type-guessing browsers may make more of them."""
    async with serving() as address:
        answer = await send(address, "POST", PATH, json.dumps({"word": "x"}).encode())

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
