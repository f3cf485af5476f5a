"""The store as its users hold it: one link to Redis and what speaks over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher.store.audit import Audit
from gopher.store.events import Control, Events
from gopher.store.lifecycle import Lifecycle
from gopher.store.link import Link
from gopher.store.query import Query
from gopher.store.registry import Registry

if TYPE_CHECKING:
    from trio import TaskStatus


class Store:
    """Everything that a server or a worker asks of Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        client_name: What `CLIENT LIST` shows.
    """

    def __init__(self, url: str, *, client_name: str = "gopher") -> None:
        self.link = Link(url, client_name=client_name)
        self.registry = Registry(self.link)
        self.lifecycle = Lifecycle(self.link, self.registry)
        self.query = Query(self.link, self.registry)
        self.events = Events(self.link, self.registry)
        self.control = Control(self.link)
        self.audit = Audit(self.link, self.registry)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect and keep the connection until cancelled.

        Raises:
            StoreUnavailableError: Redis cannot be reached at the start.
        """
        await self.link.run(task_status=task_status)
