"""Who a worker on a stream is, across streams and servers: its id, and the token that proves it.

The token is the id, sealed with the namespace and the names of the queues: what was assigned is looked for in these queues.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from gopher.errors import invalid
from gopher.service.seals import Seal

if TYPE_CHECKING:
    from gopher.service.remote_frames import Greeting
    from gopher.store.registry import Registry


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
        secret = await self._registry.page_secret(greeting.namespace)
        seal = Seal(secret, "gopher.v1.WorkerService", greeting.namespace, *sorted(greeting.queues))
        if not greeting.resume_token:
            worker = f"remote-{secrets.token_hex(6)}"
            return worker, seal.close(worker.encode())
        opened = seal.open(greeting.resume_token)
        if opened is None:
            raise invalid(
                "hello.resume_token",
                "BAD_RESUME_TOKEN",
                "was not given to a worker of these queues in this namespace; leave it empty",
            )
        return opened.decode(), greeting.resume_token
