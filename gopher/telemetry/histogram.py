"""A histogram of durations with fixed logarithmic buckets: what many processes have measured adds up bucket by bucket.

The bounds are the powers of the square root of two, so each is 1.41 times the one before, and a percentile is off by a fifth at most.
Source: Prometheus native histograms, schema 1 (prometheus/docs, "Native Histograms"). Every second bound is a power of two; these
are the ones that Prometheus is shown.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOWEST: Final = -34
"""The first bound is 2^(-34/2) s: 8 us, what a handler that does nothing takes."""
_HIGHEST: Final = 24
"""The last bound is 2^(24/2) s: 68 minutes."""

BOUNDS: Final = tuple(2.0 ** (power / 2) for power in range(_LOWEST, _HIGHEST + 1))
"""Upper bounds of the buckets, seconds, each inclusive; one more bucket takes what is above the last."""
BOUNDS_MS: Final = tuple(bound * 1000 for bound in BOUNDS)
"""The same in ms."""
NAMES: Final = (*(str(power) for power in range(_LOWEST, _HIGHEST + 1)), "inf")
"""Names of the buckets in Redis: the power of the square root of two that bounds it."""
_PLACES: Final = {name: place for place, name in enumerate(NAMES)}
_STEP: Final = 2.0**0.5


class Histogram:
    """Counts durations by bucket.

    Attributes:
        counts: How many durations each bucket has taken.
        sum_seconds: Of all of them.
    """

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(NAMES)
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum_seconds += seconds

    def add(self, name: str, count: int) -> None:
        """Count so many durations more in the bucket of a name; one that is not known is left out: another version's."""
        place = _PLACES.get(name)
        if place is not None:
            self.counts[place] += count

    def merge(self, other: Histogram) -> None:
        """Count what another has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_seconds += other.sum_seconds

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def percentile(self, share: float) -> float:
        """Return the duration, in seconds, that a share of all did not exceed; 0 when there are none.

        Args:
            share: 0.99 for p99.
        """
        rank = share * self.count
        below = 0
        for place, count in enumerate(self.counts):
            if count and below + count >= rank:
                upper = BOUNDS[min(place, len(BOUNDS) - 1)]
                # Above the last bound nothing is known but that.
                return upper if place == len(BOUNDS) else float(upper * _STEP ** ((rank - below) / count - 1))
            below += count
        return 0.0

    def cumulative(self) -> Sequence[tuple[str, int]]:
        """Return what Prometheus is shown: each bound that is a power of two, in seconds, and how many did not exceed it."""
        shown = []
        total = 0
        for place, count in enumerate(self.counts):
            total += count
            if place < len(BOUNDS) and place % 2 == 0:
                shown.append((repr(BOUNDS[place]), total))
        return [*shown, ("+Inf", total)]


class Durations:
    """Histograms of one process, by what was measured: the values of a metric's labels."""

    def __init__(self) -> None:
        self._histograms: dict[tuple[str, ...], Histogram] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """Count a duration; the labels have to be few."""
        histogram = self._histograms.get(labels)
        if histogram is None:
            histogram = self._histograms[labels] = Histogram()
        histogram.observe(seconds)

    def items(self) -> list[tuple[tuple[str, ...], Histogram]]:
        """Return the histograms by their labels. Safe in any thread."""
        return list(self._histograms.items())
