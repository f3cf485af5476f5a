"""What a queue needs beside those who run its jobs: due jobs promoted, leases reaped, schedules fired, children looked after.

A worker does it for its queues; a server does it for those that it gives jobs from to workers on streams.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StoreError
from gopher.runtime.meter import QueueMeter
from gopher.runtime.orphans import Orphans
from gopher.runtime.promoter import Promoter
from gopher.runtime.reaper import Reaper
from gopher.runtime.recorder import Recorder
from gopher.runtime.relay import Relay
from gopher.runtime.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.runtime.timekeeper import Timekeeper
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Kept:
    """A queue that is kept, for so many users."""

    users: int = 0
    meter: QueueMeter = field(default_factory=QueueMeter)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Upkeep:
    """Keeps any number of queues, each for as long as somebody asks for it.

    Args:
        store: Where they are.
        poll_seconds: Safety net of what waits to be told.
        sweep_seconds: Mean time between two looks for ended leases and children that were left.
    """

    def __init__(self, store: Store, *, poll_seconds: float, sweep_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._sweep_seconds = sweep_seconds
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep queues until cancelled."""
        # While the program runs.
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    @asynccontextmanager
    async def keep(self, namespace: str, queue: str) -> AsyncIterator[QueueMeter]:
        """Keep a queue while the block lasts; of those who ask for the same, the last ends it.

        What is counted in the meter that is given comes to Redis, as that of a worker does.
        """
        assert self._nursery is not None  # noqa: S101 - whoever composes this starts `run` first
        kept = self._kept.get((namespace, queue))
        if kept is None:
            kept = self._kept[namespace, queue] = _Kept()
            self._nursery.start_soon(self._serve, namespace, queue, kept)
        kept.users += 1
        try:
            yield kept.meter
        finally:
            kept.users -= 1
            if kept.users == 0:
                del self._kept[namespace, queue]
                kept.scope.cancel(reason="nobody needs the queue kept any more")

    async def _serve(self, namespace: str, queue: str, kept: _Kept) -> None:
        store = self._store
        promoter = Promoter(store.lifecycle, namespace=namespace, queue=queue, poll_seconds=self._poll_seconds)
        scheduler = Scheduler(store.schedules, namespace=namespace, queue=queue)
        relay = Relay(store.outbox, namespace=namespace, queue=queue, sweep_seconds=self._sweep_seconds)
        reaper = Reaper(
            store.lifecycle,
            namespace=namespace,
            queue=queue,
            sweep_seconds=self._sweep_seconds,
            on_lost=kept.meter.count_lost,
        )
        orphans = Orphans(store.families, store.lifecycle, namespace=namespace, queue=queue, sweep_seconds=self._sweep_seconds)
        # A name of its own, since it numbers its calls from 1.
        name = f"upkeep-{secrets.token_hex(6)}"
        recorder = Recorder(store.figures, kept.meter, namespace=namespace, queue=queue, worker=name)
        with kept.scope:
            # While the queue is kept.
            async with trio.open_nursery() as nursery:
                for keeper in (promoter, scheduler, relay, reaper, orphans, recorder):
                    nursery.start_soon(keeper.run)
                await self._listen(namespace, queue, {"due": promoter, "schedule": scheduler, "orphans": orphans})
        # What was measured last.
        with trio.move_on_after(_RETRY_SECONDS):
            await recorder.tick()

    async def _listen(self, namespace: str, queue: str, told: dict[str, Timekeeper]) -> None:
        """Wake those who wait for a word of the control channel, until cancelled."""

        def receive(word: str, _rest: list[str]) -> None:
            if word in told:
                told[word].wake()

        def reread() -> None:
            for each in told.values():
                each.wake()

        async with AsyncExitStack() as stack:
            self._store.link.on_reconnect.append(reread)
            stack.callback(self._store.link.on_reconnect.remove, reread)
            while True:
                try:
                    await stack.enter_async_context(self._store.control.hear(namespace, queue, receive))
                    await trio.sleep_forever()
                except StoreError as error:
                    _log.warning("upkeep.delayed", queue=queue, error=str(error))
                    await trio.sleep(_RETRY_SECONDS)
