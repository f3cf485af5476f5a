"""What the end of one child means for the others, and for the block."""

from __future__ import annotations

import pytest

from gopher.job import JobState
from gopher.nursery import NurseryPolicy, Siblings

C, F, X = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


@pytest.mark.parametrize(
    ("policy", "ends", "decisions", "raised"),
    [
        ("all", [C, C], [False, False], [False, False]),
        ("all", [C, F, C], [False, True, False], [False, True, False]),
        ("all", [F, F], [True, False], [True, True]),
        ("all", [X], [True], [True]),
        ("any", [F, C, C], [False, True, False], [False, False, False]),
        ("any", [F, X], [False, False], [True, True]),
        ("any", [C, F], [True, False], [False, False]),
        ("collect", [C, F, X], [False, False, False], [False, False, False]),
    ],
)
def test_policy_tells_which_end_cancels_the_others_and_what_is_raised(
    policy: str, ends: list[JobState], decisions: list[bool], raised: list[bool]
) -> None:
    """The first end that decides does so, and no later one; what is raised is asked once all have ended."""
    siblings = Siblings(NurseryPolicy(policy))

    decided = [siblings.note_end(state, by_nursery=False) for state in ends]

    assert decided == decisions
    assert siblings.is_decided == any(decisions)
    assert [siblings.raises(state, by_nursery=False) for state in ends] == raised


@pytest.mark.parametrize("policy", list(NurseryPolicy))
def test_child_that_the_nursery_had_cancelled_is_no_fault(policy: NurseryPolicy) -> None:
    """It neither ends its siblings nor is it raised."""
    siblings = Siblings(policy)

    decided = siblings.note_end(X, by_nursery=True)

    assert (decided, siblings.is_decided, siblings.raises(X, by_nursery=True)) == (False, False, False)


def test_child_that_failed_while_it_was_being_cancelled_is_raised() -> None:
    """Its cleanup went wrong, or it had failed before the cancel came: somebody has to know."""
    siblings = Siblings(NurseryPolicy.ALL)
    siblings.note_end(F, by_nursery=False)

    is_first = siblings.note_end(F, by_nursery=True)

    assert (is_first, siblings.raises(F, by_nursery=True)) == (False, True)


def test_one_that_completes_before_the_cancel_reaches_it_counts_for_any() -> None:
    """A nursery that is cancelled by hand raises nothing if one had completed."""
    siblings = Siblings(NurseryPolicy.ANY)
    siblings.note_end(F, by_nursery=False)

    siblings.note_end(C, by_nursery=True)

    assert siblings.is_decided
    assert not siblings.raises(F, by_nursery=False)
