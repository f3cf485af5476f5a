"""How a handler runs: on Trio, in a thread, in a subprocess, or on asyncio.

A cancel ends each of them as far as that is possible. Trio and asyncio handlers are cancelled at their next checkpoint. A thread
cannot be ended: the attempt waits for it, keeps its slot, and is reported as stuck meanwhile. A subprocess and all its children get
SIGTERM, and SIGKILL when the grace is over.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import trio

from gopher.contexts import JobContext, SyncJobContext
from gopher.handlers import Executor
from gopher.runtime.middleware import call_through
from gopher.runtime.subprocesses import Subprocesses
from gopher.runtime.thread_block import thread_block

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from gopher.handlers import HandlerSpec
    from gopher.runtime.children import Children
    from gopher.runtime.lifespans import Lifespans
    from gopher.runtime.nurseries import Nurseries
    from gopher.runtime.scopes import RunningAttempt
    from gopher.surroundings import Middleware


class Executors:
    """Runs handlers.

    Args:
        app: `module:registry`, by which a subprocess finds the handler.
        subprocesses: Subprocesses that run at most at once.
        max_result_bytes: Of a larger result a subprocess hands over only the news.
        children: Takes in what handlers in subprocesses submit.
        nurseries: Opens those of handlers in threads and on asyncio.
        middleware: What every attempt runs through, outermost first; may still grow.
        lifespans: What handlers share.
    """

    def __init__(
        self,
        *,
        app: str,
        subprocesses: int,
        max_result_bytes: int,
        children: Children,
        nurseries: Nurseries,
        middleware: Sequence[Middleware],
        lifespans: Lifespans,
    ) -> None:
        self._subprocesses = Subprocesses(app, children, max_result_bytes=max_result_bytes)
        self._nurseries = nurseries
        self._middleware = middleware
        self._lifespans = lifespans
        self._lifespan = lifespans.trio
        # No bound of its own: the slots are one, and a thread that waits for children has none.
        self._threads = trio.CapacityLimiter(math.inf)
        self._room = trio.CapacityLimiter(subprocesses)

    def room_for(self, spec: HandlerSpec) -> trio.CapacityLimiter | None:
        """Return what an attempt must hold while such a handler runs; None where its slot is enough.

        It is waited for before the handler's time begins: a subprocess costs memory and a CPU, a slot does not.
        """
        return self._room if spec.executor is Executor.PROCESS else None

    async def execute(self, spec: HandlerSpec, context: JobContext, attempt: RunningAttempt) -> object:
        """Call a handler and return what it returns.

        Raises:
            PayloadMismatchError: The payload does not fit the handler.
            Exception: Whatever the handler raises.
        """
        job = attempt.job
        payload = spec.read_payload(job.payload, job.content_type)
        if self._lifespan is not None:
            context.give(self._lifespan.resources)
        if self._middleware:
            # Not a closure, whose cells every attempt would pay for.
            call = partial(self._call, spec, context, payload, attempt)
            return await call_through(self._middleware, context, payload, call)
        if spec.executor is Executor.TRIO:  # most are: a call less
            return await spec.function(context, payload)
        return await self._call(spec, context, payload, attempt)

    def _call(self, spec: HandlerSpec, context: JobContext, payload: object, attempt: RunningAttempt) -> Awaitable[object]:
        match spec.executor:
            case Executor.TRIO:
                return spec.function(context, payload)
            case Executor.THREAD:
                return self._in_thread(spec, context, payload, attempt)
            case Executor.PROCESS:
                return self._subprocesses.execute(context, attempt)
            case Executor.ASYNCIO:
                return self._on_asyncio(spec, context, payload, attempt)

    def kill(self) -> None:
        """End at once what outlasts its cancel and can be ended: subprocesses, with all their children."""
        self._subprocesses.kill()

    async def _in_thread(self, spec: HandlerSpec, context: JobContext, payload: object, attempt: RunningAttempt) -> object:
        thread_context = context.copy_as(SyncJobContext)
        if self._lifespan is not None:
            thread_context.give(self._lifespan.resources)
        thread_context.say = lambda *words: trio.from_thread.run(context.say, *words)
        thread_context.enlist = lambda *words: trio.from_thread.run(context.enlist, *words)
        thread_context.nurse = partial(thread_block, self._nurseries, attempt)
        return await trio.to_thread.run_sync(spec.as_plain, thread_context, payload, limiter=self._threads)

    async def _on_asyncio(self, spec: HandlerSpec, context: JobContext, payload: object, attempt: RunningAttempt) -> object:
        loop, lifespan = self._lifespans.loop, self._lifespans.asyncio
        # For workers with such a handler only: to import trio_asyncio changes asyncio for the whole process.
        from gopher.runtime import asyncio_loop
        from gopher.runtime.asyncio_block import asyncio_block

        asyncio_context = asyncio_loop.context_of(context)
        asyncio_context.nurse = partial(asyncio_block, self._nurseries, attempt)
        if loop is not None and lifespan is not None:
            return await loop.execute(spec, asyncio_context, payload, lifespan.resources)
        return await asyncio_loop.execute(spec, asyncio_context, payload)
