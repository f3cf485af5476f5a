"""Clients that do not behave, speaking HTTP/2 by hand: pings without end, calls that are reset as soon as they are made."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from tests.edge.rig import PATIENCE_SECONDS, serving, unary

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from gopher_pb.v1 import job_service_pb2 as pb

HEAD: Final = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Method"),
    (":authority", "x"),
    ("content-type", "application/grpc"),
]


async def echo(request: pb.GetJobRequest) -> Message:
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


async def test_pings_without_end_are_answered_with_goaway() -> None:
    """Twenty in a row are too many: the connection is closed with ENHANCE_YOUR_CALM, others are served."""
    async with serving(unary(echo)) as rig:
        received = await trio.to_thread.run_sync(ping, rig.address)
        await rig.ask()

    # The end of the GOAWAY frame: its error code and its reason.
    assert ErrorCodes.ENHANCE_YOUR_CALM.to_bytes(4, "big") + b"too_many_pings" in received


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
