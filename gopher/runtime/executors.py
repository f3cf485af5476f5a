"""How a handler runs: on Trio, in a thread, in a subprocess, or on asyncio.

A cancel ends each of them as far as that is possible. Trio and asyncio handlers are cancelled at their next checkpoint. A thread
cannot be ended: the attempt waits for it, keeps its slot, and is reported as stuck meanwhile. A subprocess and all its children get
SIGTERM, and SIGKILL when the grace is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import trio
import trio_asyncio

from gopher.handlers import Executor, JobContext, SyncJobContext
from gopher.runtime.subprocesses import Subprocesses

if TYPE_CHECKING:
    from gopher.handlers import HandlerSpec
    from gopher.runtime.scopes import RunningAttempt


class Executors:
    """Runs handlers, any number at once.

    Args:
        app: `module:registry`, by which a subprocess finds the handler.
        threads: Thread handlers that run at most at once: the worker's slots.
    """

    def __init__(self, *, app: str, threads: int) -> None:
        self._subprocesses = Subprocesses(app)
        self._threads = trio.CapacityLimiter(threads)

    async def execute(self, spec: HandlerSpec, context: JobContext, attempt: RunningAttempt) -> object:
        """Call a handler and return what it returns.

        Raises:
            PayloadMismatchError: The payload does not fit the handler.
            Exception: Whatever the handler raises.
        """
        job = attempt.job
        payload = spec.read_payload(job.payload, job.content_type)
        match spec.executor:
            case Executor.TRIO:
                return await spec.function(context, payload)
            case Executor.THREAD:
                return await self._in_thread(spec, context, payload)
            case Executor.PROCESS:
                return await self._subprocesses.execute(context, attempt)
            case Executor.ASYNCIO:
                return await _on_asyncio(spec, context, payload)

    def kill(self) -> None:
        """End at once what outlasts its cancel and can be ended: subprocesses, with all their children."""
        self._subprocesses.kill()

    async def _in_thread(self, spec: HandlerSpec, context: JobContext, payload: object) -> object:
        thread_context = context.copy_as(SyncJobContext)
        thread_context.report = lambda fraction, message: trio.from_thread.run(context.report, fraction, message)
        return await trio.to_thread.run_sync(spec.as_plain, thread_context, payload, limiter=self._threads)


async def _on_asyncio(spec: HandlerSpec, context: JobContext, payload: object) -> object:
    """One loop an attempt: a background task that fails tears down this attempt's loop and nobody else's."""
    asyncio_context = context.copy_as(JobContext)
    asyncio_context.report = trio_asyncio.trio_as_aio(context.report)

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
