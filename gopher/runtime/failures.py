"""Reads what a handler has raised: which error it is, and what a job's failure tells of it.

The error comes from its author's code, and so does its text: neither may be trusted to be what Redis or JSON can take.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from gopher.errors import HandlerError, JobFailedError, NurseryTooDeepError, TooManyChildrenError
from gopher.handlers import StatusError
from gopher.job import STATUS_CODES, Failure
from gopher.nursery import CAUSE_REASON, CHILD_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MESSAGE_BYTES: Final = 1024

_ASYNCIO_SIGNS: Final = (
    "RuntimeError: no running event loop",
    "trio.run received unrecognized yield message",
    "AttributeError: 'NoneType' object has no attribute 'create_future'",
)
"""What calls of asyncio raise in a handler that runs on Trio."""
_ASYNCIO_HINT: Final = " (handlers run on Trio: register one that calls asyncio with asyncio=True)"

_CODE_UNKNOWN: Final = 2  # google/rpc/code.proto
_CODE_RESOURCE_EXHAUSTED: Final = 8
_LIMITS: Final = (NurseryTooDeepError, TooManyChildrenError)
_LIMIT_REASONS: Final = frozenset(each.reason for each in _LIMITS)


def sole(error: BaseException) -> BaseException:
    """Unwrap groups of one: what a nursery of one child, or `except*` itself, has put around the handler's own error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def holds(error: BaseException, kind: type[BaseException]) -> bool:
    """Tell whether an error is of a kind, or a group that holds one, however deep."""
    return any(isinstance(each, kind) for each in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Return the errors in a group, the groups in it opened; without recursion, since a handler may nest them without end."""
    waiting = [error]
    for each in waiting:
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        else:
            yield each


def message_of(error: BaseException) -> str:
    """Return the text of an error, cut to what a failure holds."""
    try:
        text = str(error)
    except BaseException as fault:  # noqa: BLE001, ASYNC103 - the text of a handler's error is made by its author's code
        text = f"(its text cannot be shown: {type(fault).__name__})"
    return cut(text)


def cut(text: str) -> str:
    """Return at most 1 KiB of a text; what UTF-8 cannot hold, as of a file name that is no text, is written as an escape."""
    encoded = text[:MESSAGE_BYTES].encode(errors="backslashreplace")
    if len(encoded) <= MESSAGE_BYTES and len(text) <= MESSAGE_BYTES:
        return encoded.decode()
    mark = "…"
    return encoded[: MESSAGE_BYTES - len(mark.encode())].decode(errors="ignore") + mark


def too_large(size: int, limit: int) -> str:
    """Return what is told of a result of `size` bytes where `limit` are allowed."""
    return f"RESULT_TOO_LARGE: {size} bytes, the limit is {limit}"


class ChildError(HandlerError):
    """What a handler in a subprocess raised.

    Args:
        failure: As the child has described it.
        is_retryable: Whether another attempt may follow.
    """

    def __init__(self, failure: Failure, *, is_retryable: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.is_retryable = is_retryable


def is_retryable(error: BaseException, non_retryable: tuple[type[BaseException], ...]) -> bool:
    """Tell whether another attempt may follow an error, as far as the handler has said."""
    if isinstance(error, ChildError):
        return error.is_retryable
    return not (isinstance(error, non_retryable) or any(map(_is_beyond_a_limit, _leaves(error))))


def _is_beyond_a_limit(error: BaseException) -> bool:
    """Tell whether a nursery was refused, here or below: another attempt would be refused too, after all the work of the tree."""
    return isinstance(error, _LIMITS) or (
        isinstance(error, JobFailedError) and error.metadata.get(CAUSE_REASON) in _LIMIT_REASONS
    )


def describe(error: BaseException) -> Failure:
    """Return the failure of an attempt whose handler raised."""
    if isinstance(error, StatusError):
        return Failure(
            reason=error.reason,
            message=message_of(error),
            code=STATUS_CODES.index(error.code),
            metadata=_bounded(error.metadata),
            retry_after_ms=None if error.retry_after is None else round(error.retry_after * 1000),
        )
    if isinstance(error, ChildError):
        return error.failure
    if isinstance(error, _LIMITS):
        return Failure(reason=error.reason, message=cut(error.message), code=_CODE_RESOURCE_EXHAUSTED)
    if isinstance(error, JobFailedError) and CAUSE_REASON in error.metadata:
        metadata = _bounded({CAUSE_REASON: error.metadata[CAUSE_REASON]})
        return Failure(reason=CHILD_FAILED, message=cut(error.message), code=_CODE_UNKNOWN, metadata=metadata)
    if _is_rpc_error(error):
        # Only where the handler itself has loaded gRPC.
        from gopher.wire.status import failure_of_call

        return failure_of_call(error)
    message = error.message if isinstance(error, HandlerError) else f"{type(error).__name__}: {message_of(error)}"
    message += _ASYNCIO_HINT if _wants_asyncio(message) else ""
    return Failure(reason="HANDLER_RAISED", message=cut(message), code=_CODE_UNKNOWN)


def _wants_asyncio(message: str) -> bool:
    """Tell whether a handler has called asyncio where it does not run."""
    return any(sign in message for sign in _ASYNCIO_SIGNS)


def _is_rpc_error(error: BaseException) -> bool:
    grpc = sys.modules.get("grpc")
    return grpc is not None and isinstance(error, grpc.RpcError) and hasattr(error, "trailing_metadata")


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return as much of a failure's metadata as fits into 1 KiB of it."""
    room, kept = MESSAGE_BYTES, {}
    for name, value in metadata.items():
        words = cut(str(name)), cut(str(value))
        room -= sum(len(word.encode()) for word in words)
        if room < 0:
            break
        kept[words[0]] = words[1]
    return kept
