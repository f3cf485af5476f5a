"""What REST answers: each body as declared here, and told of in the OpenAPI document. Every key is always there; unset is null."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gopher.bulk import BulkKind, BulkState  # noqa: TC001 - msgspec reads the declarations at run time
from gopher.edge.rest_limit_views import LimitsView
from gopher.job import JobState, Outcome, Priority
from gopher.waiting import WaitingKind  # noqa: TC001 - msgspec reads the annotations
from gopher.wire import convert
from gopher.wire.bulk import operation_from_message, operation_object
from gopher.wire.limits import limits_from_message, ratio_from_message
from gopher.wire.shape import job_object, limits_object
from gopher.wire.task_tree import TaskTree  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from gopher_pb.v1 import admin_service_pb2, bulk_pb2, job_pb2, queue_service_pb2
    from gopher_pb.v1 import job_service_pb2 as pb


class FieldFault(Struct, frozen=True):
    """One fault of one field of the request."""

    field: str
    reason: str
    message: str


class Fault(Struct, frozen=True, kw_only=True):
    """Why a request was refused.

    `code` is the name of a gRPC code and `reason` says more; both are the same over gRPC. `retry_after_seconds` is null where a
    repeat is of no use.
    """

    code: str
    reason: str
    message: str
    metadata: dict[str, str] = {}
    details: list[FieldFault] = []
    retry_after_seconds: float | None = None


class Refusal(Struct, frozen=True):
    """The answer to a request that was refused."""

    error: Fault


class SeedReceipt(Struct, frozen=True):
    """The job is stored."""

    job_id: str
    status: JobState


class Receipt(Struct, frozen=True, kw_only=True):
    """The job is stored; `deduplicated` when its request id was used before with the same body: this is the first answer."""

    job_id: str
    status: JobState
    deduplicated: bool


class BatchReceipt(Struct, frozen=True, kw_only=True):
    """What became of one job of a batch: either `error` is null, or `job_id` and `status` are."""

    job_id: str | None = None
    status: JobState | None = None
    deduplicated: bool = False
    error: Fault | None = None


class BatchReceipts(Struct, frozen=True):
    """As many results as the batch has jobs, in its order."""

    results: list[BatchReceipt]


class Deleted(Struct, frozen=True):
    """The job is no more."""

    job_id: str


class JobFailure(Struct, frozen=True, kw_only=True):
    """Why an attempt, or the whole job, failed; `code` is the name of a gRPC code."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    retry_after_seconds: float | None


class JobAttempt(Struct, frozen=True, kw_only=True):
    """One run of the handler that has ended."""

    number: int
    outcome: Outcome
    worker: str
    start_time: str | None
    end_time: str | None
    failure: JobFailure | None
    traceback: str | None


class WaitingView(Struct, frozen=True, kw_only=True):
    """Why a job waits, as it was when it was read: `message` says all of it in a sentence.

    `held_by` is the limit, breaker or bulkhead that holds it back; `jobs_ahead` are those before it in its line; the slots are those
    of the workers that could run it.
    """

    kind: WaitingKind
    queue: str
    type: str
    held_by: str | None
    until_time: str | None
    jobs_ahead: int
    busy_slot_count: int
    slot_count: int
    message: str


class JobView(Struct, frozen=True, kw_only=True):
    """A job. `job_id` and `status` say again what `id` and `state` say; moments are RFC 3339 in UTC."""

    id: str
    job_id: str
    namespace: str
    queue: str
    type: str
    priority: Priority
    state: JobState
    status: JobState
    content_type: str
    payload: Raw
    payload_base64: str | None
    labels: dict[str, str]
    max_attempts: int | None
    backoff_initial_seconds: float | None
    backoff_max_seconds: float | None
    backoff_multiplier: float | None
    non_retryable_reasons: list[str]
    timeout_seconds: float | None
    retention_seconds: float | None
    run_time: str | None
    deadline: str | None
    unique_key: str | None
    limit_key: str | None
    parked_by: str | None
    waiting_reason: WaitingView | None
    request_id: str | None
    parent_id: str | None
    root_id: str | None
    submit_time: str | None
    enqueue_time: str | None
    start_time: str | None
    end_time: str | None
    attempt: int
    crash_count: int
    worker: str | None
    lease_expire_time: str | None
    cancel_requested: bool
    cancel_reason: str | None
    cancel_actor: str | None
    progress: float | None
    progress_message: str | None
    result: Raw
    failure: JobFailure | None
    attempts: list[JobAttempt]
    generation: int


class JobPage(Struct, frozen=True):
    """A page of jobs; the token is null on the last page."""

    jobs: list[JobView]
    next_page_token: str | None


class QueueView(Struct, frozen=True, kw_only=True):
    """A queue: waiting jobs by priority, jobs kept now by state, totals since it was created."""

    name: str
    paused: bool
    priority_ratio: dict[str, int]
    enqueued: dict[str, int]
    limits: LimitsView | None
    parked: int
    jobs: dict[str, int]
    oldest_wait_seconds: float | None
    submitted_total: int
    completed_total: int
    failed_total: int
    cancelled_total: int
    retried_total: int


class QueueList(Struct, frozen=True):
    """The queues, by name."""

    queues: list[QueueView]


class Purged(Struct, frozen=True):
    """How many jobs were removed."""

    queue: str
    purged: int


class Requeued(Struct, frozen=True):
    """How many dead letters got new attempts."""

    requeued: int


class BulkView(Struct, frozen=True, kw_only=True):
    """A bulk operation: what it does, and how far it has come."""

    id: str
    namespace: str
    kind: BulkKind
    states: list[JobState]
    queue: str | None
    type: str | None
    labels: dict[str, str]
    submitted_before: str | None
    reason: str
    grace_seconds: float
    state: BulkState
    create_time: str | None
    end_time: str | None
    total: int
    scanned: int
    matched: int
    done: int
    skipped: int
    failed: int
    fault: str | None


class BulkList(Struct, frozen=True):
    """The bulk operations of the last week, the last one first."""

    operations: list[BulkView]


class TypeView(Struct, frozen=True):
    """A type that some worker has registered, and whether one that lives handles it."""

    type: str
    served: bool


class TypeList(Struct, frozen=True):
    """The types known, by name."""

    types: list[TypeView]


class JobTree(Struct, frozen=True, kw_only=True):
    """A job, and what it does at this moment."""

    job: JobView
    task_tree: TaskTree


def job_view(message: job_pb2.Job) -> JobView:
    """Return a job."""
    shape = job_object(convert.job_from_message(message))
    raw = {key: Raw(msgspec.json.encode(shape[key])) for key in ("payload", "result")}
    return msgspec.convert(shape | raw, JobView)


def job_page(reply: pb.ListJobsResponse | admin_service_pb2.ListFailedJobsResponse) -> JobPage:
    """Return a page of jobs."""
    return JobPage([job_view(job) for job in reply.jobs], reply.next_page_token or None)


def queue_view(queue: queue_service_pb2.Queue) -> QueueView:
    """Return a queue."""
    enqueued = {"high": queue.enqueued_high, "normal": queue.enqueued_normal, "low": queue.enqueued_low}
    return QueueView(
        name=queue.name,
        paused=queue.paused,
        priority_ratio={each.value: share for each, share in ratio_from_message(queue.priority_ratio).shares.items()},
        enqueued=enqueued,
        limits=msgspec.convert(
            limits_object(limits_from_message(queue.limits) if queue.HasField("limits") else None), LimitsView | None
        ),
        parked=queue.parked,
        jobs={
            JobState.SCHEDULED.value: queue.scheduled,
            JobState.ENQUEUED.value: sum(enqueued.values()) + queue.parked,
            JobState.PROCESSING.value: queue.processing,
            JobState.RETRYING.value: queue.retrying,
            JobState.COMPLETED.value: queue.completed,
            JobState.FAILED.value: queue.failed,
            JobState.CANCELLED.value: queue.cancelled,
        },
        oldest_wait_seconds=convert.to_ms(queue.oldest_wait) / 1000 if queue.HasField("oldest_wait") else None,
        submitted_total=queue.submitted_total,
        completed_total=queue.completed_total,
        failed_total=queue.failed_total,
        cancelled_total=queue.cancelled_total,
        retried_total=queue.retried_total,
    )


def bulk_view(message: bulk_pb2.BulkOperation) -> BulkView:
    """Return a bulk operation."""
    return msgspec.convert(operation_object(operation_from_message(message)), BulkView)
