"""What a job is: its states, the table of legal moves, and the values that describe it.

Pure: no clock, no Redis, no Trio. The Lua scripts carry out the moves; `TRANSITIONS` says which there are, and the tests hold
the scripts to this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from gopher.waiting import WaitingReason  # noqa: TC001 - msgspec reads the fields of its structs at run time

if TYPE_CHECKING:
    JsonValue: TypeAlias = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
else:
    # What reads annotations at run time, as `gopher.handlers` does, cannot follow an alias that names itself.
    JsonValue: TypeAlias = object

JSON_CONTENT_TYPE: Final = "application/json"
BYTES_CONTENT_TYPE: Final = "application/octet-stream"
CONTENT_TYPES: Final = frozenset({JSON_CONTENT_TYPE, BYTES_CONTENT_TYPE})

STATUS_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""The names of gRPC's status codes, each at its number. Source: google/rpc/code.proto."""
REASON_PATTERN: Final = r"[A-Z][A-Z0-9_]{0,62}"
NAME_EXAMPLE: Final = "mail.welcome"
REASON_EXAMPLE: Final = "CARD_DECLINED"
"""What messages show beside the pattern, since not everybody reads those."""

DEFAULT_QUEUE: Final = "default"
DEFAULT_NAMESPACE: Final = "default"
MAX_CRASHES: Final = 3
"""The crash that ends a job: a worker lost with it for the third time is taken to be killed by it."""


MAX_TRACEBACK_BYTES: Final = 8192
"""Of an attempt. Chosen: some forty frames with their source lines; what a record keeps of four takes less than a payload may."""


class JobState(StrEnum):
    """Where a job stands; exactly one."""

    SCHEDULED = "scheduled"
    ENQUEUED = "enqueued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether only an operator can move the job on."""
        return self in FINAL_STATES


FINAL_STATES: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class Priority(StrEnum):
    """Which of a queue's three lines a job stands in."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Move(StrEnum):
    """A change of state, named by what causes it."""

    PROMOTE = "promote"  # the run time has come
    CLAIM = "claim"  # a worker takes it, with a lease
    COMPLETE = "complete"  # the handler returned
    RETRY = "retry"  # the attempt failed and another follows
    BURY = "bury"  # the attempt failed and none follows
    SNOOZE = "snooze"  # the handler asked to be run later
    RELEASE = "release"  # a draining worker gives it back unspent
    ACKNOWLEDGE_CANCEL = "acknowledge_cancel"  # the cancelled task tree has ended
    CANCEL = "cancel"  # asked for; a processing job only gets the mark
    EXPIRE = "expire"  # the deadline passed before a worker took it
    RECOVER = "recover"  # the lease ended with no outcome
    CRASH = "crash"  # the same, for the last time
    REQUEUE = "requeue"  # an operator gives it new attempts, or does not want to wait


_WAITING = (JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING)

TRANSITIONS: Final[dict[tuple[JobState, Move], JobState]] = {
    (JobState.SCHEDULED, Move.PROMOTE): JobState.ENQUEUED,
    (JobState.RETRYING, Move.PROMOTE): JobState.ENQUEUED,
    (JobState.ENQUEUED, Move.CLAIM): JobState.PROCESSING,
    (JobState.PROCESSING, Move.COMPLETE): JobState.COMPLETED,
    (JobState.PROCESSING, Move.RETRY): JobState.RETRYING,
    (JobState.PROCESSING, Move.BURY): JobState.FAILED,
    (JobState.PROCESSING, Move.SNOOZE): JobState.SCHEDULED,
    (JobState.PROCESSING, Move.RELEASE): JobState.ENQUEUED,
    (JobState.PROCESSING, Move.ACKNOWLEDGE_CANCEL): JobState.CANCELLED,
    (JobState.PROCESSING, Move.CANCEL): JobState.PROCESSING,
    (JobState.PROCESSING, Move.RECOVER): JobState.ENQUEUED,
    (JobState.PROCESSING, Move.CRASH): JobState.FAILED,
    **{(state, Move.CANCEL): JobState.CANCELLED for state in _WAITING},
    **{(state, Move.EXPIRE): JobState.FAILED for state in _WAITING},
    (JobState.FAILED, Move.REQUEUE): JobState.ENQUEUED,
    (JobState.CANCELLED, Move.REQUEUE): JobState.ENQUEUED,
    (JobState.SCHEDULED, Move.REQUEUE): JobState.ENQUEUED,
    (JobState.RETRYING, Move.REQUEUE): JobState.ENQUEUED,
}
"""(state, move) -> next state. What is not listed is refused and changes nothing.

A retry or snooze with no delay still passes through its waiting state; the promoter moves it on at once. When a cancel was asked
for, RETRY, SNOOZE, RELEASE, RECOVER and CRASH all end in `cancelled`: cancelled work is never run again.
"""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    RAISED = "raised"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt, or the whole job, failed: a `google.rpc.Status` in plain values.

    Attributes:
        reason: UPPER_SNAKE: `HANDLER_RAISED`, `TIMED_OUT`, `PAYLOAD_MISMATCH`, `EXPIRED`, `CRASH_LOOP`, `DISCARDED`...
        message: For people; at most 1 KiB.
        code: The number of a gRPC status code.
        metadata: Facts for machines, beside the reason.
        retry_after_ms: How long to wait before a repeat, as who failed has advised, ms; None for no advice.
        details: Further details of the status, each a serialised `google.protobuf.Any`.
    """

    reason: str
    message: str
    code: int = 2
    metadata: dict[str, str] = {}
    retry_after_ms: int | None = None
    details: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of the handler, ended.

    Attributes:
        number: From 1.
        outcome: How it ended.
        worker: Id of the worker that ran it.
        started_ms: Redis time of the claim, ms since the epoch.
        finished_ms: Redis time of the settling, ms since the epoch.
        failure: None when it succeeded.
        traceback: Of what the handler raised, from its own frames on; None where nothing was raised or it is not kept.
    """

    number: int
    outcome: Outcome
    worker: str
    started_ms: int
    finished_ms: int
    failure: Failure | None = None
    traceback: str | None = None


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its submitter describes it; what is None is what the handler declares or the system's default.

    Attributes:
        type: Name that picks the handler.
        payload: Bytes of `content_type`.
        queue: Where it waits.
        priority: Which line of the queue.
        content_type: `application/json` or `application/octet-stream`.
        labels: At most 64 text pairs.
        max_attempts: 1 to 100.
        backoff_initial_ms: First backoff, ms.
        backoff_max_ms: Cap of the backoff, ms.
        backoff_multiplier: Growth of the backoff.
        non_retryable_reasons: Failures with one of these reasons are not followed by another attempt.
        timeout_ms: Longest run of one attempt, ms; waiting does not count.
        run_ms: Not claimable before this moment, ms since the epoch.
        delay_ms: Not claimable before this long after the submit, ms; excludes `run_ms`.
        deadline_ms: Moment after which it is not started and its attempt is ended, ms since the epoch.
        unique_key: At most one job that is not final holds it, per queue.
        limit_key: Whose share of the limits per key it takes, as that of a tenant; with None it takes none.
        request_id: Makes the submit repeatable, per queue.
        retention_ms: How long it is kept once completed or cancelled, ms.
        parent_id: Job that submitted this one.
        root_id: First ancestor.
        trace: W3C traceparent of the submitter.
        depth: How many nurseries it stands in, one within the other; None for none.
    """

    type: str
    payload: bytes = b"null"
    queue: str = DEFAULT_QUEUE
    priority: Priority = Priority.NORMAL
    content_type: str = JSON_CONTENT_TYPE
    labels: dict[str, str] = {}
    max_attempts: int | None = None
    backoff_initial_ms: int | None = None
    backoff_max_ms: int | None = None
    backoff_multiplier: float | None = None
    non_retryable_reasons: tuple[str, ...] = ()
    timeout_ms: int | None = None
    run_ms: int | None = None
    delay_ms: int | None = None
    deadline_ms: int | None = None
    unique_key: str | None = None
    limit_key: str | None = None
    request_id: str | None = None
    retention_ms: int | None = None
    parent_id: str | None = None
    root_id: str | None = None
    trace: str | None = None
    depth: int | None = None


class Job(NewJob, frozen=True, kw_only=True):
    """A job as the store holds it.

    Attributes:
        id: UUIDv7 text.
        namespace: Where names are unique.
        state: Where it stands.
        submitted_ms: Redis time of the submit, ms since the epoch.
        enqueued_ms: When it last became claimable; None while it never was.
        started_ms: When the last attempt was claimed.
        finished_ms: When it became final.
        attempt: Number of the last attempt; 0 before the first.
        crashes: Attempts whose lease ended with no outcome.
        token: Lease token of the last attempt; 0 before the first. Grows with every claim in the queue.
        worker: Id of the worker of the last attempt.
        lease_ms: When the lease ends; None unless processing.
        cancel_reason: Why a cancel was asked for; None when none was.
        cancel_actor: Who asked for it, as they said; None when they did not.
        parked_by: What holds the enqueued job back, as `rate:email`, `concurrency:email:KEY`, `breaker:smtp`; None when nothing does.
        progress: 0 to 1, as the handler last said; None when it said nothing.
        progress_message: Text beside it.
        result: What the handler returned, bytes of JSON.
        failure: Why it failed; of a retrying job, why the last attempt did.
        attempts: The attempts that ended, oldest first; only the last 20 are kept.
        generation: How often an operator has requeued it.
        waiting_reason: Why it waits, where that was asked for; the record does not hold it.
    """

    id: str
    namespace: str
    state: JobState
    submitted_ms: int
    enqueued_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    attempt: int = 0
    crashes: int = 0
    token: int = 0
    worker: str | None = None
    lease_ms: int | None = None
    cancel_reason: str | None = None
    cancel_actor: str | None = None
    parked_by: str | None = None
    progress: float | None = None
    progress_message: str | None = None
    result: bytes | None = None
    failure: Failure | None = None
    attempts: tuple[Attempt, ...] = ()
    generation: int = 0
    waiting_reason: WaitingReason | None = None

    @property
    def cancel_requested(self) -> bool:
        """Whether a cancel was asked for; while the job is processing, it is on its way."""
        return self.cancel_reason is not None
