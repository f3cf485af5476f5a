from __future__ import annotations

import pytest

from benchmarks.priorities import cycles_off
from gopher.job import Priority

HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW
CYCLE = [HIGH, NORMAL, HIGH, LOW, HIGH, NORMAL]
IN_BLOCKS = [HIGH] * 3 + [NORMAL] * 2 + [LOW]


@pytest.mark.parametrize("cycle", [CYCLE, IN_BLOCKS])
def test_cycles_off_allows_any_order_within_a_cycle(cycle: list[Priority]) -> None:
    """However the six of a cycle are ordered, no count is ever a whole cycle off its share."""
    assert 0 < cycles_off(cycle * 1_000) < 1


def test_cycles_off_sees_a_priority_that_is_starved() -> None:
    """A low that comes three cycles late is three cycles off, though the totals are right in the end."""
    order = [HIGH, HIGH, HIGH, NORMAL, NORMAL] * 3 + [LOW] * 3 + CYCLE * 10

    assert cycles_off(order) == pytest.approx(2.5)


def test_cycles_off_sees_a_drift() -> None:
    """A ratio of 3:2:2 drifts away from 3:2:1, the further the longer."""
    short, long = ([*CYCLE, LOW] * cycles for cycles in (50, 100))

    assert cycles_off(long) > cycles_off(short) > 5


def test_cycles_off_ends_when_a_line_is_empty() -> None:
    """What happens after one of the three has no more jobs is another matter: the others take its share."""
    order = CYCLE * 10 + [NORMAL, LOW] * 100

    assert cycles_off(order) < 1
