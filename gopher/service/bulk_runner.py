"""Carries out bulk operations, in any server: takes them up in turn, some steps each, and goes on where another server stopped.

A server without operations asks Redis once a minute. A new operation is told of over pub/sub, and one whose server is gone may be
taken up when its lease ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StoreError, StoreUnavailableError
from gopher.store.bulk import ClaimedBulk
from gopher.store.bulk_walk import BulkWalk

if TYPE_CHECKING:
    from gopher.store.store import Store

LEASE_SECONDS: Final = 10.0
"""Chosen: many times what a step takes, and short enough to wait for after a crash."""
SWEEP_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 1.0
"""After a fault of Redis."""
STEPS: Final = 50
"""Of one operation before it is another's turn; chosen: some 5,000 jobs."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class BulkRunner:
    """Works while the server serves.

    Args:
        store: Where the operations and the jobs are.
        lease_seconds: Lease on an operation.
    """

    def __init__(self, store: Store, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._store = store
        self._lease_ms = round(lease_seconds * 1000)
        self._told = trio.Event()

    async def run(self) -> None:
        """Carry out what there is, until cancelled."""
        is_listening = False
        while True:
            self._told = trio.Event()
            try:
                if not is_listening:
                    await self._store.bulk.listen(self._wake)
                    is_listening = True
                wait_seconds = await self.tick()
            except StoreError as error:
                _log.warning("bulk.delayed", error=error.message)
                wait_seconds = PAUSE_SECONDS
            with trio.move_on_after(wait_seconds):
                await self._told.wait()

    def _wake(self, _message: bytes) -> None:
        self._told.set()

    async def tick(self) -> float:
        """Take some steps of the operation whose turn it is; return in how many seconds to come again.

        Raises:
            StoreError: Redis failed; the operation goes on when its lease ends.
        """
        claimed = await self._store.bulk.claim(self._lease_ms)
        if not isinstance(claimed, ClaimedBulk):
            return SWEEP_SECONDS if claimed is None else min(SWEEP_SECONDS, claimed)
        try:
            await self._work(claimed)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            _log.error("bulk.failed", operation=claimed.operation.id, error=error.message)
            await self._store.bulk.fail(claimed, f"{error.reason}: {error.message}")
        return 0.0

    async def _work(self, claimed: ClaimedBulk) -> None:
        here: ClaimedBulk | None = claimed
        walk: BulkWalk | None = None
        for _ in range(STEPS):
            if here is None or not await self._store.bulk.keep(here, self._lease_ms):
                return
            if walk is None and here.queue:
                walk = BulkWalk(self._store.link, here)
                await walk.open()
            if walk is None or walk.is_over:
                here, walk = await self._store.bulk.advance(here), None
            else:
                await walk.step()
        if here is not None:
            await self._store.bulk.keep(here, 0)
