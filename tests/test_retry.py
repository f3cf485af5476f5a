"""The retry policy: bounds of the delay, and when attempts end."""

from __future__ import annotations

import math
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.retry import MAX_ATTEMPTS_LIMIT, RetryPolicy

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, MAX_ATTEMPTS_LIMIT),
    backoff_initial_seconds=st.floats(0.001, 3600),
    backoff_max_seconds=st.floats(3600, 1e6),
    backoff_multiplier=st.floats(1, 1e300),
)
fractions = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, MAX_ATTEMPTS_LIMIT), fractions)
def test_delay_seconds_lies_between_zero_and_the_cap(policy: RetryPolicy, failures: int, fraction: float) -> None:
    """Full jitter: the delay lies in [0, min(cap, initial * multiplier ** (failures - 1))], however large the multiplier."""
    delay = policy.delay_seconds(failures, lambda: fraction)

    growth = math.log(policy.backoff_initial_seconds) + (failures - 1) * math.log(policy.backoff_multiplier)
    ceiling = math.exp(min(growth, math.log(policy.backoff_max_seconds)))
    assert 0 <= delay <= ceiling * (1 + 1e-9)
    assert delay <= policy.backoff_max_seconds


@given(policies, st.integers(1, MAX_ATTEMPTS_LIMIT - 1), fractions)
def test_delay_seconds_never_shrinks_with_the_failures(policy: RetryPolicy, failures: int, fraction: float) -> None:
    """With the same luck, a later retry waits at least as long."""
    assert policy.delay_seconds(failures + 1, lambda: fraction) >= policy.delay_seconds(failures, lambda: fraction)


@given(policies, st.integers(0, 2 * MAX_ATTEMPTS_LIMIT))
def test_has_attempt_after_ends_with_max_attempts(policy: RetryPolicy, failures: int) -> None:
    """A job is run `max_attempts` times at most."""
    assert policy.has_attempt_after(failures) == (failures < policy.max_attempts)


def test_delay_seconds_doubles_up_to_the_cap_by_default() -> None:
    """The upper ends of the default policy are 1, 2, 4... and one hour at last."""
    policy = RetryPolicy()

    ceilings = [policy.delay_seconds(failures, lambda: 1.0) for failures in (1, 2, 3, 12, 13, 100)]

    assert ceilings == [1, 2, 4, 2048, 3600, 3600]


@pytest.mark.parametrize("failures", [1, 4])
def test_delay_seconds_is_spread_evenly(failures: int) -> None:
    """The jitter is full: evenly spread luck gives evenly spread delays, from nothing to the ceiling."""
    policy = RetryPolicy(backoff_initial_seconds=2.0)
    ceiling = 2.0 * 2 ** (failures - 1)

    delays = [policy.delay_seconds(failures, lambda at=at: at / 100) for at in range(100)]  # type: ignore[misc] # binds the loop's value

    assert delays == [pytest.approx(ceiling * at / 100) for at in range(100)]
    assert mean(delays) == pytest.approx(ceiling / 2, rel=0.02)
