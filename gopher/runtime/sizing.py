"""How many slots a worker has: as many as pay, found by trying, between two bounds.

`Sizing` is the law, and pure. It looks at one window of work after the other and moves only while jobs wait, since nothing can be
learnt about slots that are not wanted:

- It climbs on the attempts ended a second. More slots are kept when they bring in at least a third of what they should, fewer when
  they cost nothing; otherwise the slots go back, the next step is smaller, and at last both directions rest for a while.
- Which way is tried first is the processor's say: upwards while this process leaves it idle, downwards while it keeps it busy.
- A loop that is late because of its own work, and memory that is nearly full, take slots away whatever the rate says.
- Slots that have not been wanted for a while are given up by half, so that a burst of other work does not meet them all.

So work that waits ends at the upper bound, or where what it waits for gives no more; work that computes ends where the processor
is just kept busy. Without attempts that end there is nothing to measure: then slots grow while the processor is idle.

Source: hill climbing as in the .NET thread pool (Hellerstein et al., "Applying Control Theory in the Real World: Experience with
Building a Controller for the .NET Thread Pool", 2009); multiplicative decrease under pressure as in TCP; giving up what is not
used as in RFC 7661.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from gopher.runtime import machine

if TYPE_CHECKING:
    from gopher.runtime.claimer import Claimer
    from gopher.runtime.scopes import Scopes

LOOK_SECONDS: Final = 0.1
"""Between two looks, while anything runs; chosen: a look costs some 50 us."""
_MEMORY_SECONDS: Final = 1.0
"""Between two readings of the memory in use; chosen: one costs some 300 us."""
_SHORTEST_SECONDS: Final = 1.0
"""Of a window; chosen: a shorter one sees more noise than change."""
_LONGEST_SECONDS: Final = 6.0
_TURNS: Final = 4
"""Chosen: a window lasts as long as four attempts one after another, so that what began before it weighs little."""
_ENOUGH: Final = 10
"""Chosen: attempts that must end in a window before its rate is believed."""
_START: Final = 10
_FIRST_STEP: Final = 1.0
_LAST_STEP: Final = 0.2
_WORTH: Final = 1 / 3
"""Chosen: the part of the gain that more slots would bring if nothing held them up, from which on they are kept."""
_FREE: Final = 0.03
"""Chosen: the loss up to which fewer slots cost nothing."""
_BUSY: Final = 0.9
"""Of a CPU, the interpreter's own bound for Python code, or of the part of one that may be had: here fewer slots are tried first."""
_LATE_SECONDS: Final = 0.05
"""Mean lag of the loop above which slots are taken away. Chosen: a cancel, a heartbeat or a new job waits about that long."""
_MEMORY_HIGH, _MEMORY_FULL = 0.85, 0.92
"""Chosen: above the first nothing grows, above the second it shrinks; what runs still needs the rest."""
_SHRINK: Final = 0.8
_FIRST_REST_SECONDS: Final = 2.0
_LONGEST_REST_SECONDS: Final = 30.0
UNUSED_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is to be seen at one moment; counts are totals.

    Attributes:
        at: On the law's clock, seconds.
        ended: Attempts that have ended so far.
        busy: Attempts that run.
        jobs_wait: Whether the queues have given all that was asked for at the last claim.
        lag_seconds: By how much the loop came later to this look than it was to.
        processor_seconds: That this process has wanted so far, waiting for a CPU included.
        memory: Part of the memory in use, 0 to 1.
    """

    at: float
    ended: int
    busy: int
    jobs_wait: bool
    lag_seconds: float
    processor_seconds: float
    memory: float


@dataclass(slots=True)
class _Window:
    """The looks since the last decision."""

    first: Look
    last: Look
    looks: int = 0
    waiting: int = 0
    busy: int = 0
    peak: int = 0
    lag_seconds: float = 0.0

    def add(self, look: Look) -> None:
        self.last = look
        self.looks += 1
        self.waiting += look.jobs_wait
        self.busy += look.busy
        self.peak = max(self.peak, look.busy)
        self.lag_seconds += look.lag_seconds

    @property
    def seconds(self) -> float:
        return self.last.at - self.first.at

    @property
    def is_long_enough(self) -> bool:
        if self.seconds < _SHORTEST_SECONDS:
            return False
        # By Little's law the mean run time is the mean number that run over the rate.
        run_seconds = self.busy / self.looks / self.rate if self.rate else math.inf
        return self.seconds >= min(_LONGEST_SECONDS, _TURNS * run_seconds)

    @property
    def rate(self) -> float:
        """Attempts ended a second."""
        return (self.last.ended - self.first.ended) / self.seconds

    @property
    def tells(self) -> bool:
        """Whether the rate is to be believed."""
        return self.last.ended - self.first.ended >= _ENOUGH

    @property
    def cpus(self) -> float:
        return (self.last.processor_seconds - self.first.processor_seconds) / self.seconds

    @property
    def is_wanted(self) -> bool:
        """Whether jobs waited for a slot most of the time."""
        return self.waiting * 2 > self.looks


class Sizing:
    """The law. Given looks, it tells the number of slots.

    Attributes:
        slots: The present number.

    Args:
        minimum: Least slots, >= 1.
        maximum: Most.
        cpus: Processor time a second that this process may have; Python code uses at most one.
    """

    def __init__(self, minimum: int, maximum: int, *, cpus: float = 1.0) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._busy_cpus = _BUSY * min(1.0, cpus)
        self._start = min(maximum, max(minimum, _START))
        self.slots = self._start
        self._window: _Window | None = None
        self._before: tuple[int, float] | None = None
        """Slots and rate that a trial is held against; None when none is under way."""
        self._way: int | None = None
        self._way_rate = 0.0
        self._step = _FIRST_STEP
        self._failures = 0
        self._rest_until = -math.inf
        self._rest_seconds = _FIRST_REST_SECONDS
        self._wanted_at = -math.inf

    @property
    def is_fixed(self) -> bool:
        """Whether the bounds leave nothing to find out."""
        return self._minimum == self._maximum

    def look(self, look: Look) -> int:
        """Take a look in and return how many slots there are from now on."""
        if self._window is None:
            self._wanted_at = max(self._wanted_at, look.at - UNUSED_SECONDS / 2)
            self._window = _Window(look, look)
            return self.slots
        self._window.add(look)
        if self._window.is_long_enough:
            slots = self._decide(self._window)
            self.slots = min(self._maximum, max(self._minimum, slots))
            self._window = _Window(look, look)
        return self.slots

    def pause(self) -> None:
        """Note that nothing runs: what was under way to be measured is dropped."""
        self._window = None
        self._give_up_trial()

    def idle(self) -> int:
        """Note that nothing has run for `UNUSED_SECONDS`, and return how many slots there are from now on."""
        self.slots = min(self.slots, max(self._start, self.slots // 2))
        return self.slots

    @property
    def has_spare(self) -> bool:
        """Whether there are more slots than a worker begins with."""
        return self.slots > self._start

    def _decide(self, window: _Window) -> int:
        now = window.last.at
        if window.is_wanted or window.peak > self.slots / 2:
            self._wanted_at = now
        pressed = self._under_pressure(window)
        if pressed is not None:
            self._give_up_trial()
            self._step = _LAST_STEP
            self._rest(now)
            return pressed
        if not window.is_wanted:
            self._give_up_trial()
            return self._unused(now, window.peak)
        before, self._before = self._before, None
        if before is not None:
            if not self._pays(window, *before):
                self._step_back(now)
                return before[0]
            self._failures = 0
            self._rest_seconds = _FIRST_REST_SECONDS
            self._step = min(_FIRST_STEP, self._step * 2)
        if now < self._rest_until:
            return self.slots
        return self._try(window)

    def _under_pressure(self, window: _Window) -> int | None:
        """Return fewer slots when the worker must have fewer, whatever they bring in."""
        if window.last.memory > _MEMORY_FULL:
            return math.floor(self.slots * _SHRINK)
        lag_seconds = window.lag_seconds / window.looks
        # A loop that is late while the process has wanted little processor time is late for other reasons than its slots.
        if lag_seconds > _LATE_SECONDS and window.cpus > self._busy_cpus:
            return math.floor(self.slots * min(_SHRINK, max(0.5, _LATE_SECONDS / lag_seconds)))
        return None

    def _unused(self, now: float, peak: int) -> int:
        if now - self._wanted_at < UNUSED_SECONDS:
            return self.slots
        self._wanted_at = now
        return min(self.slots, max(self._start, (self.slots + peak) // 2))

    def _pays(self, window: _Window, slots: int, rate: float) -> bool:
        """Judge the slots that are tried by the number and the rate there were before."""
        if not window.tells:
            return self.slots > slots and window.cpus < self._busy_cpus
        change = window.rate / rate - 1 if rate else math.inf
        return change >= _WORTH * (self.slots / slots - 1) if self.slots > slots else change >= -_FREE

    def _step_back(self, now: float) -> None:
        if self._step > _LAST_STEP:
            self._step = max(_LAST_STEP, self._step / 2)
        else:
            self._turn(now)

    def _turn(self, now: float) -> None:
        """Note that one way does not pay, or is barred; after both the slots rest, until the work may have changed."""
        self._step = _LAST_STEP
        self._way_rate = 0.0
        self._way = None if self._way is None else -self._way
        self._failures += 1
        if self._failures == 2:
            self._failures = 0
            self._way = None
            self._rest(now)

    def _rest(self, now: float) -> None:
        self._rest_until = now + self._rest_seconds
        self._rest_seconds = min(_LONGEST_REST_SECONDS, self._rest_seconds * 2)

    def _try(self, window: _Window) -> int:
        """Begin a trial: more slots or fewer."""
        is_busy = window.cpus > self._busy_cpus
        if self._way is None:
            self._way = -1 if is_busy else 1
        may_grow = window.last.memory < _MEMORY_HIGH and self.slots < self._maximum and (window.tells or not is_busy)
        may_shrink = window.tells and self.slots > self._minimum
        while not (may_grow if self._way == 1 else may_shrink):
            self._turn(window.last.at)
            if self._way is None:
                return self.slots
        factor = 1 + self._step if self._way == 1 else 1 / (1 + self._step)
        # All the way down against the best rate met on it: small losses, each within the noise, must not add up.
        self._way_rate = max(self._way_rate, window.rate) if self._way == -1 else window.rate
        self._before = (self.slots, self._way_rate)
        moved = round(self.slots * factor)
        return moved if moved != self.slots else self.slots + self._way

    def _give_up_trial(self) -> None:
        self._before = None
        self._way = None
        self._way_rate = 0.0
        self._failures = 0


class Sizer:
    """Measures a worker and tells its claimer how many slots there are; looks only while something runs.

    Args:
        sizing: The law.
        claimer: Of the worker.
        scopes: What runs.
    """

    def __init__(self, sizing: Sizing, claimer: Claimer, scopes: Scopes) -> None:
        self._sizing = sizing
        self._claimer = claimer
        self._scopes = scopes
        self._memory = 0.0
        self._memory_due = -math.inf

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Measure until cancelled."""
        task_status.started()
        while True:
            with trio.move_on_after(UNUSED_SECONDS if self._sizing.has_spare else math.inf) as wait:
                await self._scopes.wait_filled()
            if wait.cancelled_caught:
                self._claimer.resize(self._sizing.idle())
                continue
            due = trio.current_time() + LOOK_SECONDS
            await trio.sleep_until(due)
            self.tick(trio.current_time() - due)
            if not len(self._scopes) and not self._claimer.jobs_wait:
                self._sizing.pause()

    def tick(self, lag_seconds: float) -> None:
        """Look once, and resize.

        Args:
            lag_seconds: By how much the loop came too late for this.
        """
        now = trio.current_time()
        if now >= self._memory_due:
            self._memory = machine.memory_share()
            self._memory_due = now + _MEMORY_SECONDS
        look = Look(
            at=now,
            ended=self._scopes.removed,
            busy=len(self._scopes) - self._claimer.rests.count,
            jobs_wait=self._claimer.jobs_wait,
            lag_seconds=lag_seconds,
            processor_seconds=machine.processor_seconds(),
            memory=self._memory,
        )
        self._claimer.resize(self._sizing.look(look))
