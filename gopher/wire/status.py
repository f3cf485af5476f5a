"""The one table from Gopher's errors to gRPC codes, and the `google.rpc.Status` that carries an error across the network and back.

A status holds an `ErrorInfo` (the reason, the domain `gopher`, facts for machines) and, as apt, a `BadRequest` with each faulty
field or a `RetryInfo`. It is kept within 1 KiB: it travels in the trailing metadata, and a client that gets more of that than it
accepts sees RESOURCE_EXHAUSTED in place of the true code.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from gopher import errors
from gopher.errors import GopherError, InvalidRequestError, Violation
from gopher.job import REASON_PATTERN, Failure
from gopher.registration_errors import TooManyTypesError
from gopher.wire import worker_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.any_pb2 import Any

DOMAIN: Final = "gopher"
DETAILS_KEY: Final = "grpc-status-details-bin"
"""Name of the trailing metadata that holds the serialised status. Source: gRPC, "Richer error model"."""
MAX_STATUS_BYTES: Final = 1024
MAX_DETAILS_BYTES: Final = 1024
"""Kept of what another side's status says, of each kind."""
_LONGEST_ADVICE_MS: Final = 3650 * 24 * 3600 * 1000
"""As for a verdict's delay."""
_MAX_FOREIGN_BYTES: Final = 16 * 1024
_REASON: Final = re.compile(REASON_PATTERN)

_MAX_MESSAGE_BYTES: Final = 400
_MAX_FACT_BYTES: Final = 80
_MAX_WHOLE_BYTES: Final = {"oldest_cursor": 400}
"""Of facts that are good for nothing once they are cut: a longer one is left out."""
_MAX_FACTS: Final = 4
_MAX_DESCRIPTION_BYTES: Final = 160


class SlowReaderError(errors.RequestError):
    """The reader of a stream lags too far behind and was cut off; it may call again."""

    reason = "SLOW_READER"

    def __init__(self) -> None:
        super().__init__("the stream was read too slowly and has been cut; call again")


class TooManyCallsError(errors.RequestError):
    """As many calls as the server allows are under way, or as many queues are followed; it may be called again."""

    reason = "TOO_MANY_CALLS"

    def __init__(self) -> None:
        super().__init__("too many calls are under way at this server; call again in a moment")


class CursorTooOldError(errors.RequestError):
    """The history does not hold what follows the cursor: its oldest events are kept no more, or Redis has lost its newest."""

    reason = "CURSOR_TOO_OLD"

    def __init__(self, about: str, oldest_sequence: int, oldest_cursor: str) -> None:
        super().__init__(
            f"what follows the cursor is kept no more; the oldest event of {about} is {oldest_sequence}: go on from there, by "
            "oldest_cursor, where there is one, or start again without a cursor",
            oldest_sequence=str(oldest_sequence),
            oldest_cursor=oldest_cursor,
        )


class NurseryResumedError(errors.PreconditionError):
    """A client's nursery goes on in another stream."""

    reason = "NURSERY_RESUMED"

    def __init__(self, nursery_id: str) -> None:
        super().__init__(f"nursery {nursery_id} goes on in another stream", nursery_id=nursery_id)


class ServerStoppingError(GopherError):
    """The server stops and has ended the call; another server, or this one after its restart, will answer."""

    reason = "SERVER_STOPPING"

    def __init__(self) -> None:
        super().__init__("the server is stopping; call again")


@dataclass(frozen=True, slots=True)
class Row:
    """What the wire says of a class of errors.

    Attributes:
        error: The class; its subclasses too, unless they have rows of their own.
        code: The gRPC code.
        exit_code: What the command line exits with.
        retry_after_seconds: What `RetryInfo` advises; None where a repeat is of no use.
        public_message: Said in place of the error's own message, where that may hold an address.
    """

    error: type[GopherError]
    code: grpc.StatusCode
    exit_code: int
    retry_after_seconds: float | None = None
    public_message: str | None = None


TABLE: Final = (
    Row(GopherError, grpc.StatusCode.INTERNAL, 1),
    Row(InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT, 2),
    Row(errors.NotFoundError, grpc.StatusCode.NOT_FOUND, 3),
    Row(errors.AlreadyExistsError, grpc.StatusCode.ALREADY_EXISTS, 4),
    Row(errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION, 4),
    Row(CursorTooOldError, grpc.StatusCode.OUT_OF_RANGE, 2),
    Row(
        errors.StoreUnavailableError,
        grpc.StatusCode.UNAVAILABLE,
        5,
        retry_after_seconds=1.0,
        public_message="redis does not serve now; try again (with a request id a submit is safe to repeat)",
    ),
    Row(ServerStoppingError, grpc.StatusCode.UNAVAILABLE, 5, retry_after_seconds=1.0),
    Row(errors.CallExpiredError, grpc.StatusCode.DEADLINE_EXCEEDED, 6),
    Row(errors.WaitTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED, 6),
    Row(
        errors.StoreFullError,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        7,
        retry_after_seconds=5.0,
        public_message="redis has reached its maxmemory; jobs drain, but none can be added now",
    ),
    Row(errors.TooManyQueuesError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
    Row(TooManyTypesError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
    Row(errors.TooManySchedulesError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
    Row(errors.TooManyChildrenError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
    Row(errors.NurseryTooDeepError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
    Row(errors.TooManyBulkOperationsError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
    Row(SlowReaderError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7, retry_after_seconds=1.0),
    Row(worker_errors.WorkerReplacedError, grpc.StatusCode.ABORTED, 4),
    Row(worker_errors.ServerBusyError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7, retry_after_seconds=1.0),
    Row(worker_errors.WorkerSilentError, grpc.StatusCode.ABORTED, 4, retry_after_seconds=1.0),
    Row(TooManyCallsError, grpc.StatusCode.RESOURCE_EXHAUSTED, 7, retry_after_seconds=1.0),
    Row(errors.PayloadMismatchError, grpc.StatusCode.INVALID_ARGUMENT, 1),
    Row(errors.ResultInvalidError, grpc.StatusCode.INVALID_ARGUMENT, 1),
    Row(errors.JobFailedError, grpc.StatusCode.ABORTED, 8),
    Row(errors.JobCancelledError, grpc.StatusCode.CANCELLED, 9),
)

_ROW_OF: Final = {row.error: row for row in TABLE}

HTTP_STATUS: Final = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""Source: the comments of google/rpc/code.proto."""

CODE_BY_NUMBER: Final[dict[int, grpc.StatusCode]] = {number_of.value[0]: number_of for number_of in grpc.StatusCode}


def row_of(error: GopherError) -> Row:
    """Return the row of the error's class, or of the nearest class above that has one."""
    return next(_ROW_OF[each] for each in type(error).__mro__ if each in _ROW_OF)


def exit_code_of(error: GopherError) -> int:
    """Return what a command exits with that ended by the error."""
    return error.exit_code if isinstance(error, errors.StartError) else row_of(error).exit_code


# --- there: an error becomes a status -----------------------------------------------------------------------------------------


def to_status(error: GopherError) -> status_pb2.Status:
    """Return the status that carries an error, at most 1 KiB."""
    row = row_of(error)
    violations = error.violations if isinstance(error, InvalidRequestError) else ()
    status = status_pb2.Status(code=row.code.value[0], message=clip(row.public_message or error.message, _MAX_MESSAGE_BYTES))
    facts = {
        key: clip(value, _MAX_WHOLE_BYTES.get(key, _MAX_FACT_BYTES))
        for key, value in list(error.metadata.items())[:_MAX_FACTS]
        if len(value) <= _MAX_WHOLE_BYTES.get(key, len(value))
    }
    reason = violations[0].reason if violations else error.reason
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts))
    if row.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(row.retry_after_seconds * 1000))
        status.details.add().Pack(retry)
    if violations:
        _add_violations(status, violations)
    return status


def _add_violations(status: status_pb2.Status, violations: Sequence[Violation]) -> None:
    """Add a BadRequest with as many violations as there is room for."""
    bad_request = error_details_pb2.BadRequest()
    room = MAX_STATUS_BYTES - status.ByteSize() - _MAX_FACT_BYTES
    for each in violations:
        bad_request.field_violations.add(
            field=clip(each.field, _MAX_FACT_BYTES),
            description=clip(each.description, _MAX_DESCRIPTION_BYTES),
            reason=each.reason,
        )
        if bad_request.ByteSize() > room:
            del bad_request.field_violations[-1]
            break
    status.details.add().Pack(bad_request)


def unpack(detail: Any, message: Message) -> bool:
    """Read a detail into a message; return False for one of another type, or that cannot be read."""
    try:
        return detail.Unpack(message)
    except DecodeError:
        return False


def clip(text: str, max_bytes: int) -> str:
    """Return the text, cut to so many bytes of UTF-8 at the end of a character."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= max_bytes else raw[: max_bytes - 3].decode("utf-8", "ignore") + "..."


def failure_to_status(failure: Failure) -> status_pb2.Status:
    """Return the status of a job's or an attempt's failure."""
    status = status_pb2.Status(code=failure.code, message=failure.message)
    info = error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=failure.metadata)
    status.details.add().Pack(info)
    if failure.retry_after_ms is not None:
        advice = error_details_pb2.RetryInfo()
        advice.retry_delay.FromMilliseconds(failure.retry_after_ms)
        status.details.add().Pack(advice)
    for detail in failure.details:
        status.details.add().ParseFromString(detail)
    return status


# --- and back: a status becomes an error --------------------------------------------------------------------------------------


def failure_from_status(status: status_pb2.Status) -> Failure:
    """Return the failure that a status tells of."""
    info = _info_of(status)
    return Failure(
        reason=info.reason or "UNKNOWN",
        message=status.message,
        code=status.code,
        metadata=dict(info.metadata),
        retry_after_ms=_advised_ms(status),
        details=_other_details(status),
    )


def failure_of_call(error: BaseException) -> Failure:
    """Return the failure of an attempt whose handler let the error of its own gRPC call through.

    Its code, message and details are kept, as far as 1 KiB of each holds them; a reason that the other side gave stays its own.
    """
    call = cast("grpc.Call", error)  # what a stub raises is also the call
    status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                status.MergeFrom(status_pb2.Status.FromString(value[:_MAX_FOREIGN_BYTES]))
    return foreign_failure(status)


def foreign_failure(status: status_pb2.Status) -> Failure:
    """Return the failure of an attempt as a program that is not ours has told it, as far as 1 KiB of each part holds it."""
    failure = failure_from_status(status)
    reason = failure.reason if _REASON.fullmatch(failure.reason) else "HANDLER_RAISED"
    room, details = MAX_DETAILS_BYTES, []
    for detail in failure.details:
        room -= len(detail)
        if room >= 0:
            details.append(detail)
    is_small = sum(len(k) + len(v) for k, v in failure.metadata.items()) <= MAX_DETAILS_BYTES
    advised_ms = failure.retry_after_ms
    return Failure(
        reason="HANDLER_RAISED" if reason == "UNKNOWN" else reason,
        message=clip(failure.message, MAX_DETAILS_BYTES),
        code=failure.code,
        metadata=failure.metadata if is_small else {},
        retry_after_ms=None if advised_ms is None else min(max(0, advised_ms), _LONGEST_ADVICE_MS),
        details=tuple(details),
    )


def from_status(status: status_pb2.Status) -> GopherError:
    """Return the error that a status tells of: of the class that has its reason, else of the one that has its code.

    The error's `reason`, `metadata` and `violations` are those of the status, so it can say more than its class knows.
    """
    info = _info_of(status)
    code = CODE_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _class_of(info.reason, code)
    error = kind.__new__(kind)
    GopherError.__init__(error, status.message or code.name.lower(), **info.metadata)
    # The class has a reason of its own; this one error may have another.
    vars(error)["reason"] = info.reason or code.name
    if isinstance(error, InvalidRequestError):
        error.violations = _violations_of(status, info.reason)
    if isinstance(error, errors.StoreUnavailableError):
        error.outcome_unknown = True
    return error


def from_rpc_error(error: grpc.RpcError) -> GopherError:
    """Return the error that a call of a gRPC client ended with."""
    call = cast("grpc.Call", error)  # what a stub raises is also the call
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    return from_status(status_pb2.Status(code=call.code().value[0], message=call.details() or ""))


def retry_after_seconds(status: status_pb2.Status) -> float | None:
    """Return how long the status advises to wait before a repeat; None where it does not."""
    advised_ms = _advised_ms(status)
    return None if advised_ms is None else advised_ms / 1000


def _advised_ms(status: status_pb2.Status) -> int | None:
    advice = error_details_pb2.RetryInfo()
    for detail in status.details:
        if unpack(detail, advice):
            return advice.retry_delay.ToMilliseconds()
    return None


def _other_details(status: status_pb2.Status) -> tuple[bytes, ...]:
    told = {kind.DESCRIPTOR.full_name for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)}
    return tuple(each.SerializeToString() for each in status.details if each.TypeName() not in told)


def _info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if unpack(detail, info):
            break
    return info


def _violations_of(status: status_pb2.Status, reason: str) -> tuple[Violation, ...]:
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        if unpack(detail, bad_request):
            return tuple(Violation(each.field, each.reason, each.description) for each in bad_request.field_violations)
    return (Violation("", reason, status.message),)


def _class_of(reason: str, code: grpc.StatusCode) -> type[GopherError]:
    """Return the class that has the reason; else what the code alone tells: the reason is then a field's, or gRPC itself answered."""
    return _CLASS_BY_REASON.get(reason) or _CLASS_BY_CODE.get(code, GopherError)


def _all_below(kind: type[GopherError]) -> Iterator[type[GopherError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _all_below(each)


# A class comes after those above it, so where both have a reason the more special one is found.
_CLASS_BY_REASON: Final = {
    each.reason: each for each in _all_below(GopherError) if each.reason != GopherError.reason and "reason" in vars(each)
}
_CLASS_BY_CODE: Final[dict[grpc.StatusCode, type[GopherError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.CallExpiredError,
    grpc.StatusCode.UNAVAILABLE: errors.StoreUnavailableError,
}
