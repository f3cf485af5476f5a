"""The worker's parts put together on a real Redis, each to be ticked by hand; and a lifecycle whose replies can be lost or held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher.errors import StoreUnavailableError
from gopher.job import NewJob
from gopher.runtime.claimer import Claimer, QueueSource
from gopher.runtime.slots import Slots
from gopher.store import keys
from gopher.store.lifecycle import Lifecycle
from gopher.store.submission import SubmitReceipt
from gopher.store.type_set import ANY_TYPE
from tests.runtime.rig import no_gates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gopher.job import Job
    from gopher.store.claims import Claim
    from gopher.store.lifecycle import Bound, Settlement
    from gopher.store.store import Store
    from gopher.store.type_set import TypeSet
    from tests.runtime.rig import Bench


class WilfulLifecycle(Lifecycle):
    """The real one, whose claims and settles a test may hold up or rob of their replies.

    Attributes:
        claims: The queue and id of each claim that was asked for.
        settles: How many outcomes each settle had.
        lose: So many of the next calls are carried out, and their replies lost.
        latest: What the last claim gave.
        before_reply: Called once a claim has been carried out, before its reply is handed over.
        gate: Claims and settles wait for it before they are sent.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.link, store.registry)
        self.claims: list[tuple[str, str]] = []
        self.settles: list[int] = []
        self.lose = 0
        self.latest: Claim | None = None
        self.before_reply: Callable[[], None] = lambda: None
        self.gate = trio.Event()
        self.gate.set()

    async def claim(
        self,
        namespace: str,
        queue: str,
        *,
        worker: str,
        count: int,
        lease_ms: int,
        claim_id: str,
        types: TypeSet = ANY_TYPE,
        bounds: Sequence[Bound] = (),
    ) -> Claim | None:
        self.claims.append((queue, claim_id))
        await self.gate.wait()
        claim = await super().claim(
            namespace, queue, worker=worker, count=count, lease_ms=lease_ms, claim_id=claim_id, types=types, bounds=bounds
        )
        self._maybe_lose()
        self.latest = claim
        self.before_reply()
        return claim

    async def settle(self, namespace: str, queue: str, settlements: Sequence[Settlement]) -> list[str]:
        self.settles.append(len(settlements))
        await self.gate.wait()
        words = await super().settle(namespace, queue, settlements)
        self._maybe_lose()
        return words

    def _maybe_lose(self) -> None:
        if self.lose:
            self.lose -= 1
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)


class Parts:
    """A claimer whose attempts a bench runs.

    Attributes:
        lifecycle: What the claimer claims through.
        claimer: To be ticked.
        slots: Where the attempts run.
        sources: Its queues, by name.
    """

    def __init__(
        self,
        store: Store,
        namespace: str,
        bench: Bench,
        nursery: trio.Nursery,
        *,
        slots: int = 4,
        queues: dict[str, int] | None = None,
        poll_seconds: float = 3600.0,
        worker: str = "worker",
    ) -> None:
        self.store = store
        self.namespace = namespace
        self.lifecycle = WilfulLifecycle(store)
        self.claimer = Claimer(
            self.lifecycle,
            bench.scopes,
            no_gates(),
            types=ANY_TYPE,
            namespace=namespace,
            worker=worker,
            slots=slots,
            lease_seconds=30.0,
            poll_seconds=poll_seconds,
        )
        self.slots = Slots(bench.runner, nursery)
        weights = queues or {"default": 1}
        self.sources = {name: QueueSource(name, weight, bench.handed) for name, weight in weights.items()}
        for source in self.sources.values():
            self.claimer.add_source(source)

    async def submit(self, count: int = 1, *, queue: str = "default") -> list[str]:
        return await submit(self.store, self.namespace, count, queue=queue)

    async def claim(self) -> bool:
        """Tick once."""
        return await self.claimer.tick(self.slots)

    async def claim_all(self) -> None:
        """Tick until there is nothing to do."""
        while not await self.claim():
            pass

    async def processing(self, queue: str = "default") -> list[str]:
        """Return the ids of the jobs that Redis holds for claimed."""
        members: list[bytes] = await self.store.link.call("ZRANGE", f"{keys.queue(self.namespace, queue)}processing", 0, -1)
        return sorted(member.decode() for member in members)


async def submit(store: Store, namespace: str, count: int = 1, **fields: object) -> list[str]:
    """Submit a number of equal jobs and return their ids."""
    job = NewJob(**{"type": "work", **fields})  # type: ignore[arg-type] # the test names fields of NewJob
    answers = await store.lifecycle.submit(namespace, [job] * count)
    receipts = [answer for answer in answers if isinstance(answer, SubmitReceipt)]
    assert len(receipts) == count, answers
    return [receipt.job_id for receipt in receipts]


async def lose_lease(store: Store, job: Job) -> None:
    """Let the lease of a job run out and have it taken back, as when its worker had been silent for too long."""
    await store.link.call("ZADD", f"{keys.queue(job.namespace, job.queue)}processing", "XX", 1, job.id)
    assert job.id in (await store.lifecycle.reap(job.namespace, job.queue)).job_ids
