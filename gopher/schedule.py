"""What a schedule is: a job to submit, when, and what to do where firings meet or were missed.

Pure: no clock, no Redis. A schedule's name is unique in its queue, and its firings are known by (schedule, fire time).
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from gopher.job import NewJob

CATCH_UP_LIMIT: Final = 100
"""Chosen: of the missed firings, how many `all` makes up for; older ones are left out."""
MISSED_MS: Final = 60_000
"""Chosen: a firing this late is missed; until then it is only late. Cron's own step is as long."""
SCHEDULE_LABEL: Final = "gopher.schedule"
FIRE_TIME_LABEL: Final = "gopher.fire_time"


class OverlapPolicy(StrEnum):
    """What a firing does while the job of the one before has not ended."""

    SKIP = "skip"  # it makes no job
    QUEUE = "queue"  # it makes its job, which may run beside the other
    CANCEL_PREVIOUS = "cancel_previous"  # it makes its job and cancels the other


class CatchUpPolicy(StrEnum):
    """What becomes of firings that nobody was there for."""

    NONE = "none"  # nothing
    LAST = "last"  # the last of them is made up for
    ALL = "all"  # the last 100 are made up for, oldest first


class NewSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as its author describes it.

    Attributes:
        name: Unique in the queue of its job.
        cron: Five fields, or a name such as `@daily`.
        time_zone: IANA name of the zone in which `cron` is read.
        job: What to submit; it has no times and no keys of its own.
        jitter_ms: Each firing is put off by up to this, ms.
        overlap: See there.
        catch_up: See there.
    """

    name: str
    cron: str
    job: NewJob
    time_zone: str = "UTC"
    jitter_ms: int = 0
    overlap: OverlapPolicy = OverlapPolicy.SKIP
    catch_up: CatchUpPolicy = CatchUpPolicy.LAST


class Schedule(NewSchedule, frozen=True, kw_only=True):
    """A schedule as the store holds it.

    Attributes:
        namespace: Of its queue.
        paused: Whether it does not fire.
        created_ms: Redis time, ms since the epoch.
        updated_ms: Redis time of the last change by its author, ms since the epoch.
        next_ms: When it fires next, without jitter; None while paused, and when it never fires again.
        last_fire_ms: The last fire time that was dealt with, without jitter; None before the first.
        last_job_id: The last job it made; None before the first.
        fired_total: Jobs it made, triggered ones among them.
        skipped_total: Firings that made none, because of `overlap`.
    """

    namespace: str
    paused: bool
    created_ms: int
    updated_ms: int
    next_ms: int | None
    last_fire_ms: int | None
    last_job_id: str | None
    fired_total: int
    skipped_total: int


def due_ms(name: str, fire_ms: int, jitter_ms: int) -> int:
    """Return when a firing takes place: up to `jitter_ms` late, by the same amount whoever asks."""
    if jitter_ms == 0:
        return fire_ms
    digest = hashlib.blake2b(f"{name} {fire_ms}".encode(), digest_size=8).digest()
    return fire_ms + int.from_bytes(digest) % (jitter_ms + 1)
