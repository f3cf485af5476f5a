"""What a circuit breaker is: what a handler declares of it, and how it stands. One for the whole cluster, kept in Redis by Lua.

    closed     jobs start; once `failures` attempts in a row have failed within the window it trips
    open       jobs wait in order, with no attempt spent, until the reset time is over
    half_open  so many jobs are let through as probes; the first that succeeds closes it, the first that fails trips it again

A breaker that has seen no success since it was made or closed lets only so many jobs run at once as may fail before it trips, and so
does one whose last attempt has failed. So a dependency that is down gets no more calls than that; one that goes down gets those
that were under way.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LARGEST_COUNT: Final = 1_000
LONGEST_SECONDS: Final = 24 * 3600.0
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


class BreakerState(StrEnum):
    """Whether jobs may start."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Forced(StrEnum):
    """What an operator has ordered, whatever attempts say; without an order the attempts decide."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """What a handler declares of its breaker.

    Attributes:
        failures: Attempts that fail in a row before it trips, 1 to 1,000.
        window_seconds: Older failures are forgotten; more than 0, at most a day.
        reset_seconds: How long it stays open before it probes, likewise.
        probes: Jobs let through at once while half open, 1 to 1,000.
        name: Of the dependency, so that several handlers may share one breaker; None for the handler's type.
    """

    failures: int = 5
    window_seconds: float = 30.0
    reset_seconds: float = 10.0
    probes: int = 1
    name: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot work."""
        for what, count in (("failures", self.failures), ("probes", self.probes)):
            if not 1 <= count <= LARGEST_COUNT:
                raise ValueError(f"{what} of a breaker must be 1 to {LARGEST_COUNT}, not {count}")
        for what, seconds in (("window_seconds", self.window_seconds), ("reset_seconds", self.reset_seconds)):
            if not (0 < seconds <= LONGEST_SECONDS and math.isfinite(seconds)):
                raise ValueError(f"{what} of a breaker must be more than 0 and at most {LONGEST_SECONDS:g}, not {seconds}")
        if self.name is not None and _NAME.fullmatch(self.name) is None:
            raise ValueError(f"the name of a breaker must match {_NAME.pattern}, as mail.gateway does, not {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatus:
    """A breaker as Redis keeps it.

    Attributes:
        name: Of the dependency or the type.
        state: With an operator's order taken into account.
        forced: The order; None when there is none.
        failures: In a row now, within the window.
        reopen_ms: Until when it is open, ms since the epoch by the clock of Redis; None unless open, and while ordered open.
        is_free: Whether jobs start with no permit: closed, and its last attempt has succeeded.
        permits: Jobs that run under a permit: probes, or those of a breaker that is not free.
        opened_total: How often it has tripped.
        types: Job types that it guards.
    """

    name: str
    state: BreakerState
    forced: Forced | None
    failures: int
    reopen_ms: int | None
    is_free: bool
    permits: int
    opened_total: int
    types: tuple[str, ...]
