"""Seals: what a client is given to bring back, closed so that nobody can make one up or use it elsewhere.

A sealed text is a signature and the data, in base64. Signed are what it is about and the data, with a secret that all servers of the
namespace share.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

SIGNATURE_BYTES: Final = 16


class Seal:
    """Closes and opens texts about one thing.

    Args:
        secret: Of the namespace.
        about: What the texts are about: no two things say the same.
    """

    __slots__ = ("_about", "_secret")

    def __init__(self, secret: bytes, *about: str | bytes) -> None:
        self._secret = secret
        self._about = b"".join((part if isinstance(part, bytes) else part.encode()) + b"\n" for part in about)

    def close(self, data: bytes) -> str:
        """Return the text that holds the data."""
        return base64.urlsafe_b64encode(self._sign(data) + data).decode()

    def open(self, text: str) -> bytes | None:
        """Return the data that a text holds; None where it was not closed by this seal."""
        try:
            sealed = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, data = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        return data if hmac.compare_digest(signature, self._sign(data)) else None

    def _sign(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, self._about + data, "sha256")[:SIGNATURE_BYTES]
