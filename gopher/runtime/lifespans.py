"""Keeps what the application's lifespans open, from before the worker is ready until after its last attempt.

Each lifespan lives in a Trio task of its own, so that its nurseries and time-outs cancel nothing but itself; where it ends too early,
the worker aborts. Once open it is shielded: whatever ends the worker, the attempts end first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
import trio

from gopher.errors import StartError
from gopher.runtime.failures import cut, message_of, sole
from gopher.runtime.tracebacks import traceback_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.runtime.asyncio_loop import SharedLoop
    from gopher.surroundings import OpenLifespan, Surroundings
    from gopher.telemetry.log import Attempt

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CUT_SECONDS: Final = 0.5
"""Chosen: for a lifespan to end once its closing was cut short."""

Enter: TypeAlias = Callable[[Callable[[object], None], Callable[[], Awaitable[None]]], Awaitable[None]]
"""Holds a lifespan open: calls the first argument with what it yields, then awaits the second."""


class Lifespan:
    """One lifespan and what it yields.

    Attributes:
        resources: What it yields, while it is open.
        is_open: Whether it has been opened.
        failure: Why it could not be opened, or ended too early.

    Args:
        enter: Holds it open.
        on_end: Called where it ends too early.
    """

    def __init__(self, enter: Enter, on_end: Callable[[], None]) -> None:
        self.resources: object = None
        self.failure: StartError | None = None
        self._enter = enter
        self._on_end = on_end
        self._scope = trio.CancelScope()
        self.is_open = False
        self._closing = trio.Event()
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Open it and keep it open until it is closed. Started once it is open, or cannot be opened."""

        def opened(resources: object) -> None:
            self.resources = resources
            self.is_open = True
            self._scope.shield = True  # until `close`, which sets its deadline, and which the worker calls however it ends
            task_status.started()

        error: BaseException | None = None
        try:
            with self._scope:
                await self._enter(opened, self._closing.wait)
        except* (Exception, SystemExit) as group:  # noqa: BLE001 - whatever the application raises is told below, in each case
            error = sole(group)
        finally:
            self._ended.set()
        self._judge(error)
        if not self.is_open:
            task_status.started()

    def stop_opening(self) -> None:
        """Give up opening it, if it is not open."""
        if not self.is_open:
            self._scope.cancel(reason="drain")

    async def close(self, latest: float) -> None:
        """Close it.

        Args:
            latest: When that is cut short, by Trio's clock.
        """
        self._scope.deadline = latest
        self._closing.set()
        await self._ended.wait()

    def _judge(self, error: BaseException | None) -> None:
        told = {} if error is None else {"exception": traceback_of(error)}
        text = "it ended by itself" if error is None else cut(f"{type(error).__name__}: {message_of(error)}")
        if not self.is_open:
            if error is not None:
                _log.error("lifespan.failed", **told)
                self.failure = StartError(f"the lifespan cannot be opened: {text}")
        elif not self._closing.is_set():
            _log.error("lifespan.failed", **told)
            self.failure = StartError(f"the lifespan has ended before the worker: {text}")
            self._on_end()
        elif error is not None:
            _log.error("lifespan.close_failed", **told)
        elif self._scope.cancelled_caught:
            _log.warning("lifespan.close_cut")


class Lifespans:
    """The lifespans of a worker.

    Attributes:
        trio: That of handlers on Trio and in threads; None where the registry has none.
        asyncio: That of asyncio handlers; likewise.
        loop: Where these run; None where each has a loop of its own.

    Args:
        registry: Says what there is to open.
        on_end: Called where one ends too early.
    """

    def __init__(self, registry: Surroundings, on_end: Callable[[], None]) -> None:
        self.loop: SharedLoop | None = None
        self.trio: Lifespan | None = None
        self.asyncio: Lifespan | None = None
        if registry.trio_lifespan is not None:
            self.trio = Lifespan(_entry(registry.trio_lifespan), on_end)
        if registry.asyncio_lifespan is not None:
            # For workers with such a lifespan only: to import trio_asyncio changes asyncio for the whole process.
            from gopher.runtime.asyncio_loop import SharedLoop

            self.loop = SharedLoop()
            self.asyncio = Lifespan(self.loop.entry(registry.asyncio_lifespan), on_end)
        self._all = [each for each in (self.trio, self.asyncio) if each is not None]

    def charged(self) -> Attempt | None:
        """Return the attempt whose asyncio code runs now in the loop that they share, if any. Safe in any thread."""
        return None if self.loop is None else self.loop.running

    def stop_opening(self) -> None:
        """Give up opening what is not open."""
        for each in self._all:
            each.stop_opening()

    @asynccontextmanager
    async def keep_open(self, until: Callable[[], float]) -> AsyncIterator[bool]:
        """Open all before the block and close them after it, the last one first; gives whether they are open.

        Args:
            until: Gives, at the end of the block, when closing is cut short, by Trio's clock.

        Raises:
            StartError: One cannot be opened, or has ended before the block.
        """
        opened: list[Lifespan] = []
        async with trio.open_nursery() as nursery:
            if self.loop is not None:
                await nursery.start(self.loop.run)
            try:
                for each in self._all:
                    opened.append(each)
                    await nursery.start(each.run)
                    if not each.is_open:
                        break
                if all(each.failure is None for each in opened):
                    yield all(each.is_open for each in self._all)
            finally:
                latest = until()
                with trio.CancelScope(deadline=latest + _CUT_SECONDS, shield=True):  # so that resources are closed, not dropped
                    for each in reversed(opened):
                        await each.close(latest)
                if self.loop is not None:
                    self.loop.close()
        for each in opened:
            if each.failure is not None:
                raise each.failure


def _entry(opens: OpenLifespan) -> Enter:
    async def enter(opened: Callable[[object], None], closing: Callable[[], Awaitable[None]]) -> None:
        async with opens() as resources:
            opened(resources)
            await closing()

    return enter
