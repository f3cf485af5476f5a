"""What a process has made known to Redis for good, and makes known again once Redis has lost data.

Redis loses data when it is emptied while it runs, when it starts again without its newest writes or without any, and when a replica
takes over that lagged behind. The first shows in a key that holds a random id for as long as the data lasts; the others in Redis's run
id, which every start and every replica has of its own. Both are read after each reconnect and every few seconds.

Then, in this order: the queues that the registry remembers are named again where their jobs are left, every declaration is made again,
and the link's reconnect hooks run, so that whatever follows a job looks whether it is still there.
"""

from __future__ import annotations

import re
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import structlog
import trio

from gopher.errors import StoreError, TooManyQueuesError
from gopher.registration_errors import TooManyTypesError
from gopher.store import keys
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gopher.store.link import Link
    from gopher.store.registry import Registry

    Declaration: TypeAlias = Callable[[], Awaitable[None]]

CHECK_SECONDS: Final = 3.0
"""Between two looks; chosen: a wait for a job that is lost ends within it, and a look costs Redis some 20 us."""

_RUN_ID: Final = re.compile(rb"run_id:(\w+)")
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Identity(NamedTuple):
    """Which data Redis has, and which run of Redis has them."""

    data_id: bytes
    run_id: bytes


class Declarations:
    """Keeps declarations true.

    Args:
        link: The way to Redis.
        registry: Remembers queues.
    """

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._make_once = Script.load("make_once")
        self._declarations: list[Declaration] = []
        self._identity: _Identity | None = None
        self._is_doubtful = trio.Event()
        link.on_reconnect.append(self._note_reconnect)

    async def declare(self, declaration: Declaration) -> None:
        """Make a declaration now, and again whenever Redis may have lost it, for as long as the process runs.

        Args:
            declaration: Writes to Redis; may be repeated at any time.

        Raises:
            StoreError: The declaration failed, and is not made again.
        """
        await declaration()
        self._declarations.append(declaration)

    @asynccontextmanager
    async def declared(self, declaration: Declaration) -> AsyncIterator[None]:
        """Do as `declare`, while the block lasts."""
        await self.declare(declaration)
        try:
            yield
        finally:
            self._declarations.remove(declaration)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look again and again, until cancelled; started once it is known which data there are.

        Raises:
            StoreError: The first look failed.
        """
        await self.tick()
        task_status.started()
        while True:
            with trio.move_on_after(CHECK_SECONDS):
                await self._is_doubtful.wait()
            # Before the look, so that a reconnect during it is followed by another.
            self._is_doubtful = trio.Event()
            try:
                await self.tick()
            except (StoreError, TooManyQueuesError, TooManyTypesError) as error:
                _log.warning("declarations.delayed", error=str(error))

    async def tick(self) -> None:
        """Look once, and act if Redis may have lost data since the last look.

        Raises:
            StoreError: Redis failed; the next look acts.
        """
        identity = await self._look()
        last = self._identity
        if last is not None and identity != last:
            _log.warning("redis.data_may_be_lost", is_emptied=identity.data_id != last.data_id)
            await self._registry.recall_queues()
            for declaration in tuple(self._declarations):
                await declaration()
            for hook in tuple(self._link.on_reconnect):
                if hook != self._note_reconnect:
                    hook()
        self._identity = identity

    async def _look(self) -> _Identity:
        data_id, info = await self._link.call_all([("GET", keys.data_id()), ("INFO", "server")])
        if data_id is None:
            _, data_id = await self._make_once(self._link, [keys.data_id()], [secrets.token_hex(16)])
        run_id = _RUN_ID.search(info)
        return _Identity(data_id, run_id[1] if run_id else b"")

    def _note_reconnect(self) -> None:
        self._is_doubtful.set()
