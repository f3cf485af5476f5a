"""A worker's copy of a breaker, and when it has claims try again."""

from __future__ import annotations

from typing import Final

from gopher.breaker import Breaker, BreakerState
from gopher.runtime.breaker import Guard
from gopher.store.breakers import BreakerView
from gopher.store.lifecycle import Bound

OPEN: Final = BreakerView(BreakerState.OPEN, 10.0, 1_800_000_010_000, is_free=False)
HALF_OPEN: Final = BreakerView(BreakerState.HALF_OPEN, None, 0, is_free=False)
FREE: Final = BreakerView(BreakerState.CLOSED, None, 0, is_free=True)
HELD_OPEN: Final = BreakerView(BreakerState.OPEN, None, 0, is_free=False)


def new_guard() -> Guard:
    return Guard("smtp", Breaker(name="smtp"), ["email"], permit_seconds=60)


def test_guard_has_claims_try_again_once_when_it_opens() -> None:
    """The next claim brings the moment of the next probe; the same view again changes nothing."""
    guard = new_guard()
    guard.see(FREE)

    answers = [guard.see(OPEN), guard.see(OPEN), guard.see(HELD_OPEN), guard.see(HELD_OPEN)]

    assert answers == [True, False, True, False]


def test_guard_has_claims_try_again_when_it_lets_more_start() -> None:
    """For probes and when it closes, but not while it is closed."""
    guard = new_guard()
    guard.see(OPEN)

    answers = [guard.see(HALF_OPEN), guard.see(FREE), guard.see(FREE)]

    assert answers == [True, True, False]


def test_guard_that_is_open_bounds_claims_until_its_moment() -> None:
    """What it parks is offered again a little after it may probe."""
    guard = new_guard()
    guard.see(OPEN)

    (bound,) = guard.bounds()

    assert bound.ask_again_ms > OPEN.open_until_ms
    assert bound._replace(ask_again_ms=0) == Bound("email", "breaker:smtp", room=0, ask_again_ms=0)
