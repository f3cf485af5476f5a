"""Handlers that are a plain `def`: each in a thread.

A thread cannot be ended. It is told, though: from its attempt's end on, what it says through its context raises `AttemptCancelled`.
One that says nothing is awaited, or left behind when the grace is over: its handler tells which (`on_cancel`). Left behind, it goes
on, is heard no more, and what it returns is dropped. A worker leaves a bounded number behind; beyond it threads are awaited whatever
their handler says.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import structlog
import trio

from gopher.contexts import AttemptCancelled
from gopher.handlers import ThreadPolicy
from gopher.runtime import stacks
from gopher.runtime.forks import ForkGuard
from gopher.runtime.notices import THREAD_ABANDONED, THREAD_AWAITED, Notice
from gopher.runtime.scope_tree import open_shields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from gopher.contexts import JobContext, SyncJobContext
    from gopher.handlers import HandlerSpec
    from gopher.runtime.scopes import RunningAttempt

ArgsT = TypeVarTuple("ArgsT")
T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

MOST_ABANDONED: Final = 16
"""Chosen: threads that a worker leaves behind at most; each costs its stack, and whatever it holds."""


class Threads:
    """Runs handlers in threads.

    Attributes:
        abandoned: How many were left behind and still run.
        limiter: No bound of its own: the slots are one, and neither a thread that waits for children nor one left behind has any.
    """

    def __init__(self) -> None:
        self.abandoned = 0
        self.fork_guard = ForkGuard()
        self.limiter = trio.CapacityLimiter(math.inf)

    async def execute(
        self, spec: HandlerSpec, listener: JobContext, context: SyncJobContext, payload: object, attempt: RunningAttempt
    ) -> object:
        """Call a handler and return what it returns.

        Args:
            spec: The handler.
            listener: Takes what it says.
            context: What it is given; its callbacks are set here.
            payload: What it is given.
            attempt: Which.

        Raises:
            AttemptCancelled: It has heard that it is to end.
            Exception: Whatever else it raises.

        Cancellation:
            Delivered once the thread has returned, or is left behind.
        """
        call = _ThreadCall(self, spec, attempt)
        context.say = call.teller(listener.say)
        context.enlist = call.teller(listener.enlist)
        attempt.host = call
        try:
            return await call.run(context, payload)
        finally:
            attempt.host = None


class _ThreadCall:
    """One handler in its thread."""

    def __init__(self, threads: Threads, spec: HandlerSpec, attempt: RunningAttempt) -> None:
        self._threads = threads
        self._spec = spec
        self._attempt = attempt
        self._shield = trio.CancelScope(shield=spec.on_cancel is ThreadPolicy.ABANDON)
        self._ident = 0
        self._is_abandoned = False
        self._token = trio.lowlevel.current_trio_token()

    def teller(self, tell: Callable[[Unpack[ArgsT]], Awaitable[T]]) -> Callable[[Unpack[ArgsT]], T]:
        """Return what says something from the thread, and raises AttemptCancelled once the attempt is to end."""

        async def told(*args: *ArgsT) -> T:
            self._check()
            return await tell(*args)

        def say(*args: *ArgsT) -> T:
            self._check()
            try:
                return trio.from_thread.run(told, *args)
            except trio.Cancelled:
                raise AttemptCancelled from None  # noqa: ASYNC104 - this is the thread, where it is told so

        return say

    async def run(self, context: SyncJobContext, payload: object) -> object:
        """Call the handler."""
        may_be_left = self._shield.shield
        # Behind the shield nobody would look whether there is anything to begin.
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._shield:
            returned = await trio.to_thread.run_sync(
                self._call, context, payload, abandon_on_cancel=may_be_left, limiter=self._threads.limiter
            )
        return returned  # noqa: RET504 - for those who read types: a scope may swallow, this one does not

    def cut(self) -> Notice | None:
        """Leave the thread behind, where that may be."""
        if self._is_abandoned:
            return None
        if self._spec.on_cancel is ThreadPolicy.WAIT:
            if self._attempt.scope is not None:
                # Those of Trio code that the thread has called, and waits for.
                open_shields(self._attempt.scope)
            return Notice(THREAD_AWAITED, f"the grace is over, and the handler's thread goes on{self._where()}: it is awaited")
        if self._threads.abandoned >= MOST_ABANDONED:
            return Notice(
                THREAD_AWAITED,
                f"the grace is over, and {MOST_ABANDONED} threads are left behind already: this one is awaited{self._where()}",
            )
        self._is_abandoned = True
        self._threads.abandoned += 1
        self._shield.shield = False
        job = self._attempt.job
        _log.warning(
            "attempt.thread_abandoned",
            job_id=job.id,
            type=job.type,
            attempt=job.attempt,
            abandoned=self._threads.abandoned,
            hangs_at=self._attempt.hangs_at,
        )
        return Notice(THREAD_ABANDONED, f"the grace is over: the handler's thread is left behind{self._where()}")

    def frames(self) -> list[FrameType]:
        """Return the thread's stack."""
        return stacks.frames_of_thread(self._ident) if self._ident else []

    def _where(self) -> str:
        return f", at {self._attempt.hangs_at}" if self._attempt.hangs_at else ""

    def _check(self) -> None:
        if self._attempt.must_end():
            raise AttemptCancelled

    def _call(self, context: SyncJobContext, payload: object) -> object:
        self._ident = threading.get_ident()
        try:
            return self._spec.as_plain(context, payload)
        finally:
            self._threads.fork_guard.check()
            # The thread serves others from now on.
            self._ident = 0
            if self._spec.on_cancel is ThreadPolicy.ABANDON:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._note_return)

    def _note_return(self) -> None:
        if self._is_abandoned:
            self._threads.abandoned -= 1
            job = self._attempt.job
            _log.info("attempt.thread_returned", job_id=job.id, type=job.type, abandoned=self._threads.abandoned)
