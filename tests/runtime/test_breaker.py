"""A worker's copy of a breaker, and when it has claims try again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.breaker import Breaker, BreakerState
from gopher.job import Failure, Outcome
from gopher.runtime.breaker import Guard, Guards
from gopher.runtime.scopes import Scopes
from gopher.store import keys, settlements
from gopher.store.breakers import BreakerView
from gopher.store.lifecycle import Bound
from tests.runtime.rig import Handed, attempt_of, claimed_job
from tests.waiting import until

if TYPE_CHECKING:
    from gopher.store.store import Store

OPEN: Final = BreakerView(BreakerState.OPEN, 10.0, 1_800_000_010_000, is_free=False)
HALF_OPEN: Final = BreakerView(BreakerState.HALF_OPEN, None, 0, is_free=False)
FREE: Final = BreakerView(BreakerState.CLOSED, None, 0, is_free=True)
HELD_OPEN: Final = BreakerView(BreakerState.OPEN, None, 0, is_free=False)


def new_guard() -> Guard:
    return Guard("smtp", Breaker(name="smtp"), ["email"])


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


@pytest.mark.leaves_keys
async def test_damaged_breaker_keeps_no_outcome_back(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """A failure that it cannot count is settled all the same, and so are those that another breaker guards."""
    names = ("damaged", "whole")
    guards = [Guard(name, Breaker(name=name), [name]) for name in names]
    watched = Guards(store.breakers, guards, namespace=namespace, worker="w", permit_seconds=60)
    await watched.start()
    handed = Handed(Scopes())
    await store.link.call("SET", keys.breaker(namespace, "damaged"), "damaged")

    for name in names:
        attempt = attempt_of(claimed_job(name))
        failure = settlements.bury(attempt.job, Outcome.RAISED, Failure(reason="HANDLER_RAISED", message="no"))
        watched.take(attempt, handed).put_nowait(attempt, failure)
    nursery.start_soon(watched.wait_news)
    await until(lambda: len(handed.settlements) == 2)

    assert [settlement.outcome for settlement in handed.settlements] == [Outcome.RAISED] * 2
    nursery.cancel_scope.cancel()


async def test_permit_is_renewed_while_its_attempt_runs(
    store: Store, namespace: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as the handler takes, and no longer."""
    renewed: list[tuple[str, list[str]]] = []

    async def renew(_namespace: str, name: str, permits: list[str], _seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        renewed.append((name, permits))

    monkeypatch.setattr(store.breakers, "renew", renew)
    guard = new_guard()
    watched = Guards(store.breakers, [guard], namespace=namespace, worker="w", permit_seconds=0.03)
    await watched.start()
    await watched.ask([guard.by])
    permits = list(guard.permits)
    handed = Handed(Scopes())
    attempts = [attempt_of(claimed_job("email")) for _ in range(2)]
    nursery.start_soon(watched.keep_permits)
    nursery.start_soon(watched.wait_news)

    outcomes = [watched.take(attempt, handed) for attempt in attempts]
    await until(lambda: len(renewed) > 0)
    before = renewed[0]
    for attempt, each in zip(attempts, outcomes, strict=True):
        each.put_nowait(attempt, settlements.release(attempt.job))

    assert before == ("smtp", sorted(permits[-2:]))
    assert guard.held == set()
    nursery.cancel_scope.cancel()
