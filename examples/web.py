"""How the web apps of the examples are served: Starlette on Hypercorn, on Trio, until SIGINT or SIGTERM.

Each app is a program of its own that knows Gopher by its client only, as any web application would: `GOPHER_SERVER` says where
the server is (127.0.0.1:50051 if unset), the command's one argument where to serve.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse

from gopher.client import TrioClient
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.routing import Route

DEFAULT_SERVER: Final = "127.0.0.1:50051"
DEFAULT_BIND: Final = "127.0.0.1:8000"

RequestT = TypeVar("RequestT")


def run_web_app(make_routes: Callable[[TrioClient], Sequence[Route]]) -> None:
    """Serve the routes until told to stop, and print `ready http=HOST:PORT` when they can be reached."""
    trio.run(_serve, make_routes, sys.argv[1] if len(sys.argv) > 1 else DEFAULT_BIND)


async def read_json(request: Request, expected: type[RequestT]) -> RequestT:
    """Return the body of a request.

    Raises:
        msgspec.ValidationError: It does not fit; the message has the path of the field.
    """
    return msgspec.json.decode(await request.body(), type=expected)


async def _serve(make_routes: Callable[[TrioClient], Sequence[Route]], bind: str) -> None:
    config = Config()
    config.bind = [bind]
    async with TrioClient(os.environ.get("GOPHER_SERVER", DEFAULT_SERVER)) as client, trio.open_nursery() as nursery:
        handlers = {msgspec.MsgspecError: _refuse_body, GopherError: _refuse_for_now}
        app = Starlette(routes=list(make_routes(client)), exception_handlers=handlers)
        serving = partial(serve, app, config, shutdown_trigger=_wait_for_signal)  # type: ignore[arg-type]  # Starlette's types are looser
        (url,) = await nursery.start(serving)
        print(f"ready http={url.removeprefix('http://')}", flush=True)


async def _wait_for_signal() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(aiter(signals))


def _refuse_body(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=400)


def _refuse_for_now(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"please try again: {error}"}, status_code=503)
