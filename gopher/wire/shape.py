"""A job, or a schedule, as one JSON object: what `gopher ... --json` prints and what REST answers.

Every key is always there; what is unset is null. `id` and `state` are also given as `job_id` and `status`, the words of the REST
answer to a submit. Moments are RFC 3339 in UTC with ms, lengths of time are seconds. A payload that is JSON stands decoded in
`payload`; any other stands in `payload_base64`. A failure is `{"code", "reason", "message", "metadata",
"retry_after_seconds"}`, its code the name of a gRPC code.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import msgspec

from gopher.job import JSON_CONTENT_TYPE
from gopher.limits import PERIOD_NAMES, Limits
from gopher.wire.status import CODE_BY_NUMBER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.breaker import BreakerState, Forced
    from gopher.job import Attempt, Failure, Job, JsonValue, NewJob
    from gopher.limits import RateLimit
    from gopher.schedule import Schedule
    from gopher.waiting import WaitingReason


def job_object(job: Job) -> dict[str, JsonValue]:
    """Return the job as a JSON object."""
    return {
        "id": job.id,
        "job_id": job.id,
        "namespace": job.namespace,
        **_description_of(job),
        "state": job.state.value,
        "status": job.state.value,
        "run_time": moment(job.run_ms),
        "deadline": moment(job.deadline_ms),
        "unique_key": job.unique_key,
        "parked_by": job.parked_by,
        "waiting_reason": reason_object(job.waiting_reason),
        "request_id": job.request_id,
        "parent_id": job.parent_id,
        "root_id": job.root_id,
        **_progress_of(job),
    }


def _description_of(job: NewJob) -> dict[str, JsonValue]:
    is_json = job.content_type == JSON_CONTENT_TYPE
    return {
        "queue": job.queue,
        "type": job.type,
        "priority": job.priority.value,
        "content_type": job.content_type,
        "payload": _decoded(job.payload) if is_json else None,
        "payload_base64": None if is_json else base64.b64encode(job.payload).decode("ascii"),
        "labels": dict(job.labels),
        "max_attempts": job.max_attempts,
        "backoff_initial_seconds": _seconds(job.backoff_initial_ms),
        "backoff_max_seconds": _seconds(job.backoff_max_ms),
        "backoff_multiplier": job.backoff_multiplier,
        "non_retryable_reasons": list(job.non_retryable_reasons),
        "limit_key": job.limit_key,
        "timeout_seconds": _seconds(job.timeout_ms),
        "retention_seconds": _seconds(job.retention_ms),
    }


def schedule_object(schedule: Schedule) -> dict[str, JsonValue]:
    """Return the schedule as a JSON object; `job` describes the jobs that it makes."""
    return {
        "name": schedule.name,
        "namespace": schedule.namespace,
        "queue": schedule.job.queue,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "jitter_seconds": schedule.jitter_ms / 1000,
        "overlap": schedule.overlap.value,
        "catch_up": schedule.catch_up.value,
        "paused": schedule.paused,
        "create_time": moment(schedule.created_ms),
        "update_time": moment(schedule.updated_ms),
        "next_fire_time": moment(schedule.next_ms),
        "last_fire_time": moment(schedule.last_fire_ms),
        "last_job_id": schedule.last_job_id,
        "fired_total": schedule.fired_total,
        "skipped_total": schedule.skipped_total,
        "job": _description_of(schedule.job),
    }


def _progress_of(job: Job) -> dict[str, JsonValue]:
    return {
        "submit_time": moment(job.submitted_ms),
        "enqueue_time": moment(job.enqueued_ms),
        "start_time": moment(job.started_ms),
        "end_time": moment(job.finished_ms),
        "attempt": job.attempt,
        "crash_count": job.crashes,
        "worker": job.worker,
        "lease_expire_time": moment(job.lease_ms),
        "cancel_requested": job.cancel_requested,
        "cancel_reason": job.cancel_reason,
        "cancel_actor": job.cancel_actor,
        "progress": job.progress,
        "progress_message": job.progress_message,
        "result": None if job.result is None else _decoded(job.result),
        "failure": failure_object(job.failure),
        "attempts": [_attempt_object(attempt) for attempt in job.attempts],
        "generation": job.generation,
    }


def _attempt_object(attempt: Attempt) -> JsonValue:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome.value,
        "worker": attempt.worker,
        "start_time": moment(attempt.started_ms),
        "end_time": moment(attempt.finished_ms),
        "failure": failure_object(attempt.failure),
        "traceback": attempt.traceback,
    }


def limits_object(limits: Limits | None) -> JsonValue:
    """Return limits as a JSON object; null for None."""
    if limits is None:
        return None
    return {
        "rate": _rate_object(limits.rate),
        "rate_per_key": _rate_object(limits.rate_per_key),
        "concurrency": limits.concurrency,
        "concurrency_per_key": limits.concurrency_per_key,
    }


def _rate_object(rate: RateLimit | None) -> JsonValue:
    if rate is None:
        return None
    per = next(name for name, period_ms in PERIOD_NAMES.items() if period_ms == rate.period_ms)
    return {"count": rate.count, "per": per, "burst": rate.burst}


def rule_object(job_type: str, queue: str, set_limits: Limits | None, declared: Limits | None) -> dict[str, JsonValue]:
    """Return the limits of a type in a queue as a JSON object: those that hold, those set and those declared."""
    return {
        "type": job_type,
        "queue": queue,
        "limits": limits_object(set_limits if set_limits is not None else declared or Limits()),
        "set": limits_object(set_limits),
        "declared": limits_object(declared),
    }


def breaker_object(
    *,
    name: str,
    state: BreakerState,
    forced: Forced | None,
    failures: int,
    reopen_ms: int | None,
    permits: int,
    opened_total: int,
    types: Sequence[str],
) -> dict[str, JsonValue]:
    """Return a breaker as a JSON object."""
    return {
        "name": name,
        "state": state.value,
        "control": "automatic" if forced is None else forced.value,
        "failures": failures,
        "reopen_time": moment(reopen_ms),
        "permits": permits,
        "opened_total": opened_total,
        "types": list(types),
    }


def reason_object(reason: WaitingReason | None) -> JsonValue:
    """Return why a job waits as a JSON object; null for None."""
    if reason is None:
        return None
    return {
        "kind": reason.kind.value,
        "queue": reason.queue,
        "type": reason.type,
        "held_by": reason.held_by,
        "until_time": moment(reason.until_ms),
        "jobs_ahead": reason.jobs_ahead,
        "busy_slot_count": reason.busy_slots,
        "slot_count": reason.slots,
        "message": reason.message,
    }


def failure_object(failure: Failure | None) -> JsonValue:
    """Return why something failed as a JSON object; null for None."""
    if failure is None:
        return None
    code = CODE_BY_NUMBER.get(failure.code)
    return {
        "code": code.name if code else str(failure.code),
        "reason": failure.reason,
        "message": failure.message,
        "metadata": dict(failure.metadata),
        "retry_after_seconds": _seconds(failure.retry_after_ms),
    }


def moment(ms: int | None) -> str | None:
    """Return a moment, ms since the epoch, in RFC 3339."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _decoded(data: bytes) -> JsonValue:
    return cast("JsonValue", msgspec.json.decode(data)) if data else None
