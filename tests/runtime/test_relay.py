from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio

from gopher.errors import StoreUnavailableError
from gopher.job import Move, NewJob, Outcome
from gopher.runtime import relay
from gopher.runtime.relay import Relay
from gopher.store import keys
from gopher.store.lifecycle import Settlement
from gopher.store.outbox import Child, Outbox, pack
from gopher.store.store import Store
from tests.runtime.parts import submit
from tests.waiting import PATIENCE_SECONDS, until_async

if TYPE_CHECKING:
    from collections.abc import Sequence


class Nest:
    """A completed parent in `default` whose children of `other` are still to be delivered."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        self.outbox = WilfulOutbox(store)
        self.relay = Relay(self.outbox, namespace=namespace, queue="default", sweep_seconds=3600)

    async def complete(self, count: int, queue: str = "other") -> list[Child]:
        """Let a job complete that has submitted so many."""
        await self.store.registry.add_types(self.namespace, ["work"])
        await submit(self.store, self.namespace)
        claim = await self.store.lifecycle.claim(
            self.namespace, "default", worker="w", count=1, lease_ms=60_000, claim_id=f"claim-{trio.current_time()}"
        )
        assert claim is not None
        (parent,) = claim.jobs
        described = NewJob(type="work", queue=queue, parent_id=parent.id, root_id=parent.id)
        children = [
            pack(parent.id, parent.token, await self.outbox.reserve(self.namespace, described), described) for _ in range(count)
        ]
        settlement = Settlement(
            parent.id, parent.token, Move.COMPLETE, Outcome.SUCCEEDED, result=b"1", children=tuple(children)
        )
        assert await self.store.lifecycle.settle(self.namespace, "default", [settlement]) == ["completed"]
        return children

    async def waiting(self, queue: str = "other") -> list[str]:
        """Return the ids that stand in a queue, sorted."""
        ids: list[bytes] = await self.store.link.call("ZRANGE", f"{keys.queue(self.namespace, queue)}enqueued:normal", 0, -1)
        return sorted(job_id.decode() for job_id in ids)

    async def is_delivered(self) -> bool:
        return not await self.store.link.call("EXISTS", keys.outbox(self.namespace, "default"))


class WilfulOutbox(Outbox):
    """The real one, whose next deliveries a test may let fail.

    Attributes:
        failures: So many of the next deliveries are carried out, and their replies lost.
        deliveries: How many children each delivery had.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.link, store.registry)
        self.failures = 0
        self.deliveries: list[int] = []

    async def deliver(self, namespace: str, queue: str, children: Sequence[Child]) -> None:
        self.deliveries.append(len(children))
        await super().deliver(namespace, queue, children)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)


@pytest.fixture
async def nest(redis_url: str, namespace: str, nursery: trio.Nursery) -> Nest:
    store = Store(redis_url, client_name="test")
    await nursery.start(store.run)
    return Nest(store, namespace)


async def test_relay_delivers_what_it_is_given(nest: Nest, nursery: trio.Nursery) -> None:
    """As soon as it is given, and in batches; then nothing waits."""
    children = await nest.complete(250)
    await nursery.start(nest.relay.run)
    await nest.relay.wait_empty()

    nest.relay.put_nowait(children)
    with trio.fail_after(PATIENCE_SECONDS):
        await nest.relay.wait_empty()

    assert await nest.waiting() == sorted(child.id for child in children)
    assert await nest.is_delivered()


async def test_relay_sweeps_up_what_a_dead_worker_has_left(nest: Nest, nursery: trio.Nursery) -> None:
    """As it starts, before anybody gives it anything."""
    children = await nest.complete(120)

    await nursery.start(nest.relay.run)
    await until_async(nest.is_delivered)

    assert await nest.waiting() == sorted(child.id for child in children)


async def test_relay_sweeps_again_and_again(nest: Nest, nursery: trio.Nursery) -> None:
    """What is left behind later is found as well."""
    nest.relay = Relay(nest.outbox, namespace=nest.namespace, queue="default", sweep_seconds=0.05)
    await nursery.start(nest.relay.run)
    first = await nest.complete(1)
    await until_async(nest.is_delivered)

    second = await nest.complete(1)
    await until_async(nest.is_delivered)

    assert await nest.waiting() == sorted(child.id for child in (*first, *second))


async def test_relay_tries_again_and_makes_each_child_once(nest: Nest, nursery: trio.Nursery) -> None:
    """A delivery whose reply is lost is repeated."""
    await nursery.start(nest.relay.run)
    children = await nest.complete(3)
    nest.outbox.failures = 2

    with structlog.testing.capture_logs() as logs, trio.fail_after(PATIENCE_SECONDS):
        nest.relay.put_nowait(children)
        await nest.relay.wait_empty()

    assert [line["event"] for line in logs] == ["relay.delayed"] * 2
    assert await nest.waiting() == sorted(child.id for child in children)


@pytest.mark.leaves_keys
async def test_child_that_cannot_be_written_holds_up_no_other(nest: Nest) -> None:
    """It is told of by name and stays in the outbox; the others are delivered."""
    spoilt = await nest.complete(1, queue="spoilt")
    children = await nest.complete(2)
    await nest.store.link.call("SET", f"{keys.queue(nest.namespace, 'spoilt')}enqueued:normal", "no index")

    with structlog.testing.capture_logs() as logs:
        await nest.relay.sweep()

    assert [(line["event"], line["job_id"]) for line in logs] == [("child.undelivered", spoilt[0].id)]
    assert await nest.waiting() == sorted(child.id for child in children)


async def test_relay_leaves_to_the_sweep_what_memory_should_not_hold(nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis cannot take them, the outbox keeps the children, and this process only so many."""
    monkeypatch.setattr(relay, "_MOST_WAITING", 2)
    children = await nest.complete(3)

    nest.relay.put_nowait(children[:2])
    nest.relay.put_nowait(children[2:])
    await nest.relay.tick()
    left = not await nest.is_delivered()
    await nest.relay.sweep()

    assert (left, nest.outbox.deliveries) == (True, [2, 1])
    assert await nest.waiting() == sorted(child.id for child in children)
