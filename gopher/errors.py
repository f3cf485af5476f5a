"""Every error that Gopher raises on purpose, arranged by blame.

`RequestError` says that the caller erred, `StoreError` that Redis or the way to it did, `WorkerError` that an attempt lost its
right to run, `StartError` and `ConfigError` that a program cannot start as it was called. Each error carries a `reason`
(UPPER_SNAKE, the same word in `ErrorInfo`, in REST and in a job's failure) and `metadata` for machines; the message is for people.
`gopher.wire.status` holds the one table from these classes to gRPC codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class GopherError(Exception):
    """The root of the tree.

    Args:
        message: One lower-case line that names the thing and the value, with no final stop.
        metadata: Facts for machines; keys and values are text.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


# --- the caller erred ---------------------------------------------------------------------------------------------------------


class RequestError(GopherError):
    """The request was refused and has changed nothing; sending it again unchanged is refused again."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of one field.

    Attributes:
        field: Path of the field, as the proto names it (`job.max_attempts`, `jobs[3].type`).
        reason: UPPER_SNAKE (`REQUIRED`, `BAD_NAME`, `OUT_OF_RANGE`...).
        description: What is wrong and what would be right.
    """

    field: str
    reason: str
    description: str


class InvalidRequestError(RequestError):
    """One or more fields do not hold what they must; `violations` names each."""

    reason = "INVALID_REQUEST"

    def __init__(self, *violations: Violation) -> None:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        super().__init__(text, field=violations[0].field)
        self.violations = violations


def invalid(field: str, reason: str, description: str) -> InvalidRequestError:
    """Return the error for a single faulty field."""
    return InvalidRequestError(Violation(field, reason, description))


class NotFoundError(RequestError):
    """The thing named by the request does not exist in this namespace."""

    reason = "NOT_FOUND"


class JobNotFoundError(NotFoundError):
    """No job has this id, or its retention has ended."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} does not exist or its retention has ended", job_id=job_id)


class QueueNotFoundError(NotFoundError):
    """No job was ever submitted to this queue and nobody has paused it."""

    reason = "QUEUE_NOT_FOUND"

    def __init__(self, queue: str) -> None:
        super().__init__(f"queue {queue!r} does not exist", queue=queue)


class BreakerNotFoundError(NotFoundError):
    """No handler of the namespace has declared a breaker of this name."""

    reason = "BREAKER_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"breaker {name!r} does not exist", breaker=name)


class ScheduleNotFoundError(NotFoundError):
    """The queue has no schedule of this name."""

    reason = "SCHEDULE_NOT_FOUND"

    def __init__(self, queue: str, name: str) -> None:
        super().__init__(f"queue {queue!r} has no schedule {name!r}", queue=queue, schedule=name)


class WorkerNotFoundError(NotFoundError):
    """No worker of this id lives."""

    reason = "WORKER_NOT_FOUND"

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"worker {worker_id[:128]!r} does not live here", worker=worker_id)


class BulkOperationNotFoundError(NotFoundError):
    """The namespace has no bulk operation of this id, or it ended long ago."""

    reason = "BULK_OPERATION_NOT_FOUND"

    def __init__(self, operation_id: str) -> None:
        super().__init__(f"bulk operation {operation_id!r} does not exist or has been forgotten", operation_id=operation_id)


class AlreadyExistsError(RequestError):
    """Something else holds what the request would create."""

    reason = "ALREADY_EXISTS"


class RequestIdConflictError(AlreadyExistsError):
    """The request id was used before, with another body."""

    reason = "REQUEST_ID_CONFLICT"

    def __init__(self, request_id: str, job_id: str) -> None:
        super().__init__(
            f"request id {request_id!r} was used for job {job_id} with another body; use a new one",
            request_id=request_id,
            job_id=job_id,
        )


class UniqueKeyHeldError(AlreadyExistsError):
    """A job that is not final holds the unique key."""

    reason = "UNIQUE_HELD"

    def __init__(self, unique_key: str, job_id: str) -> None:
        super().__init__(f"unique key {unique_key!r} is held by job {job_id}", unique_key=unique_key, job_id=job_id)


class ScheduleExistsError(AlreadyExistsError):
    """The queue has a schedule of this name already."""

    reason = "SCHEDULE_EXISTS"

    def __init__(self, queue: str, name: str) -> None:
        super().__init__(f"queue {queue!r} has a schedule {name!r} already: update it, or use another name", schedule=name)


class PreconditionError(RequestError):
    """The thing exists, but its state does not allow the request."""

    reason = "STATE"


class JobAlreadyFinalError(PreconditionError):
    """The job is completed, failed or cancelled."""

    reason = "TERMINAL"

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id} is already {state}", job_id=job_id, state=state)


class JobStateError(PreconditionError):
    """The job is in a state from which this move is not legal."""

    reason = "STATE"

    def __init__(self, job_id: str, state: str, wanted: str) -> None:
        super().__init__(f"job {job_id} is {state}; {wanted}", job_id=job_id, state=state)


class JobDetachedError(PreconditionError):
    """The job of this request id is tied to no client, and goes on whatever a client does."""

    reason = "JOB_DETACHED"


class UnknownTypeError(PreconditionError):
    """No worker of the namespace has registered this type, or none has had it for long."""

    reason = "UNKNOWN_JOB_TYPE"

    def __init__(self, job_type: str) -> None:
        super().__init__(
            f"no worker has registered the type {job_type!r}; start a worker that handles it, or the server with "
            "--accept-unknown-types",
            type=job_type,
        )


class ConfirmationError(PreconditionError):
    """What destroys must name what it destroys."""

    reason = "CONFIRM"

    def __init__(self, name: str) -> None:
        super().__init__(f"this ends or deletes jobs for good: set confirm={name!r} to go ahead", confirm=name)


class BulkOperationEndedError(PreconditionError):
    """The bulk operation has ended."""

    reason = "BULK_OPERATION_ENDED"

    def __init__(self, operation_id: str, state: str) -> None:
        super().__init__(f"bulk operation {operation_id} is already {state}", operation_id=operation_id, state=state)


class NurseryGoneError(PreconditionError):
    """A client's nursery was away for longer than its grace: its children are being cancelled."""

    reason = "NURSERY_GONE"

    def __init__(self, nursery_id: str) -> None:
        super().__init__(f"nursery {nursery_id} was away for longer than its grace: open another", nursery_id=nursery_id)


class ScheduleOverlapError(PreconditionError):
    """The schedule's last job has not ended, and its overlap policy is to skip."""

    reason = "OVERLAP"

    def __init__(self, name: str, job_id: str) -> None:
        super().__init__(f"schedule {name!r} skips: its job {job_id} has not ended", schedule=name, job_id=job_id)


class TooManyQueuesError(RequestError):
    """The namespace has used up its 65,536 queue numbers."""

    reason = "TOO_MANY_QUEUES"

    def __init__(self, queue: str) -> None:
        super().__init__(f"queue {queue!r} cannot be created: the namespace has 65,536 queues already", queue=queue)


class TooManySchedulesError(RequestError):
    """The queue holds as many schedules as it may."""

    reason = "TOO_MANY_SCHEDULES"

    def __init__(self, queue: str, limit: int) -> None:
        super().__init__(f"queue {queue!r} has {limit} schedules already: delete some, or use another queue", queue=queue)


class TooManyChildrenError(RequestError):
    """The attempt has submitted as many jobs, or as many bytes of them, as one may."""

    reason = "TOO_MANY_CHILDREN"

    def __init__(self, limit: str) -> None:
        super().__init__(f"an attempt may submit at most {limit}: let its children submit the rest", limit=str(limit))


class NurseryTooDeepError(RequestError):
    """The job stands in as many nurseries, one within the other, as one may."""

    reason = "NURSERY_TOO_DEEP"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"nurseries may stand {limit} deep, one within the other: start this job beside its parent", limit=str(limit)
        )


class TooManyBulkOperationsError(RequestError):
    """The namespace has as many bulk operations running as it may."""

    reason = "TOO_MANY_BULK_OPERATIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} bulk operations run in the namespace already: wait for one to end, or stop one")


class CallExpiredError(RequestError):
    """The call's own deadline was over before the answer was known."""

    reason = "DEADLINE_EXCEEDED"


# --- Redis erred --------------------------------------------------------------------------------------------------------------


class StoreError(GopherError):
    """Redis, or the way to it, failed."""

    reason = "BROKER_ERROR"


class StoreUnavailableError(StoreError):
    """Redis cannot be reached or does not serve now; try again later.

    Attributes:
        outcome_unknown: True when the command had left before the connection broke, so that it may have been carried out.
    """

    reason = "BROKER_UNAVAILABLE"

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class StoreFullError(StoreError):
    """Redis has reached its maxmemory; jobs drain, but none can be added."""

    reason = "BROKER_FULL"


class ScriptReplyError(StoreError):
    """Redis answered something that this version of Gopher does not understand."""

    reason = "INTERNAL"


# --- an attempt or a caller's wait ended otherwise than hoped -----------------------------------------------------------------


class WorkerError(GopherError):
    """Something inside a worker ended an attempt."""


class PayloadMismatchError(WorkerError):
    """The payload does not fit the handler's type; the job fails at once and is not retried."""

    reason = "PAYLOAD_MISMATCH"


class HandlerError(WorkerError):
    """A handler in a subprocess raised, or its process died; the message reads `Type: text`."""

    reason = "HANDLER_RAISED"


class ResultInvalidError(WorkerError):
    """What the handler returned cannot be kept as a result: not JSON, or too large."""

    reason = "RESULT_INVALID"


class JobFailedError(GopherError):
    """Raised by the clients' `result`: the job ended as failed."""

    reason = "JOB_FAILED"


class JobCancelledError(GopherError):
    """Raised by the clients' `result`: the job ended as cancelled."""

    reason = "JOB_CANCELLED"


class WaitTimeoutError(GopherError):
    """Raised by the clients' `result`: the job was not final when the wait ended; it goes on."""

    reason = "WAIT_TIMEOUT"


# --- a program cannot start ---------------------------------------------------------------------------------------------------


class StartError(GopherError):
    """A program cannot start or go on; the message is one clear line.

    Attributes:
        exit_code: What the process exits with.
    """

    reason = "CANNOT_START"

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ConfigError(StartError):
    """One or more settings are wrong; the message lists all, each with its flag and its variable."""

    reason = "BAD_CONFIG"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), exit_code=2)
        self.problems = problems
