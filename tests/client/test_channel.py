from __future__ import annotations

import grpc
import pytest

from gopher.client.channel import CallEndedError, NotGrpcError, ServerUnreachableError, error_of, metadata_for
from gopher.client.dialogues import is_unavailable
from gopher.errors import CallExpiredError, GopherError, JobNotFoundError, StoreUnavailableError
from gopher.wire import status


class Ended(grpc.RpcError):
    """A call that has ended, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__()
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:  # type: ignore[override]  # pairs are what gRPC gives
        return self._trailing


def told(error: GopherError) -> Ended:
    """Return the call that a server ended with the error."""
    found = status.to_status(error)
    code = status.CODE_BY_NUMBER[found.code]
    return Ended(code, found.message, ((status.DETAILS_KEY, found.SerializeToString()),))


def test_error_of_is_what_the_server_said() -> None:
    """An error that the server raised comes back as itself."""
    error = error_of(told(JobNotFoundError("j1")), "host:1")

    assert isinstance(error, JobNotFoundError)
    assert (error.reason, error.metadata) == ("JOB_NOT_FOUND", {"job_id": "j1"})


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason", "message"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:1: Connection refused",
            ServerUnreachableError,
            "SERVER_UNREACHABLE",
            "no server answers at host:1: Connection refused",
        ),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "Deadline Exceeded",
            CallExpiredError,
            "DEADLINE_EXCEEDED",
            "the server at host:1 did not answer in time",
        ),
        (
            grpc.StatusCode.CANCELLED,
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))",
            ServerUnreachableError,
            "SERVER_UNREACHABLE",
            "the connection to host:1 was cut",
        ),
        (
            grpc.StatusCode.UNKNOWN,
            "Stream removed (Failed parsing HTTP/2 (Trying to connect an http1.x server (HTTP status 400)))",
            NotGrpcError,
            "NOT_GRPC",
            "host:1 speaks HTTP, not gRPC: is it the server's HTTP port? gRPC is on port 50051 unless told otherwise",
        ),
        (
            grpc.StatusCode.CANCELLED,
            "Channel closed!",
            CallEndedError,
            "CALL_ENDED",
            "the call was ended before its answer",
        ),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            "Method not found!",
            GopherError,
            "UNIMPLEMENTED",
            "Method not found! (UNIMPLEMENTED, server host:1)",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message larger than max",
            GopherError,
            "RESOURCE_EXHAUSTED",
            "Received message larger than max (RESOURCE_EXHAUSTED, server host:1)",
        ),
    ],
)
def test_error_of_tells_what_became_of_the_call_on_its_way(
    code: grpc.StatusCode, details: str, kind: type[GopherError], reason: str, message: str
) -> None:
    """What no server of ours said is not taken for a verdict on a job or on Redis."""
    error = error_of(Ended(code, details), "host:1")

    assert type(error) is kind
    assert (error.reason, error.message) == (reason, message)


def test_unavailable_is_what_may_go_better_later() -> None:
    """No server, no Redis and a server that stops are; a refusal and a call that took too long are not."""
    later = [
        error_of(Ended(grpc.StatusCode.UNAVAILABLE, "down"), "host:1"),
        error_of(told(StoreUnavailableError("down")), "host:1"),
        error_of(told(status.ServerStoppingError()), "host:1"),
    ]
    never = [error_of(told(JobNotFoundError("j")), "host:1"), error_of(Ended(grpc.StatusCode.DEADLINE_EXCEEDED, ""), "host:1")]

    assert [is_unavailable(error) for error in later + never] == [True, True, True, False, False]


def test_metadata_carries_the_token() -> None:
    """A token goes out as bearer; none sends nothing."""
    assert metadata_for("gph_1") == (("authorization", "Bearer gph_1"),)
    assert metadata_for(None) == ()
