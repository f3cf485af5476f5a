"""Looks after queues whose workers are all gone, and frees queues that hold nothing any more, and types that no worker has.

Ended leases, due jobs, vanished clients and children that were left are a queue's workers' to deal with. Every server walks over all
queues, some every few seconds; where such work is long overdue, it does it once. Whatever it does, a worker may do at the same time.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StoreError
from gopher.registration_errors import TooManyTypesError
from gopher.runtime.meter import QueueMeter
from gopher.runtime.orphans import Orphans
from gopher.runtime.reaper import Reaper
from gopher.runtime.recorder import Recorder
from gopher.runtime.relay import Relay
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LOOKS: Final = 500
"""Queues looked at in one go, about; chosen: some 10 ms of Redis."""
_BATCHES: Final = 20
"""Calls of one kind that are made for a queue in one go, each up to 100 jobs; chosen: what is left waits for the next."""
_TYPES_SECONDS: Final = 3600.0
"""Between two looks at types; chosen: little beside the days for which they are kept."""


class QueueSweeper:
    """Walks over the queues of all namespaces.

    Args:
        store: Where they are.
        sweep_seconds: Mean time between two looks; a walk takes several where there are more than 500 queues.
    """

    def __init__(self, store: Store, *, sweep_seconds: float) -> None:
        self._store = store
        self._sweep_seconds = sweep_seconds
        self._namespaces: deque[str] = deque()
        self._cursor = 0
        self._served: set[str] | None = None
        self._types_at = 0.0
        self._frees_types = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look again and again, until cancelled."""
        task_status.started()
        while True:
            # Spread, so that the walks of several servers do not meet.
            await trio.sleep(self._sweep_seconds * random.uniform(0.8, 1.2))
            try:
                await self.tick()
            except StoreError as error:
                _log.warning("queue_sweep.delayed", error=str(error))

    async def tick(self) -> None:
        """Look at the next queues, at the most at all of them.

        Raises:
            StoreError: Redis failed; the next look goes on where this one ended.
        """
        if not self._namespaces:
            self._namespaces.extend(await self._store.queue_sweep.namespaces())
            self._frees_types = trio.current_time() >= self._types_at
            if self._frees_types:
                self._types_at = trio.current_time() + _TYPES_SECONDS
        looks = 0
        while self._namespaces and looks < _LOOKS:
            namespace = self._namespaces[0]
            step = await self._store.queue_sweep.step(namespace, self._cursor)
            for queue in step.queues:
                await self._look(namespace, queue)
            for number in step.freed:
                await self._store.queue_sweep.settle_freed(namespace, number)
            looks += len(step.queues) + len(step.freed) + 1
            self._cursor = step.cursor
            if step.cursor == 0:
                self._served = None
                if self._frees_types:
                    await self._free_types(namespace)
                self._namespaces.popleft()
                await self._store.queue_sweep.forget_namespace(namespace)

    async def _look(self, namespace: str, queue: str) -> None:
        inspection = await self._store.queue_sweep.inspect(namespace, queue)
        if inspection.is_overdue:
            await self._serve(namespace, queue)
            return
        if inspection.holds_anything or queue in await self._queues_served(namespace):
            return
        if await self._store.queue_sweep.free(namespace, queue):
            _log.info("queue.freed", namespace=namespace, queue=queue)

    async def _free_types(self, namespace: str) -> None:
        """Keep the types that workers have, and free those that none has had for long."""
        registry = self._store.registry
        served = {job_type for worker in await registry.workers(namespace) for job_type in worker.description.types}
        try:
            await registry.add_types(namespace, served)
        except TooManyTypesError as error:
            # Some worker has one that is not known; it will not be, nor are others taken for declared.
            _log.warning("queue_sweep.types_delayed", namespace=namespace, error=str(error))
            return
        freed = await registry.free_types(namespace)
        if freed:
            _log.info("types.freed", namespace=namespace, types=freed)

    async def _queues_served(self, namespace: str) -> set[str]:
        """Return the queues that workers serve, read once a walk through a namespace."""
        if self._served is None:
            workers = await self._store.registry.workers(namespace)
            self._served = {queue for worker in workers for queue in worker.description.queues}
        return self._served

    async def _serve(self, namespace: str, queue: str) -> None:
        """Do what is overdue, once; a queue that fails does not keep the walk from the others."""
        store, meter = self._store, QueueMeter()
        common = {"namespace": namespace, "queue": queue}
        reaper = Reaper(store.lifecycle, sweep_seconds=self._sweep_seconds, on_lost=meter.count_lost, **common)
        orphans = Orphans(store.families, store.lifecycle, sweep_seconds=self._sweep_seconds, **common)
        # A name of its own, since it numbers its calls from 1.
        recorder = Recorder(store.figures, meter, worker=f"sweep-{secrets.token_hex(6)}", **common)
        try:
            for _ in range(_BATCHES):
                if not await reaper.tick():
                    break
            for _ in range(_BATCHES):
                if (await store.lifecycle.promote(namespace, queue)).moved < BATCH:
                    break
            await Relay(store.outbox, sweep_seconds=self._sweep_seconds, **common).sweep()
            for _ in range(_BATCHES):
                if await orphans.tick() > 0:
                    break
            await recorder.tick()
        except StoreError as error:
            _log.warning("queue_sweep.queue_delayed", namespace=namespace, queue=queue, error=str(error))
