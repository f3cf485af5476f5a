"""What a request must be before anybody looks at what it asks for: from no foreign page, in JSON, of bounded size, in bounded time.

A browser lets any page send a form or plain text to any address, with no question asked first. So a request that a page of another
origin has sent is refused (403), and so is a body that a form could have (415): what remains needs a permission that is never given.
"""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import grpc
import trio
from starlette.requests import ClientDisconnect

from gopher.edge.rest_errors import CLOSE, JSON, HttpError

if TYPE_CHECKING:
    from starlette.requests import Request

_NOTHING: Final = "0"


def refuse_foreign(request: Request) -> None:
    """Refuse what a page of another origin has sent.

    Raises:
        HttpError: 403, CSRF.
    """
    origin = request.headers.get("origin")
    if (origin is not None and not _is_own(origin, request.headers.get("host", ""))) or request.headers.get(
        "sec-fetch-site"
    ) == "cross-site":
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            grpc.StatusCode.PERMISSION_DENIED,
            "CSRF",
            "the request was sent by a page of another origin",
        )


def _is_own(origin: str, host: str) -> bool:
    """Tell whether an origin, `SCHEME://HOST[:PORT]` or anything else that a client says, is this server as the client has called it."""
    _, _, said = origin.partition("://")
    return said != "" and said.lower() == host.lower()


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """Return the body; empty if there is none.

    Args:
        request: The request.
        max_bytes: Largest body.
        seconds: How long the client may take to send it.

    Raises:
        HttpError: 415, it is no JSON; 413, it is too large; 408, it came too slowly, or not whole.
    """
    _require_json(request)
    length = request.headers.get("content-length", _NOTHING)
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    with trio.move_on_after(seconds) as scope:
        try:
            async with aclosing(request.stream()) as parts:
                async for part in parts:
                    body += part
                    if len(body) > max_bytes:
                        raise _too_large(max_bytes)
        except ClientDisconnect:
            raise _too_slow("the connection ended before the body did") from None
    if scope.cancelled_caught:
        raise _too_slow(f"the body did not come within {seconds:g} s")
    return bytes(body)


def _require_json(request: Request) -> None:
    """Refuse a body that is not said to be JSON; where there is none, nothing need be said."""
    said = request.headers.get("content-type", "")
    media_type = said.partition(";")[0].strip().lower()
    has_body = "transfer-encoding" in request.headers or request.headers.get("content-length", _NOTHING) != _NOTHING
    if media_type == JSON or not (has_body or said):
        return
    raise HttpError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        grpc.StatusCode.INVALID_ARGUMENT,
        "UNSUPPORTED_MEDIA_TYPE",
        f"the body must be JSON, with the header Content-Type: {JSON}; got {media_type[:64] or 'none'}",
    )


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        grpc.StatusCode.INVALID_ARGUMENT,
        "BODY_TOO_LARGE",
        f"the body must be at most {max_bytes} bytes",
        CLOSE,
    )


def _too_slow(message: str) -> HttpError:
    return HttpError(HTTPStatus.REQUEST_TIMEOUT, grpc.StatusCode.DEADLINE_EXCEEDED, "BODY_TIMEOUT", message, CLOSE)
