"""Bulk operations: many jobs cancelled, retried or deleted by a filter, as one thing that is tracked and survives its server."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from gopher.job import FINAL_STATES, JobState


class BulkKind(StrEnum):
    """What is done to each job."""

    CANCEL = "cancel"
    RETRY = "retry"
    DELETE = "delete"


class BulkState(StrEnum):
    """How a bulk operation stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


ALLOWED_STATES: Final = {
    BulkKind.CANCEL: tuple(state for state in JobState if state not in FINAL_STATES),
    BulkKind.RETRY: (JobState.SCHEDULED, JobState.RETRYING, JobState.FAILED, JobState.CANCELLED),
    BulkKind.DELETE: tuple(state for state in JobState if state is not JobState.PROCESSING),
}
"""The states of jobs that an operation can act on."""
DEFAULT_STATES: Final = ALLOWED_STATES | {BulkKind.RETRY: (JobState.FAILED,)}


class BulkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a bulk operation does, and to which jobs: those that match all of it and were submitted before it.

    Attributes:
        kind: What is done.
        states: Jobs in these.
        queue: Only of this queue; None for all.
        type: Only of this type; None for all.
        labels: Only with all of these labels.
        submitted_before_ms: Only those submitted before, ms since the epoch; None for the start of the operation.
        reason: Of a cancel, for people.
        grace_ms: Of a cancel: how long a handler's cleanup may take.
    """

    kind: BulkKind
    states: tuple[JobState, ...]
    queue: str | None = None
    type: str | None = None
    labels: dict[str, str] = {}
    submitted_before_ms: int | None = None
    reason: str = ""
    grace_ms: int = 5_000

    @property
    def is_narrow(self) -> bool:
        """Whether the filter says more than which queue."""
        is_whole = set(self.states) == set(DEFAULT_STATES[self.kind])
        return not is_whole or bool(self.type or self.labels) or self.submitted_before_ms is not None


class BulkOperation(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk operation as it stands.

    Attributes:
        id: Text of a UUID.
        namespace: Of the jobs.
        plan: What it does.
        state: How it stands.
        created_ms: When it was started, ms since the epoch by the clock of Redis.
        ended_ms: When it ended; None while it runs.
        total: Jobs there were in its queues and states when it was started: about what there is to look at.
        scanned: Jobs looked at so far.
        done: Jobs cancelled, asked to end, retried or deleted.
        skipped: Jobs that matched and had moved on by themselves before their turn.
        failed: Jobs that could not be retried, because another one holds their unique key.
        fault: Why it failed; empty unless it did.
    """

    id: str
    namespace: str
    plan: BulkPlan
    state: BulkState
    created_ms: int
    ended_ms: int | None = None
    total: int = 0
    scanned: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    fault: str = ""

    @property
    def matched(self) -> int:
        """Jobs that matched so far."""
        return self.done + self.skipped + self.failed

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is done."""
        return self.state is not BulkState.RUNNING
