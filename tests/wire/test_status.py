"""Errors across the network and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gopher import errors
from gopher.errors import GopherError, InvalidRequestError, StartError, Violation
from gopher.job import Failure
from gopher.wire import status
from gopher.wire.status import HTTP_STATUS, MAX_STATUS_BYTES, SlowReaderError, from_status, row_of, to_status

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = [
    InvalidRequestError(Violation("job.type", "REQUIRED", "must be set")),
    errors.NotFoundError("service 'x' does not exist"),
    errors.JobNotFoundError("j1"),
    errors.QueueNotFoundError("q"),
    errors.RequestIdConflictError("r", "j1"),
    errors.UniqueKeyHeldError("u", "j1"),
    errors.JobAlreadyFinalError("j1", "completed"),
    errors.JobStateError("j1", "processing", "cancel it first"),
    errors.UnknownTypeError("email"),
    errors.ConfirmationError("q"),
    errors.TooManyQueuesError("q"),
    errors.CallExpiredError("too late"),
    errors.StoreUnavailableError("gone"),
    errors.StoreFullError("full"),
    SlowReaderError(),
    status.ServerStoppingError(),
]


def detail_names(message: status_pb2.Status) -> list[str]:
    return [detail.type_url.rpartition(".")[2] for detail in message.details]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_comes_back_as_it_was(error: GopherError) -> None:
    """Class, reason, metadata and violations survive the way to the client."""
    back = from_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))

    assert type(back) is type(error)
    assert back.metadata == error.metadata
    if isinstance(error, InvalidRequestError):
        assert isinstance(back, InvalidRequestError)
        assert back.violations == error.violations
        assert back.reason == error.violations[0].reason
    else:
        assert back.reason == error.reason


def all_errors(kind: type[GopherError] = GopherError) -> Iterator[type[GopherError]]:
    for each in kind.__subclasses__():
        yield each
        yield from all_errors(each)


def test_every_error_of_a_request_has_a_code_that_blames_the_caller() -> None:
    """Nothing that a caller did wrong is told as the server's own failure."""
    blamed = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}

    for kind in all_errors(errors.RequestError):
        if kind.__module__ in {"gopher.errors", "gopher.wire.status"} and kind is not errors.RequestError:
            assert row_of(kind.__new__(kind)).code not in blamed, kind


def test_every_code_has_an_http_status() -> None:
    """REST can answer whatever gRPC can."""
    assert set(HTTP_STATUS) == set(grpc.StatusCode)


@pytest.mark.parametrize(
    ("error", "details"),
    [
        (errors.JobNotFoundError("j1"), ["ErrorInfo"]),
        (InvalidRequestError(Violation("a", "REQUIRED", "must be set")), ["ErrorInfo", "BadRequest"]),
        (errors.StoreUnavailableError("gone"), ["ErrorInfo", "RetryInfo"]),
    ],
)
def test_details_fit_the_error(error: GopherError, details: list[str]) -> None:
    """Every status has an ErrorInfo; faulty fields are named, and a repeat that may help is advised."""
    message = to_status(error)

    assert detail_names(message) == details
    assert (status.retry_after_seconds(message) is not None) is ("RetryInfo" in details)


def test_text_of_redis_is_not_passed_on() -> None:
    """An address or a password in the store's own message stays here."""
    for error in (errors.StoreUnavailableError("redis://:secret@10.0.0.1"), errors.StoreFullError("10.0.0.1")):
        assert re.search(r"secret|10\.0", str(to_status(error))) is None


texts = st.text(max_size=3000)


@given(message=texts, key=texts, value=texts)
def test_status_of_any_error_stays_small(message: str, key: str, value: str) -> None:
    """Whatever the error says, its status is at most 1 KiB of valid UTF-8."""
    error = errors.PreconditionError(message, **{"k" + key[:20]: value, "b": value, "c": value, "d": value, "e": value})

    found = to_status(error)

    assert found.ByteSize() <= MAX_STATUS_BYTES


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=50))
def test_status_of_many_violations_stays_small(faults: list[tuple[str, str]]) -> None:
    """As many violations are told as there is room for, the first ones first."""
    error = InvalidRequestError(*(Violation(field, "BAD_NAME", text) for field, text in faults))

    found = to_status(error)

    assert found.ByteSize() <= MAX_STATUS_BYTES
    assert detail_names(found) == ["ErrorInfo", "BadRequest"]


def test_failure_comes_back_as_it_was() -> None:
    """A job's failure is a google.rpc.Status with its reason in an ErrorInfo."""
    failure = Failure(reason="TIMED_OUT", message="ended after 3 s", code=4)

    assert status.failure_from_status(status.failure_to_status(failure)) == failure


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, errors.NotFoundError),
        (grpc.StatusCode.UNAVAILABLE, errors.StoreUnavailableError),
        (grpc.StatusCode.CANCELLED, GopherError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, GopherError),
        (grpc.StatusCode.UNIMPLEMENTED, GopherError),
    ],
)
def test_status_without_details_is_told_by_its_code(code: grpc.StatusCode, kind: type[GopherError]) -> None:
    """What gRPC itself answers has no reason of ours; it never becomes an error that says more than the code does."""
    back = from_status(status_pb2.Status(code=code.value[0], message="Method not found!"))

    assert type(back) is kind
    assert back.reason == code.name
    assert back.message == "Method not found!"


def test_reason_of_a_newer_server_is_kept() -> None:
    """A reason that this version does not know is still there to be read."""
    message = status_pb2.Status(code=9, message="no")
    message.details.add().Pack(error_details_pb2.ErrorInfo(reason="BREAKER_OPEN", domain="gopher"))

    back = from_status(message)

    assert type(back) is errors.PreconditionError
    assert back.reason == "BREAKER_OPEN"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GopherError("x"), 1),
        (errors.invalid("a", "REQUIRED", "b"), 2),
        (errors.JobNotFoundError("j1"), 3),
        (errors.JobAlreadyFinalError("j1", "failed"), 4),
        (errors.StoreUnavailableError("x"), 5),
        (errors.WaitTimeoutError("x"), 6),
        (errors.StoreFullError("x"), 7),
        (errors.JobFailedError("x"), 8),
        (errors.JobCancelledError("x"), 9),
        (StartError("x", exit_code=42), 42),
    ],
)
def test_exit_code_tells_the_kind_of_error(error: GopherError, code: int) -> None:
    """Scripts tell by it what went wrong."""
    assert status.exit_code_of(error) == code


@given(st.text(), st.integers(min_value=3, max_value=50))
def test_clipped_text_is_a_beginning_of_the_text(text: str, size: int) -> None:
    """No more bytes than asked for, never half a character."""
    text = text.encode("utf-8", "replace").decode()

    clipped = status.clip(text, size)

    assert len(clipped.encode()) <= size
    assert clipped == text or text.startswith(clipped.removesuffix("..."))


def test_detail_that_cannot_be_read_is_passed_over() -> None:
    """What another program has put into a failure must not end the call that brings it."""
    told = status_pb2.Status(code=2, message="m")
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
        told.details.add(type_url=f"type.googleapis.com/{kind.DESCRIPTOR.full_name}", value=b"\xff\xff")

    failure = status.foreign_failure(told)

    assert (failure.reason, failure.message, failure.retry_after_ms) == ("HANDLER_RAISED", "m", None)
