"""What the upkeep of a queue did in one call: the replies of `promote.lua` and `reap.lua`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a call of promote did.

    Attributes:
        moved: Jobs that were enqueued or expired.
        next_seconds: How long until the next is due; None when none waits.
        failed_ids: The jobs whose deadline has passed.
    """

    moved: int
    next_seconds: float | None
    failed_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reaping:
    """What a call of reap did.

    Attributes:
        leases: Leases that had ended.
        removed: Final jobs whose retention had ended.
        job_ids: The jobs taken back from their workers.
        failed_ids: Those of them that have failed: too many workers were lost with them.
    """

    leases: int
    removed: int
    job_ids: tuple[str, ...]
    failed_ids: tuple[str, ...] = ()
