"""HTTP: jobs for those without gRPC, and whether this server serves, as JSON, by Starlette.

- `/api/...`: the operations of `rest_jobs`, `rest_admin`, `rest_bulk`, `rest_limits`, `rest_schedules` and `events`,
  answered by the services that answer gRPC.
- `GET /openapi.json`: what they take and answer.
- `GET /metrics`: every figure, for Prometheus; of another namespace than `default` with `?namespace=NAME`.
- `GET /healthz`: 200 while the process lives.
- `GET /readyz`, `GET /health`: 200 while it serves, 503 with the reason while it does not.

How a request is served, in reading order: `http_server`, `rest_guard`, `rest_calls`, `rest_parsing` into `rest_bodies`, a service,
`rest_answers` or `rest_errors`.
"""

from __future__ import annotations

import time
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gopher.edge import openapi
from gopher.edge.events import Events
from gopher.edge.http_server import HttpServer
from gopher.edge.metrics import CONTENT_TYPE
from gopher.edge.rest_admin import AdminOperations
from gopher.edge.rest_bodies import Query
from gopher.edge.rest_bulk import BulkCalls
from gopher.edge.rest_calls import GET, Bounds
from gopher.edge.rest_errors import HttpError, refusal
from gopher.edge.rest_jobs import JobOperations
from gopher.edge.rest_limits import LimitCalls
from gopher.edge.rest_parsing import decode_query
from gopher.edge.rest_schedules import ScheduleCalls
from gopher.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from gopher.edge.health import Health
    from gopher.edge.methods import Services
    from gopher.edge.metrics import Exposition
    from gopher.edge.rest_calls import Operation


def operations(services: Services) -> list[Operation]:
    """Return every operation there is."""
    # `jobs/types` has to be looked for before `jobs/{job_id}`.
    return [
        *LimitCalls(services.flow).operations(),
        *AdminOperations(services.queues, services.admin).operations(),
        *JobOperations(services.jobs, services.schedules).operations(),
        *ScheduleCalls(services.schedules).operations(),
        *BulkCalls(services.bulk).operations(),
        Events(services.watch, services.health),
    ]


class RestServer:
    """Serves HTTP.

    Args:
        address: `HOST:PORT`; port 0 picks a free one.
        operations: What is served beside health.
        health: The state of this server.
        bounds: What clients may send.
        exposition: What `/metrics` tells; None: there is no such path.
    """

    def __init__(
        self,
        address: str,
        operations: Sequence[Operation],
        health: Health,
        bounds: Bounds | None = None,
        exposition: Exposition | None = None,
    ) -> None:
        self._exposition = exposition
        self._operations = operations
        self._health = health
        self._bounds = bounds or Bounds()
        self._document = openapi.document(operations, version("gopher-jobs"))
        self._server = HttpServer(self._app(), address, head_seconds=self._bounds.head_seconds)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC128 - it is handed on
        """Serve until told to stop; report the address.

        Raises:
            StartError: The address cannot be used.
        """
        await self._server.run(task_status=task_status)

    def stop(self) -> None:
        """Begin to stop; `run` returns when the last request is answered, at the latest when the grace is over."""
        self._server.stop()

    def _app(self) -> Starlette:
        routes = [
            Route("/healthz", self._live),
            Route("/readyz", self._ready),
            Route("/health", self._ready),
            Route(openapi.PATH, self._tell_document),
        ]
        if self._exposition is not None:
            routes.append(Route("/metrics", partial(_tell_metrics, self._exposition)))
        by_path: dict[str, dict[str, Operation]] = {}
        for each in self._operations:
            by_path.setdefault(each.path, {})[each.method] = each
        routes += [self._route(path, by_method) for path, by_method in by_path.items()]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse_route})
        app.router.redirect_slashes = False
        return app

    def _route(self, path: str, by_method: dict[str, Operation]) -> Route:
        async def respond(request: Request) -> Response:
            operation = by_method.get(request.method)
            if operation is None:
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(by_method)})
            began_at = time.perf_counter()
            answer = await operation.answer(request, self._bounds, self._health)
            if self._exposition is not None:
                labels = (operation.method, path, str(answer.status_code))
                self._exposition.requests.observe(labels, time.perf_counter() - began_at)
            return answer

        route = Route(path, respond)
        # Every method is ours to answer: Starlette would add HEAD, and look for `jobs/types` among the jobs.
        route.methods = None
        return route

    async def _live(self, _request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _ready(self, _request: Request) -> JSONResponse:
        fault = self._health.fault
        if fault is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable", "reason": fault}, status_code=HTTPStatus.SERVICE_UNAVAILABLE)

    async def _tell_document(self, _request: Request) -> JSONResponse:
        return JSONResponse(self._document)


async def _tell_metrics(exposition: Exposition, request: Request) -> Response:
    try:
        namespace = decode_query(Query, request.query_params.multi_items()).namespace
    except InvalidRequestError as error:
        return refusal(error)
    return Response(await exposition.text(namespace), media_type=CONTENT_TYPE)


async def _refuse_route(request: Request, error: Exception) -> Response:  # noqa: ASYNC124 - else Starlette would use a thread
    """Answer a request for a path or with a method that there is not."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is entered for this class only
    path = request.scope["path"][:256]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", GET)
        message = f"{path} does not take {request.method}; it takes {allowed}"
        code, reason = grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_ALLOWED"
    else:
        message = f"there is nothing at {path}; {openapi.PATH} tells what there is"
        code, reason = grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND"
    return refusal(HttpError(HTTPStatus(error.status_code), code, reason, message, error.headers))
