"""What the clients return besides `gopher.Job`: events, queues, workers, figures, audit findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gopher.event import ChildChange, EventKind, LogLine, Notice, OutputChunk, Truncation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher.breaker import BreakerState, Forced
    from gopher.event import EventDetail
    from gopher.job import Failure, Job, JobState
    from gopher.limits import Limits, PriorityRatio
    from gopher.waiting import WaitingReason


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One thing that happened to a job.

    Attributes:
        job_id: Whose.
        kind: What it tells.
        sequence: Its place in the job's history, from 1 with no gap; 0 where it is no part of it.
        cursor: To go on behind it with another `watch`.
        state: Where the job stood after it; of one that was deleted, before.
        attempt: Number of the last attempt then; 0 before the first.
        event_ms: Its moment, ms since the epoch by the clock of Redis.
        cancel_requested: Whether a cancel was on its way.
        progress: 0 to 1, as the handler last said.
        progress_message: Text beside it; in the event that tells it.
        job: The whole job: in the first event and in the last one; None in between, and in all that follow a cursor but the last.
        detail: What comes with its kind: a LogLine, OutputChunk, ChildChange, Notice or Truncation; None for the others.
        queue: Of the job; of `watch_jobs` alone.
        type: Likewise; empty where the job was gone before anybody looked.
        failure: Why the attempt failed, of a state event that says retrying or failed, as long as the job keeps that attempt.
        waiting_reason: Why the job waits: in the first event, and in later ones that were the newest when they were read.
    """

    job_id: str
    kind: EventKind
    sequence: int
    cursor: str
    state: JobState
    attempt: int
    event_ms: int
    cancel_requested: bool
    progress: float
    progress_message: str
    job: Job | None
    detail: EventDetail | None
    queue: str = ""
    type: str = ""
    failure: Failure | None = None
    waiting_reason: WaitingReason | None = None

    @property
    def is_final(self) -> bool:
        """Whether no event follows, as long as nobody requeues the job."""
        return self.kind is EventKind.STATE and self.state.is_final and self.job is not None and self.job.state.is_final

    @property
    def log(self) -> LogLine | None:
        """The line, of an event that tells one."""
        return self.detail if isinstance(self.detail, LogLine) else None

    @property
    def output(self) -> OutputChunk | None:
        """The chunk, of an event that gives one."""
        return self.detail if isinstance(self.detail, OutputChunk) else None

    @property
    def child(self) -> ChildChange | None:
        """The child, of an event that tells of one."""
        return self.detail if isinstance(self.detail, ChildChange) else None

    @property
    def notice(self) -> Notice | None:
        """The notice, of an event that is one."""
        return self.detail if isinstance(self.detail, Notice) else None

    @property
    def truncation(self) -> Truncation | None:
        """What is kept no more, of an event that tells so."""
        return self.detail if isinstance(self.detail, Truncation) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue and its figures.

    Attributes:
        enqueued: Waiting jobs, by priority; without the parked ones.
        parked: Enqueued jobs that a limit, a breaker or a bulkhead holds back.
        priority_ratio: How claims are shared among the priorities.
        limits: Of the queue as a whole; None where there are none.
        jobs: Jobs kept now, by state.
        oldest_wait_seconds: How long the oldest enqueued job has waited; None when none waits.
        submitted_total: Since the queue was created, as are the other totals.
    """

    name: str
    paused: bool
    enqueued: Mapping[str, int]
    parked: int
    priority_ratio: PriorityRatio
    limits: Limits | None
    jobs: Mapping[str, int]
    oldest_wait_seconds: float | None
    submitted_total: int
    completed_total: int
    failed_total: int
    cancelled_total: int
    retried_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """The limits of a type in a queue; those set hold, whole, before those declared.

    Attributes:
        type: Of the jobs.
        set_limits: What an operator has set; None when none has.
        declared: What the handler declares; None when it declares nothing.
    """

    type: str
    set_limits: Limits | None
    declared: Limits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What is limited in a queue.

    Attributes:
        rules: Of the types, by name.
        whole_queue: Of the queue as a whole; None when it has none.
    """

    rules: tuple[LimitRule, ...]
    whole_queue: Limits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A breaker.

    Attributes:
        name: Of the dependency or the type.
        state: With an operator's order taken into account.
        forced: The order; None while attempts decide.
        failures: In a row now, within the window.
        reopen_ms: Until when it is open, ms since the epoch; None unless it is, and while it is ordered.
        permits: Jobs that run under a permit: probes, or those of a breaker that has seen no success yet.
        opened_total: How often it has tripped.
        types: Job types that it guards.
    """

    name: str
    state: BreakerState
    forced: Forced | None
    failures: int
    reopen_ms: int | None
    permits: int
    opened_total: int
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckAttempt:
    """An attempt whose handler was to end, has outlasted the grace, and goes on.

    Attributes:
        job_id: Of its job.
        type: Of its job.
        hangs_at: The innermost line of the handler's own code, `FILE:LINE in FUNCTION`; '' where it is not known.
    """

    job_id: str
    type: str
    hangs_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlock:
    """That a worker's loop is blocked, or has been.

    Attributes:
        type: Of the job whose handler blocks it; empty where it is none.
        function: The handler, by module and name; else the Trio task.
        job_id: Of the job; empty in a total.
        seconds: For how long.
    """

    type: str
    function: str
    job_id: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that lives.

    Attributes:
        queues: Names and weights.
        start_ms: Moment, ms since the epoch.
        heartbeat_ms: Moment, ms since the epoch.
        stuck_job_ids: Jobs whose handler outlasts its cancel.
        utilisation: Of its slots' time since the beat before the last, the share in which a handler ran: 0 to 1.
        attempts_per_second: Attempts that ended, over the same time.
        resident_bytes: Memory of its process; 0 where its system does not tell.
        cpu_cores: Processor time of its process over the same time; 1.0 is one core.
        stuck_attempts: More about those of `stuck_job_ids`; none of a worker of an older version.
        blocked: What blocks its loop; None when nothing does.
        blocked_totals: For how long its loop has been blocked since it started, by type and function.
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
    utilisation: float
    attempts_per_second: float
    resident_bytes: int
    cpu_cores: float
    stuck_attempts: tuple[StuckAttempt, ...] = ()
    blocked: LoopBlock | None = None
    blocked_totals: tuple[LoopBlock, ...] = ()


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
class Percentiles:
    """How durations are spread; each percentile is right within a fifth.

    Attributes:
        count: How many were measured.
        recent: They are those of the last five minutes; else of all time, since nothing was measured lately.
    """

    count: int
    mean_seconds: float
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    recent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeStats:
    """What was measured of the attempts of a type.

    Attributes:
        attempts_total: By outcome.
        succeeded_per_second: Over the last minute.
        failed_per_second: Raised or timed out, over the last minute.
        duration: How long handlers ran.
    """

    queue: str
    type: str
    attempts_total: Mapping[str, int]
    succeeded_per_second: float
    failed_per_second: float
    duration: Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStats:
    """How long jobs stood in a line before they were claimed."""

    queue: str
    priority: str
    wait: Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The figures of a namespace.

    Attributes:
        utilisation: Of all slots' time since the workers' last beats, the share in which a handler ran: 0 to 1.
        attempts_per_second: Attempts that ended, over the last minute; of them, those that succeeded and those that failed follow.
        leases_lost_total: Attempts whose lease ended with no outcome.
    """

    queues: tuple[Queue, ...]
    worker_count: int
    slot_count: int
    busy_slot_count: int
    redis: RedisStats
    types: tuple[TypeStats, ...]
    waits: tuple[WaitStats, ...]
    workers: tuple[Worker, ...]
    utilisation: float
    attempts_per_second: float
    succeeded_per_second: float
    failed_per_second: float
    leases_lost_total: int


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
