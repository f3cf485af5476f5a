"""Ends what outlasts its grace: cleanup that a handler has shielded, asyncio tasks, threads that may be left behind.

An attempt's cancel scope is cancelled once, by whoever cancels it or by its deadline. What then still runs when the grace is over is
cut here, again and again until it has ended. Who cannot be cut is named: where it hangs, in the log and in the worker's entry.

It looks at all attempts ten times a second while there are any, so that no attempt pays for it that is not late.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.runtime import stacks
from gopher.runtime.notices import CLEANUP_CUT, STUCK, Notice
from gopher.runtime.process_tree import kill_tree
from gopher.runtime.scope_tree import open_shields, tasks_below

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from gopher.handlers import Registry
    from gopher.runtime.scopes import RunningAttempt, Scopes

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LOOK_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 1.0
"""Chosen, both: how late a cut may come, and what a handler is given between two of them."""


@dataclass(slots=True)
class _Late:
    """An attempt that has outlasted its grace.

    Attributes:
        since: When it was first cut, by `time.monotonic()`.
        next_cut: When to cut it again, likewise.
        told: The notices given.
    """

    since: float
    next_cut: float = 0.0
    told: set[str] = field(default_factory=set)


class Cutter:
    """Cuts attempts whose grace is over.

    Args:
        scopes: The running attempts.
        registry: Their handlers.
        notice: Tells the watchers of an attempt: reason and message.
    """

    def __init__(self, scopes: Scopes, registry: Registry, notice: Callable[[RunningAttempt, str, str], None]) -> None:
        self._scopes = scopes
        self._registry = registry
        self._notice = notice
        self._late: dict[RunningAttempt, _Late] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Cut what there is, until cancelled."""
        task_status.started()
        while True:
            await self._scopes.wait_filled()
            self.tick()
            await trio.sleep(_LOOK_SECONDS)

    def tick(self) -> None:
        """Cut whoever is late, and name who is still there though it was cut before."""
        now = time.monotonic()
        late = {attempt: self._late.get(attempt) or _Late(now) for attempt in self._scopes.stuck()}
        self._late = late
        for attempt, state in late.items():
            if now >= state.next_cut:
                state.next_cut = now + _AGAIN_SECONDS
                self._cut(attempt, state, now)

    def _cut(self, attempt: RunningAttempt, state: _Late, now: float) -> None:
        stack = self._stack_of(attempt)
        attempt.hangs_at = stacks.place_of(stack, self._module_of(attempt))
        if now - state.since >= _AGAIN_SECONDS:
            self._tell_stuck(attempt, state, stack)
        notice = self._end(attempt, state, now) if attempt.host is None else attempt.host.cut()
        if notice is not None:
            self._tell(attempt, state, notice)

    def _end(self, attempt: RunningAttempt, state: _Late, now: float) -> Notice | None:
        scope = attempt.scope
        if scope is None:
            return None
        processes = _processes(scope)
        for process in processes:
            kill_tree(process.pid)
        if processes and now == state.since:
            # Who waits for them, as `trio.run_process` does under its own shield, is to see their end.
            state.next_cut = 0.0
        elif not open_shields(scope) and not processes:
            return None
        return Notice(
            CLEANUP_CUT, f"the grace of {attempt.grace_seconds:g} s is over: cleanup at {attempt.hangs_at or 'work'} was cut"
        )

    def _tell_stuck(self, attempt: RunningAttempt, state: _Late, stack: Sequence[FrameType]) -> None:
        if STUCK not in state.told:
            _log.error(
                "attempt.stuck",
                job_id=attempt.job.id,
                type=attempt.job.type,
                attempt=attempt.job.attempt,
                hangs_at=attempt.hangs_at,
                grace_seconds=attempt.grace_seconds,
                stack=stacks.shown(stack),
            )
            where = f" at {attempt.hangs_at}" if attempt.hangs_at else ""
            self._tell(attempt, state, Notice(STUCK, f"the handler has outlasted its end and the grace, and goes on{where}"))

    def _tell(self, attempt: RunningAttempt, state: _Late, notice: Notice) -> None:
        if notice.reason not in state.told:
            state.told.add(notice.reason)
            self._notice(attempt, notice.reason, notice.message)

    def _module_of(self, attempt: RunningAttempt) -> str:
        spec = self._registry.get(attempt.job.type)
        return "" if spec is None else getattr(spec.function, "__module__", "") or ""

    def _stack_of(self, attempt: RunningAttempt) -> Sequence[FrameType]:
        if attempt.host is not None:
            return attempt.host.frames()
        if attempt.scope is None:
            return []
        tasks = tasks_below(attempt.scope)
        # Who has opened a nursery most likely waits for those in it.
        waiting = next((task for task in tasks if not task.child_nurseries), tasks[0] if tasks else None)
        return [] if waiting is None else stacks.frames_of_coroutine(waiting.coro)


def _processes(scope: trio.CancelScope) -> list[trio.Process]:
    """Return the running processes that the code below a scope has in its variables, as `trio.run_process` has its own."""
    frames = [frame for task in tasks_below(scope) for frame in stacks.frames_of_coroutine(task.coro)]
    held = {id(value): value for frame in frames for value in frame.f_locals.values() if isinstance(value, trio.Process)}
    return [process for process in held.values() if process.returncode is None]
