"""Nurseries of jobs of the clients whose methods are awaited: what asyncio and Trio have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, Unpack, cast

from gopher.client.nursery import Child
from gopher.errors import GopherError
from gopher.nursery import DEFAULT_GRACE_SECONDS, ChildView, OnCancel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from gopher.client.nursery_stream import NurseryStream
    from gopher.job import JsonValue
    from gopher.submission import JobOptions, Payload


class Event(Protocol):
    """An event of Trio or asyncio."""

    def set(self) -> None:
        """Wake who waits."""

    def wait(self) -> Awaitable[object]:
        """Wait until it is set."""


class AsyncChild(ChildView[Child]):
    """A child; see `gopher.nursery.ChildJob`."""

    async def result(self) -> JsonValue:
        """See `ChildJob.result`."""
        return self._child.outcome()


class AsyncNursery:
    """A nursery, inside its block; see `gopher.nursery.JobNursery`."""

    def __init__(self, stream: NurseryStream, event: Callable[[], Event]) -> None:
        self._stream = stream
        self._event = event

    def start_soon(
        self,
        type: str,  # noqa: A002 - the field's name wherever a job is spoken of
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> AsyncChild:
        """See `JobNursery.start_soon`."""
        return AsyncChild(self._stream.add(type, payload, on_cancel, cast("Mapping[str, object]", options)))

    async def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> AsyncChild:
        """See `JobNursery.start`."""
        answered = self._event()
        child = self._stream.add(type, payload, on_cancel, cast("Mapping[str, object]", options), answered)
        await answered.wait()
        if child.error is not None:
            raise child.error
        return AsyncChild(child)

    def cancel(self) -> None:
        """See `JobNursery.cancel`."""
        self._stream.cancel()


class AsyncNurseryMethods(ABC):
    """What the clients whose methods are awaited can do with nurseries."""

    @abstractmethod
    def open_nursery(
        self, policy: str = "all", grace: float = DEFAULT_GRACE_SECONDS
    ) -> AbstractAsyncContextManager[AsyncNursery]:
        """Open a nursery of jobs while a block lasts: `async with client.open_nursery() as nursery:`.

        The block ends when all children have. One that fails has the others cancelled, and the block; leaving the block by an error
        cancels all. A server that goes away is found again, within the grace; no child is started twice.

        Args:
            policy: `all`, `any` or `collect`; see `gopher.nursery.NurseryPolicy`.
            grace: How long the children go on once this program has vanished, in seconds, 1 to 300.

        Raises:
            InvalidRequestError: There is no such policy, or the grace is out of range.
            ExceptionGroup: At the end of the block: its own error and those of the children.

        Cancellation:
            The children are cancelled; the block waits for their end, 15 s at most.
        """

    @abstractmethod
    def _nursery_over(self, stream: NurseryStream) -> AsyncGenerator[bytes]:
        """Make one call of a nursery and yield its replies."""

    @abstractmethod
    async def _pause(self, seconds: float) -> None: ...

    async def _keep_nursery(self, stream: NurseryStream) -> None:
        """Make the calls of a nursery until no other is of use."""
        try:
            while (pause_seconds := await self._call_nursery(stream)) is not None:
                await self._pause(pause_seconds)
        finally:
            stream.note_last_call()

    async def _call_nursery(self, stream: NurseryStream) -> float | None:
        """Make a call; return how long to wait before the next, None: there is none."""
        cut: GopherError | None = None
        try:
            replies = self._nursery_over(stream)
            try:
                async for reply in replies:
                    stream.take(reply)
            finally:
                await replies.aclose()  # noqa: ASYNC102 -- it ends the call and waits for nothing
        except GopherError as error:
            cut = error
        return None if stream.is_over else stream.pause_seconds(cut)
