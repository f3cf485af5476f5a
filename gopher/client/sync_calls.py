"""How the client for programs that block makes calls that stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import grpc

from gopher.client import calls, channel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from grpc import _CallIterator as CallIterator

    from gopher.client.nursery_stream import NurseryStream
    from gopher.client.submit_stream import SubmitStream

T = TypeVar("T")


class StreamCalls:
    """Makes the calls that stream, one way or both."""

    address: str
    _channel: grpc.Channel
    _metadata: channel.Metadata

    def _stream(self, call: calls.Call[T]) -> Iterator[T]:
        told, end = self._begin_stream(call)
        try:
            yield from told
        finally:
            end()

    def _begin_stream(self, call: calls.Call[T]) -> tuple[Iterator[T], Callable[[], object]]:
        rpc: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(call.path)
        try:
            with channel.traced(call.path, self._metadata) as metadata:
                replies = rpc(call.request, timeout=call.deadline_seconds, metadata=metadata)
        except ValueError as error:
            raise channel.CallEndedError("the client is closed") from error
        return self._told(replies, call.read), replies.cancel

    def _told(self, replies: Iterator[bytes], read: Callable[[bytes], T]) -> Iterator[T]:
        try:
            for reply in replies:
                yield read(reply)
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error

    def _submit_over(self, stream: SubmitStream) -> Generator[bytes]:
        return self._replies(self._converse(calls.SUBMIT_STREAM, stream.requests()))

    def _nursery_over(self, stream: NurseryStream) -> Generator[bytes]:
        replies = self._converse(calls.RUN_NURSERY, stream.requests())
        stream.hang_up = replies.cancel
        return self._replies(replies)

    def _converse(self, path: str, requests: Iterator[bytes]) -> CallIterator[bytes]:
        rpc: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        try:
            with channel.traced(path, self._metadata) as metadata:
                return rpc(requests, metadata=metadata)
        except ValueError as error:
            raise channel.CallEndedError("the client is closed") from error

    def _replies(self, replies: CallIterator[bytes]) -> Generator[bytes]:
        try:
            yield from replies
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error
        finally:
            replies.cancel()
