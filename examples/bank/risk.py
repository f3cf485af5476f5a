"""How much an account may lose in a month: a Monte Carlo simulation from the days it has behind it.

Each scenario draws as many days at random from those on record as a month has, and adds up what moved. The result is the same for
the same seed and books, so a repeated attempt says the same. It is plain arithmetic that keeps a core busy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from examples.bank.books import Name, transaction  # msgspec reads Name at run time
from examples.mail import Address  # noqa: TC001 - read at run time, from the annotations below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAYS: Final = 30
TAIL: Final = 0.01
"""The worst share of scenarios, which the figures are about."""
SCENARIOS_A_REPORT: Final = 1_000
BY_DAY: Final = "SELECT sum(cents) FROM entries WHERE account = ? GROUP BY substr(booked_at, 1, 10) ORDER BY 1"


@dataclass(frozen=True)
class RiskRequest:
    """The payload of a `risk_assessment` job.

    Attributes:
        account: Whose risk.
        scenarios: How many months to try, 100 to a million.
        seed: Of the random numbers.
        notify: Who is told the result.
    """

    account: Name
    scenarios: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)]
    seed: int
    notify: Address


@dataclass(frozen=True)
class Risk:
    """What the simulation says.

    Attributes:
        value_at_risk_cents: The loss that only one month in a hundred exceeds; negative where even that month gains.
        expected_shortfall_cents: The mean loss of those worst months.
        days: Days on record that it is drawn from.
    """

    value_at_risk_cents: int
    expected_shortfall_cents: int
    days: int


class NoRecordError(Exception):
    """There is nothing to draw from: the account is unknown or has not moved."""


def assess(path: Path, request: RiskRequest, report: Callable[[float, str], None]) -> Risk:
    """Simulate and return the figures.

    Args:
        path: The bank's database.
        request: What to simulate.
        report: Called now and then with the share that is done (0 to 1) and words for it.

    Raises:
        NoRecordError: The account has no entries.
    """
    with transaction(path) as database:
        moves = [int(cents) for (cents,) in database.execute(BY_DAY, (request.account,))]
    if not moves:
        raise NoRecordError(f"{request.account} has no entries to draw from")
    rng = random.Random(request.seed)
    losses: list[int] = []
    while len(losses) < request.scenarios:
        batch = min(SCENARIOS_A_REPORT, request.scenarios - len(losses))
        losses += [-sum(rng.choices(moves, k=DAYS)) for _ in range(batch)]
        report(len(losses) / request.scenarios, f"{len(losses):,} of {request.scenarios:,} scenarios")
    losses.sort(reverse=True)
    worst = losses[: max(1, int(len(losses) * TAIL))]
    return Risk(value_at_risk_cents=worst[-1], expected_shortfall_cents=round(sum(worst) / len(worst)), days=len(moves))
