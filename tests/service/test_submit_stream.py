"""SubmitJobStream on a real Redis: an answer an item, in order, stored together, and what ends the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import job_pb2
from gopher_pb.v1.job_stream_pb2 import SubmitJobStreamRequest, SubmitJobStreamResponse

from gopher.errors import InvalidRequestError
from gopher.service.jobs import MAX_STREAM_BATCH
from gopher.service.requests import Requests
from gopher.wire.status import from_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.service.conftest import Rig


class Stream:
    """What a client has sent, all of it already there, and what it is answered."""

    def __init__(self, *requests: SubmitJobStreamRequest) -> None:
        self._unread = list(requests)
        self.answers: list[SubmitJobStreamResponse] = []
        self.takes: list[int] = []

    @property
    def requests(self) -> Requests[SubmitJobStreamRequest]:
        return Requests(self._receive, SubmitJobStreamRequest.FromString)

    async def _receive(self, most: int) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        taken, self._unread[:] = self._unread[:most], self._unread[most:]
        self.takes.append(len(taken))
        return [request.SerializeToString() for request in taken]

    async def send(self, answer: SubmitJobStreamResponse) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(answer)


def asked(namespace: str = "", **fields: object) -> SubmitJobStreamRequest:
    spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec
    return SubmitJobStreamRequest(namespace=namespace, job=spec)


async def test_each_item_is_answered_in_order(rig: Rig) -> None:
    """Answers are numbered from 1, and each holds the id of the job that its item became."""
    stream = Stream(*(asked(rig.namespace, payload=str(number).encode()) for number in range(250)))

    await rig.lax_jobs.submit_job_stream(stream.requests, stream.send)

    assert [answer.sequence for answer in stream.answers] == list(range(1, 251))
    assert stream.takes == [MAX_STREAM_BATCH, MAX_STREAM_BATCH, 50, 0]
    jobs = [await rig.store.query.get(rig.namespace, stream.answers[place].job_id) for place in (0, 99, 100, 249)]
    assert [job.payload for job in jobs] == [b"0", b"99", b"100", b"249"]


async def test_refused_item_is_answered_and_the_stream_goes_on(rig: Rig) -> None:
    """A fault in one item is told in its answer; those before and after it become jobs."""
    stream = Stream(asked(rig.namespace), asked(payload=b"{"), asked(type=""), asked(queue="other"))

    await rig.lax_jobs.submit_job_stream(stream.requests, stream.send)

    first, second, third, fourth = stream.answers
    assert first.job_id
    assert fourth.job_id
    assert not second.job_id
    assert "job.payload" in from_status(second.error).message
    assert "job.type" in from_status(third.error).message
    queues = await rig.store.query.queues(rig.namespace)
    assert sorted(queues) == ["default", "other"]


async def test_repeated_item_is_the_first_job(rig: Rig) -> None:
    """An item whose request id was used before, in the same stream, is answered with the job there is."""
    stream = Stream(asked(rig.namespace, request_id="r"), asked(request_id="r"), asked(request_id="r", payload=b"2"))

    await rig.lax_jobs.submit_job_stream(stream.requests, stream.send)

    first, second, third = stream.answers
    assert second.job_id == first.job_id
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert from_status(third.error).reason == "REQUEST_ID_CONFLICT"


async def test_bad_namespace_ends_the_stream_before_anything_is_stored(rig: Rig) -> None:
    """The first message is where the namespace is said."""
    stream = Stream(asked("a:b"))

    with pytest.raises(InvalidRequestError) as caught:
        await rig.lax_jobs.submit_job_stream(stream.requests, stream.send)

    assert caught.value.violations[0].reason == "BAD_NAME"
    assert stream.answers == []


async def test_second_namespace_ends_the_stream_after_what_came_before(rig: Rig) -> None:
    """A message that names another namespace is a conflict; those before it are answered, none after it is stored."""
    stream = Stream(asked(rig.namespace), asked(rig.namespace), asked("elsewhere", queue="other"), asked(queue="other"))

    with pytest.raises(InvalidRequestError) as caught:
        await rig.lax_jobs.submit_job_stream(stream.requests, stream.send)

    assert caught.value.violations[0].reason == "CONFLICT"
    assert [bool(answer.job_id) for answer in stream.answers] == [True, True]
    assert await rig.store.query.queues(rig.namespace) == ["default"]


async def test_client_that_sends_nothing_is_no_fault(rig: Rig) -> None:
    """A stream that ends at once has no answer and no error, and makes no queue."""
    stream = Stream()

    await rig.lax_jobs.submit_job_stream(stream.requests, stream.send)

    assert stream.answers == []
    assert await rig.store.query.queues(rig.namespace) == []
