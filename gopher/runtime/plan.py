"""What a worker is to do, as its command line and its configuration say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What a worker is to do.

    Attributes:
        app: `module:registry`.
        namespace: Of the queues.
        queues: Name -> weight.
        slots: Attempts that run at most at once, at the least and at the most; the worker finds the number between them.
        subprocesses: Subprocesses that run at most at once.
        lease_seconds: Lease.
        poll_seconds: Safety net of all that waits to be told.
        grace_seconds: How long a drain lets attempts finish.
        max_attempts: Of jobs for which neither submitter nor handler says.
        max_result_bytes: A larger result fails the job.
        keep_tracebacks: Whether a failed attempt keeps its traceback.
        version: Of Gopher.
    """

    app: str
    namespace: str
    queues: dict[str, int]
    slots: tuple[int, int]
    subprocesses: int
    lease_seconds: float
    poll_seconds: float
    grace_seconds: float
    max_attempts: int
    max_result_bytes: int
    keep_tracebacks: bool
    version: str
