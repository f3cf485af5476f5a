from __future__ import annotations

import pytest

from benchmarks.plan import BULLMQ
from benchmarks.targets import Target, Verdict, judge


@pytest.mark.parametrize(
    ("own", "met", "goal_met"), [([140.0], False, False), ([150.0], True, False), ([174.0], True, False), ([175.0], True, True)]
)
def test_judge_tells_the_bound_from_the_goal(own: list[float], met: bool, goal_met: bool) -> None:
    """A ratio is held to the bound and to the design's further goal, each by itself."""
    target = Target(bound=1.5, goal=1.75, against=BULLMQ)

    verdict = judge(target, own, [100.0])

    assert verdict == Verdict(target=target, value=own[0] / 100, met=met, goal_met=goal_met)


def test_judge_compares_medians() -> None:
    """One bad repetition of either side does not change the verdict."""
    target = Target(bound=1.5, against=BULLMQ)

    verdict = judge(target, [1.0, 200.0, 210.0], [100.0, 100.0, 5_000.0])

    assert verdict is not None
    assert verdict.value == 2.0
    assert verdict.met


def test_judge_says_nothing_beside_a_blank_column() -> None:
    """A ratio to a peer that was not measured is no verdict."""
    assert judge(Target(bound=1.5, against=BULLMQ), [200.0], None) is None


@pytest.mark.parametrize(("value", "met"), [(499.0, True), (500.0, True), (501.0, False)])
def test_judge_knows_that_less_is_better(value: float, met: bool) -> None:
    """A figure with an upper bound is met at or below it."""
    verdict = judge(Target(bound=500, at_least=False), [value], None)

    assert verdict is not None
    assert verdict.met is met
