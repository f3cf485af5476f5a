"""Hands the children of completed jobs to their queues, as far as the queue of the parents could not store them itself.

Children come from the settler of this worker, right after the outcome was written; what a worker that died has left behind is found
by a sweep of the outbox. Every worker has one for each of its queues: a child comes to be once, whoever delivers it.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import ScriptReplyError, StoreError
from gopher.retry import RetryPolicy
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gopher.store.outbox import Child, Outbox

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Chosen: children are delivered within 2 s of Redis being back."""
_MOST_WAITING: Final = 10_000
"""Children kept in memory; chosen. The outbox has them as well, so that those beyond are left to the sweep."""


class Relay:
    """Delivers the children of one queue's jobs.

    Args:
        outbox: Where they are.
        namespace: Of the queue.
        queue: Of the parents.
        sweep_seconds: Mean time between two sweeps.
    """

    def __init__(self, outbox: Outbox, *, namespace: str, queue: str, sweep_seconds: float) -> None:
        self._outbox = outbox
        self._namespace = namespace
        self._queue = queue
        self._sweep_seconds = sweep_seconds
        self._waiting: deque[Child] = deque()
        self._has_work = trio.Event()
        self._emptied = trio.Event()

    def put_nowait(self, children: Iterable[Child]) -> None:
        """Have children delivered soon whose parents have completed."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.extend(children)
            self._has_work.set()

    async def wait_empty(self) -> None:
        """Wait until all children that were put are delivered."""
        while self._waiting:
            await self._emptied.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver and sweep until cancelled."""
        task_status.started()
        failures = 0
        sweep_at = trio.current_time()
        while True:
            try:
                while self._waiting:
                    await self.tick()
                if trio.current_time() >= sweep_at:
                    await self.sweep()
                    # Spread, so that the sweeps of many workers do not meet.
                    sweep_at = trio.current_time() + self._sweep_seconds * random.uniform(0.8, 1.2)
                failures = 0
            except StoreError as error:
                failures += 1
                _log.warning("relay.delayed", queue=self._queue, children=len(self._waiting), error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))
                continue
            with trio.move_on_at(sweep_at):
                await self._has_work.wait()
            self._has_work = trio.Event()

    async def tick(self) -> None:
        """Deliver what waits, at most 100 children.

        Cancellation:
            Some may have been delivered; the outbox has those that were not.
        """
        batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        await self._deliver(batch)
        for _ in batch:
            self._waiting.popleft()
        if not self._waiting:
            self._emptied.set()
            self._emptied = trio.Event()

    async def sweep(self) -> None:
        """Deliver what is left in the outbox."""
        cursor = 0
        while True:
            cursor, children = await self._outbox.sweep(self._namespace, self._queue, cursor)
            if children:
                await self._deliver(children)
            if cursor == 0:
                return

    async def _deliver(self, children: list[Child]) -> None:
        try:
            await self._outbox.deliver(self._namespace, self._queue, children)
        except ScriptReplyError as error:
            # What cannot be written, as to a damaged queue, is left alone, in the outbox.
            if len(children) == 1:
                _log.error("child.undelivered", job_id=children[0].id, queue=children[0].queue, error=str(error))
                return
            for child in children:
                await self._deliver([child])
