"""The settlements that every kind of worker makes alike: a failure under the job's retry policy, a snooze, a release."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import structlog

from gopher.handlers import LONGEST_DELAY_SECONDS
from gopher.job import Move, Outcome
from gopher.retry import RetryPolicy
from gopher.store.codec import decode_failure, encode_failure
from gopher.store.lifecycle import Settlement

if TYPE_CHECKING:
    from gopher.job import Failure
    from gopher.store.codec import ClaimedJob

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_UNHANDLED_SECONDS: Final = 5.0
"""How long a job of a type that a worker lacks stays out of its way; chosen: a rolling deploy's worker is not far."""


def retry_or_bury(
    job: ClaimedJob, declared: RetryPolicy, outcome: Outcome, failure: Failure, *, after_seconds: float | None = None
) -> Settlement:
    """Return what becomes of a job whose attempt has failed and may be followed by another.

    Args:
        job: As it was claimed.
        declared: The policy where the submitter has set none.
        outcome: How the attempt ended.
        failure: Of the attempt.
        after_seconds: Until the next attempt; None for what the policy says.
    """
    policy = _policy(job, declared)
    # Attempts that crashed, and those of an earlier generation, are counted apart.
    failures = max(1, job.attempt - (job.number(b"crashes") or 0) - (job.number(b"spent") or 0))
    if not policy.has_attempt_after(failures) or failure.reason in job.non_retryable_reasons:
        return bury(job, outcome, failure)
    delay_seconds = policy.delay_seconds(failures, random.random) if after_seconds is None else after_seconds
    return Settlement(job.id, job.token, Move.RETRY, outcome, _ms(delay_seconds), b"", encode_failure(failure))


def log_dead_letter(settlement: Settlement, queue: str, job_type: str) -> None:
    """Report that an attempt has left its job failed."""
    reason = decode_failure(settlement.failure).reason
    _log.error("job.failed", job_id=settlement.job_id, queue=queue, type=job_type, reason=reason)


def bury(job: ClaimedJob, outcome: Outcome, failure: Failure) -> Settlement:
    """Return the settlement of a job that has failed for good."""
    return Settlement(job.id, job.token, Move.BURY, outcome, 0, b"", encode_failure(failure))


def snooze(job: ClaimedJob, seconds: float) -> Settlement:
    """Return the settlement of a job that is to run later, unspent."""
    return Settlement(job.id, job.token, Move.SNOOZE, Outcome.CANCELLED, _ms(seconds))


def unhandled(job: ClaimedJob) -> Settlement:
    """Return the settlement of a job of a type that its worker has no handler for."""
    return snooze(job, _UNHANDLED_SECONDS)


def release(job: ClaimedJob) -> Settlement:
    """Return the settlement of a job that is given back, unspent."""
    return Settlement(job.id, job.token, Move.RELEASE, Outcome.CANCELLED)


def outlived(job: ClaimedJob) -> Settlement:
    """Return what a worker says of an attempt that it lost while Redis was out of reach: no crash is to be charged for it.

    It is refused like anything else under a lost lease.
    """
    return Settlement(job.id, job.token, Move.RELEASE, Outcome.LOST)


def _policy(job: ClaimedJob, declared: RetryPolicy) -> RetryPolicy:
    """What the submitter set, and for the rest what was declared."""
    initial_ms = job.number(b"backoff_initial_ms")
    max_ms = job.number(b"backoff_max_ms")
    multiplier = job.decimal(b"backoff_multiplier")
    return RetryPolicy(
        max_attempts=job.number(b"max_attempts") or declared.max_attempts,
        backoff_initial_seconds=declared.backoff_initial_seconds if initial_ms is None else initial_ms / 1000,
        backoff_max_seconds=declared.backoff_max_seconds if max_ms is None else max_ms / 1000,
        backoff_multiplier=declared.backoff_multiplier if multiplier is None else multiplier,
    )


def _ms(seconds: float) -> int:
    # In this order NaN, which is neither above nor below anything, counts as nothing.
    return round(min(LONGEST_DELAY_SECONDS, max(0.0, seconds)) * 1000)
