"""A nursery of jobs as a Trio program has it: a child's end that decides it cancels a scope around the block."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from gopher.client.async_nursery import AsyncNursery
from gopher.client.nursery import CLEANUP_SECONDS
from gopher.client.nursery_stream import LEAVE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from gopher.client.nursery_stream import NurseryStream


@asynccontextmanager
async def trio_block(
    keep: Callable[[NurseryStream], Awaitable[None]], stream: NurseryStream, ended: trio.Event
) -> AsyncGenerator[AsyncNursery]:
    """Open a nursery of jobs while a block lasts.

    Args:
        keep: Makes the nursery's calls.
        stream: The nursery.
        ended: Set when its block may end.

    Raises:
        ExceptionGroup: The block's own error, and those of the children.
    """
    scope = trio.CancelScope()
    # Shielded: the calls go on while the children of a block that is cancelled end; the block itself ends them.
    keeping = trio.CancelScope(shield=True)
    kept = trio.Event()
    failure: BaseException | None = None

    async def keep_on() -> None:
        with keeping:
            await keep(stream)
        kept.set()

    def begin() -> None:
        tasks.start_soon(keep_on)

    stream.on_first = begin
    stream.on_decided = scope.cancel
    # While the children live.
    async with trio.open_nursery() as tasks:
        try:
            with scope:
                yield AsyncNursery(stream, trio.Event)
            stream.close()
            await ended.wait()
        except BaseException as error:  # noqa: BLE001, ASYNC103 - whatever ends the block ends its children; it is raised again below
            stream.abandon()
            failure = await _wait_ended(ended, error) if isinstance(error, Exception) else error  # noqa: ASYNC102 - of no cancel
            # Shielded: no child outlasts the block; bounded: one that hangs must not hold a program that is told to end.
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await ended.wait()
        if stream.was_used:
            # Shielded and bounded likewise, for the last word to the server.
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await kept.wait()
        keeping.cancel()
    stream.raise_errors(failure)


async def _wait_ended(ended: trio.Event, failure: BaseException) -> BaseException:
    """Wait for the children's end, unless a cancel comes from outside; return what the block has failed by."""
    try:
        await ended.wait()
    except BaseException as error:  # noqa: BLE001, ASYNC103 - raised again by the block
        return error  # noqa: ASYNC104 - likewise
    return failure
