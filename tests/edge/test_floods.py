"""Clients that do not behave, speaking HTTP/2 by hand: pings without end, calls that are reset as soon as they are made."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, PingAckReceived

from gopher_pb.v1 import job_service_pb2

from gopher.edge.duplex import MAX_UNREAD_BYTES
from gopher.edge.grpc_server import Limits
from tests.edge.rig import DUPLEX, PATIENCE_SECONDS, duplex, serving, unary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from gopher.service.requests import Requests

HEAD: Final = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Method"),
    (":authority", "x"),
    ("content-type", "application/grpc"),
]

TAKEN: Final = 200
MOST_POURED: Final = 64 * 1024 * 1024
BIG: Final = job_service_pb2.GetJobRequest(job_id="x" * 60_000).SerializeToString()


async def echo(request: job_service_pb2.GetJobRequest) -> Message:
    await trio.lowlevel.checkpoint()
    return request


class Peer:
    """One connection, blocking; used in a thread."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def read_to_end(self) -> bytes:
        received = b""
        while part := self.socket.recv(65_536):
            received += part
        return received


def ping(address: str) -> bytes:
    peer = Peer(address)
    with peer.socket:
        for number in range(20):
            peer.h2.ping(b"%08d" % number)
        peer.flush()
        return peer.read_to_end()


def ask_for_life(address: str) -> int:
    """Send a call that is not answered, then 20 pings, each once the last was answered; return how many were before a GOAWAY."""
    peer = Peer(address)
    with peer.socket:
        stream = peer.h2.get_next_available_stream_id()
        peer.h2.send_headers(stream, [*HEAD, ("te", "trailers")])
        peer.h2.send_data(stream, b"\0\0\0\0\0", end_stream=True)
        for number in range(20):
            payload, answered = b"%08d" % number, False
            peer.h2.ping(payload)
            peer.flush()
            while not answered:
                events = peer.h2.receive_data(peer.socket.recv(65_536))
                if any(isinstance(event, ConnectionTerminated) for event in events):
                    return number
                answered = any(isinstance(event, PingAckReceived) and event.ping_data == payload for event in events)
    return 20


def reset(address: str) -> int:
    """Make calls and reset them, until the server has had enough or 5,000 were made; return how many."""
    peer = Peer(address)
    with peer.socket:
        for number in range(5000):
            stream = peer.h2.get_next_available_stream_id()
            peer.h2.send_headers(stream, HEAD)
            peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
            try:
                peer.flush()
            except OSError:
                return number
    return 5000


def pour(address: str) -> int:
    """Stream messages until the server takes no more for a second, or 64 MiB; return how many bytes it took after `TAKEN` messages."""
    peer = Peer(address)
    peer.socket.settimeout(1)
    message = b"\0" + len(BIG).to_bytes(4, "big") + BIG
    with peer.socket:
        call = peer.h2.get_next_available_stream_id()
        peer.h2.send_headers(
            call, [*((name, DUPLEX if name == ":path" else value) for name, value in HEAD), ("te", "trailers")]
        )
        left, sent = memoryview(message), 0
        while sent < MOST_POURED:
            size = min(peer.h2.local_flow_control_window(call), peer.h2.max_outbound_frame_size, len(left))
            if size:
                peer.h2.send_data(call, bytes(left[:size]))
                left, sent = left[size:] or memoryview(message), sent + size
            peer.flush()
            try:
                peer.socket.settimeout(0.001 if size else 1)
                peer.h2.receive_data(peer.socket.recv(65_536))
            except TimeoutError:
                if not size:
                    break
            peer.socket.settimeout(PATIENCE_SECONDS)
    return sent - TAKEN * len(message)


async def test_what_nobody_takes_is_not_taken_from_the_network() -> None:
    """However fast a client has streamed before: once its handler takes no more, the server holds what it counts and a window."""

    async def take_some(requests: Requests[job_service_pb2.GetJobRequest], _send: Callable[[Message], Awaitable[None]]) -> None:
        for _ in range(TAKEN):
            await anext(requests)
        await trio.sleep_forever()

    async with serving(duplex(take_some)) as rig:
        untaken = await trio.to_thread.run_sync(pour, rig.address)

    assert 0 < untaken < 2 * MAX_UNREAD_BYTES


async def test_pings_without_end_are_answered_with_goaway() -> None:
    """Twenty in a row are too many: the connection is closed with ENHANCE_YOUR_CALM, others are served."""
    async with serving(unary(echo)) as rig:
        received = await trio.to_thread.run_sync(ping, rig.address)
        await rig.ask()

    # The end of the GOAWAY frame: its error code and its reason.
    assert ErrorCodes.ENHANCE_YOUR_CALM.to_bytes(4, "big") + b"too_many_pings" in received


async def test_pings_no_oftener_than_the_server_allows_are_all_answered() -> None:
    """The interval that is set is the one that holds, and not gRPC's own of five minutes, which ends a wait after three pings."""

    async def never(_request: job_service_pb2.GetJobRequest) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(unary(never), limits=Limits(ping_interval_ms=0), grace_seconds=0) as rig:
        answered = await trio.to_thread.run_sync(ask_for_life, rig.address)

    assert answered == 20


async def test_calls_that_are_reset_at_once_do_not_keep_others_from_being_served() -> None:
    """While one connection makes and resets calls by the thousand, another's calls are answered."""
    answered, is_flooding = 0, False

    async def flood() -> None:
        nonlocal is_flooding
        while answered <= 10:
            is_flooding = True
            await trio.to_thread.run_sync(reset, rig.address)
            is_flooding = False

    async with serving(unary(echo)) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with trio.fail_after(PATIENCE_SECONDS):
            while answered <= 10:
                began_in_flood = is_flooding
                await rig.ask()
                answered += began_in_flood and is_flooding
