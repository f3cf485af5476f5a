"""A `JobSpec` as it came over the wire, checked whole, becomes a `NewJob`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from gopher.job import NewJob, Priority
from gopher.retry import MAX_ATTEMPTS_LIMIT
from gopher.submission import MAX_BACKOFF_MS, MAX_BACKOFF_MULTIPLIER, MAX_DELAY_MS, MAX_RETENTION_MS, MAX_TIMEOUT_MS
from gopher.wire import check
from gopher.wire.check import Faults
from gopher.wire.convert import PRIORITY_NUMBER

_PRIORITY_OF: Final = {0: Priority.NORMAL} | {number: priority for priority, number in PRIORITY_NUMBER.items()}

if TYPE_CHECKING:
    from gopher_pb.v1 import job_pb2

    class _RetryFields(TypedDict, total=False):
        max_attempts: int | None
        backoff_initial_ms: int | None
        backoff_max_ms: int | None
        backoff_multiplier: float | None
        non_retryable_reasons: tuple[str, ...]

    class _TimeFields(TypedDict, total=False):
        timeout_ms: int
        run_ms: int
        delay_ms: int
        deadline_ms: int
        retention_ms: int


def new_job(spec: job_pb2.JobSpec, path: str, *, max_payload_bytes: int, trace: str | None = None) -> NewJob:
    """Return the job that a spec describes.

    Args:
        spec: As it came.
        path: What the paths of its fields begin with, for messages: `job.`, `jobs[3].`.
        max_payload_bytes: Largest payload.
        trace: W3C traceparent of the submitter.

    Raises:
        InvalidRequestError: It names every fault.
    """
    faults = Faults(path)
    content_type = check.content_type(faults, "content_type", spec.content_type)
    retries: _RetryFields = _retry_fields(faults, spec.retry_policy) if spec.HasField("retry_policy") else {}
    job = NewJob(
        type=check.name(faults, "type", spec.type),
        payload=check.payload(faults, "payload", spec.payload, content_type, max_payload_bytes),
        queue=check.queue_or_default(faults, "queue", spec.queue),
        priority=_priority(faults, spec.priority),
        content_type=content_type,
        labels=check.labels(faults, "labels", spec.labels),
        unique_key=check.text(faults, "unique_key", spec.unique_key),
        limit_key=check.text(faults, "limit_key", spec.limit_key),
        request_id=check.text(faults, "request_id", spec.request_id),
        trace=trace,
        **retries,
        **_time_fields(faults, spec),
    )
    faults.refuse()
    return job


def _priority(faults: Faults, value: int) -> Priority:
    priority = _PRIORITY_OF.get(value)
    if priority is None:
        known = ", ".join(f"{number} ({each})" for each, number in PRIORITY_NUMBER.items())
        faults.add("priority", "BAD_ENUM", f"must be {known} or unset, got {value}")
        return Priority.NORMAL
    return priority


def _retry_fields(faults: Faults, policy: job_pb2.RetryPolicy) -> _RetryFields:
    fields: _RetryFields = {
        "max_attempts": check.integer(faults, "retry_policy.max_attempts", policy.max_attempts, 1, MAX_ATTEMPTS_LIMIT),
        "backoff_multiplier": check.number(
            faults, "retry_policy.backoff_multiplier", policy.backoff_multiplier, 1, MAX_BACKOFF_MULTIPLIER
        ),
    }
    if policy.non_retryable_reasons:
        fields["non_retryable_reasons"] = check.reasons(
            faults, "retry_policy.non_retryable_reasons", policy.non_retryable_reasons
        )
    initial_ms = 0
    if policy.HasField("initial_backoff"):
        initial_ms = check.duration_ms(faults, "retry_policy.initial_backoff", policy.initial_backoff, 1, MAX_BACKOFF_MS)
        fields["backoff_initial_ms"] = initial_ms
    if policy.HasField("max_backoff"):
        max_ms = check.duration_ms(faults, "retry_policy.max_backoff", policy.max_backoff, 1, MAX_BACKOFF_MS)
        fields["backoff_max_ms"] = max_ms
        if max_ms < initial_ms:
            faults.add("retry_policy.max_backoff", "OUT_OF_RANGE", "must be at least initial_backoff")
    return fields


def _time_fields(faults: Faults, spec: job_pb2.JobSpec) -> _TimeFields:
    fields: _TimeFields = {}
    if spec.HasField("timeout"):
        fields["timeout_ms"] = check.duration_ms(faults, "timeout", spec.timeout, 1, MAX_TIMEOUT_MS)
    if spec.HasField("run_time"):
        fields["run_ms"] = check.moment_ms(faults, "run_time", spec.run_time)
    if spec.HasField("delay"):
        fields["delay_ms"] = check.duration_ms(faults, "delay", spec.delay, 0, MAX_DELAY_MS)
        if spec.HasField("run_time"):
            faults.add("delay", "CONFLICT", "must not be set together with run_time")
    if spec.HasField("deadline"):
        fields["deadline_ms"] = check.moment_ms(faults, "deadline", spec.deadline)
    if spec.HasField("retention"):
        fields["retention_ms"] = check.duration_ms(faults, "retention", spec.retention, 0, MAX_RETENTION_MS)
    return fields
