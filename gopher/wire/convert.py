"""Jobs and their parts as messages, and back; the only place where a `Duration` or a `Timestamp` is made of ms."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gopher_pb.v1 import job_event_pb2, job_pb2

from gopher.job import Attempt, Job, JobState, NewJob, Outcome, Priority
from gopher.waiting import WaitingKind, WaitingReason
from gopher.wire.status import failure_from_status, failure_to_status

STATE_NUMBER: Final = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
PRIORITY_NUMBER: Final = {priority: job_pb2.Priority.Value(f"PRIORITY_{priority.name}") for priority in Priority}
OUTCOME_NUMBER: Final = {outcome: job_pb2.Outcome.Value(f"OUTCOME_{outcome.name}") for outcome in Outcome}
STATE_OF: Final[dict[int, JobState]] = {number: state for state, number in STATE_NUMBER.items()}

PRIORITY_OF: Final[dict[int, Priority]] = {number: priority for priority, number in PRIORITY_NUMBER.items()}
_OUTCOME_OF: Final[dict[int, Outcome]] = {number: outcome for outcome, number in OUTCOME_NUMBER.items()}
_WAITING_NUMBER: Final = {kind: job_pb2.WaitingKind.Value(f"WAITING_KIND_{kind.name}") for kind in WaitingKind}
_WAITING_OF: Final[dict[int, WaitingKind]] = {number: kind for kind, number in _WAITING_NUMBER.items()}
_NANOS_A_MS: Final = 1_000_000


def timestamp(ms: int | None) -> Timestamp | None:
    """Return the moment, ms since the epoch, as a message; None gives None."""
    return None if ms is None else Timestamp(seconds=ms // 1000, nanos=ms % 1000 * _NANOS_A_MS)


def duration(ms: int | None) -> Duration | None:
    """Return the length of time, ms >= 0, as a message; None gives None."""
    return None if ms is None else Duration(seconds=ms // 1000, nanos=ms % 1000 * _NANOS_A_MS)


def to_ms(message: Timestamp | Duration) -> int:
    """Return a moment or a length of time in whole ms."""
    return message.seconds * 1000 + message.nanos // _NANOS_A_MS


def job_to_message(job: Job) -> job_pb2.Job:
    """Return the job as clients see it; the lease token stays with the worker."""
    return job_pb2.Job(
        id=job.id,
        namespace=job.namespace,
        queue=job.queue,
        type=job.type,
        priority=PRIORITY_NUMBER[job.priority],
        payload=job.payload,
        content_type=job.content_type,
        labels=job.labels,
        retry_policy=policy_to_message(job),
        timeout=duration(job.timeout_ms),
        run_time=timestamp(job.run_ms),
        deadline=timestamp(job.deadline_ms),
        unique_key=job.unique_key or "",
        limit_key=job.limit_key or "",
        parked_by=job.parked_by or "",
        waiting_reason=None if job.waiting_reason is None else reason_to_message(job.waiting_reason),
        request_id=job.request_id or "",
        retention=duration(job.retention_ms),
        parent_id=job.parent_id or "",
        root_id=job.root_id or "",
        state=STATE_NUMBER[job.state],
        submit_time=timestamp(job.submitted_ms),
        enqueue_time=timestamp(job.enqueued_ms),
        start_time=timestamp(job.started_ms),
        end_time=timestamp(job.finished_ms),
        attempt=job.attempt,
        crash_count=job.crashes,
        worker=job.worker or "",
        lease_expire_time=timestamp(job.lease_ms),
        cancel_requested=job.cancel_requested,
        cancel_reason=job.cancel_reason or "",
        cancel_actor=job.cancel_actor or "",
        progress=job.progress or 0,
        progress_message=job.progress_message or "",
        result=job.result or b"",
        failure=None if job.failure is None else failure_to_status(job.failure),
        attempts=[_attempt_to_message(attempt) for attempt in job.attempts],
        generation=job.generation,
    )


def reason_to_message(reason: WaitingReason) -> job_pb2.WaitingReason:
    """Return why a job waits."""
    return job_pb2.WaitingReason(
        kind=_WAITING_NUMBER[reason.kind],
        queue=reason.queue,
        type=reason.type,
        held_by=reason.held_by or "",
        until_time=timestamp(reason.until_ms),
        jobs_ahead=reason.jobs_ahead,
        busy_slot_count=reason.busy_slots,
        slot_count=reason.slots,
        message=reason.message,
    )


def _reason_from_message(message: job_pb2.WaitingReason) -> WaitingReason | None:
    """Return why a job waits; None for a kind that only a newer server knows."""
    kind = _WAITING_OF.get(message.kind)
    if kind is None:
        return None
    return WaitingReason(
        kind=kind,
        queue=message.queue,
        type=message.type,
        held_by=message.held_by or None,
        until_ms=to_ms(message.until_time) if message.HasField("until_time") else None,
        jobs_ahead=message.jobs_ahead,
        busy_slots=message.busy_slot_count,
        slots=message.slot_count,
        message=message.message,
    )


def reason_of(message: job_pb2.Job | job_event_pb2.JobEvent) -> WaitingReason | None:
    """Return why a job waits, as far as a message says so."""
    return _reason_from_message(message.waiting_reason) if message.HasField("waiting_reason") else None


def policy_to_message(job: NewJob) -> job_pb2.RetryPolicy | None:
    """Return what was said of retries; None when nothing was."""
    said = (job.max_attempts, job.backoff_initial_ms, job.backoff_max_ms, job.backoff_multiplier)
    if all(each is None for each in said) and not job.non_retryable_reasons:
        return None
    return job_pb2.RetryPolicy(
        max_attempts=job.max_attempts or 0,
        initial_backoff=duration(job.backoff_initial_ms),
        max_backoff=duration(job.backoff_max_ms),
        backoff_multiplier=job.backoff_multiplier or 0,
        non_retryable_reasons=job.non_retryable_reasons,
    )


def _attempt_to_message(attempt: Attempt) -> job_pb2.Attempt:
    return job_pb2.Attempt(
        number=attempt.number,
        outcome=OUTCOME_NUMBER[attempt.outcome],
        worker=attempt.worker,
        start_time=timestamp(attempt.started_ms),
        end_time=timestamp(attempt.finished_ms),
        failure=None if attempt.failure is None else failure_to_status(attempt.failure),
        traceback=attempt.traceback or "",
    )


def job_from_message(message: job_pb2.Job) -> Job:
    """Return the job that a message tells of; what the wire does not carry (token, trace) is at its default."""
    policy = message.retry_policy
    return Job(
        id=message.id,
        namespace=message.namespace,
        queue=message.queue,
        type=message.type,
        priority=PRIORITY_OF[message.priority],
        payload=message.payload,
        content_type=message.content_type,
        labels=dict(message.labels),
        max_attempts=policy.max_attempts or None,
        backoff_initial_ms=to_ms(policy.initial_backoff) if policy.HasField("initial_backoff") else None,
        backoff_max_ms=to_ms(policy.max_backoff) if policy.HasField("max_backoff") else None,
        backoff_multiplier=policy.backoff_multiplier or None,
        non_retryable_reasons=tuple(policy.non_retryable_reasons),
        timeout_ms=to_ms(message.timeout) if message.HasField("timeout") else None,
        run_ms=to_ms(message.run_time) if message.HasField("run_time") else None,
        deadline_ms=to_ms(message.deadline) if message.HasField("deadline") else None,
        unique_key=message.unique_key or None,
        limit_key=message.limit_key or None,
        parked_by=message.parked_by or None,
        waiting_reason=reason_of(message),
        request_id=message.request_id or None,
        retention_ms=to_ms(message.retention) if message.HasField("retention") else None,
        parent_id=message.parent_id or None,
        root_id=message.root_id or None,
        state=STATE_OF[message.state],
        submitted_ms=to_ms(message.submit_time),
        enqueued_ms=to_ms(message.enqueue_time) if message.HasField("enqueue_time") else None,
        started_ms=to_ms(message.start_time) if message.HasField("start_time") else None,
        finished_ms=to_ms(message.end_time) if message.HasField("end_time") else None,
        attempt=message.attempt,
        crashes=message.crash_count,
        worker=message.worker or None,
        lease_ms=to_ms(message.lease_expire_time) if message.HasField("lease_expire_time") else None,
        cancel_reason=message.cancel_reason if message.cancel_requested else None,
        cancel_actor=message.cancel_actor or None,
        progress=message.progress if message.progress or message.progress_message else None,
        progress_message=message.progress_message or None,
        result=message.result or None,
        failure=failure_from_status(message.failure) if message.HasField("failure") else None,
        attempts=tuple(_attempt_from_message(attempt) for attempt in message.attempts),
        generation=message.generation,
    )


def _attempt_from_message(message: job_pb2.Attempt) -> Attempt:
    return Attempt(
        number=message.number,
        outcome=_OUTCOME_OF[message.outcome],
        worker=message.worker,
        started_ms=to_ms(message.start_time),
        finished_ms=to_ms(message.end_time),
        failure=failure_from_status(message.failure) if message.HasField("failure") else None,
        traceback=message.traceback or None,
    )
