"""The slots of a worker: Trio tasks that run attempts, one after another.

A task a slot rather than a task an attempt, because to start and end a Trio task costs as much as all else that Gopher does for a
short handler. A slot that has run an attempt takes the next at once. No attempt sees traces of an earlier one: a slot ends, and
another is started when it is wanted, if an attempt did anything but return, or left context variables behind.

Slots are woken as they are needed. Handing attempts over wakes one slot; each that wakes and sees attempts waiting wakes two more.
So handlers that return without waiting are all run by the first, and a hundred that wait are under way after seven rounds of the
scheduler.
"""

from __future__ import annotations

import time
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

from gopher.telemetry import log

if TYPE_CHECKING:
    from gopher.runtime.runner import Runner, Taken
    from gopher.runtime.scopes import RunningAttempt
    from gopher.runtime.settler import Outcomes

_LONGEST_SECONDS: Final = 0.001
"""Chosen: how long handlers that never wait may keep the loop from looking at the network."""


class Slots:
    """Runs attempts in as many Trio tasks as there are attempts at once.

    Whoever hands attempts over keeps their number within the worker's slots; there is no other bound here.

    Args:
        runner: Runs one attempt.
        nursery: Where the tasks live.
    """

    def __init__(self, runner: Runner, nursery: trio.Nursery) -> None:
        self._runner = runner
        self._nursery = nursery
        self._waiting: deque[Taken] = deque()
        self._idle: list[trio.lowlevel.Task] = []
        self._clean = copy_context()

    def put_nowait(self, attempt: RunningAttempt, outcomes: Outcomes) -> None:
        """Have an attempt run soon, in the order of the calls; `start_nowait` must follow."""
        self._waiting.append((attempt, outcomes))

    def start_nowait(self) -> None:
        """Wake a slot, or make one, for what was put."""
        if self._waiting:
            self._wake_one()

    def _wake_one(self) -> None:
        if self._idle:
            reschedule(self._idle.pop())
        else:
            # A Trio task inherits the context of whoever starts it, which may be a slot that ends for what was left in its own.
            self._clean.run(partial(self._nursery.start_soon, self._run, name="slot"))

    async def _run(self) -> None:
        log.open_slot()
        empty = copy_context()
        until = 0.0

        def take() -> Taken | None:
            if not self._waiting or time.perf_counter() > until or copy_context() != empty:
                return None
            return self._waiting.popleft()

        while True:
            for _ in range(min(2, len(self._waiting) - 1)):
                self._wake_one()
            while self._waiting:
                until = time.perf_counter() + _LONGEST_SECONDS
                is_clean = await self._runner.run(take)
                if not is_clean or copy_context() != empty:
                    self.start_nowait()
                    return
                await trio.lowlevel.checkpoint()
            await self._park()

    async def _park(self) -> None:
        task = current_task()
        self._idle.append(task)

        def leave(_raise_cancel: object) -> Abort:
            self._idle.remove(task)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)
