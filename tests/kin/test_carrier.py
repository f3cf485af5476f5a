"""The carrier: brings children to Redis in batches, hears of their ends, and leaves none alone whatever comes between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher.errors import ScriptReplyError, StoreFullError, StoreUnavailableError
from gopher.job import JobState, Move, Outcome
from gopher.kin.carrier import Carrier
from gopher.store import keys
from gopher.store.families import Families
from gopher.store.lifecycle import Settlement
from tests.kin.family import ParentByHand, add, kin_of, states
from tests.runtime.parts import lose_lease, submit
from tests.waiting import PATIENCE_SECONDS, until, until_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gopher.errors import GopherError
    from gopher.job import NewJob
    from gopher.kin.kin import Kin
    from gopher.store.families import Start, Started
    from gopher.store.store import Store
    from gopher.store.submission import SubmitReceipt

LEASE_MS = 3_600_000


class Ways(Families):
    """The real ones, whose calls a test may hold up or rob of their replies.

    Attributes:
        starts: How many children each call had.
        gate: Waited for before children of other queues are submitted.
        lose_submit: So many of the next submits are carried out, and their replies lost.
        cut_off: The queue that cannot be reached; empty for none.
        lose_with: Done after the next call that stores children, whose reply is lost.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.link, store.registry)
        self.starts: list[int] = []
        self.gate = trio.Event()
        self.gate.set()
        self.lose_submit = 0
        self.cut_off = ""
        self.lose_with: Callable[[], Awaitable[None]] | None = None

    async def start(
        self, namespace: str, queue: str, parent_id: str, token: int, starts: Sequence[Start], line_ms: str
    ) -> Started | None:
        self.starts.append(len(starts))
        started = await super().start(namespace, queue, parent_id, token, starts, line_ms)
        if any(start.job is not None and start.job.queue == queue for start in starts):
            await self._lose_reply()
        return started

    async def _lose_reply(self) -> None:
        if self.lose_with is not None:
            act, self.lose_with = self.lose_with, None
            await act()
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)

    async def submit(self, namespace: str, queue: str, jobs: Sequence[tuple[str, NewJob]]) -> list[SubmitReceipt | GopherError]:
        await self.gate.wait()
        if queue == self.cut_off:
            raise StoreUnavailableError("the connection was lost", outcome_unknown=True)
        answers = await super().submit(namespace, queue, jobs)
        await self._lose_reply()
        if self.lose_submit:
            self.lose_submit -= 1
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)
        return answers


@pytest.fixture
def ways(store: Store) -> Ways:
    made = Ways(store)
    store.families = made
    return made


@pytest.fixture
async def carrier(store: Store, ways: Ways, namespace: str, nursery: trio.Nursery) -> Carrier:
    """One that serves, in a namespace that knows the type `work`."""
    await store.registry.add_types(namespace, ["work"])
    made = Carrier(store)
    await nursery.start(made.run)
    return made


async def parent_of(store: Store, namespace: str) -> ParentByHand:
    """Return a parent whose attempt runs."""
    await submit(store, namespace)
    claim = await store.lifecycle.claim(namespace, "default", worker="w", count=1, lease_ms=LEASE_MS, claim_id="c")
    assert claim is not None
    return ParentByHand(claim.jobs[0].id, claim.jobs[0].token, namespace)


async def open_kin(carrier: Carrier, store: Store, namespace: str, *, policy: str = "all") -> Kin:
    kin = kin_of(carrier, await parent_of(store, namespace), policy=policy)
    carrier.take(kin)
    return kin


async def ended(kin: Kin) -> None:
    """Wait until all children have ended."""
    with trio.fail_after(PATIENCE_SECONDS):
        await kin.wait_ended()


async def all_stored(kin: Kin) -> None:
    await until(lambda: all(child.is_stored or child.state is not None for child in kin.children))


async def job_count(store: Store, namespace: str) -> int:
    """Return how many jobs there are besides the parent."""
    return len(await store.link.call("KEYS", f"gopher:{{{namespace}:*:job:*")) - 1


async def state_of(store: Store, namespace: str, job_id: str | None) -> JobState:
    return (await store.query.get(namespace, job_id or "")).state


def followed(carrier: Carrier) -> int:
    """Return how many jobs are followed."""
    return sum(len(each.tells) for each in carrier._endings._queues.values())


async def finish(carrier: Carrier, kin: Kin) -> None:
    """End what is left, so that the test leaves nothing behind."""
    kin.cancel()
    await ended(kin)
    carrier.let_go(kin)
    parent = kin.parent
    await carrier._families.leave(parent.namespace, parent.queue, parent.id, [kin.place(child) for child in kin.children])


async def test_children_leave_in_batches_and_in_order(carrier: Carrier, store: Store, ways: Ways, namespace: str) -> None:
    """A hundred a call, or a MiB of them; of two nurseries by turns."""
    kin = await open_kin(carrier, store, namespace)
    for _ in range(250):
        add(kin, delay_ms=1000)
    await all_stored(kin)
    many = list(ways.starts)
    for _ in range(5):
        add(kin, b"x" * 300_000, delay_ms=1000)
    await all_stored(kin)

    assert many[-3:] == [100, 100, 50] or sum(many) == 250
    assert ways.starts[len(many) :][0] <= 3
    assert [child.id or "" for child in kin.children] == sorted(child.id or "" for child in kin.children)
    assert await job_count(store, namespace) == 255
    await finish(carrier, kin)
    assert followed(carrier) == 0


async def test_nursery_cancelled_while_redis_is_asked_stores_nothing(
    carrier: Carrier, store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has ended as far as its block knows, which may have gone on: it must not come to be after that."""
    kin = await open_kin(carrier, store, namespace)
    asked, answer = trio.Event(), trio.Event()

    async def is_known_type(_namespace: str, _type: str) -> bool:
        asked.set()
        await answer.wait()
        return True

    monkeypatch.setattr(store.registry, "is_known_type", is_known_type)
    child = add(kin)
    await asked.wait()
    kin.cancel()
    ended = child.state
    answer.set()
    await until(lambda: not kin.unsent)

    assert ended is JobState.CANCELLED
    assert await job_count(store, namespace) == 0
    carrier.let_go(kin)


async def test_child_cancelled_on_its_way_is_cancelled_when_it_has_arrived(
    carrier: Carrier, store: Store, ways: Ways, namespace: str
) -> None:
    """Its block waits for that."""
    kin = await open_kin(carrier, store, namespace)
    ways.gate = trio.Event()
    child = add(kin, queue="other")
    await until(lambda: bool(ways.starts))

    kin.cancel()
    before = child.state
    ways.gate.set()
    await ended(kin)

    assert before is None
    assert (child.state, await state_of(store, namespace, child.id)) == (JobState.CANCELLED, JobState.CANCELLED)
    await finish(carrier, kin)


async def test_child_of_another_queue_does_not_outlive_a_walk_that_overtook_it(
    carrier: Carrier, store: Store, ways: Ways, namespace: str
) -> None:
    """Its parent was lost between the two calls, and whoever ended its children found nothing there to end."""
    kin = await open_kin(carrier, store, namespace)
    lost: list[bool] = []
    kin.on_lost = lambda: lost.append(True)
    ways.gate = trio.Event()
    child = add(kin, queue="other")
    await until(lambda: bool(ways.starts))
    await lose_lease(store, await store.query.get(namespace, kin.parent.id))
    step = await ways.take_orphans(namespace, "default")
    assert step is not None
    await ways.leave(namespace, "default", step.parent_id, [place for place, _ in step.members], reservation=step.reservation)

    carrier.let_go(kin)
    ways.gate.set()

    async def is_cancelled() -> bool:
        return child.is_stored and await state_of(store, namespace, child.id) is JobState.CANCELLED

    await until_async(is_cancelled)
    assert lost == [True]


async def test_child_stored_by_a_call_without_reply_does_not_outlive_its_parent(
    carrier: Carrier, store: Store, ways: Ways, namespace: str
) -> None:
    """The second try learns that the parent is lost: what the first may have done in another queue is undone."""
    kin = await open_kin(carrier, store, namespace)
    lost: list[bool] = []
    kin.on_lost = lambda: lost.append(True)
    ways.gate, ways.lose_submit = trio.Event(), 1
    here, there = add(kin), add(kin, queue="other")
    await until(lambda: bool(ways.starts))
    await lose_lease(store, await store.query.get(namespace, kin.parent.id))
    step = await ways.take_orphans(namespace, "default")
    assert step is not None
    for _, child_id in step.members:
        if child_id == here.id:
            await store.lifecycle.cancel(namespace, child_id, reason="gone", grace_ms=0)
    await ways.leave(namespace, "default", step.parent_id, [place for place, _ in step.members], reservation=step.reservation)

    ways.gate.set()
    await ended(kin)

    assert lost == [True]
    assert states(kin) == [JobState.CANCELLED] * 2
    assert await state_of(store, namespace, there.id) is JobState.CANCELLED
    carrier.let_go(kin)


async def test_lost_replies_store_no_child_twice(carrier: Carrier, store: Store, ways: Ways, namespace: str) -> None:
    """The same ids are submitted again."""
    kin = await open_kin(carrier, store, namespace)
    ways.lose_submit = 2

    children = [add(kin, queue="other", delay_ms=1000), add(kin, delay_ms=1000)]
    await all_stored(kin)

    assert len(ways.starts) == 3
    assert [child.error for child in children] == [None, None]
    assert await job_count(store, namespace) == 2
    await finish(carrier, kin)


@pytest.mark.leaves_keys
async def test_children_that_redis_cannot_take_are_refused_and_others_served(
    carrier: Carrier, store: Store, namespace: str
) -> None:
    """A damaged index fails the children of its call; it stops neither the nursery nor another."""
    kin, other = await open_kin(carrier, store, namespace, policy="collect"), None
    await store.link.call("SET", f"{keys.queue(namespace, 'default')}scheduled", "damaged")

    bad = add(kin, delay_ms=1000)
    await ended(kin)
    other = await open_kin(carrier, store, namespace)
    good = add(other, queue="other", delay_ms=1000)
    await all_stored(other)

    assert isinstance(bad.error, ScriptReplyError)
    assert (bad.state, good.state, good.is_stored) == (JobState.FAILED, None, True)
    await finish(carrier, other)
    carrier.let_go(kin)


@pytest.mark.parametrize("queue", ["default", "other"])
async def test_child_that_is_kept_no_more_runs_once_though_the_reply_was_lost(
    carrier: Carrier, store: Store, ways: Ways, namespace: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its parent's queue or another's: it has run and is gone when it is said again, and the nursery takes it for completed."""
    # The connection that has lost the reply has lost the word of its end with it.
    monkeypatch.setattr("gopher.store.endings._Followed.receive", lambda _followed, _message: None)
    kin = await open_kin(carrier, store, namespace)
    ran: list[str] = []

    async def run_there() -> None:
        claim = await store.lifecycle.claim(namespace, queue, worker="w", count=9, lease_ms=LEASE_MS, claim_id=f"c{len(ran)}")
        for job in claim.jobs if claim is not None else ():
            ran.append(job.id)
            done = Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, result=b"1")
            await store.lifecycle.settle(namespace, queue, [done])
        await store.lifecycle.reap(namespace, queue)

    ways.lose_with = run_there
    child = add(kin, queue=queue, retention_ms=0)
    await ended(kin)
    await run_there()

    assert ran == [child.id]
    assert (child.state, await kin.errors()) == (JobState.COMPLETED, [])
    await finish(carrier, kin)


async def test_nursery_whose_children_cannot_be_stored_holds_up_no_other(
    carrier: Carrier, store: Store, ways: Ways, namespace: str
) -> None:
    """While its call fails time and again, another nursery's children are stored, and cancelled; its own follow when it may."""
    ways.cut_off = "other"
    delayed, free = await open_kin(carrier, store, namespace), await open_kin(carrier, store, namespace)
    waiting = add(delayed, queue="other", delay_ms=1000)
    await until(lambda: len(ways.starts) > 1)

    child = add(free, delay_ms=1000)
    await all_stored(free)
    free.cancel()
    await ended(free)
    is_stored_before = waiting.is_stored
    ways.cut_off = ""
    await all_stored(delayed)

    assert (child.state, is_stored_before, waiting.error) == (JobState.CANCELLED, False, None)
    await finish(carrier, free)
    await finish(carrier, delayed)


@pytest.mark.leaves_keys
async def test_child_whose_queue_cannot_be_made_is_refused_and_no_other(carrier: Carrier, store: Store, namespace: str) -> None:
    """Its error says why; the children beside it and behind it are stored."""
    kin = await open_kin(carrier, store, namespace, policy="collect")
    await store.link.call("SET", keys.queues(namespace), "damaged")

    before, refused, after = add(kin, delay_ms=1000), add(kin, queue="new", delay_ms=1000), add(kin, delay_ms=1000)
    await all_stored(kin)

    assert isinstance(refused.error, ScriptReplyError)
    assert [child.is_stored for child in (before, refused, after)] == [True, False, True]
    await finish(carrier, kin)


@pytest.mark.leaves_keys
async def test_queue_that_cannot_take_children_refuses_its_own_alone(carrier: Carrier, store: Store, namespace: str) -> None:
    """Of three queues in one call the damaged one's child is refused; the others are stored."""
    kin = await open_kin(carrier, store, namespace, policy="collect")
    await store.link.call("SET", f"{keys.queue(namespace, 'damaged')}scheduled", "damaged")

    children = [add(kin, queue=queue, delay_ms=1000) for queue in ("before", "damaged", "behind")]
    await all_stored(kin)

    assert [child.is_stored for child in children] == [True, False, True]
    assert isinstance(children[1].error, ScriptReplyError)
    await finish(carrier, kin)


async def test_full_redis_refuses_children(carrier: Carrier, store: Store, ways: Ways, namespace: str) -> None:
    """Their block is told, and may start others later."""
    kin = await open_kin(carrier, store, namespace, policy="collect")

    async def is_full(*_: object) -> Started | None:
        await trio.lowlevel.checkpoint()
        raise StoreFullError("redis has reached its maxmemory")

    whole, ways.start = ways.start, is_full  # type: ignore[method-assign, assignment] # the fault that is tested
    refused = add(kin)
    await ended(kin)
    ways.start = whole  # type: ignore[method-assign] # as it was
    taken = add(kin, delay_ms=1000)
    await all_stored(kin)

    assert isinstance(refused.error, StoreFullError)
    assert (taken.error, taken.is_stored) == (None, True)
    await finish(carrier, kin)


async def test_kin_that_is_let_go_of_is_followed_no_more(carrier: Carrier, store: Store, namespace: str) -> None:
    """What it had not sent is never stored, and whoever waits for that goes on."""
    kin = await open_kin(carrier, store, namespace)
    child = add(kin, delay_ms=1000)
    await all_stored(kin)
    counts = [followed(carrier)]

    carrier.let_go(kin)
    unsent = add(kin)
    with trio.fail_after(PATIENCE_SECONDS):
        await unsent.wait_stored()
    counts.append(followed(carrier))

    assert counts == [1, 0]
    assert unsent.state is JobState.CANCELLED
    assert await job_count(store, namespace) == 1
    assert await state_of(store, namespace, child.id) is JobState.SCHEDULED


async def test_ends_that_were_missed_are_found_by_a_look(carrier: Carrier, store: Store, namespace: str) -> None:
    """After a reconnect; nothing is left to be followed for them."""
    kin = await open_kin(carrier, store, namespace, policy="collect")
    child, other = add(kin, delay_ms=1000), add(kin, delay_ms=1000)
    await all_stored(kin)
    endings = carrier._endings._queues.values()
    tells = [each.tells.copy() for each in endings]
    for each in endings:
        each.tells.clear()
    await store.lifecycle.cancel(namespace, child.id or "", reason="not wanted", grace_ms=0)
    await store.lifecycle.delete(namespace, other.id or "")
    for each, kept in zip(endings, tells, strict=True):
        each.tells.update(kept)

    for hook in store.link.on_reconnect:
        hook()
    await ended(kin)

    assert states(kin) == [JobState.CANCELLED, JobState.FAILED]
    assert followed(carrier) == 0
    await finish(carrier, kin)
