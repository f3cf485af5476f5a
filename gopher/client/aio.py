"""The client for asyncio programs: `AsyncClient`, on grpc.aio."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc import aio

from gopher.client import calls, channel
from gopher.client.aio_nursery import asyncio_block, nursery_requests
from gopher.client.asynchronous import AsyncMethods
from gopher.client.nursery_stream import NurseryStream
from gopher.nursery import DEFAULT_GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from gopher.client.async_nursery import AsyncNursery
    from gopher.client.submit_stream import SubmitStream

T = TypeVar("T")


class AsyncClient(AsyncMethods):
    """A connection to a Gopher server, for one event loop: the one that makes the first call."""

    _opened: aio.Channel | None = None
    _is_closed = False

    @property
    def _channel(self) -> aio.Channel:
        # Opened late, because a channel belongs to the loop that runs while it is made.
        if self._opened is None:
            self._opened = aio.insecure_channel(self.address, options=channel.OPTIONS)
        return self._opened

    async def aclose(self) -> None:
        """Close the connection; calls under way end with a `CallEndedError`."""
        self._is_closed = True
        if self._opened is not None:
            await self._opened.close()

    async def _carry(self, call: calls.Call[T], deadline_seconds: float) -> T:
        rpc: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        with self._translated(), channel.traced(call.path, self._metadata) as metadata:
            return call.read(await rpc(call.request, timeout=deadline_seconds, metadata=metadata))

    async def _stream(self, call: calls.Call[T]) -> AsyncGenerator[T]:
        rpc: aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(call.path)
        with self._translated(), channel.traced(call.path, self._metadata) as metadata:
            replies = rpc(call.request, timeout=call.deadline_seconds, metadata=metadata)
        try:
            while True:
                with self._translated():
                    reply = await replies.read()
                if not isinstance(reply, bytes):
                    return
                yield call.read(reply)
        finally:
            replies.cancel()

    def _submit_over(self, stream: SubmitStream) -> AsyncGenerator[bytes]:
        return self._converse(calls.SUBMIT_STREAM, _requests(stream))

    def _nursery_over(self, stream: NurseryStream) -> AsyncGenerator[bytes]:
        return self._converse(calls.RUN_NURSERY, nursery_requests(stream))

    def open_nursery(
        self, policy: str = "all", grace: float = DEFAULT_GRACE_SECONDS
    ) -> AbstractAsyncContextManager[AsyncNursery]:
        """See `gopher.client.async_nursery.AsyncNurseryMethods.open_nursery`; a child that decides it cancels the block's task."""
        ended = asyncio.Event()
        return asyncio_block(self._keep_nursery, NurseryStream(self.namespace, policy, grace, ended), ended)

    async def _converse(self, path: str, requests: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        rpc: aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        with self._translated(), channel.traced(path, self._metadata) as metadata:
            replies = rpc(requests, metadata=metadata)
        try:
            while True:
                with self._translated():
                    reply = await replies.read()
                if not isinstance(reply, bytes):
                    return
                yield reply
        finally:
            replies.cancel()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error
        except aio.UsageError as error:
            raise channel.CallEndedError("the client is closed") from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, and whoever waits for one sees that as a cancellation of the task, which it is not.
            task = asyncio.current_task()
            if not self._is_closed or (task is not None and task.cancelling()):
                raise
            raise channel.CallEndedError("the call was ended before its answer") from None  # noqa: ASYNC104 - see above

    @asynccontextmanager
    async def _beside(self, read: Callable[[], Coroutine[None, None, None]]) -> AsyncGenerator[None]:
        task = asyncio.create_task(read())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])  # noqa: ASYNC102 - it has been cancelled, and waits for nothing

    def _new_bell(self) -> _Bell:
        return _Bell()

    def _last_act(self, seconds: float) -> AbstractContextManager[object]:
        # A cancelled task of asyncio may go on waiting until it is cancelled once more.
        return nullcontext(seconds)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _requests(stream: SubmitStream) -> AsyncGenerator[bytes]:
    """Begin a call and yield its requests; items are read in the loop."""
    turn = stream.begin_call()
    room = asyncio.Event()
    stream.on_room = room.set
    while stream.is_current(turn):
        if (request := stream.next_request()) is not None:
            yield request
        elif stream.has_ended:
            return
        elif stream.has_room:
            stream.read_item()
        else:
            room.clear()
            await room.wait()


class _Bell:
    def __init__(self) -> None:
        self._news = asyncio.Event()

    def ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def heard(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True
