"""What an application puts around its handlers: lifespans, which open what they share, and middleware, which each attempt runs through."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

from gopher.contexts import JobContext

if TYPE_CHECKING:
    from collections.abc import Sequence

CallNext: TypeAlias = Callable[[], Awaitable[object]]
Middleware: TypeAlias = Callable[[JobContext, object, CallNext], Awaitable[object]]
OpenLifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

LifespanT = TypeVar("LifespanT", bound=Callable[[], AsyncIterator[object]] | OpenLifespan)
MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)


class Surroundings:
    """The lifespans and the middleware of a registry.

    Attributes:
        trio_lifespan: Opens what handlers on Trio and in threads share; None for nothing.
        asyncio_lifespan: Opens what handlers marked `asyncio=True` share; None for nothing.
    """

    def __init__(self) -> None:
        self.trio_lifespan: OpenLifespan | None = None
        self.asyncio_lifespan: OpenLifespan | None = None
        self._middleware: list[Middleware] = []

    @overload
    def lifespan(self, function: LifespanT) -> LifespanT: ...

    @overload
    def lifespan(self, *, asyncio: bool = False) -> Callable[[LifespanT], LifespanT]: ...

    def lifespan(
        self, function: LifespanT | None = None, *, asyncio: bool = False
    ) -> LifespanT | Callable[[LifespanT], LifespanT]:
        """Open something once a worker process, before it is ready, and close it after the last attempt.

        What the decorated function yields is `job.resources`: of a Trio lifespan for handlers on Trio and in threads, of an
        asyncio lifespan for handlers marked `asyncio=True`, which then share one event loop. A registry has at most one of each.

        Args:
            function: An `async def` of no arguments that yields once, or an asynchronous context manager of no arguments.
            asyncio: Whether it speaks asyncio.

        Raises:
            ValueError: It is no such function, or there is one already.
        """

        def register(function: LifespanT) -> LifespanT:
            opens = _opens(function)
            if (self.asyncio_lifespan if asyncio else self.trio_lifespan) is not None:
                raise ValueError(f"the registry has {'an asyncio' if asyncio else 'a'} lifespan already: let one open all")
            if asyncio:
                self.asyncio_lifespan = opens
            else:
                self.trio_lifespan = opens
            return function

        return register if function is None else register(function)

    def middleware(self, function: MiddlewareT) -> MiddlewareT:
        """Have every attempt run through the decorated function; the first one registered is the outermost.

        It runs on Trio in the worker, whatever the kind of the handler, as `function(job, payload, call_next)`, within the
        attempt's time limit. `await call_next()` runs the rest, once, and returns or raises what comes of it, verdicts included;
        what the function returns is the job's result.

        Args:
            function: An `async def` of three arguments.

        Raises:
            ValueError: It is none.
        """
        is_coroutine = inspect.iscoroutinefunction(function)
        if not is_coroutine or not _takes(inspect.signature(function), 3):
            raise ValueError(f"{function} must be an async def of three arguments: the job, its payload and call_next")
        self._middleware.append(function)
        return function

    @property
    def middlewares(self) -> Sequence[Middleware]:
        """The middleware, outermost first; later registrations show in it."""
        return self._middleware


def _opens(function: LifespanT) -> OpenLifespan:
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or not _takes(inspect.signature(function), 0)
    ):
        raise ValueError(f"{function} must be an async def of no arguments that yields once")
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(function)
    opens: OpenLifespan = function  # type: ignore[assignment]  # told apart by what it returns, at the worker's start
    return opens


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
