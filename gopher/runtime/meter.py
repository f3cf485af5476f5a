"""What a worker measures: attempts by type and outcome, run times, waits in line, and what it takes of the machine.

Counts only grow. What has to go to Redis is what they have grown by since it was last taken, so that whoever counts does nothing
but count: a job costs one bucket for its wait, one for its run time and two clock readings (measured: 0.7 us).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gopher.job import Outcome
from gopher.telemetry.histogram import BOUNDS, BOUNDS_MS, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.codec import ClaimedJob
    from gopher.store.lifecycle import Settlement

_PAGE_BYTES: Final = 4096
_STATM: Final = Path("/proc/self/statm")
_UNCOUNTED: Final = frozenset({"STALE_LEASE", "NOT_FOUND", "GIVEN_UP"})
"""Answers of a settle that wrote no outcome: the attempt was lost, and whoever takes the job back counts that."""


class _OfType:
    """What was measured of one type's attempts."""

    __slots__ = ("buckets", "others", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * len(NAMES)
        self.seconds = 0.0
        self.others: dict[str, int] = {}
        """By outcome, for all but those that succeeded, which are the rest."""


class _OfPriority:
    """What was measured of the waits of one priority."""

    __slots__ = ("buckets", "ms")

    def __init__(self) -> None:
        self.buckets = [0] * len(NAMES)
        self.ms = 0


class QueueMeter:
    """Measures one queue in one worker."""

    def __init__(self) -> None:
        self._types: dict[str, _OfType] = {}
        self._priorities: dict[bytes, _OfPriority] = {}
        self._leases_lost = 0
        self._taken: dict[str, int] = {}

    def count_claims(self, jobs: Iterable[ClaimedJob]) -> None:
        """Count jobs that have just been claimed, by how long they stood in line."""
        # Jobs that were enqueued together stand together: each such run is counted at once.
        priority, enqueued_ms, claimed_ms, count = b"", None, 0, 0
        for job in jobs:
            if job.enqueued_ms == enqueued_ms and job.priority == priority:
                count += 1
                continue
            self._count_waits(priority, claimed_ms, enqueued_ms, count)
            priority, enqueued_ms, claimed_ms, count = job.priority, job.enqueued_ms, job.claimed_ms, 1
        self._count_waits(priority, claimed_ms, enqueued_ms, count)

    def _count_waits(self, priority: bytes, claimed_ms: int, enqueued_ms: bytes | None, count: int) -> None:
        if enqueued_ms is None or not enqueued_ms.isdigit():
            # A damaged record has no wait that could be counted.
            return
        of_priority = self._priorities.get(priority)
        if of_priority is None:
            of_priority = self._priorities[priority] = _OfPriority()
        wait_ms = max(0, claimed_ms - int(enqueued_ms))
        of_priority.buckets[bisect_left(BOUNDS_MS, wait_ms)] += count
        of_priority.ms += wait_ms * count

    def count_attempts(self, ended: Iterable[tuple[RunningAttempt, Settlement]], words: Iterable[str]) -> None:
        """Count attempts whose outcome is written.

        Args:
            ended: The attempts, with their outcomes.
            words: What the settle answered to each.
        """
        job_type, of_type = "", _OfType()
        buckets = of_type.buckets
        for (attempt, settlement), word in zip(ended, words, strict=True):
            began_at = attempt.began_at
            if began_at is None or word in _UNCOUNTED:
                continue
            if attempt.job.type != job_type:
                job_type = attempt.job.type
                of_type = self._of_type(job_type)
                buckets = of_type.buckets
            seconds = attempt.ended_at - began_at
            buckets[bisect_left(BOUNDS, seconds)] += 1
            of_type.seconds += seconds
            if settlement.outcome is not Outcome.SUCCEEDED:
                outcome = settlement.outcome.value
                of_type.others[outcome] = of_type.others.get(outcome, 0) + 1

    def count_attempt(self, job_type: str, outcome: Outcome, seconds: float) -> None:
        """Count one attempt whose outcome is written, and that ran elsewhere for so long."""
        of_type = self._of_type(job_type)
        of_type.buckets[bisect_left(BOUNDS, seconds)] += 1
        of_type.seconds += seconds
        if outcome is not Outcome.SUCCEEDED:
            of_type.others[outcome.value] = of_type.others.get(outcome.value, 0) + 1

    def _of_type(self, job_type: str) -> _OfType:
        of_type = self._types.get(job_type)
        if of_type is None:
            of_type = self._types[job_type] = _OfType()
        return of_type

    def count_lost(self, count: int) -> None:
        """Count attempts whose lease ended with no outcome."""
        self._leases_lost += count

    @property
    def busy_seconds(self) -> float:
        """How long all counted attempts ran. Safe in any thread."""
        return sum(of_type.seconds for of_type in list(self._types.values()))

    @property
    def ended(self) -> int:
        """How many attempts were counted. Safe in any thread."""
        return sum(sum(of_type.buckets) for of_type in list(self._types.values()))

    def take(self, most: int) -> dict[str, int]:
        """Return what the counts have grown by since they were last taken, by the fields of `gopher.store.figures`.

        Args:
            most: Fields at most; what is left is taken by the next call.
        """
        grown: dict[str, int] = {}
        for name, count in self._counts().items():
            before = self._taken.get(name, 0)
            if count > before and len(grown) < most:
                grown[name] = count - before
                self._taken[name] = count
        return grown

    def _counts(self) -> dict[str, int]:
        counts = {"leases_lost": self._leases_lost}
        for job_type, of_type in self._types.items():
            counts |= {
                f"duration:{job_type}:{name}": count for name, count in zip(NAMES, of_type.buckets, strict=True) if count
            }
            counts[f"duration_us:{job_type}"] = round(of_type.seconds * 1e6)
            counts |= {f"attempts:{job_type}:{outcome}": count for outcome, count in of_type.others.items()}
            counts[f"attempts:{job_type}:succeeded"] = sum(of_type.buckets) - sum(of_type.others.values())
        for priority, of_priority in self._priorities.items():
            name = priority.decode()
            counts |= {f"wait:{name}:{place}": count for place, count in zip(NAMES, of_priority.buckets, strict=True) if count}
            counts[f"wait_ms:{name}"] = of_priority.ms
        return counts


class Usage:
    """What this process takes of its slots and of the machine between two looks.

    Args:
        slots: Gives how many attempts run at most at once now.
        running: Gives the attempts whose outcome is not counted yet; called in the thread that looks.
    """

    def __init__(self, slots: Callable[[], int], running: Callable[[], list[RunningAttempt]]) -> None:
        self._slots = slots
        self._running = running
        self._meters: list[QueueMeter] = []
        self._at = time.perf_counter()
        self._busy_seconds = 0.0
        self._cpu_seconds = time.process_time()
        self._ended = 0
        self.utilisation = 0.0
        """Of the slots' time since the look before, the share in which a handler ran in them."""
        self.attempts_per_second = 0.0
        """Attempts that ended since the look before."""
        self.cpu_cores = 0.0
        """Processor time taken since the look before; 1.0 is one core."""

    def add_meter(self, meter: QueueMeter) -> None:
        """Look at one more queue's figures."""
        self._meters.append(meter)

    def look(self) -> None:
        """Work the figures out anew. For one thread at a time."""
        now = time.perf_counter()
        cpu_seconds = time.process_time()
        ended = sum(meter.ended for meter in self._meters)
        running = sum(attempt.run_seconds or 0.0 for attempt in self._running())
        busy_seconds = running + sum(meter.busy_seconds for meter in self._meters)
        elapsed = max(now - self._at, 1e-6)
        # An attempt that is counted just between the two sums would be missing or there twice.
        self.utilisation = min(1.0, max(0.0, (busy_seconds - self._busy_seconds) / (elapsed * self._slots())))
        self.attempts_per_second = (ended - self._ended) / elapsed
        self.cpu_cores = (cpu_seconds - self._cpu_seconds) / elapsed
        self._at, self._cpu_seconds, self._ended, self._busy_seconds = now, cpu_seconds, ended, busy_seconds


def resident_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not tell it as Linux does."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
