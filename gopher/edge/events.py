"""The events of a job as a stream that a browser's `EventSource` reads (SSE).

The first event holds the whole job as it stands, the last one too; each in between tells of one thing that happened. The id of an
event is its cursor: a client that comes back says it as `Last-Event-ID`, to whichever server, and is told what follows, with no gap
and nothing twice. When nothing follows, since it knows the job's end, the answer is 204, at which an `EventSource` stops to come back.
An id that is none of this job's, or older than what is kept, is no matter: the client is told all that is kept.

While nothing changes a comment is sent now and then, so that no proxy takes the stream for dead and a reader that has gone is
noticed. An error in mid-stream is told as an event of the type `cut`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final

import grpc
import msgspec
import trio
from starlette.responses import Response

from gopher_pb.v1 import job_event_pb2, job_stream_pb2

from gopher.edge import rest_errors
from gopher.edge.rest_answers import Refusal
from gopher.edge.rest_bodies import Query
from gopher.edge.rest_calls import GET, Operation, parameter
from gopher.edge.rest_errors import HttpError
from gopher.edge.rest_events import JobChange, job_change
from gopher.edge.rest_parsing import decode_query
from gopher.errors import InvalidRequestError
from gopher.wire.status import CursorTooOldError, ServerStoppingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from gopher.edge.health import Health
    from gopher.edge.rest_calls import Bounds
    from gopher.errors import GopherError
    from gopher.service.watch import Watch

KEEP_ALIVE_SECONDS: Final = 15.0
"""Chosen: proxies commonly cut what was silent for 30 or 60 s."""
MAX_STREAMS: Final = 1000
"""Chosen: a stream costs a connection and a task; gRPC lets in more, and shares connections."""
MEDIA_TYPE: Final = "text/event-stream"


class Events(Operation):
    """The operation.

    Args:
        watch: The service.
        health: Tells when the server stops.
        keep_alive_seconds: Between two comments.
    """

    media_type = MEDIA_TYPE
    other_statuses: ClassVar[Mapping[HTTPStatus, str]] = {
        HTTPStatus.NO_CONTENT: "The client knows the end already, by its `Last-Event-ID`."
    }

    def __init__(self, watch: Watch, health: Health, *, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        super().__init__(
            GET,
            "/api/v1/jobs/{job_id}/events",
            "Follow a job: server-sent events, each with a change as its data, until the job is final.",
            query_type=Query,
            body_type=None,
            answer_type=JobChange,
            status=HTTPStatus.OK,
        )
        self._watch = watch
        self._health = health
        self._keep_alive_seconds = keep_alive_seconds
        self._places = trio.CapacityLimiter(MAX_STREAMS)

    async def respond(self, request: Request, bounds: Bounds) -> Response:  # noqa: ARG002 - no body is read
        """Return what streams the events once it is awaited.

        Raises:
            GopherError: The request is refused.
        """
        query = decode_query(Query, request.query_params.multi_items())
        if not self._places.available_tokens:
            raise HttpError(
                HTTPStatus.TOO_MANY_REQUESTS,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_STREAMS",
                f"{MAX_STREAMS} streams are open already; try again later",
            )
        wanted = job_stream_pb2.WatchJobRequest(namespace=query.namespace, job_id=parameter(request))
        return _Stream(self, wanted, request.headers.get("last-event-id", ""))

    async def serve(self, wanted: job_stream_pb2.WatchJobRequest, last_id: str, receive: Receive, send: Send) -> None:
        """Stream the events of a job until it is final, the client goes, or the server stops."""
        writer = _Writer(send)
        # While the client listens.
        async with self._places, trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, receive, writer, nursery.cancel_scope)
            nursery.start_soon(self._keep_alive, writer)
            nursery.start_soon(self._until_stop, writer, nursery.cancel_scope)
            try:
                await self._tell(wanted, writer, last_id)
            except* Exception as group:  # noqa: BLE001 - the interceptor: nothing a handler raises may end the server
                await writer.cut(rest_errors.known(group, self.path))
            await writer.end()
            nursery.cancel_scope.cancel()

    async def _tell(self, wanted: job_stream_pb2.WatchJobRequest, writer: _Writer, last_id: str) -> None:
        """Tell what follows the id, or all."""
        try:
            resumed = job_stream_pb2.WatchJobRequest(namespace=wanted.namespace, job_id=wanted.job_id, cursor=last_id)
            await self._watch.watch_job(resumed, writer.tell)
        except (InvalidRequestError, CursorTooOldError):
            if not last_id or writer.has_begun:
                raise
            await self._watch.watch_job(wanted, writer.tell)
        if not writer.has_begun:
            await writer.send_away()

    async def _keep_alive(self, writer: _Writer) -> None:
        while True:
            await trio.sleep(self._keep_alive_seconds)
            await writer.say(b": the job goes on\n\n")

    async def _until_stop(self, writer: _Writer, scope: trio.CancelScope) -> None:
        await self._health.wait_stopping()
        await writer.cut(ServerStoppingError())
        await writer.end()
        scope.cancel()


class _Stream(Response):
    """The answer: Starlette awaits it to have it sent."""

    def __init__(self, events: Events, wanted: job_stream_pb2.WatchJobRequest, last_id: str) -> None:
        super().__init__()
        self._events = events
        self._wanted = wanted
        self._last_id = last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Stream the events."""
        await self._events.serve(self._wanted, self._last_id, receive, send)


class _Writer:
    """Writes one stream. Until the first event is known nothing is written, so that a refusal still is an answer with its status.

    Attributes:
        has_begun: Whether the answer's status is written.
        has_ended: Whether nothing more is written.

    Args:
        send: Of ASGI.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = trio.Lock()
        self.has_begun = False
        self.has_ended = False

    async def tell(self, message: job_stream_pb2.WatchJobResponse) -> None:
        """Write an event; a heartbeat is none here, where comments fill the silence."""
        event = message.event
        if not self.has_begun:
            await self._begin()
        if event.kind != job_event_pb2.JOB_EVENT_KIND_HEARTBEAT:
            await self.say(f"id: {event.cursor}\n".encode() + _data(job_change(event)))

    async def send_away(self) -> None:
        """Answer that nothing follows."""
        await self._answer(Response(status_code=HTTPStatus.NO_CONTENT))

    async def cut(self, error: GopherError) -> None:
        """Say why the stream ends before the job does."""
        if self.has_begun:
            await self.say(b"event: cut\n" + _data(Refusal(rest_errors.fault_of(error))))
        else:
            await self._answer(rest_errors.refusal(error))

    async def say(self, text: bytes) -> None:
        """Write a part of the stream, if it has begun and not ended."""
        async with self._lock:
            if self.has_begun and not self.has_ended:
                await self._send({"type": "http.response.body", "body": text, "more_body": True})

    async def end(self) -> None:
        """End the stream."""
        async with self._lock:
            if self.has_begun and not self.has_ended:
                self.has_ended = True
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self) -> None:
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would hold events back
            (b"x-content-type-options", b"nosniff"),
        ]
        async with self._lock:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})

    async def _answer(self, response: Response) -> None:
        """Answer as a whole: there is no stream."""
        async with self._lock:
            if not self.has_ended:
                self.has_begun = self.has_ended = True
                await self._send(
                    {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
                )
                await self._send({"type": "http.response.body", "body": bytes(response.body), "more_body": False})


def _data(body: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


async def _until_gone(receive: Receive, writer: _Writer, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    # Else the end is on its way already, and a client that closes its own side may still read it.
    if not writer.has_ended:
        scope.cancel()
