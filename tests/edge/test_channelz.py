"""channelz against a running server: it tells of this one, and of nothing unless it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
import trio
from grpc_channelz.v1 import channelz_pb2

from gopher.edge import channelz
from gopher.errors import GopherError, InvalidRequestError
from tests.edge.rig import PATIENCE_SECONDS, Rig, serving, unary

if TYPE_CHECKING:
    from gopher_pb.v1 import job_service_pb2 as pb


async def echo(request: pb.GetJobRequest) -> pb.GetJobRequest:
    await trio.lowlevel.checkpoint()
    return request


async def own(rig: Rig) -> channelz_pb2.Server:
    """Return this server: of all that the process may have, the one made last."""
    servers: list[channelz_pb2.Server] = []
    is_end = False
    while not is_end:
        # A page holds a hundred, and those of earlier tests may not be collected yet.
        request = channelz_pb2.GetServersRequest(start_server_id=servers[-1].ref.server_id + 1 if servers else 0)
        reply = await rig.ask(request.SerializeToString(), path=f"/{channelz.SERVICE}/GetServers")
        page = channelz_pb2.GetServersResponse.FromString(reply)
        servers += page.server
        is_end = page.end
    return max(servers, key=lambda server: server.ref.server_id)


async def test_channelz_tells_of_the_server_and_its_calls() -> None:
    """The server is listed with where it listens, and the calls it has answered are counted."""
    async with serving(unary(echo), channelz=True) as rig:
        before = await own(rig)
        for _ in range(3):
            await rig.ask()
        after = await own(rig)

    assert "127.0.0.1" in after.listen_socket[0].name
    assert after.data.calls_succeeded - before.data.calls_succeeded >= 3


async def test_channelz_tells_of_the_sockets_of_a_server() -> None:
    """Each connection is a socket of the server, and can be looked at."""
    async with serving(unary(echo), channelz=True) as rig:
        server = await own(rig)
        request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
        reply = await rig.ask(request.SerializeToString(), path=f"/{channelz.SERVICE}/GetServerSockets")
        (ref,) = channelz_pb2.GetServerSocketsResponse.FromString(reply).socket_ref
        request_socket = channelz_pb2.GetSocketRequest(socket_id=ref.socket_id).SerializeToString()
        found = await rig.ask(request_socket, path=f"/{channelz.SERVICE}/GetSocket")

    assert channelz_pb2.GetSocketResponse.FromString(found).socket.data.streams_started >= 2


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
