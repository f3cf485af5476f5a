"""Handlers marked `asyncio=True`: an asyncio event loop inside the attempt's cancel scope, thanks to trio-asyncio.

Apart, because to import trio-asyncio changes asyncio for the whole process: a loop made in one thread can no longer run in another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import trio_asyncio

from gopher.contexts import JobContext

if TYPE_CHECKING:
    from gopher.handlers import HandlerSpec


async def execute(spec: HandlerSpec, context: JobContext, payload: object) -> object:
    """Call a handler in an event loop of its own and return what it returns.

    A background task that fails tears down this attempt's loop and nobody else's.
    """
    asyncio_context = context.copy_as(JobContext)
    asyncio_context.report = trio_asyncio.trio_as_aio(context.report)
    asyncio_context.enlist = trio_asyncio.trio_as_aio(context.enlist)

    async def call() -> object:
        try:
            return await spec.function(asyncio_context, payload)
        finally:
            await _end_background_tasks()  # noqa: ASYNC102 - this is asyncio, where a cancel comes once

    async with trio_asyncio.open_loop():
        return await trio_asyncio.aio_as_trio(call)()


async def _end_background_tasks() -> None:
    """Cancel and await what the handler has left behind, so that its outcome is written after its last line has run."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
