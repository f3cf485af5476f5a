"""An error becomes the answer to a request: the HTTP status, from the one table of `gopher.wire.status`, and the JSON that says why."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import grpc
import msgspec
import structlog
from starlette.responses import Response

from gopher.edge.interceptors import sole
from gopher.edge.rest_answers import Fault, FieldFault, Refusal
from gopher.edge.rest_bodies import in_rest_names
from gopher.errors import GopherError, InvalidRequestError, RequestError
from gopher.wire.status import HTTP_STATUS, clip, row_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http import HTTPStatus

JSON: Final = "application/json"
CLOSE: Final = {"Connection": "close"}
MAX_MESSAGE_BYTES: Final = 4096
MAX_DETAILS: Final = 100

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class HttpError(RequestError):
    """HTTP itself does not allow the request, whatever it asks for.

    Attributes:
        status: The HTTP status.
        code: The gRPC code that comes nearest.
        headers: Of the answer.

    Args:
        status: As the attribute.
        code: As the attribute.
        reason: UPPER_SNAKE.
        message: What is wrong and what would be right.
        headers: As the attribute.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}
        # The class has a reason of its own; this one error has another.
        vars(self)["reason"] = reason


def status_of(error: GopherError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, HttpError) else HTTP_STATUS[row_of(error).code]


def fault_of(error: GopherError) -> Fault:
    """Return what the answer says of an error."""
    error = in_rest_names(error)
    row = row_of(error)
    violations = error.violations if isinstance(error, InvalidRequestError) else ()
    return Fault(
        code=(error.code if isinstance(error, HttpError) else row.code).name,
        reason=violations[0].reason if violations else error.reason,
        message=clip(row.public_message or error.message, MAX_MESSAGE_BYTES),
        metadata=error.metadata,
        details=[FieldFault(each.field, each.reason, each.description) for each in violations[:MAX_DETAILS]],
        retry_after_seconds=row.retry_after_seconds,
    )


def known(error: Exception, path: str) -> GopherError:
    """Return what a handler raised; a defect of ours becomes an error with an id, and the log holds the rest."""
    error = sole(error)
    is_refusal = isinstance(error, GopherError) and (isinstance(error, HttpError) or row_of(error).code is not _INTERNAL)
    if isinstance(error, GopherError) and is_refusal:
        return error
    error_id = secrets.token_hex(8)
    _log.error("rest.defect", path=path, error_id=error_id, exc_info=error)
    return GopherError(f"internal error {error_id}", error_id=error_id)


_INTERNAL: Final = grpc.StatusCode.INTERNAL


def refusal(error: GopherError) -> Response:
    """Return the answer that tells of an error."""
    fault = fault_of(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if fault.retry_after_seconds is not None:
        headers["Retry-After"] = f"{fault.retry_after_seconds:.0f}"
    return answer(Refusal(fault), status_of(error), headers)


def answer(body: object, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; nothing on the way may keep it."""
    every = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(body), int(status), every, JSON)
