"""A worker on a real stream, driven from Trio: what it says goes through a thread of gRPC's."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Final

import grpc
import trio

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.wire.status import from_rpc_error
from tests.edge.rig import PATIENCE_SECONDS, raw_stream_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.errors import GopherError

CONNECT: Final = "/gopher.v1.WorkerService/Connect"


class WorkerStream:
    """One call of Connect.

    Args:
        channel: To the server.
        first: What is said first, as frames or as bytes that need not be one.
    """

    def __init__(self, channel: grpc.Channel, *first: pb.ConnectRequest | bytes) -> None:
        self._said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.say(*first)
        self._call = raw_stream_stream(channel, CONNECT)(iter(self._said.get, None))

    def say(self, *frames: pb.ConnectRequest | bytes) -> None:
        for frame in frames:
            self._said.put(frame if isinstance(frame, bytes) else frame.SerializeToString())

    def hang_up(self) -> None:
        """Say no more."""
        self._said.put(None)

    def cut(self) -> None:
        """Cancel the call, as a connection that breaks does."""
        self._call.cancel()
        self._said.put(None)

    async def hear(self) -> pb.ConnectResponse:
        """Return the next frame but pings."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                frame = pb.ConnectResponse.FromString(await trio.to_thread.run_sync(next, self._call))
                if frame.WhichOneof("frame") != "ping":
                    return frame

    async def end(self) -> GopherError | None:
        """Read to the end and return why it ended; None for OK."""
        with trio.fail_after(PATIENCE_SECONDS):
            error = await trio.to_thread.run_sync(self._drain)
        self._said.put(None)
        return None if error is None else from_rpc_error(error)

    def _drain(self) -> grpc.RpcError | None:
        try:
            for _ in self._call:
                pass
        except grpc.RpcError as error:
            return error
        return None

    @property
    def code(self) -> grpc.StatusCode:
        """Of the end."""
        code: grpc.StatusCode = self._call.code()
        return code


def hello(namespace: str, *, types: Sequence[str] = ("email",), resume_token: str = "") -> pb.ConnectRequest:
    said = pb.Hello(namespace=namespace, queues={"default": 1}, types=types, stream=1, resume_token=resume_token)
    return pb.ConnectRequest(hello=said)
