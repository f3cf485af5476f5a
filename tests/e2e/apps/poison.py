"""Handlers that raise, or do, what may be taken for the end of their worker."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, Final, NoReturn

import trio

import gopher
from tests.e2e.apps.work import quick

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.handlers import FunctionT

DEPTH: Final = 5_000

registry = gopher.Registry()
registry.handler("quick")(quick)

raising: Final[list[str]] = []
"""The types whose handlers only ever raise."""


def raises(job_type: str, *, process: bool = False, asyncio: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Register a handler that raises, for two attempts."""
    raising.append(job_type)
    return registry.handler(job_type, max_attempts=2, backoff_initial_seconds=0.01, process=process, asyncio=asyncio)


@raises("interrupt")
async def interrupt(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Raise what Ctrl-C would."""
    await trio.lowlevel.checkpoint()
    raise KeyboardInterrupt


@raises("interrupt-in-groups")
async def interrupt_in_groups(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Do the same in a nursery in a nursery, beside another error."""
    async with trio.open_nursery() as outer:
        outer.start_soon(_fail)
        async with trio.open_nursery() as inner:  # noqa: ASYNC112 - a group in a group
            inner.start_soon(_interrupt)


async def _interrupt() -> NoReturn:
    await trio.lowlevel.checkpoint()
    raise KeyboardInterrupt


async def _fail() -> NoReturn:
    await trio.lowlevel.checkpoint()
    raise ValueError("beside it")


async def _stray() -> trio.Cancelled:
    """Return a cancel that has done its work already."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:  # noqa: ASYNC103 - what no handler should do
            return error  # noqa: ASYNC104 - likewise
    raise AssertionError


@raises("stray-cancel")
async def stray_cancel(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Raise a cancel again whose scope is over."""
    raise await _stray()


@raises("stray-cancel-in-groups")
async def stray_cancel_in_groups(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Do the same in groups."""
    raise BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [await _stray()]), ValueError()])


@raises("deep")
async def deep(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Raise a group in a group in a group and so on."""
    await trio.lowlevel.checkpoint()
    error: Exception = ValueError("at the bottom")
    for _ in range(DEPTH):
        error = ExceptionGroup("", [error])
    raise error


class _Textless(Exception):  # noqa: N818 - so that it reads as what it is
    def __str__(self) -> str:
        raise SystemExit(3)


@raises("textless")
async def textless(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Raise an error that raises once more when its text is asked for."""
    await trio.lowlevel.checkpoint()
    raise _Textless


@raises("thread-interrupt")
def thread_interrupt(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> None:
    """Raise it in a thread."""
    raise KeyboardInterrupt


@raises("thread-exit")
def thread_exit(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> None:
    """Exit in a thread."""
    raise SystemExit(3)


@raises("process-interrupt", process=True)
def process_interrupt(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> None:
    """Raise it in a subprocess."""
    raise KeyboardInterrupt


@raises("process-exit", process=True)
async def process_exit(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Exit in a subprocess, on Trio."""
    await trio.lowlevel.checkpoint()
    raise SystemExit(3)


@raises("asyncio-interrupt", asyncio=True)
async def asyncio_interrupt(job: gopher.JobContext, payload: gopher.JsonValue) -> None:  # noqa: ASYNC124 - a handler
    """Raise it on asyncio."""
    raise KeyboardInterrupt


@raises("asyncio-exit", asyncio=True)
async def asyncio_exit(job: gopher.JobContext, payload: gopher.JsonValue) -> None:  # noqa: ASYNC124 - a handler
    """Exit on asyncio."""
    raise SystemExit(3)


@raises("asyncio-task-exit", asyncio=True)
async def asyncio_task_exit(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Exit in a task of its own that is awaited."""
    import asyncio  # noqa: TID251 - what the handler is made of

    await asyncio.create_task(asyncio_exit(job, payload))  # noqa: ASYNC300 - awaited at once


@registry.handler("leaked-scope")
async def leaked_scope(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Enter a cancel scope and never leave it."""
    await trio.lowlevel.checkpoint()
    trio.CancelScope().__enter__()


@registry.handler("leaked-nursery")
async def leaked_nursery(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Open a nursery and never leave it."""
    await trio.lowlevel.checkpoint()
    nursery = await trio.open_nursery().__aenter__()
    nursery.start_soon(trio.sleep_forever)


@registry.handler("fork")
async def fork(job: gopher.JobContext, payload: gopher.JsonValue) -> int:
    """Fork, and let the child return as the parent does."""
    await trio.lowlevel.checkpoint()
    return os.fork()


@registry.handler("fork-and-wait")
async def fork_and_wait(job: gopher.JobContext, payload: gopher.JsonValue) -> int:
    """Fork, and let the child go on in the worker's loop."""
    pid = os.fork()
    for _ in range(100):
        await trio.lowlevel.checkpoint()
    return pid


@registry.handler("fork-in-thread")
def fork_in_thread(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> int:
    """Fork in a thread."""
    return os.fork()


@registry.handler("fork-in-process", process=True)
def fork_in_process(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> int:
    """Fork in a subprocess."""
    return os.fork()


@registry.handler("left-thread")
async def left_thread(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Leave a thread behind that keeps the process alive."""
    await trio.lowlevel.checkpoint()
    threading.Thread(target=threading.Event().wait, name="left-behind").start()


@registry.handler("hold-interpreter")
def hold_interpreter(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> int:
    """Keep the interpreter's lock for ever, as C code can; the second attempt does not."""
    if job.attempt == 1:
        ctypes.PyDLL(None).pause()
    return job.attempt
