"""Durations by bucket, their percentiles, and what Prometheus is shown of them."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.telemetry.histogram import BOUNDS, NAMES, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

WITHIN_BOUNDS = st.floats(min_value=BOUNDS[0], max_value=BOUNDS[-1])


def measured(durations: Iterable[float]) -> Histogram:
    histogram = Histogram()
    for each in durations:
        histogram.observe(each)
    return histogram


@given(st.lists(WITHIN_BOUNDS, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_percentile_is_right_within_a_bucket(durations: list[float], share: float) -> None:
    """It is off by at most the square root of two from the duration that the share did not exceed."""
    exact = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)]

    found = measured(durations).percentile(share)

    assert exact / 1.4143 <= found <= exact * 1.4143


def test_percentiles_of_a_known_spread_are_right_within_a_fifth() -> None:
    """Of ten thousand durations spread as run times are, p50, p95 and p99 are each within a fifth."""
    source = random.Random(7)
    durations = sorted(source.lognormvariate(-3, 1) for _ in range(10_000))

    histogram = measured(durations)

    for share in (0.5, 0.95, 0.99):
        assert histogram.percentile(share) == pytest.approx(durations[int(share * 10_000)], rel=0.2)


@given(
    st.lists(st.floats(min_value=0, max_value=1e5), max_size=50), st.lists(st.floats(min_value=0, max_value=1e5), max_size=50)
)
def test_histograms_of_two_processes_add_up(mine: list[float], theirs: list[float]) -> None:
    """Merged, they are the histogram of all durations."""
    merged = measured(mine)
    merged.merge(measured(theirs))

    whole = measured([*mine, *theirs])

    assert merged.counts == whole.counts
    assert merged.sum_seconds == pytest.approx(whole.sum_seconds)


def test_bound_belongs_to_the_bucket_below_it() -> None:
    """As in Prometheus, a bucket takes what does not exceed its bound; what exceeds the last has a bucket of its own."""
    histogram = measured([0.25, 0.26, 1e9])

    assert histogram.counts[NAMES.index("-4")] == 1
    assert histogram.counts[NAMES.index("-3")] == 1
    assert histogram.counts[NAMES.index("inf")] == 1
    assert histogram.percentile(0.999) == BOUNDS[-1]


def test_prometheus_is_shown_cumulative_powers_of_two() -> None:
    """Every second bound, and all of them in the end."""
    shown = measured([0.25, 0.3, 0.5, 1e9]).cumulative()

    assert dict(shown)["0.25"] == 1
    assert dict(shown)["0.5"] == 3
    assert shown[-1] == ("+Inf", 4)
    assert [count for _, count in shown] == sorted(count for _, count in shown)
    assert all(math.log2(float(bound)).is_integer() for bound, _ in shown[:-1])


def test_nothing_measured_has_no_percentile() -> None:
    """Zero, and no error; nor is a bucket counted that another version names."""
    histogram = Histogram()
    histogram.add("99", 3)

    assert histogram.percentile(0.99) == 0
    assert histogram.count == 0
