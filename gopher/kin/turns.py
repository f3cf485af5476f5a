"""Turns of work that Redis may fail: each item has its turn, and one that fails is tried again later without holding up the others."""

from __future__ import annotations

import math
import random
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog
import trio

from gopher.errors import StoreError
from gopher.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Chosen: the work is done within 2 s of Redis being back."""

T = TypeVar("T", bound="Hashable")


class Turns(Generic[T]):
    """A line of items, each there at most once.

    Args:
        work: Does the work of an item; a `StoreError` has it done again later.
        at_once: How many items have their turn together.
    """

    def __init__(self, work: Callable[[T], Awaitable[None]], *, at_once: int = 1) -> None:
        self._work = work
        self._at_once = at_once
        self._waiting: dict[T, None] = {}
        self._failed: dict[T, StoreError] = {}
        self._retry_at = math.inf
        self._failures = 0
        self._has_work = trio.Event()

    def put(self, item: T) -> None:
        """Give an item a turn, behind those that wait; one that has failed keeps the moment of its next."""
        if item not in self._failed:
            self._waiting[item] = None
            self._has_work.set()

    async def run(self) -> None:
        """Give turns until cancelled."""
        while True:
            while not self._waiting and trio.current_time() < self._retry_at:
                self._has_work = trio.Event()
                with trio.move_on_at(self._retry_at):
                    await self._has_work.wait()
            if trio.current_time() >= self._retry_at:
                self._waiting.update(dict.fromkeys(self._failed))
                self._failed.clear()
                self._retry_at = math.inf
            await self._give_turns()
            self._plan_retry()

    async def _give_turns(self) -> None:
        batch = list(islice(self._waiting, self._at_once))
        # While their turn lasts.
        async with trio.open_nursery() as nursery:
            for item in batch:
                del self._waiting[item]
                nursery.start_soon(self._try, item)

    async def _try(self, item: T) -> None:
        try:
            await self._work(item)
        except StoreError as error:
            # Work that came meanwhile waits with it.
            self._waiting.pop(item, None)
            self._failed[item] = error

    def _plan_retry(self) -> None:
        if not self._failed:
            if not self._waiting:
                self._failures = 0
        elif self._retry_at == math.inf:
            self._failures += 1
            error = next(iter(self._failed.values()))
            _log.warning("nursery.delayed", items=len(self._failed), error=str(error))
            self._retry_at = trio.current_time() + _RETRY.delay_seconds(self._failures, random.random)
