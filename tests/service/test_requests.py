"""What a client streams: taken one by one or together, and what a malformed request among them does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import InvalidRequestError, invalid
from gopher.service.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(message: bytes) -> pb.GetJobRequest:
    if message == b"bad":
        raise invalid("request", "MALFORMED_MESSAGE", "is no request")
    return pb.GetJobRequest(job_id=message.decode())


def requests_of(*messages: bytes) -> Requests[pb.GetJobRequest]:
    """Return what a client has streamed that has sent these messages and ended."""
    unread = list(messages)

    async def receive(most: int) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        taken, unread[:] = unread[:most], unread[most:]
        return taken

    return Requests(receive, parse)


async def test_requests_are_iterated_to_their_end() -> None:
    """An asynchronous loop sees each request, in order, and ends with the client."""
    requests = requests_of(b"a", b"b", b"c")

    seen = [request.job_id async for request in requests]

    assert seen == ["a", "b", "c"]


async def test_no_more_are_taken_than_asked_for() -> None:
    """What was not asked for is left for the next."""
    requests = requests_of(b"a", b"b", b"c")

    batches = [await requests.take(2), await requests.take(2), await requests.take(2)]

    assert [[request.job_id for request in batch] for batch in batches] == [["a", "b"], ["c"], []]


async def test_malformed_request_is_raised_after_those_before_it_and_for_ever() -> None:
    """What came before it is returned first; nothing that comes after it ever is."""
    requests = requests_of(b"a", b"bad", b"b", b"c")

    before = await requests.take(3)
    with pytest.raises(InvalidRequestError) as caught:
        await requests.take(3)
    with pytest.raises(InvalidRequestError):
        await anext(requests)

    assert [request.job_id for request in before] == ["a"]
    assert caught.value.violations[0].reason == "MALFORMED_MESSAGE"
