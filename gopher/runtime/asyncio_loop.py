"""Handlers marked `asyncio=True`: an asyncio event loop inside the attempt's cancel scope, thanks to trio-asyncio.

Where the registry has an asyncio lifespan, what it opens is bound to its loop: then the worker has one loop for all of them, which
charges each asyncio task to the attempt that has started it.

Apart, because to import trio-asyncio changes asyncio for the whole process: a loop made in one thread can no longer run in another.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypedDict, Unpack, cast

import structlog
import trio
import trio_asyncio

from gopher.contexts import JobContext
from gopher.runtime import stacks
from gopher.runtime.forks import ForkGuard
from gopher.runtime.notices import CLEANUP_CUT, Notice
from gopher.runtime.scope_tree import open_shields, open_shields_between, tasks_below
from gopher.runtime.tracebacks import traceback_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
    from types import FrameType

    from gopher.handlers import HandlerSpec
    from gopher.runtime.lifespans import Enter
    from gopher.runtime.scopes import Host, RunningAttempt
    from gopher.surroundings import OpenLifespan

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_charged: Final[ContextVar[set[asyncio.Task[object]] | None]] = ContextVar("gopher_charged", default=None)
"""The asyncio tasks of the attempt in whose context this is read."""


_CALLBACK_PLACES: Final = {
    "call_soon": 0,
    "call_soon_threadsafe": 0,
    "call_later": 1,
    "call_at": 1,
    "add_reader": 1,
    "add_writer": 1,
}
"""The methods of an event loop that take a callback, and where among their arguments; a task's steps go through `call_soon`."""


class _Method(Protocol):
    """A method of a loop, or a callback."""

    def __call__(self, *args: object, **options: object) -> object: ...


class _TaskOptions(TypedDict, total=False):
    name: str | None
    context: Context | None


class _Tasks:
    """The asyncio tasks of an attempt. A cancel comes once there: who outlasts the grace is cancelled again, and again.

    Args:
        left: Gives those that have not ended, and among them the handler's own.
        open_shields: Opens the shields of Trio code that they call.
    """

    def __init__(self, left: Callable[[], Sequence[asyncio.Task[object]]], open_shields: Callable[[], object]) -> None:
        self.left = left
        self._open_shields = open_shields

    def cut(self) -> Notice | None:
        """Cancel each again."""
        for task in self.left():
            task.cancel()
        self._open_shields()
        return Notice(CLEANUP_CUT, "the grace is over: what is left of the handler's asyncio tasks was cancelled again")

    def frames(self) -> list[FrameType]:
        """Return the stack of one of them; the handler's own task most likely awaits it."""
        left = self.left()
        return stacks.frames_of_coroutine(left[-1].get_coro()) if left else []


async def execute(spec: HandlerSpec, context: JobContext, payload: object, attempt: RunningAttempt) -> object:
    """Call a handler in an event loop of its own and return what it returns.

    A background task that fails tears down this attempt's loop and nobody else's.
    """

    async def call() -> object:
        try:
            return await spec.function(context, payload)
        finally:
            await _end(lambda: asyncio.all_tasks() - {asyncio.current_task()})  # noqa: ASYNC102 - this is asyncio: a cancel comes once

    kept: BaseException | None = None
    async with trio_asyncio.open_loop() as loop:
        with _contained(loop):
            task = loop.create_task(call())
            # In the order in which they began.
            attempt.host = _Tasks(
                lambda: sorted(asyncio.all_tasks(loop), key=lambda each: each is not task),
                lambda: open_shields(_nursery_of(loop)),
            )
            try:
                return await trio_asyncio.run_aio_future(task)
            except BaseException as error:
                kept = error
                raise
            finally:
                attempt.host = None
    # A Cancelled that was the handler's own has ended in the loop, which took it for one of its own.
    raise kept if kept is not None else RuntimeError("the event loop has ended before the handler")


class SharedLoop:
    """The one event loop of a worker whose asyncio handlers share resources."""

    def __init__(self) -> None:
        self._loop: trio_asyncio.TrioEventLoop | None = None
        self._closing = trio.Event()
        self._charges: list[tuple[RunningAttempt, set[asyncio.Task[object]]]] = []

    @property
    def running(self) -> RunningAttempt | None:
        """The attempt to which the asyncio task that runs now is charged, if any. Safe in any thread."""
        task = None if self._loop is None else asyncio.current_task(self._loop)
        return next((attempt for attempt, charged in list(self._charges) if task in charged), None)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the loop running until it is closed. Started once it runs."""
        with trio.CancelScope(shield=True):  # until `close`: an asyncio task that has lost its loop would never end
            async with trio_asyncio.open_loop() as loop:
                with _contained(loop):
                    loop.set_task_factory(_charge)
                    loop.set_exception_handler(_log_unhandled)
                    self._loop = loop
                    task_status.started()
                    await self._closing.wait()

    def close(self) -> None:
        """End the loop, once nothing runs in it."""
        self._closing.set()

    def entry(self, opens: OpenLifespan) -> Enter:
        """Return what holds an asyncio lifespan open, in one asyncio task from beginning to end."""

        async def enter(opened: Callable[[object], None], closing: Callable[[], Awaitable[None]]) -> None:
            async def hold() -> None:
                async with opens() as resources:
                    opened(resources)
                    await trio_asyncio.trio_as_aio(closing)()

            await self._call(hold(), None)

        return enter

    async def execute(
        self, spec: HandlerSpec, context: JobContext, payload: object, attempt: RunningAttempt, resources: object
    ) -> object:
        """Call a handler and return what it returns, once the asyncio tasks that it has started have ended.

        Nothing that it leaves behind, or lets fail in the background, ends the loop.
        """
        charged: set[asyncio.Task[object]] = set()
        context.give(resources)

        async def call() -> object:
            try:
                return await spec.function(context, payload)
            finally:
                await _end(lambda: charged - {asyncio.current_task()})  # noqa: ASYNC102 - this is asyncio, where a cancel comes once

        attempt.host = _Tasks(lambda: list(charged), lambda: self._open_shields(charged))
        charge = (attempt, charged)
        self._charges.append(charge)
        try:
            return await self._call(call(), charged)
        finally:
            self._charges.remove(charge)
            attempt.host = None

    def _open_shields(self, charged: set[asyncio.Task[object]]) -> None:
        assert self._loop is not None  # noqa: S101 - it runs as long as attempts do
        scope = _nursery_of(self._loop)
        # The Trio tasks of all attempts are in one nursery: each has the context of the asyncio task that called it.
        open_shields_between(scope, [task for task in tasks_below(scope) if task.context.get(_charged) is charged])

    async def _call(self, coroutine: Coroutine[object, None, object], charged: set[asyncio.Task[object]] | None) -> object:
        assert self._loop is not None  # noqa: S101 - it is running before anything else is started
        context = copy_context()
        context.run(trio_asyncio.current_loop.set, self._loop)
        context.run(_charged.set, charged)
        return await trio_asyncio.run_aio_future(self._loop.create_task(coroutine, context=context))


def calls_of(host: Host | None) -> list[tuple[str, list[FrameType]]]:
    """Return the name of each asyncio task of a handler, and its calls, the innermost last; none where it has not begun."""
    left = host.left() if isinstance(host, _Tasks) else []
    return [(task.get_name(), stacks.frames_of_coroutine(task.get_coro())) for task in left]


def _charge(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, None, object], **options: Unpack[_TaskOptions]
) -> asyncio.Task[object]:
    task = asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    charged = _charged.get() if context is None else context.get(_charged)
    if charged is not None:
        charged.add(task)
        task.add_done_callback(charged.discard)
    return task


@contextmanager
def _contained(loop: trio_asyncio.TrioEventLoop) -> Iterator[None]:
    """Let nothing that a task or a callback does end the loop while the block lasts.

    asyncio ends its loop for a SystemExit and a KeyboardInterrupt, and when it is told to stop; trio-asyncio then never resumes what
    waits for a task of that loop.
    """
    guard = ForkGuard()

    def call(callback: _Method, *args: object) -> None:
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            if not isinstance(getattr(callback, "__self__", None), asyncio.Task):  # a task keeps its error for what awaits it
                loop.call_exception_handler({"message": f"Exception in callback {callback!r}", "exception": error})
        guard.check()

    def schedule(method: _Method, place: int, *args: object, **options: object) -> object:
        return method(*args[:place], partial(call, cast("_Method", args[place])), *args[place + 1 :], **options)

    for name, place in _CALLBACK_PLACES.items():
        setattr(loop, name, partial(schedule, getattr(loop, name), place))
    loop.stop = _refuse_stop
    try:
        yield
    finally:
        del loop.stop  # what is left is the method


def _refuse_stop() -> NoReturn:
    raise RuntimeError("the event loop is the worker's, and no handler's to stop")


def _log_unhandled(_loop: asyncio.AbstractEventLoop, told: dict[str, object]) -> None:
    error = told.get("exception")
    shown = traceback_of(error) if isinstance(error, BaseException) else ""
    _log.warning("asyncio.unhandled", message=told.get("message"), exception=shown)


def context_of(context: JobContext) -> JobContext:
    """Return a context whose methods are awaited on asyncio; `nurse` is still to be set."""
    asyncio_context = context.copy_as(JobContext)
    asyncio_context.say = trio_asyncio.trio_as_aio(context.say)
    asyncio_context.enlist = trio_asyncio.trio_as_aio(context.enlist)
    return asyncio_context


def _nursery_of(loop: trio_asyncio.TrioEventLoop) -> trio.CancelScope:
    """Return the scope of the nursery in which a loop runs the Trio code that its asyncio tasks call; the loop is not in it."""
    scope: trio.CancelScope = loop._nursery.cancel_scope  # noqa: SLF001 - trio-asyncio shows it nowhere; a test pins it
    return scope


async def _end(left: Callable[[], set[asyncio.Task[object]]]) -> None:
    """Cancel and await what a handler has left behind, so that its outcome is written after its last line has run.

    As a nursery would: until there is none, those included that others start at their end, and whoever is cancelled meanwhile.
    """
    while tasks := left():
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
