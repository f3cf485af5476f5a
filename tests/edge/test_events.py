"""The events of a job over HTTP: what a browser's `EventSource` would read, and what it does when it comes back."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

from gopher.edge import events
from gopher.event import EventKind
from gopher.job import Move
from gopher.store.history import Saying
from tests.edge.rest_rig import connection, head, parse, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from gopher.job import JsonValue
    from tests.edge.rest_rig import Answer, Rest

V1: Final = "/api/v1/jobs"


@dataclass(frozen=True)
class Event:
    """One event of the stream."""

    id: str
    type: str
    data: dict[str, JsonValue]

    @property
    def shows_job(self) -> bool:
        return self.data["job"] is not None


class Reader:
    """Reads a stream, chunk by chunk."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            part = await self._stream.receive_some()
            if not part:
                raise EOFError
            self._received += part
        found, _, self._received = self._received.partition(mark)
        return found

    async def answer(self) -> Answer:
        """Return status and headers."""
        return parse(await self._until(b"\r\n\r\n"))

    async def block(self) -> str:
        """Return the next block of the stream: an event or a comment; empty at its end."""
        size = int(await self._until(b"\r\n"), 16)
        text = (await self._until(b"\r\n")).decode()
        assert len(text) == size
        return text

    async def event(self) -> Event:
        """Return the next event."""
        fields = dict(line.split(": ", 1) for line in (await self.block()).strip().split("\n"))
        return Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))


@asynccontextmanager
async def following(rest: Rest, job_id: str, last_id: str = "") -> AsyncIterator[Reader]:
    """Follow a job while the block lasts."""
    headers = {"Host": rest.address} | ({"Last-Event-ID": last_id} if last_id else {})
    async with connection(rest.address) as stream:
        await stream.send_all(head("GET", rest.path(f"{V1}/{job_id}/events"), headers))
        yield Reader(stream)


async def test_stream_tells_each_change_until_the_end(rest: Rest) -> None:
    """The first event and the last one hold the whole job, those in between the change; then the stream ends."""
    job_id = await rest.submit()

    async with following(rest, job_id) as reader:
        answer = await reader.answer()
        first = await reader.event()
        job = await rest.claim()
        second = await reader.event()
        await rest.settle(job, Move.COMPLETE)
        last = await reader.event()
        end = await reader.block()

    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert [each.data["state"] for each in (first, second, last)] == ["enqueued", "processing", "completed"]
    assert [each.shows_job for each in (first, second, last)] == [True, False, True]
    assert last.data["job"] == (await rest.get(f"{V1}/{job_id}")).json
    assert end == ""


async def test_reader_that_comes_back_is_told_what_follows(rest: Rest) -> None:
    """By the id of the last event that it knows: no gap, and nothing twice."""
    job_id = await rest.submit()
    async with following(rest, job_id) as reader:
        await reader.answer()
        known = await reader.event()
    await rest.settle(await rest.claim(), Move.COMPLETE)

    async with following(rest, job_id, known.id) as reader:
        answer = await reader.answer()
        second, last = await reader.event(), await reader.event()
        end = await reader.block()

    assert answer.status == 200
    assert [each.data["sequence"] for each in (known, second, last)] == [1, 2, 3]
    assert (last.data["state"], last.shows_job, second.shows_job) == ("completed", True, False)
    assert end == ""


async def test_stream_tells_what_a_handler_gives(rest: Rest) -> None:
    """Log lines, and output as JSON or in base64."""
    job_id = await rest.submit()
    job = await rest.claim()
    details = [(EventKind.LOG, b"warning careful"), (EventKind.OUTPUT, b'application/json {"n":[1]}')]
    details += [(EventKind.OUTPUT, b"application/octet-stream \xff")]
    sayings = [Saying(job_id, job.token, number, kind, "", detail) for number, (kind, detail) in enumerate(details, 1)]
    await rest.store.histories.report(rest.namespace, "default", sayings)

    async with following(rest, job_id) as reader:
        await reader.answer()
        events = [(await reader.event()).data for _ in range(5)]

    assert [event["kind"] for event in events] == ["state", "state", "log", "output", "output"]
    assert all(event["cursor"] for event in events)
    assert events[2]["log"] == {"level": "warning", "message": "careful"}
    assert events[3]["output"] == {"content_type": "application/json", "data": {"n": [1]}, "data_base64": None}
    assert events[4]["output"] == {"content_type": "application/octet-stream", "data": None, "data_base64": "/w=="}
    assert {event["child"] for event in events} == {None}


async def test_reader_that_knows_the_end_is_sent_away(rest: Rest) -> None:
    """An `EventSource` comes back whenever a stream ends; 204 tells it that there is nothing more to come."""
    job_id = await rest.submit()
    job = await rest.claim()
    async with following(rest, job_id) as reader:
        await reader.answer()
        await reader.event()
        await reader.event()
        await rest.settle(job, Move.COMPLETE)
        last = await reader.event()

    async with following(rest, job_id, last.id) as reader:
        answer = await reader.answer()

    assert answer.status == 204


async def test_end_is_told_again_when_the_job_has_moved_since(rest: Rest) -> None:
    """The id of an end that was undone by a retry is no reason to send a reader away."""
    job_id = await rest.submit()
    await rest.settle(await rest.claim(), Move.BURY)
    async with following(rest, job_id) as reader:
        await reader.answer()
        _, _, end = await reader.event(), await reader.event(), await reader.event()
    await rest.post(f"{V1}/{job_id}/retry")

    async with following(rest, job_id, end.id) as reader:
        answer = await reader.answer()
        event = await reader.event()

    assert (answer.status, event.data["state"]) == (200, "enqueued")


async def test_nonsense_as_last_event_id_is_no_matter(rest: Rest) -> None:
    """An id that nobody has sent changes nothing."""
    job_id = await rest.submit()

    async with following(rest, job_id, "nonsense") as reader:
        await reader.answer()
        event = await reader.event()

    assert event.shows_job


async def test_stream_leaves_the_connection_usable(rest: Rest) -> None:
    """Over a connection that is kept, the next request is answered after a stream has ended."""
    job_id = await rest.submit()
    await rest.post(f"{V1}/{job_id}/cancel")

    async with following(rest, job_id) as reader:
        await reader.answer()
        await reader.event()
        await reader.event()
        end = await reader.block()
        await reader._stream.send_all(head("GET", "/healthz", {"Host": rest.address}))
        answer = await reader.answer()

    assert end == ""
    assert answer.status == 200


async def test_silence_is_filled_with_comments(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing changes a comment comes now and then, which an `EventSource` skips."""
    (operation,) = [each for each in rest.operations if isinstance(each, events.Events)]
    monkeypatch.setattr(operation, "_keep_alive_seconds", 0.01)
    job_id = await rest.submit()

    async with following(rest, job_id) as reader:
        await reader.answer()
        await reader.event()
        comments = [await reader.block() for _ in range(2)]

    assert all(comment.startswith(":") and comment.endswith("\n\n") for comment in comments)


async def test_reader_that_goes_frees_its_place(rest: Rest) -> None:
    """A stream whose reader has gone is given up at once, not at the job's end."""
    (operation,) = [each for each in rest.operations if isinstance(each, events.Events)]
    job_id = await rest.submit()

    async with following(rest, job_id) as reader:
        await reader.answer()
        await reader.event()
        open_streams = operation._places.borrowed_tokens

    while operation._places.borrowed_tokens:
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert open_streams == 1


async def test_streams_are_bounded(rest: Rest) -> None:
    """One stream too many is refused, and says to try again."""
    (operation,) = [each for each in rest.operations if isinstance(each, events.Events)]
    operation._places.total_tokens = 1
    job_id = await rest.submit()

    async with following(rest, job_id) as first:
        await first.answer()
        await first.event()
        async with following(rest, job_id) as second:
            answer = await second.answer()

    assert answer.status == 429


async def test_stop_ends_the_streams_with_the_reason(redis_url: str, namespace: str) -> None:
    """A reader is told that the server stops, and the stop does not wait for the job."""
    async with serving(redis_url, namespace) as rest:
        job_id = await rest.submit()
        async with following(rest, job_id) as reader:
            await reader.answer()
            await reader.event()
            rest.server.stop()
            cut = await reader.event()
            end = await reader.block()

    error = cut.data["error"]
    assert isinstance(error, dict)
    assert (cut.type, error["reason"], end) == ("cut", "SERVER_STOPPING", "")
