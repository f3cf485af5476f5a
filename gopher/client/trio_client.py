"""The client for Trio programs: `TrioClient`, on the futures of gRPC's blocking channel.

gRPC completes a future in a thread of its own; `TrioToken.run_sync_soon` brings the news home. A stream has no futures: each of its
messages is taken in a thread, one thread a stream, so that any number of watches cannot use up the threads of the program.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import grpc
import trio

from gopher.client import calls, channel
from gopher.client.asynchronous import AsyncMethods
from gopher.client.nursery_stream import NurseryStream
from gopher.client.trio_nursery import trio_block
from gopher.client.trio_replies import Replies
from gopher.nursery import DEFAULT_GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from grpc import _CallIterator as CallIterator

    from gopher.client.async_nursery import AsyncNursery
    from gopher.client.submit_stream import SubmitStream

T = TypeVar("T")


class TrioClient(AsyncMethods):
    """A connection to a Gopher server.

    Cancellation: a cancelled call is cancelled on the server too. Whether it had been carried out is unknown; a submit can be
    repeated with the same request id.
    """

    _opened: grpc.Channel | None = None

    @property
    def _channel(self) -> grpc.Channel:
        if self._opened is None:
            self._opened = grpc.insecure_channel(self.address, options=channel.OPTIONS)
        return self._opened

    async def aclose(self) -> None:
        """Close the connection; calls under way end with a `CallEndedError`."""
        if self._opened is not None:
            self._opened.close()
        await trio.lowlevel.checkpoint()

    async def _carry(self, call: calls.Call[T], deadline_seconds: float) -> T:
        with channel.traced(call.path, self._metadata) as metadata:
            return await self._ask(call, deadline_seconds, metadata)

    async def _ask(self, call: calls.Call[T], deadline_seconds: float, metadata: channel.Metadata) -> T:
        rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        token, answered = trio.lowlevel.current_trio_token(), trio.Event()
        try:
            future = rpc.future(call.request, timeout=deadline_seconds, metadata=metadata)
        except ValueError as error:
            raise channel.CallEndedError("the client is closed") from error

        def tell(_: grpc.Future[bytes]) -> None:
            # A cancelled call ends after its waiter, and maybe after the whole Trio run.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(answered.set)

        future.add_done_callback(tell)
        try:
            await answered.wait()
        finally:
            future.cancel()  # nothing happens when it is done
        try:
            return call.read(future.result())
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error
        except grpc.FutureCancelledError as error:
            raise channel.CallEndedError("the call was ended before its answer") from error

    def _stream(self, call: calls.Call[T]) -> AsyncGenerator[T]:
        rpc: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(call.path)
        with channel.traced(call.path, self._metadata) as metadata:
            replies = rpc(call.request, timeout=call.deadline_seconds, metadata=metadata)
        return self._replies(replies, call.read)

    def _submit_over(self, stream: SubmitStream) -> AsyncGenerator[bytes]:
        return self._replies(self._converse(calls.SUBMIT_STREAM, stream.requests()), bytes)

    async def _nursery_over(self, stream: NurseryStream) -> AsyncGenerator[bytes]:
        replies = self._converse(calls.RUN_NURSERY, stream.requests())
        gathered = Replies(replies).each()
        try:
            async for reply in gathered:
                yield reply
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error
        finally:
            replies.cancel()
            await gathered.aclose()  # noqa: ASYNC102 - it waits for nothing

    def open_nursery(
        self, policy: str = "all", grace: float = DEFAULT_GRACE_SECONDS
    ) -> AbstractAsyncContextManager[AsyncNursery]:
        """See `gopher.client.async_nursery.AsyncNurseryMethods.open_nursery`; a child that decides it cancels a scope of the block."""
        ended = trio.Event()
        return trio_block(self._keep_nursery, NurseryStream(self.namespace, policy, grace, ended), ended)

    def _converse(self, path: str, requests: Iterator[bytes]) -> CallIterator[bytes]:
        rpc: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        try:
            with channel.traced(path, self._metadata) as metadata:
                return rpc(requests, metadata=metadata)
        except ValueError as error:
            raise channel.CallEndedError("the client is closed") from error

    async def _replies(self, replies: CallIterator[bytes], read: Callable[[bytes], T]) -> AsyncGenerator[T]:
        own_thread = trio.CapacityLimiter(1)
        try:
            while True:
                # Abandoned, the thread ends at once: the call is cancelled below.
                reply = await trio.to_thread.run_sync(next, replies, None, abandon_on_cancel=True, limiter=own_thread)
                if reply is None:
                    return
                yield read(reply)
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error
        finally:
            replies.cancel()

    @asynccontextmanager
    async def _beside(self, read: Callable[[], Coroutine[None, None, None]]) -> AsyncGenerator[None]:
        try:
            # While the block lasts.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # What is read raises nothing: it is the block's own error, which must not come out wrapped.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None  # noqa: ASYNC123 - it is raised once, and has its own traceback
            raise

    def _new_bell(self) -> _Bell:
        return _Bell()

    def _last_act(self, seconds: float) -> AbstractContextManager[object]:
        # For a block that is cancelled, so that its job has ended when it is left.
        return trio.CancelScope(shield=True, deadline=trio.current_time() + seconds)

    async def _pause(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _Bell:
    def __init__(self) -> None:
        self._news = trio.Event()

    def ring(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def heard(self, seconds: float | None) -> bool:
        with trio.move_on_after(math.inf if seconds is None else seconds):
            await self._news.wait()
            return True
        return False
