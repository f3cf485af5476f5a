"""The cursors of streams: how far a reader has come, sealed, so that he may go on at any server."""

from __future__ import annotations

from gopher.errors import invalid
from gopher.service.seals import Seal


class Cursors:
    """Makes and reads the cursors of one stream.

    Args:
        secret: Of the namespace.
        stream: What the stream is about: no two streams say the same.
    """

    __slots__ = ("_seal",)

    def __init__(self, secret: bytes, *stream: str) -> None:
        self._seal = Seal(secret, *stream)

    def cursor(self, place: bytes) -> str:
        """Return the cursor of a place."""
        return self._seal.close(place)

    def place(self, cursor: str) -> bytes:
        """Return the place that a cursor holds.

        Raises:
            InvalidRequestError: BAD_CURSOR, it was not made by this stream.
        """
        place = self._seal.open(cursor)
        if place is None:
            raise invalid("cursor", "BAD_CURSOR", "was not made by this stream; start again without one")
        return place
