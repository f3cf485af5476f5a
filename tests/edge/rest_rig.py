"""A whole server with HTTP on a real Redis, a client on a bare socket, and what a worker would do to the jobs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec
import trio

from gopher.cli.server import Server
from gopher.client import TrioClient
from gopher.config import ServerConfig
from gopher.job import Failure, Move, Outcome
from gopher.store import codec, keys
from gopher.store.lifecycle import Settlement
from gopher.store.registry import LoopBlock, StuckAttempt, WorkerDescription
from gopher.store.scripts import Script
from gopher.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gopher.edge.rest_calls import Operation
    from gopher.job import JsonValue

PATIENCE_SECONDS: Final = 30.0
"""Bounds every wait of a test; a busy machine makes it slow, not wrong."""
UNKNOWN_ID: Final = "01a20c6c-0282-7492-ab17-767f938b0000"
MAX_BODY_BYTES: Final = 64 * 1024
FAILURE: Final = codec.encode_failure(Failure(reason="HANDLER_RAISED", message="no"))


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> JsonValue:
        decoded: JsonValue = json.loads(self.body)
        return decoded

    def __getitem__(self, key: str) -> JsonValue:
        found = self.json
        assert isinstance(found, dict)
        return found[key]

    def list(self, key: str) -> list[dict[str, JsonValue]]:
        """Return a list of objects of the body."""
        found = self[key]
        assert isinstance(found, list)
        return [each for each in found if isinstance(each, dict)]

    @property
    def error(self) -> dict[str, JsonValue]:
        found = self["error"]
        assert isinstance(found, dict)
        return found

    @property
    def reason(self) -> JsonValue:
        return self.error["reason"]


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[trio.SocketStream]:
    """Open a connection."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield stream


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def parse(received: bytes) -> Answer:
    """Return the answer that these bytes are."""
    top, _, body = received.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


async def send(address: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Make a request and return the answer."""
    said = {"Host": address, "Connection": "close"}
    if body:
        said |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    async with connection(address) as stream:
        await stream.send_all(head(method, path, said | dict(headers or {})) + body)
        return parse(b"".join([part async for part in stream]))


class Rest:
    """A running server, in a namespace of the test's own."""

    def __init__(self, address: str, store: Store, namespace: str, server: Server, grpc_address: str) -> None:
        self.address = address
        self.grpc_address = grpc_address
        self.store = store
        self.namespace = namespace
        self.server = server

    @property
    def operations(self) -> list[Operation]:
        """What the server serves."""
        assert self.server._rest is not None
        return list(self.server._rest._operations)

    def path(self, path: str, **query: str) -> str:
        """Return a path with its query."""
        pairs = {"namespace": self.namespace} | query
        return path + "?" + "&".join(f"{name}={quote(value)}" for name, value in pairs.items())

    async def get(self, path: str, **query: str) -> Answer:
        return await send(self.address, "GET", self.path(path, **query))

    async def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        said = b"" if body is None else json.dumps(body).encode()
        return await send(self.address, "POST", self.path(path), said, headers)

    async def delete(self, path: str) -> Answer:
        return await send(self.address, "DELETE", self.path(path))

    async def submit(self, **fields: object) -> str:
        """Submit a job and return its id."""
        answer = await self.post("/api/v1/jobs", {"type": "email", **fields})
        assert answer.status == 201, answer.body
        return str(answer["job_id"])

    async def call_over_grpc(self, job_type: str = "email") -> str:
        """Submit a job over gRPC and return its id."""
        async with TrioClient(self.grpc_address, namespace=self.namespace) as client:
            return await client.submit(job_type)

    async def claim(self, queue: str = "default", claim_id: str = "claim") -> codec.ClaimedJob:
        """Take the next job, as a worker would."""
        claim = await self.store.lifecycle.claim(
            self.namespace, queue, worker="w1", count=1, lease_ms=60_000, claim_id=claim_id
        )
        assert claim is not None
        return claim.jobs[0]

    async def settle(self, job: codec.ClaimedJob, move: Move, *, queue: str = "default", delay_ms: int = 0) -> None:
        """End an attempt, as a worker would."""
        is_well = move is Move.COMPLETE
        settlement = Settlement(
            job.id,
            job.token,
            move,
            Outcome.SUCCEEDED if is_well else Outcome.RAISED,
            delay_ms,
            b'{"sent":true}' if is_well else b"",
            b"" if is_well else FAILURE,
        )
        await self.store.lifecycle.settle(self.namespace, queue, [settlement])

    async def add_worker(self, name: str, types: list[str]) -> None:
        """Enter a worker into the register."""
        description = WorkerDescription(
            host="h", pid=7, version="1", queues={"default": 2}, types=types, slots=10, busy=3, started_ms=1_000,
            draining=False, stuck=["j1"], stuck_attempts=[StuckAttempt("j1", "email", "app.py:7 in work")],
            blocked=LoopBlock(type="email", function="shop.send", job_id="j2", seconds=1.5),
            blocked_totals=[
                LoopBlock(type="email", function="shop.send", seconds=4.25),
                LoopBlock(type="report", function="shop.report", seconds=2.5),
            ],
        )  # fmt: skip
        await self.store.registry.add_types(self.namespace, types)
        beat = Script.load("beat")
        await beat(self.store.link, [keys.workers(self.namespace)], [name, 60_000, msgspec.json.encode(description)])


@asynccontextmanager
async def serving(redis_url: str, namespace: str, *, accept_unknown_types: bool = True) -> AsyncIterator[Rest]:
    """Serve while the block lasts."""
    settings = ServerConfig(
        grpc_address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        accept_unknown_types=accept_unknown_types,
        max_payload_bytes=MAX_BODY_BYTES // 2,
        max_message_bytes=MAX_BODY_BYTES,
    )
    async with trio.open_nursery() as nursery:
        store = Store(redis_url, client_name="test")
        await nursery.start(store.run)
        server = Server(settings, store)
        async with trio.open_nursery() as running:
            addresses = await running.start(server.run)
            with trio.fail_after(PATIENCE_SECONDS):
                await trio.lowlevel.checkpoint()
                yield Rest(addresses.http, store, namespace, server, addresses.grpc)
            server.stop()
        nursery.cancel_scope.cancel()
