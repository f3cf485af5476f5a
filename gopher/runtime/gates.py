"""What a worker's claims have to pass: the breakers and bulkheads of its handlers.

Gates are asked before each claim, take in what it gave, and pass outcomes on to the settler. A worker whose handlers declare neither
has gates that cost nothing.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.breaker import Breaker
from gopher.errors import ScriptReplyError, StoreError
from gopher.retry import RetryPolicy
from gopher.runtime.breaker import Guard, Guards
from gopher.runtime.bulkhead import Bulkheads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gopher.handlers import HandlerSpec, Registry
    from gopher.runtime.scopes import RunningAttempt
    from gopher.runtime.settler import Outcomes
    from gopher.store.lifecycle import Bound, Settlement
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)


class Gates:
    """The breakers and bulkheads of a worker.

    Args:
        store: Where breakers are kept.
        registry: Whose handlers declare them.
        namespace: Of the queues.
        queues: Those that the worker takes from.
        worker: Id of this worker.
        lease_seconds: Of its attempts; its permits stand for as long.
        on_room: Told the queues where a claim may find more than the last one did.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        namespace: str,
        queues: Sequence[str],
        worker: str,
        lease_seconds: float,
        on_room: Callable[[str], None],
    ) -> None:
        self._store = store
        self._limits = {spec.type: spec.limits for spec in registry.specs}
        self._namespace = namespace
        self._queues = list(queues)
        self._on_room = on_room
        self._bulkheads = Bulkheads(registry)
        guards = _guards(registry.specs)
        self._guards = Guards(store.breakers, guards, namespace=namespace, worker=worker, permit_seconds=lease_seconds)
        self._bounded = {spec.type for spec in registry.specs if spec.breaker is not None or spec.bulkhead is not None}
        self.are_any = bool(self._bounded)
        """Whether any handler declares a breaker or a bulkhead."""
        self.breakers = [guard.by for guard in guards]
        """By what they are called where they hold jobs back."""
        self._is_stale = False

    async def declare(self) -> None:
        """Declare limits; may be repeated at any time."""
        for queue in self._queues:
            await self._store.limits.declare(self._namespace, queue, self._limits)

    async def start(self) -> None:
        """Declare breakers, and hear of changes from now on."""
        await self._guards.start()
        self._store.link.on_reconnect.append(self._note_reconnect)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Report to breakers, and have what they held back claimed, until cancelled."""
        task_status.started()
        # While the worker works.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guards.keep_permits)
            await self._serve()

    async def _serve(self) -> None:
        failures = 0
        names: list[str] = []
        while True:
            try:
                if self._is_stale:
                    self._is_stale = False
                    await self._guards.reread()
                names = names or await self._guards.wait_news()
                for queue in self._queues:
                    await self._ask_again(queue, names)
                names, failures = [], 0
            except StoreError as error:
                failures += 1
                self._is_stale = True
                _log.warning("breaker.reread_delayed", error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))

    async def _ask_again(self, queue: str, names: Sequence[str]) -> None:
        try:
            await self._store.limits.ask_again(self._namespace, queue, names)
        except ScriptReplyError as error:
            # A damaged queue keeps no other from its jobs.
            _log.error("breaker.ask_refused", queue=queue, error=str(error))
        self._on_room(queue)

    def bounds(self) -> list[Bound]:
        """Return what the next claim may take."""
        return [*self._guards.bounds(), *self._bulkheads.bounds()]

    def take(self, attempt: RunningAttempt, outcomes: Outcomes) -> Outcomes:
        """Take in a claimed attempt; return where its outcome goes."""
        job_type = attempt.job.type
        if job_type not in self._bounded:
            return outcomes
        guarded = self._guards.take(attempt, outcomes)
        if job_type not in self._bulkheads:
            return guarded
        self._bulkheads.take(job_type)
        return _BulkheadOutcomes(self, attempt.queue, guarded)

    async def ask(self, refused: Sequence[str]) -> bool:
        """Ask for what a claim was refused; return whether another claim would find more."""
        return await self._guards.ask(refused)

    def give_back(self, job_type: str, queue: str) -> None:
        """Note that the handler of a bulkhead's attempt has ended."""
        self._bulkheads.give_back(job_type)
        self._on_room(queue)

    def _note_reconnect(self) -> None:
        self._is_stale = True
        self._guards.note_stale()


class _BulkheadOutcomes:
    """Frees the room of one attempt as its outcome comes in."""

    __slots__ = ("_gates", "_outcomes", "_queue")

    def __init__(self, gates: Gates, queue: str, outcomes: Outcomes) -> None:
        self._gates = gates
        self._queue = queue
        self._outcomes = outcomes

    def put_nowait(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        self._outcomes.put_nowait(attempt, settlement)
        self._gates.give_back(attempt.job.type, self._queue)


def _guards(specs: Sequence[HandlerSpec]) -> list[Guard]:
    """Gather the breakers, each with the types it guards; of a name that several declare, the first says how it is."""
    by_name: dict[str, list[HandlerSpec]] = {}
    for spec in specs:
        if spec.breaker is not None:
            by_name.setdefault(spec.breaker.name or spec.type, []).append(spec)
    found = []
    for name, guarded in by_name.items():
        breaker = guarded[0].breaker or Breaker()
        found.append(Guard(name, breaker, [spec.type for spec in guarded]))
    return found
