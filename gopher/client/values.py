"""What the clients return besides `gopher.Job`: events, queues, workers, figures, audit findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher.job import Job, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One change of a job.

    Attributes:
        job_id: Whose.
        state: Where the job stands now.
        attempt: Number of the last attempt; 0 before the first.
        event_ms: When it changed, ms since the epoch by the clock of Redis.
        cancel_requested: Whether a cancel is on its way.
        progress: 0 to 1, as the handler last said.
        progress_message: Text beside it.
        job: The whole job: in the first event, after each reconnect and in the last one; None in between.
    """

    job_id: str
    state: JobState
    attempt: int
    event_ms: int
    cancel_requested: bool
    progress: float
    progress_message: str
    job: Job | None

    @property
    def is_final(self) -> bool:
        """Whether no event follows."""
        return self.state.is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue and its figures.

    Attributes:
        enqueued: Waiting jobs, by priority.
        jobs: Jobs kept now, by state.
        oldest_wait_seconds: How long the oldest enqueued job has waited; None when none waits.
        submitted_total: Since the queue was created, as are the other totals.
    """

    name: str
    paused: bool
    enqueued: Mapping[str, int]
    jobs: Mapping[str, int]
    oldest_wait_seconds: float | None
    submitted_total: int
    completed_total: int
    failed_total: int
    cancelled_total: int
    retried_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that lives.

    Attributes:
        queues: Names and weights.
        start_ms: Moment, ms since the epoch.
        heartbeat_ms: Moment, ms since the epoch.
        stuck_job_ids: Jobs whose handler outlasts its cancel.
    """

    id: str
    host: str
    pid: int
    version: str
    queues: Mapping[str, int]
    types: tuple[str, ...]
    slot_count: int
    busy_slot_count: int
    start_ms: int
    heartbeat_ms: int
    draining: bool
    stuck_job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """A type that some worker has registered.

    Attributes:
        served: Whether a worker that lives handles it.
    """

    type: str
    served: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStats:
    """How Redis is.

    Attributes:
        max_memory_bytes: 0 means no limit.
    """

    version: str
    used_memory_bytes: int
    max_memory_bytes: int
    connected_clients: int
    uptime_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The figures of a namespace."""

    queues: tuple[Queue, ...]
    worker_count: int
    slot_count: int
    busy_slot_count: int
    redis: RedisStats


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One thing that is not as it must be; `kind` is one of those that AuditJobs lists."""

    kind: str
    queue: str
    job_id: str
    detail: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """A stretch of an audit; the last one has `done` set and holds the totals."""

    findings: tuple[AuditFinding, ...]
    jobs_checked: int
    done: bool
    finding_count: int
