"""What may hold jobs back: rate and concurrency limits, of a type, of each key of a type or of a whole queue, and the priority ratio.

Values only: `claim.lua` keeps them, exactly and for all workers at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gopher.job import Priority

PERIODS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Letter -> period, ms."""
PERIOD_NAMES: Final = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
"""As REST has them."""
LARGEST_COUNT: Final = 1_000_000
"""Of any limit; chosen: far more than a queue can start or run at once."""
LARGEST_SHARE: Final = 100
_RATE: Final = re.compile(r"([0-9]{1,9})/([smhd])")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many jobs may start in a period, all workers together.

    Attributes:
        count: Starts a period, 1 to a million.
        period_ms: Of any such stretch of time never more than `count` start.
        burst: Set, it makes a token bucket of that size that `count` refills: up to count + burst a period. 0 for none.
    """

    count: int
    period_ms: int = PERIODS["s"]
    burst: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot work."""
        if not 1 <= self.count <= LARGEST_COUNT:
            raise ValueError(f"a rate must be 1 to {LARGEST_COUNT} jobs, not {self.count}")
        if self.period_ms not in PERIODS.values():
            raise ValueError(f"the period of a rate must be a second, minute, hour or day, not {self.period_ms} ms")
        if not 0 <= self.burst <= LARGEST_COUNT:
            raise ValueError(f"a burst must be 0 to {LARGEST_COUNT} jobs, not {self.burst}")

    @classmethod
    def parse(cls, text: str, burst: int = 0) -> RateLimit:
        """Return the rate that `100/s`, `10/m`, `5/h` or `1/d` stands for.

        Raises:
            ValueError: It is none, or cannot work.
        """
        match = _RATE.fullmatch(text)
        if match is None:
            raise ValueError(f"a rate is written as in 100/s, 10/m, 5/h or 1/d, not {text!r}")
        return cls(int(match[1]), PERIODS[match[2]], burst)

    def __str__(self) -> str:
        """As `parse` takes it; without the burst."""
        letter = next(letter for letter, period_ms in PERIODS.items() if period_ms == self.period_ms)
        return f"{self.count}/{letter}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds a type back, or a whole queue; what is None holds nothing.

    Attributes:
        rate: Starts.
        rate_per_key: Starts of the jobs that have the same `limit_key`; those without one are not counted.
        concurrency: Jobs processing at once, 1 to a million.
        concurrency_per_key: Likewise of each key.
    """

    rate: RateLimit | None = None
    rate_per_key: RateLimit | None = None
    concurrency: int | None = None
    concurrency_per_key: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot work."""
        for count in (self.concurrency, self.concurrency_per_key):
            if count is not None and not 1 <= count <= LARGEST_COUNT:
                raise ValueError(f"a concurrency limit must be 1 to {LARGEST_COUNT} jobs, not {count}")

    def __bool__(self) -> bool:
        """Whether anything is held back."""
        return self != _NONE


_NONE: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityRatio:
    """Of high + normal + low claims, how many go to each priority while all three have jobs; each 1 to 100, so that none starves."""

    high: int = 3
    normal: int = 2
    low: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot work."""
        for priority, share in self.shares.items():
            if not 1 <= share <= LARGEST_SHARE:
                raise ValueError(f"the share of {priority} must be 1 to {LARGEST_SHARE}, not {share}")

    @property
    def shares(self) -> dict[Priority, int]:
        """By priority."""
        return {Priority.HIGH: self.high, Priority.NORMAL: self.normal, Priority.LOW: self.low}

    def cycle(self) -> str:
        """Return the order of a cycle of claims, a letter each: `hnhlnh` of 3:2:1.

        Smooth weighted round robin. Source: nginx, upstream round robin (Igor Sysoev, 2012).
        """
        shares = {priority.value[0]: share for priority, share in self.shares.items()}
        total = sum(shares.values())
        current = dict.fromkeys(shares, 0)
        order = []
        for _ in range(total):
            for letter, share in shares.items():
                current[letter] += share
            picked = max(current, key=lambda letter: current[letter])
            current[picked] -= total
            order.append(picked)
        return "".join(order)

    @classmethod
    def of_cycle(cls, cycle: str) -> PriorityRatio:
        """Return the ratio whose cycle this is."""
        return cls(high=cycle.count("h"), normal=cycle.count("n"), low=cycle.count("l"))
