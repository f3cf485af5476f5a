"""Children: written with the outcome of their parent, handed to their queues, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from structlog.testing import capture_logs

from gopher.errors import JobNotFoundError, StoreFullError, StoreUnavailableError, UnknownTypeError
from gopher.job import JobState, Move, NewJob, Priority
from gopher.store import keys
from gopher.store.outbox import Child, parted
from gopher.store.scripts import Script
from gopher.store.store import Store
from tests.store.rig import DELAY_MS, LEASE_MS, Rig

if TYPE_CHECKING:
    import trio

    from gopher.store.codec import ClaimedJob
    from tests.redis_server import RedisServer

AWKWARD: Final = b"\x00\n12 34\xff" * 9


@pytest.fixture
async def other(rig: Rig) -> Rig:
    """A second queue of the same namespace and clock."""
    await rig.store.registry.add_types(rig.namespace, ["email"])
    other = Rig(rig.store, rig.namespace, "other")
    await other.set_clock()
    return other


async def begin(rig: Rig, **fields: object) -> ClaimedJob:
    """Return a parent whose attempt runs."""
    await rig.submit(**fields)
    (parent,) = await rig.claim()
    return parent


async def complete(rig: Rig, parent: ClaimedJob, children: list[Child]) -> str:
    return await rig.settle(parent.id, parent.token, Move.COMPLETE, children=children)


async def test_children_of_the_same_queue_are_there_when_the_parent_is_completed(rig: Rig, other: Rig) -> None:
    """One script writes the outcome and stores them, byte for byte as they were described, in order."""
    parent = await begin(rig)
    plain = await rig.child(parent.id, parent.token, payload=b"1")
    full = await rig.child(
        parent.id,
        parent.token,
        payload=AWKWARD,
        content_type="application/octet-stream",
        priority=Priority.HIGH,
        labels={"a": "é\n"},
        unique_key="k",
        deadline_ms=rig.now_ms + DELAY_MS,
        backoff_multiplier=1.1,
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    later = await rig.child(parent.id, parent.token, delay_ms=DELAY_MS)

    word = await complete(rig, parent, [plain, full, later])

    jobs = [await rig.get(child.id) for child in (plain, full, later)]
    assert word == "completed"
    assert [job.state for job in jobs] == [JobState.ENQUEUED, JobState.ENQUEUED, JobState.SCHEDULED]
    assert {(job.parent_id, job.root_id) for job in jobs} == {(parent.id, parent.id)}
    assert jobs[0].payload == b"1"
    assert (jobs[1].payload, jobs[1].labels, jobs[1].unique_key) == (AWKWARD, {"a": "é\n"}, "k")
    assert (jobs[1].priority, jobs[1].backoff_multiplier, jobs[1].trace is None) == (Priority.HIGH, 1.1, False)
    assert await rig.places(full.id) == ["enqueued:high", "deadlines"]
    assert jobs[2].run_ms == rig.now_ms + DELAY_MS
    assert await rig.kept() == []
    assert await rig.audit() == []


async def test_child_may_take_the_unique_key_that_its_parent_lets_go(rig: Rig, other: Rig) -> None:
    """The parent is final first: a job may so be its own successor."""
    parent = await begin(rig, unique_key="k")
    child = await rig.child(parent.id, parent.token, unique_key="k")

    await complete(rig, parent, [child])

    assert await rig.state(child.id) is JobState.ENQUEUED


async def test_children_of_another_queue_are_kept_until_delivered(rig: Rig, other: Rig) -> None:
    """With the outcome they are in the outbox; delivery stores them in order and empties it."""
    parent = await begin(rig)
    children = [await rig.child(parent.id, parent.token, queue="other", payload=b"%d" % at) for at in range(3)]

    await complete(rig, parent, children)
    kept, early = await rig.kept(), await other.claim(10)
    found = await rig.sweep_outbox()
    await rig.deliver(children)
    claimed = await other.claim(10)

    assert kept == [child.id for child in children]
    assert early == []
    assert sorted(found) == children
    assert [(job.id, job.payload) for job in claimed] == [(child.id, b"%d" % at) for at, child in enumerate(children)]
    assert await rig.kept() == []


async def run_once(other: Rig) -> None:
    """Run the one job that waits, so that nothing of it is left, and as long again as its id is remembered."""
    (claimed,) = await other.claim()
    await other.settle(claimed.id, claimed.token, Move.COMPLETE)
    await other.reap()
    await other.call("DEL", f"request:{claimed.id}")


async def test_entry_read_long_ago_is_not_delivered_again(rig: Rig, other: Rig) -> None:
    """A sweep goes on after a minute's suspension: another has delivered its child, which has run and is remembered by nothing."""
    parent = await begin(rig)
    await complete(rig, parent, [await rig.child(parent.id, parent.token, queue="other", retention_ms=0)])

    read = await rig.sweep_outbox()
    await rig.deliver(await rig.sweep_outbox())
    await run_once(other)
    await rig.deliver(read)

    assert await other.claim() == []


async def test_delivery_that_comes_late_stores_nothing(rig: Rig, other: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is suspended after its last look at the outbox: what is done meanwhile is not done again, and it may try again."""
    parent = await begin(rig)
    child = await rig.child(parent.id, parent.token, queue="other", retention_ms=0)
    await complete(rig, parent, [child])
    outbox = rig.store.outbox
    look = outbox._standing

    async def look_and_sleep(*args: Any) -> object:
        seen = await look(*args)
        monkeypatch.setattr(outbox, "_standing", look)
        await rig.deliver([child])
        await other.advance(30_001)
        await run_once(other)
        return seen

    monkeypatch.setattr(outbox, "_standing", look_and_sleep)
    with pytest.raises(StoreUnavailableError, match="late"):
        await rig.deliver([child])
    await rig.deliver([child])

    assert await other.claim() == []


async def test_delivery_may_be_repeated_even_when_the_child_is_gone(rig: Rig, other: Rig) -> None:
    """A child that has run and been removed is not made again by whoever died before it emptied the outbox."""
    parent = await begin(rig)
    child = await rig.child(parent.id, parent.token, queue="other")
    await complete(rig, parent, [child])
    entry = await rig.call("HGET", "outbox", child.id)

    await rig.deliver([child])
    (claimed,) = await other.claim()
    await other.settle(claimed.id, claimed.token, Move.COMPLETE)
    await other.store.lifecycle.delete(rig.namespace, child.id)
    await rig.call("HSET", "outbox", child.id, entry)
    await rig.deliver(await rig.sweep_outbox())

    assert await other.claim() == []
    assert await rig.kept() == []
    with pytest.raises(JobNotFoundError):
        await rig.get(child.id)


async def test_attempt_that_lost_its_lease_leaves_no_children(rig: Rig, other: Rig) -> None:
    """A stale outcome is refused with all that it would have submitted; byte for byte nothing has changed."""
    parent = await begin(rig)
    children = [await rig.child(parent.id, parent.token, queue=queue) for queue in ("default", "other")]
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    before = await rig.dump()

    word = await complete(rig, parent, children)

    assert word == "STALE_LEASE"
    assert await rig.dump() == before


async def test_outcome_written_twice_makes_its_children_once(rig: Rig, other: Rig) -> None:
    """A settle whose reply was lost is repeated, and changes nothing."""
    parent = await begin(rig)
    child = await rig.child(parent.id, parent.token)
    await complete(rig, parent, [child])
    (claimed,) = await rig.claim()
    await rig.settle(claimed.id, claimed.token, Move.COMPLETE)
    await rig.store.lifecycle.delete(rig.namespace, child.id)
    before = await rig.dump()

    word = await complete(rig, parent, [child])

    assert word == "ALREADY"
    assert await rig.dump() == before


@pytest.mark.parametrize("queue", ["default", "other"])
async def test_child_whose_unique_key_is_held_is_dropped(rig: Rig, other: Rig, queue: str) -> None:
    """The parent completes, its other children come to be, and the log tells of the one that does not."""
    target = rig if queue == rig.queue else other
    parent = await begin(rig)
    holder = await target.submit(unique_key="k")
    refused, taken = [await rig.child(parent.id, parent.token, queue=queue, unique_key=key) for key in ("k", "free")]

    with capture_logs() as logs:
        word = await complete(rig, parent, [refused, taken])
        await rig.deliver(await rig.sweep_outbox())

    assert word == "completed"
    assert [(line["event"], line["job_id"], line["reason"], line["held_by"]) for line in logs] == [
        ("child.dropped", refused.id, "UNIQUE_HELD", holder)
    ]
    assert await target.state(taken.id) is JobState.ENQUEUED
    with pytest.raises(JobNotFoundError):
        await rig.get(refused.id)


async def test_only_a_hundred_children_are_stored_at_once(rig: Rig, other: Rig) -> None:
    """What is beyond goes by the outbox, whichever queue it is for, so that no call does more than a batch."""
    parent = await begin(rig)
    children = [await rig.child(parent.id, parent.token) for _ in range(230)]

    await complete(rig, parent, children)
    waiting = await rig.store.link.call("ZCARD", f"gopher:{{{rig.namespace}:default}}:enqueued:normal")
    kept = await rig.kept()
    await rig.deliver(parted(children, rig.queue)[1])

    assert waiting == 100
    assert kept == [child.id for child in children[100:]]
    assert [job.id for job in [*await rig.claim(100), *await rig.claim(100), *await rig.claim(100)]] == [
        child.id for child in children
    ]


async def test_sweep_reads_large_children_in_replies_of_a_bounded_size(rig: Rig, other: Rig) -> None:
    """What the reply of a walk has no room for is read by itself, and is delivered with the rest, byte for byte."""
    parent = await begin(rig)
    payload = b"x" * 1_000_000
    children = [await rig.child(parent.id, parent.token, queue="other", payload=payload) for _ in range(8)]
    await complete(rig, parent, children)

    _, _, *rows = await Script.load("sweep_outbox")(rig.store.link, [keys.settings(rig.namespace, rig.queue)], [0, 25])
    found = await rig.sweep_outbox()
    await rig.deliver(found)

    assert 4_000_000 < sum(len(part) for row in rows for part in row) < 6_000_000
    assert {child.id: child.entry for child in found} == {child.id: child.entry for child in children}
    assert [(await other.get(child.id)).payload == payload for child in children] == [True] * 8
    assert await rig.kept() == []


async def test_sweep_leaves_what_has_no_outcome_and_drops_what_will_have_none(rig: Rig, other: Rig) -> None:
    """Entries that a script cut short has left count only when their attempt completes the job."""
    parent = await begin(rig)
    child = await rig.child(parent.id, parent.token, queue="other")
    await rig.call("HSET", "outbox", child.id, child.entry)
    await rig.call("HSET", "outbox", "damaged", b"\xff")

    running = await rig.sweep_outbox()
    kept = await rig.kept()
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    lost = await rig.sweep_outbox()

    assert (running, kept) == ([], [child.id])
    assert (lost, await rig.kept()) == ([], [])


async def test_children_outlive_the_record_of_their_parent(rig: Rig, other: Rig) -> None:
    """A parent that is deleted, or kept for no time at all, has completed all the same."""
    parent = await begin(rig)
    child = await rig.child(parent.id, parent.token, queue="other")
    await complete(rig, parent, [child])
    await rig.store.lifecycle.delete(rig.namespace, parent.id)

    await rig.deliver(await rig.sweep_outbox())

    assert await other.state(child.id) is JobState.ENQUEUED


async def test_reserve_refuses_a_type_that_no_worker_has_registered(rig: Rig, other: Rig) -> None:
    """A child that nobody could run is refused where it is submitted."""
    with pytest.raises(UnknownTypeError):
        await rig.store.outbox.reserve(rig.namespace, NewJob(type="nobodys"))


async def test_full_redis_takes_outcomes_with_children_and_delivers_those_of_other_queues_later(
    redis_server: RedisServer, namespace: str, nursery: trio.Nursery
) -> None:
    """An outcome never waits for room; what would be one job more in another queue does, and is lost to nobody."""
    store = Store(redis_server.url, client_name="test")
    await nursery.start(store.run)
    rig, other = Rig(store, namespace), Rig(store, namespace, "other")
    await store.registry.add_types(namespace, ["email"])
    parent = await begin(rig)
    near, far = [await rig.child(parent.id, parent.token, queue=queue) for queue in ("default", "other")]
    await store.link.call("CONFIG", "SET", "maxmemory", 1)

    word = await complete(rig, parent, [near, far])
    with pytest.raises(StoreFullError):
        await rig.deliver([far])
    kept = await rig.kept()
    await store.link.call("CONFIG", "SET", "maxmemory", 0)
    await rig.deliver(await rig.sweep_outbox())

    assert (word, kept) == ("completed", [far.id])
    assert [await rig.state(near.id), await other.state(far.id)] == [JobState.ENQUEUED] * 2
