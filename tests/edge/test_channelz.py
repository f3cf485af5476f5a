"""channelz against a running server: it tells of this one, and of nothing unless it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import grpc
import pytest
import trio
from grpc_channelz.v1 import channelz_pb2

from gopher.edge import channelz
from gopher.errors import GopherError, InvalidRequestError
from tests.edge.rig import PATIENCE_SECONDS, Rig, serving, unary

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from gopher_pb.v1 import job_service_pb2 as pb

M = TypeVar("M", bound="Message")


async def echo(request: pb.GetJobRequest) -> pb.GetJobRequest:
    await trio.lowlevel.checkpoint()
    return request


async def look(rig: Rig, method: str, request: Message, reply: type[M]) -> M:
    """Ask channelz."""
    return reply.FromString(await rig.ask(request.SerializeToString(), path=f"/{channelz.SERVICE}/{method}"))


async def own(rig: Rig) -> tuple[channelz_pb2.Server, list[channelz_pb2.Socket]]:
    """Return this server and its sockets: of all that the process may have, the one with a socket at its address.

    Servers of earlier tests may not be collected yet, and ids are in no order: gRPC gives them at the first question.
    """
    port = int(rig.address.rpartition(":")[2])
    is_end, after = False, 0
    while not is_end:
        page = await look(
            rig, "GetServers", channelz_pb2.GetServersRequest(start_server_id=after), channelz_pb2.GetServersResponse
        )
        for server in page.server:
            request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
            refs = (await look(rig, "GetServerSockets", request, channelz_pb2.GetServerSocketsResponse)).socket_ref
            requests = [channelz_pb2.GetSocketRequest(socket_id=ref.socket_id) for ref in refs]
            sockets = [(await look(rig, "GetSocket", each, channelz_pb2.GetSocketResponse)).socket for each in requests]
            if any(socket.local.tcpip_address.port == port for socket in sockets):
                return server, sockets
            after = server.ref.server_id + 1
        is_end = page.end
    raise LookupError(rig.address)


async def test_channelz_tells_of_the_server_and_its_calls() -> None:
    """The server is listed with where it listens, and the calls it has answered are counted."""
    async with serving(unary(echo), channelz=True) as rig:
        before, _ = await own(rig)
        for _ in range(3):
            await rig.ask()
        after, _ = await own(rig)

    assert "127.0.0.1" in after.listen_socket[0].name
    assert after.data.calls_succeeded - before.data.calls_succeeded >= 3


async def test_channelz_tells_of_the_sockets_of_a_server() -> None:
    """Each connection is a socket of the server, and can be looked at."""
    async with serving(unary(echo), channelz=True) as rig:
        _, sockets = await own(rig)

    assert len(sockets) == 1
    assert sockets[0].data.streams_started >= 2


async def test_channelz_tells_of_the_channels_of_the_process() -> None:
    """A channel that is open in the same process is listed by its target."""
    async with serving(unary(echo), channelz=True) as rig:
        reply = await rig.ask(b"", path=f"/{channelz.SERVICE}/GetTopChannels")

    targets = {channel.data.target for channel in channelz_pb2.GetTopChannelsResponse.FromString(reply).channel}
    assert any(target.endswith(rig.address) for target in targets)


async def test_channelz_refuses_what_it_does_not_know_and_what_is_no_request() -> None:
    """An id that is unknown is NOT_FOUND; bytes that are no message are refused as those of every method are."""
    path = f"/{channelz.SERVICE}/GetServer"
    unknown = channelz_pb2.GetServerRequest(server_id=10**9).SerializeToString()

    async with serving(unary(echo), channelz=True) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask(unknown, path=path, deadline_seconds=PATIENCE_SECONDS)
        with pytest.raises(InvalidRequestError) as malformed:
            await rig.ask(b"\xff\xff", path=path)

    assert caught.value.reason == grpc.StatusCode.NOT_FOUND.name
    assert malformed.value.reason == "MALFORMED_MESSAGE"


async def test_channelz_is_unimplemented_when_it_is_off() -> None:
    """Nothing is told of a server that was not asked to tell."""
    async with serving(unary(echo)) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask(b"", path=f"/{channelz.SERVICE}/GetServers")

    assert caught.value.reason == "UNIMPLEMENTED"
