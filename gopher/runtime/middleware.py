"""Runs a handler through the application's middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher.runtime.failures import holds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gopher.contexts import JobContext
    from gopher.surroundings import CallNext, Middleware


async def call_through(
    middleware: Sequence[Middleware], context: JobContext, payload: object, call: Callable[[], Awaitable[object]]
) -> object:
    """Call a handler through its middleware and return what the outermost returns.

    Cancellation:
        Middleware may delay it, as any code may, but not undo it: where a cancel of the attempt has ended the handler, it goes on
        from here even if the middleware has returned.
    """
    was_cancelled = False

    async def call_handler() -> object:
        nonlocal was_cancelled
        try:
            return await call()
        except BaseException as error:
            was_cancelled = holds(error, trio.Cancelled)
            raise

    call_next: CallNext = call_handler
    for each in reversed(middleware):
        call_next = _link(each, context, payload, call_next)
    result = await call_next()
    if was_cancelled:
        # Raises only where the cancel was the attempt's: a scope of the middleware's own is closed by now.
        await trio.lowlevel.checkpoint_if_cancelled()
    return result


def _link(function: Middleware, context: JobContext, payload: object, call_next: CallNext) -> CallNext:
    return lambda: function(context, payload, _once(call_next, function))


def _once(call_next: CallNext, function: Middleware) -> CallNext:
    """Return what calls the rest, and refuses to do so again: a handler runs once an attempt."""
    was_called = False

    def call_once() -> Awaitable[object]:
        nonlocal was_called
        if was_called:
            name = getattr(function, "__qualname__", repr(function))
            raise RuntimeError(
                f"the middleware {name} has called call_next twice: it runs the rest once; retries are the job's"
            )
        was_called = True
        return call_next()

    return call_once
