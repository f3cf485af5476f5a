"""The retry policy: whether a failed attempt is followed by another, and after which delay.

Arithmetic only: no clock, and the random source is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ATTEMPTS_LIMIT = 100
"""Chosen: with the default backoff the hundredth attempt is four days after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again.

    Attributes:
        max_attempts: The first run plus retries, 1 to 100.
        backoff_initial_seconds: Upper end of the first delay, > 0.
        backoff_max_seconds: Cap of every delay, >= the initial one.
        backoff_multiplier: Growth of the upper end from one delay to the next, >= 1.
    """

    max_attempts: int = 4
    backoff_initial_seconds: float = 1.0
    backoff_max_seconds: float = 3600.0
    backoff_multiplier: float = 2.0

    def has_attempt_after(self, failures: int) -> bool:
        """Tell whether another attempt follows once `failures` attempts have failed."""
        return failures < self.max_attempts

    def delay_seconds(self, failures: int, random: Callable[[], float]) -> float:
        """Return how long to wait after the given number of failures (>= 1).

        Exponential, capped, with full jitter: uniform in [0, min(cap, initial * multiplier ** (failures - 1))).
        Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

        Args:
            failures: Attempts that have failed so far, >= 1.
            random: Returns a number in [0, 1).
        """
        # Multiplied step by step, up to the cap, so that a large count cannot overflow a float.
        ceiling = self.backoff_initial_seconds
        for _ in range(failures - 1):
            if ceiling >= self.backoff_max_seconds:
                break
            ceiling *= self.backoff_multiplier
        return min(ceiling, self.backoff_max_seconds) * random()
