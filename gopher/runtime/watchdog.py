"""Notices that a handler blocks the loop, and names it: while it does, and by a thread, since nothing else runs.

Trio runs in rounds: it waits for what happened, then gives each Trio task that can go on one step, from checkpoint to checkpoint.
A step that lasts longer than a second blocks the loop: no other handler goes on, nothing is claimed, no cancel is heard. An
instrument notes when each round begins; where one lasts, the thread looks for the task that runs, a few times a second. It reads from
the task's context whose attempt it is, and from the interpreter where it is. To note each step would be simpler and cost a short
handler 1 % (measured); a round costs 0.3 %.

What is not the loop's own doing is not held against it: a process that was stopped, or got no processor, is counted from when
it went on. Handlers in threads and subprocesses take no steps and are not watched.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.runtime.own_code import innermost_own, is_own
from gopher.runtime.scopes import RunningAttempt
from gopher.store.registry import LoopBlock
from gopher.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gopher.handlers import Registry

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BLOCKED_SECONDS: Final = 1.0
"""Chosen: far beyond what a step takes that only decides what to await next, and what anybody waits for in silence."""
_OF_LEASE: Final = 0.25
"""Chosen: what a claim took whose reply lies unread must be given back while its lease stands."""
_LOOKS: Final = 4
"""In that time; chosen: a look costs some 2 us, and a block is noticed a quarter late."""
_CLOSE_LOOK_SECONDS: Final = 0.05
"""While the loop is blocked, so that its end is known as exactly."""
_LATE: Final = 3
"""Chosen: a look that comes this many times later than it should was kept from it, by the code that is looked for or from outside."""
_MOST_FRAMES: Final = 30
"""Of a stack, innermost; chosen: what an operator reads."""


class _Rounds(trio.abc.Instrument):
    """Knows when the present round of Trio's loop has begun, or the last one before it waits, by `time.monotonic()`."""

    def __init__(self) -> None:
        self.began_at = time.monotonic()

    def after_io_wait(self, _timeout: float) -> None:
        self.began_at = time.monotonic()


@dataclass(slots=True, eq=False)
class _Step:
    """A step of a Trio task, from when it is seen: one a round.

    Attributes:
        task: Whose.
        round_at: When its round has begun.
        began_at: When it began itself, as far as is known.
    """

    task: trio.lowlevel.Task
    round_at: float
    began_at: float


@dataclass(slots=True)
class _Block:
    """A block, from when it is noticed."""

    step: _Step
    attempt: log.Attempt | None
    function: str
    told_seconds: float = field(default=0.0)

    def seconds(self) -> float:
        return time.monotonic() - self.step.began_at

    @property
    def job_type(self) -> str:
        return "" if self.attempt is None else self.attempt.job.type

    def record(self, seconds: float) -> LoopBlock:
        job_id = "" if self.attempt is None else self.attempt.job.id
        return LoopBlock(type=self.job_type, function=self.function, job_id=job_id, seconds=seconds)


class Watchdog:
    """Watches the loop that runs it.

    Args:
        registry: Names the functions.
        charged: Returns the attempt whose asyncio code runs now in a loop that all attempts share, if any.
        on_change: Called in the watchdog's thread when a block begins, and when it has ended.
        notice: Called on the Trio thread with an attempt that has blocked the loop, LOOP_BLOCKED, and a sentence that says so.
        lease_seconds: Lease of the worker's claims; a step may last a second, or a quarter of a shorter lease.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        charged: Callable[[], log.Attempt | None],
        on_change: Callable[[], None],
        notice: Callable[[RunningAttempt, str, str], None],
        lease_seconds: float,
    ) -> None:
        self._registry = registry
        self._charged = charged
        self._on_change = on_change
        self._notice = notice
        self._blocked_seconds = min(_BLOCKED_SECONDS, lease_seconds * _OF_LEASE)
        self._look_seconds = self._blocked_seconds / _LOOKS
        self._rounds = _Rounds()
        self._root: trio.lowlevel.Task | None = None
        self._step: _Step | None = None
        self._stopping = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread_id = 0
        self._block: _Block | None = None
        self._totals: dict[tuple[str, str], float] = {}
        self._looked_at = time.monotonic()
        self._cpu_seconds = time.process_time()

    @property
    def is_blocked(self) -> bool:
        """Whether the loop is blocked now. Safe in any thread."""
        return self._block is not None

    @property
    def block(self) -> LoopBlock | None:
        """What blocks the loop now. Safe in any thread."""
        block = self._block
        return None if block is None else block.record(block.seconds())

    @property
    def totals(self) -> list[LoopBlock]:
        """For how long the loop has been blocked since the start, by type and function. Safe in any thread."""
        totals, block = dict(self._totals), self._block
        if block is not None:
            culprit = (block.job_type, block.function)
            totals[culprit] = totals.get(culprit, 0.0) + block.seconds()
        return [LoopBlock(type=of, function=function, seconds=seconds) for (of, function), seconds in totals.items()]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        self._root = trio.lowlevel.current_root_task()
        self._thread_id = threading.get_ident()
        thread = threading.Thread(target=self._work, name="gopher-watchdog", daemon=True)
        trio.lowlevel.add_instrument(self._rounds)
        thread.start()
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._stopping.set()
            trio.lowlevel.remove_instrument(self._rounds)

    def tick(self) -> None:
        """Look once. For the watchdog's thread."""
        last, now = self._looked_at, time.monotonic()
        if self._was_stopped(now):
            last = now
            if self._step is not None:
                self._step.began_at = now
        step = self._look(last, now)
        block = self._block
        if block is not None and step is not block.step:
            self._end(block, now - block.step.began_at)
            block = None
        if step is None:
            return
        seconds = now - step.began_at
        if seconds >= (self._blocked_seconds if block is None else 2 * block.told_seconds):
            stack = self._stack(step)
            self._tell(block or self._begin(step), seconds, stack)

    def _look(self, last: float, now: float) -> _Step | None:
        """Return the step that Trio is at; None while its round is young, and while it waits.

        Args:
            last: When the look before was; a step that was not there then began later.
            now: The moment.
        """
        round_at, before = self._rounds.began_at, self._step
        self._step = None
        if now - round_at >= self._look_seconds and self._root is not None:
            task = _running(self._root)
            if before is not None and before.task is task and before.round_at == round_at:
                self._step = before
            elif task is not None and self._rounds.began_at == round_at:
                self._step = _Step(task, round_at, max(round_at, last))
        return self._step

    def _work(self) -> None:
        try:
            while not self._stopping.wait(self._look_seconds if self._block is None else _CLOSE_LOOK_SECONDS):
                self.tick()
        finally:
            self._block = None  # whatever ends this thread: while it is set, jobs are given back

    def _was_stopped(self, now: float) -> bool:
        """Tell whether the process did not run since the last look; code that holds the interpreter's lock takes processor time."""
        elapsed, cpu_seconds = now - self._looked_at, time.process_time()
        is_stop = elapsed > _LATE * self._look_seconds and cpu_seconds - self._cpu_seconds < elapsed / 2
        self._looked_at, self._cpu_seconds = now, cpu_seconds
        return is_stop

    def _begin(self, step: _Step) -> _Block:
        attempt = log.attempt_in(step.task.context) or self._charged()
        spec = None if attempt is None else self._registry.get(attempt.job.type)
        function = step.task.name if spec is None else spec.name
        self._block = block = _Block(step, attempt, function)
        self._on_change()
        return block

    def _stack(self, step: _Step) -> list[traceback.FrameSummary]:
        """Return the step's calls under way, outermost first; none where the loop has gone on, and they may be somebody else's."""
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - Python's own, and documented, in spite of its name
        if frame is None:
            return []
        outermost = step.task.coro.cr_frame
        calls: list[traceback.FrameSummary] = []
        for each, line in traceback.walk_stack(frame):
            # Its line is read later: to read a file would let a loop go on that waits for the interpreter's lock.
            calls.append(traceback.FrameSummary(each.f_code.co_filename, line, each.f_code.co_name, lookup_line=False))
            if each is outermost:  # what calls Trio, a program of the application's perhaps, has no part in it
                break
        return calls[::-1] if self._rounds.began_at == step.round_at else []

    def _tell(self, block: _Block, seconds: float, stack: list[traceback.FrameSummary]) -> None:
        block.told_seconds = seconds
        place = innermost_own([line.filename for line in stack], self._home(block))
        _log.warning(
            "loop.blocked",
            **_names(block),
            seconds=round(seconds, 1),
            at=None if place is None else f"{stack[place].filename}:{stack[place].lineno} in {stack[place].name}",
            stack="".join(traceback.format_list(_of_application(stack))).rstrip(),
        )

    def _home(self, block: _Block) -> str | None:
        spec = self._registry.get(block.job_type)
        return None if spec is None else spec.file

    def _end(self, block: _Block, seconds: float) -> None:
        culprit = (block.job_type, block.function)
        # In this order: a total that lacks the block for a moment would seem to fall.
        self._totals[culprit] = self._totals.get(culprit, 0.0) + seconds
        self._block = None
        self._on_change()
        _log.warning("loop.unblocked", **_names(block), seconds=round(seconds, 1))
        if isinstance(block.attempt, RunningAttempt) and self._token is not None:
            said = f"{block.function} kept the worker's loop for {seconds:.1f} s without a checkpoint"
            try:
                self._token.run_sync_soon(self._notice, block.attempt, "LOOP_BLOCKED", said)
            except trio.RunFinishedError:
                self._stopping.set()


def _running(root: trio.lowlevel.Task) -> trio.lowlevel.Task | None:
    """Find the Trio task that runs, in any thread; None where none does, or another goes on meanwhile."""
    waiting = [root]
    try:
        while waiting:
            task = waiting.pop()
            if getattr(task.coro, "cr_running", False):
                return task
            for nursery in task.child_nurseries:
                waiting.extend(nursery.child_tasks)
    except RuntimeError:  # a set has changed while it was read: the loop is not blocked
        pass
    return None


def _names(block: _Block) -> dict[str, str | int | None]:
    attempt = block.attempt
    if attempt is None:
        return {"job_id": None, "type": None, "function": block.function}
    return {"job_id": attempt.job.id, "type": attempt.job.type, "attempt": attempt.job.attempt, "function": block.function}


def _of_application(stack: list[traceback.FrameSummary]) -> Iterator[traceback.FrameSummary]:
    """Leave out what calls the application: Python, Trio and Gopher; all of it where nothing else is there."""
    first = next((place for place, line in enumerate(stack) if is_own(line.filename)), 0)
    return iter(stack[max(first, len(stack) - _MOST_FRAMES) :])
