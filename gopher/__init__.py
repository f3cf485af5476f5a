"""Gopher, a job runtime: what handler authors need.

    import gopher

    registry = gopher.Registry()

    @registry.handler("email", max_attempts=4, timeout_seconds=30)
    async def send_email(job: gopher.JobContext, payload: Email) -> dict: ...

Reading order for a newcomer: `gopher.job` (what it is), `gopher.runtime.supervisor` (who does what), `gopher.runtime.runner` (what
happens to a job). Callers say `from gopher.client import Client`; it pulls in gRPC, so it is not here.
"""

from __future__ import annotations

from gopher.breaker import Breaker
from gopher.contexts import AttemptCancelled, JobContext, SyncJobContext
from gopher.errors import GopherError, JobCancelledError, JobFailedError, WaitTimeoutError
from gopher.handlers import Discard, Registry, Retry, Snooze, StatusError
from gopher.job import Attempt, Failure, Job, JobState, JsonValue, Outcome, Priority
from gopher.limits import RateLimit
from gopher.nursery import ChildJob, JobNursery, SyncChildJob, SyncJobNursery
from gopher.retry import RetryPolicy
from gopher.surroundings import CallNext

__all__ = [
    "Attempt",
    "AttemptCancelled",
    "Breaker",
    "CallNext",
    "ChildJob",
    "Discard",
    "Failure",
    "GopherError",
    "Job",
    "JobCancelledError",
    "JobContext",
    "JobFailedError",
    "JobNursery",
    "JobState",
    "JsonValue",
    "Outcome",
    "Priority",
    "RateLimit",
    "Registry",
    "Retry",
    "RetryPolicy",
    "Snooze",
    "StatusError",
    "SyncChildJob",
    "SyncJobContext",
    "SyncJobNursery",
    "WaitTimeoutError",
]
