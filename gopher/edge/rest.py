"""HTTP: whether this server serves, as JSON, by Starlette on Hypercorn's Trio worker.

- `GET /healthz`: 200 while the process lives.
- `GET /readyz`, `GET /health`: 200 while it serves, 503 with the reason while it does not.
"""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from gopher.edge.grpc_server import require_free

if TYPE_CHECKING:
    from starlette.requests import Request

    from gopher.edge.health import Health

GRACE_SECONDS: Final = 1.0
"""How long a stop lets requests finish; chosen: each is answered at once."""
READ_SECONDS: Final = 10
"""How long a client may take to send a request."""


class RestServer:
    """Serves HTTP.

    Args:
        address: `HOST:PORT`; port 0 picks a free one.
        health: The state of this server.
    """

    def __init__(self, address: str, health: Health) -> None:
        self._address = address
        self._health = health
        self._stopping = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until told to stop; report the address.

        Raises:
            StartError: The address cannot be used.
        """
        await require_free(self._address)
        config = Config()
        config.bind = [self._address]
        config.graceful_timeout = GRACE_SECONDS
        config.read_timeout = READ_SECONDS
        config.include_server_header = False
        config.errorlog = logging.getLogger("hypercorn.error")
        app = Starlette(
            routes=[
                Route("/healthz", self._live),
                Route("/readyz", self._ready),
                Route("/health", self._ready),
            ]
        )
        trigger = self._stopping.wait
        serving = partial(serve, app, config, shutdown_trigger=trigger)  # type: ignore[arg-type]  # Starlette's types are looser
        # While the server serves.
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(serving)
            task_status.started(url.removeprefix("http://"))

    def stop(self) -> None:
        """Begin to stop; `run` returns when the last request is answered."""
        self._stopping.set()

    async def _live(self, _request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _ready(self, _request: Request) -> JSONResponse:
        fault = self._health.fault
        if fault is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable", "reason": fault}, status_code=HTTPStatus.SERVICE_UNAVAILABLE)
