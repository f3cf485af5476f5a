"""The errors that only workers on streams meet."""

from __future__ import annotations

from gopher.errors import PreconditionError, RequestError


class StaleAttemptError(PreconditionError):
    """The attempt is not this worker's any more: it has lost the lease, or never had it."""

    reason = "STALE_ATTEMPT"

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(
            f"job {job_id} is not this worker's under this token; it has come to attempt {attempt}",
            job_id=job_id,
            attempt=str(attempt),
        )


class ServerBusyError(RequestError):
    """The server serves as many as it may; another may have room."""

    reason = "SERVER_BUSY"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} already: connect to another server, or later")


class WorkerSilentError(RequestError):
    """A worker on a stream has said nothing for a whole lease."""

    reason = "WORKER_SILENT"

    def __init__(self, lease_seconds: float) -> None:
        super().__init__(
            f"nothing was heard for {lease_seconds:g} s: extend every third of that, also with no lease; connect again"
        )


class WorkerReplacedError(RequestError):
    """The worker has connected again: its earlier stream has ended."""

    reason = "REPLACED"

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"worker {worker_id} has connected again: this stream has ended", worker=worker_id)
