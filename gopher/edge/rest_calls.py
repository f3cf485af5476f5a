"""An operation of REST: its method and path, what it takes and answers, and all that surrounds the function which serves it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

import msgspec
import structlog
import trio

from gopher.edge import rest_errors
from gopher.edge.interceptors import DEFAULT_SECONDS
from gopher.edge.rest_bodies import NoBody
from gopher.edge.rest_guard import read_body, refuse_foreign
from gopher.edge.rest_parsing import decode_body, decode_query
from gopher.errors import CallExpiredError
from gopher.telemetry import tracing
from gopher.wire.status import ServerStoppingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from starlette.requests import Request
    from starlette.responses import Response

    from gopher.edge.health import Health

QueryT = TypeVar("QueryT", bound=msgspec.Struct)
BodyT = TypeVar("BodyT", bound=msgspec.Struct)

GET: Final = "GET"
POST: Final = "POST"
PUT: Final = "PUT"
PATCH: Final = "PATCH"
DELETE: Final = "DELETE"

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What clients may send.

    Attributes:
        body_bytes: Largest body.
        body_seconds: How long a body may take to come.
        head_seconds: How long a head may take to come, and a connection may do nothing.
    """

    body_bytes: int = 1024 * 1024
    body_seconds: float = 30.0
    head_seconds: float = 5.0


class Operation(ABC):
    """One thing that can be asked for.

    Attributes:
        method: Of HTTP.
        path: With at most one parameter in it, in braces.
        summary: What it does, in a line.
        query_type: Declares the query.
        body_type: Declares the body; None: it takes none.
        answer_type: Declares the answer.
        other_answer_type: Declares what may be answered in its place, with the same status; None: nothing else.
        status: Of the answer.
        media_type: Of the answer.
        other_statuses: What else it may answer that is no refusal; without a body.
    """

    media_type = rest_errors.JSON
    other_statuses: ClassVar[Mapping[HTTPStatus, str]] = {}

    def __init__(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        query_type: type[msgspec.Struct],
        body_type: type[msgspec.Struct] | None,
        answer_type: type[msgspec.Struct],
        status: HTTPStatus,
        other_answer_type: type[msgspec.Struct] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.summary = summary
        self.query_type = query_type
        self.body_type = body_type
        self.answer_type = answer_type
        self.other_answer_type = other_answer_type
        self.status = status

    async def answer(self, request: Request, bounds: Bounds, health: Health) -> Response:
        """Answer a request, whatever it is: a refusal is an answer too."""
        response: Response | None = None
        try:
            _let_in(request, health)
            response = await self.respond(request, bounds)
        except* Exception as group:  # noqa: BLE001 - the interceptor: nothing a handler raises may end the server
            response = rest_errors.refusal(rest_errors.known(group, self.path))
        assert response is not None  # noqa: S101 - for mypy: either branch has set it
        _log.debug("rest.answered", method=self.method, path=self.path, status=response.status_code)
        return response

    @abstractmethod
    async def respond(self, request: Request, bounds: Bounds) -> Response:
        """Answer a request, or raise why not."""


class Call(Operation, Generic[QueryT, BodyT]):
    """An operation that is answered by one object.

    Args:
        method: As the attribute.
        path: As the attribute.
        summary: As the attribute.
        serve: Takes the parameter in the path (empty where there is none), the query and the body; returns the answer.
        query: As `query_type`.
        body: As `body_type`; NoBody where there is none.
        answer: As `answer_type`.
        other_answer: As `other_answer_type`.
        told_body: As `body_type`, where `body` declares less than callers are told.
        status: As the attribute.
    """

    def __init__(
        self,
        method: str,
        path: str,
        summary: str,
        serve: Callable[[str, QueryT, BodyT], Awaitable[msgspec.Struct]],
        *,
        query: type[QueryT],
        body: type[BodyT],
        answer: type[msgspec.Struct],
        other_answer: type[msgspec.Struct] | None = None,
        told_body: type[msgspec.Struct] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        super().__init__(
            method,
            path,
            summary,
            query_type=query,
            body_type=None if issubclass(body, NoBody) else told_body or body,
            answer_type=answer,
            status=status,
            other_answer_type=other_answer,
        )
        self._query: type[QueryT] = query
        self._body: type[BodyT] = body
        self._serve = serve

    async def respond(self, request: Request, bounds: Bounds) -> Response:
        """Answer a request, or raise why not.

        Raises:
            GopherError: The request is refused.
        """
        query = decode_query(self._query, request.query_params.multi_items())
        body = decode_body(self._body, await read_body(request, max_bytes=bounds.body_bytes, seconds=bounds.body_seconds))
        with trio.move_on_after(DEFAULT_SECONDS), _traced(request):
            found = await self._serve(parameter(request), query, body)
            return rest_errors.answer(found, self.status)
        raise CallExpiredError("the time of the call was over before the answer was known")


def _let_in(request: Request, health: Health) -> None:
    """Refuse what must not even be looked at.

    Raises:
        HttpError: A page of another origin has sent it.
        ServerStoppingError: The server stops.
    """
    refuse_foreign(request)
    if health.is_stopping:
        raise ServerStoppingError


def parameter(request: Request) -> str:
    """Return the parameter in the path; empty where there is none."""
    return next((str(value) for value in request.path_params.values()), "")


def _traced(request: Request) -> AbstractContextManager[None]:
    """Continue the caller's trace, where there is one and this process traces."""
    traceparent = request.headers.get(tracing.TRACEPARENT) if tracing.is_on() else None
    return tracing.continued(traceparent) if traceparent else nullcontext()
