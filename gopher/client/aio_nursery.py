"""A nursery of jobs as an asyncio program has it: a child's end that decides it cancels the block's task, as `asyncio.TaskGroup` does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gopher.client.async_nursery import AsyncNursery
from gopher.client.nursery import CLEANUP_SECONDS
from gopher.client.nursery_stream import LEAVE_SECONDS
from gopher.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from gopher.client.nursery_stream import NurseryStream


@asynccontextmanager
async def asyncio_block(
    keep: Callable[[NurseryStream], Coroutine[object, object, None]], stream: NurseryStream, ended: asyncio.Event
) -> AsyncGenerator[AsyncNursery]:
    """Open a nursery of jobs while a block lasts.

    Args:
        keep: Makes the nursery's calls.
        stream: The nursery.
        ended: Set when its block may end.

    Raises:
        ExceptionGroup: The block's own error, and those of the children.
    """
    interruption = Interruption()
    tasks: list[asyncio.Task[None]] = []
    failure: BaseException | None = None
    stream.on_first = lambda: tasks.append(asyncio.create_task(keep(stream)))
    stream.on_decided = interruption.interrupt
    try:
        try:
            yield AsyncNursery(stream, asyncio.Event)
        except asyncio.CancelledError:  # noqa: ASYNC103 - one of our own ends here, as that of an `asyncio.TaskGroup` does
            if not interruption.is_over():
                raise
        await interruption.end()
        stream.close()
        await ended.wait()
    except BaseException as error:  # noqa: BLE001, ASYNC103 - whatever ends the block ends its children; it is raised again below
        stream.abandon()
        failure = await _wait_ended(ended, error)
    finally:
        for task in tasks:
            await asyncio.wait([task], timeout=LEAVE_SECONDS if ended.is_set() else 0)
            task.cancel()
    stream.raise_errors(failure)


async def _wait_ended(ended: asyncio.Event, failure: BaseException) -> BaseException:
    """Wait for the children's end, which must not hold for long a program that is told to end; return what the block has failed by."""
    try:
        if isinstance(failure, Exception):
            await ended.wait()
        else:
            async with asyncio.timeout(CLEANUP_SECONDS):
                await ended.wait()
    except TimeoutError:
        return failure
    except BaseException as error:  # noqa: BLE001, ASYNC103 - raised again by the block
        return error  # noqa: ASYNC104 - likewise
    return failure


async def nursery_requests(stream: NurseryStream) -> AsyncGenerator[bytes]:
    """Begin a call and yield its requests."""
    turn = stream.begin_call()
    news = asyncio.Event()
    stream.on_request = news.set
    while stream.is_current(turn):
        if (request := stream.next_request()) is not None:
            yield request
        else:
            news.clear()
            await news.wait()
