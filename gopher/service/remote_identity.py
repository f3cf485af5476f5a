"""Who a worker on a stream is, across streams and servers: its id, and the token that proves it.

A token is a signature and the id, in base64. Signed are the namespace, the id and the names of the queues, with the secret that all
servers of the namespace share: what was assigned is looked for in these queues.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from gopher.errors import InvalidRequestError, invalid

if TYPE_CHECKING:
    from gopher.service.remote_frames import Greeting
    from gopher.store.registry import Registry

SIGNATURE_BYTES: Final = 16


class Identities:
    """Gives workers their ids, and knows them again.

    Args:
        registry: Holds the secrets.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def identify(self, greeting: Greeting) -> tuple[str, str]:
        """Return the worker's id and its resume token; a new id where it has brought no token.

        Raises:
            InvalidRequestError: BAD_RESUME_TOKEN.
        """
        if not greeting.resume_token:
            worker = f"remote-{secrets.token_hex(6)}"
            return worker, await self._token(greeting, worker)
        try:
            sealed = base64.urlsafe_b64decode(greeting.resume_token.encode())
            worker = sealed[SIGNATURE_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise _bad_token() from None
        if not hmac.compare_digest(sealed[:SIGNATURE_BYTES], await self._sign(greeting, worker)):
            raise _bad_token()
        return worker, greeting.resume_token

    async def _token(self, greeting: Greeting, worker: str) -> str:
        return base64.urlsafe_b64encode(await self._sign(greeting, worker) + worker.encode()).decode()

    async def _sign(self, greeting: Greeting, worker: str) -> bytes:
        signed = "\n".join(["gopher.v1.WorkerService", greeting.namespace, worker, *sorted(greeting.queues)])
        return hmac.digest(await self._registry.page_secret(greeting.namespace), signed.encode(), "sha256")[:SIGNATURE_BYTES]


def _bad_token() -> InvalidRequestError:
    return invalid(
        "hello.resume_token", "BAD_RESUME_TOKEN", "was not given to a worker of these queues in this namespace; leave it empty"
    )
