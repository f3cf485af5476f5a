"""The cursors of streams: how far a reader has come, sealed so that nobody can make one up or use it for another stream.

A cursor is the place and a signature, in base64. Signed are what the stream is about and the place, with the secret that all servers
of the namespace share; so a reader may go on at any of them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from gopher.errors import InvalidRequestError, invalid

SIGNATURE_BYTES: Final = 16


class Seal:
    """Makes and reads the cursors of one stream.

    Args:
        secret: Of the namespace.
        stream: What the stream is about: no two streams say the same.
    """

    __slots__ = ("_secret", "_stream")

    def __init__(self, secret: bytes, *stream: str) -> None:
        self._secret = secret
        self._stream = "\n".join(stream).encode() + b"\n"

    def cursor(self, place: bytes) -> str:
        """Return the cursor of a place."""
        return base64.urlsafe_b64encode(place + self._sign(place)).decode()

    def place(self, cursor: str) -> bytes:
        """Return the place that a cursor holds.

        Raises:
            InvalidRequestError: BAD_CURSOR, it was not made by this stream.
        """
        try:
            sealed = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _bad_cursor() from None
        place, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(place)):
            raise _bad_cursor()
        return place

    def _sign(self, place: bytes) -> bytes:
        return hmac.digest(self._secret, self._stream + place, "sha256")[:SIGNATURE_BYTES]


def _bad_cursor() -> InvalidRequestError:
    return invalid("cursor", "BAD_CURSOR", "was not made by this stream; start again without one")
