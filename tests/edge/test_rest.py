"""HTTP over a real socket."""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.edge.health import Health
from gopher.edge.rest import RestServer
from gopher.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def serving(health: Health) -> AsyncIterator[str]:
    server = RestServer("127.0.0.1:0", [], health)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(server.run)
            server.stop()


async def ask(address: str, request: str) -> tuple[int, str]:
    """Send a request head and return status and body."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = b"".join([part async for part in stream])
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz"])
async def test_everything_is_well_while_the_server_serves(path: str) -> None:
    """All three paths answer 200 in JSON."""
    async with serving(Health([])) as address:
        status, body = await ask(address, f"GET {path}")

    assert status == 200
    assert json.loads(body) == {"status": "ok"}


@pytest.mark.parametrize("path", ["/health", "/readyz"])
async def test_readiness_says_what_is_wrong(path: str) -> None:
    """503 comes with the reason."""
    health = Health([])
    health.report("redis does not serve now")

    async with serving(health) as address:
        status, body = await ask(address, f"GET {path}")

    assert status == 503
    assert json.loads(body) == {"status": "unavailable", "reason": "redis does not serve now"}


async def test_liveness_does_not_depend_on_redis() -> None:
    """A process that cannot reach Redis is alive: a restart would not help."""
    health = Health([])
    health.report("redis does not serve now")

    async with serving(health) as address:
        status, _ = await ask(address, "GET /healthz")

    assert status == 200


@pytest.mark.parametrize(("request_line", "expected"), [("GET /nope", 404), ("POST /health", 405), ("nonsense", 400)])
async def test_other_requests_are_refused(request_line: str, expected: int) -> None:
    """Unknown paths, methods and bytes that are no request are answered by the usual statuses."""
    async with serving(Health([])) as address:
        status, _ = await ask(address, request_line)

    assert status == expected


async def test_busy_port_is_told_in_one_line() -> None:
    """An address that is taken is a StartError that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(StartError) as caught:
            await RestServer(address, [], Health([])).run()

    assert caught.value.message == f"cannot listen on {address}: address already in use"
