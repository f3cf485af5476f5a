"""Orphans: children whose parent was lost, or has gone, are ended by some worker of the parent's queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from gopher.errors import StoreUnavailableError
from gopher.handlers import Registry
from gopher.job import JobState, Move, NewJob, Outcome
from gopher.runtime.inspector import Inspector
from gopher.runtime.listener import Listener
from gopher.runtime.orphans import Orphans
from gopher.runtime.promoter import Promoter
from gopher.runtime.scheduler import Scheduler
from gopher.runtime.scopes import Scopes
from gopher.store.families import Member, Start
from gopher.store.lifecycle import Lifecycle, Settlement
from tests.runtime.parts import submit
from tests.waiting import until_async

if TYPE_CHECKING:
    from gopher.runtime.claimer import Claimer
    from gopher.store.store import Store

SWEEP_SECONDS = 3600.0


class Parent:
    """A job whose attempt runs, and the children that it has started."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        self.id = ""
        self.token = 0
        self.children: list[str] = []

    async def begin(self) -> None:
        (self.id,) = await submit(self.store, self.namespace)
        claim = await self._claim("default", 1)
        ((_, self.token),) = claim

    async def _claim(self, queue: str, count: int) -> list[tuple[str, int]]:
        claim = await self.store.lifecycle.claim(
            self.namespace, queue, worker=queue, count=count, lease_ms=3_600_000, claim_id=f"{queue} {len(self.children)}"
        )
        assert claim is not None
        return [(job.id, job.token) for job in claim.jobs]

    async def start(self, *policies: str, queue: str = "default", delay_ms: int | None = 3_600_000) -> list[str]:
        """Start a child a policy and return their ids."""
        starts = []
        for number, policy in enumerate(policies, len(self.children) + 1):
            job = NewJob(type="work", queue=queue, delay_ms=delay_ms, parent_id=self.id)
            child_id = await self.store.families.reserve(self.namespace, queue)
            starts.append(Start(Member(f"{self.token}.1.{number}", child_id, policy, "-"), job))
        await self.store.families.start(self.namespace, "default", self.id, self.token, starts, "")
        if queue != "default":
            jobs = [(each.member.id, cast("NewJob", each.job)) for each in starts]
            await self.store.families.submit(self.namespace, queue, jobs)
        ids = [each.member.id for each in starts]
        self.children += ids
        return ids

    async def run_children(self, queue: str) -> None:
        """Claim the children in a queue."""
        assert await self._claim(queue, 100)

    async def go(self, move: Move = Move.COMPLETE) -> None:
        outcome = Outcome.SUCCEEDED if move is Move.COMPLETE else Outcome.RAISED
        settlement = Settlement(self.id, self.token, move, outcome, 3_600_000, b"null", b"{}")
        await self.store.lifecycle.settle(self.namespace, "default", [settlement])

    async def states(self, ids: list[str]) -> list[JobState]:
        return [(await self.store.query.get(self.namespace, job_id)).state for job_id in ids]


@pytest.fixture
async def parent(store: Store, namespace: str) -> Parent:
    made = Parent(store, namespace)
    await made.begin()
    return made


def orphans_of(store: Store, namespace: str, lifecycle: Lifecycle | None = None) -> Orphans:
    return Orphans(
        store.families, lifecycle or store.lifecycle, namespace=namespace, queue="default", sweep_seconds=SWEEP_SECONDS
    )


async def walk(orphans: Orphans) -> int:
    """Tick until there is nothing to do; return for how many parents there was."""
    ticks = 0
    while await orphans.tick() == 0.0:
        ticks += 1
    return ticks


async def test_children_are_ended_wherever_they_are(store: Store, namespace: str, parent: Parent) -> None:
    """In any queue: those that wait are cancelled, of those that run their worker is asked; those that go on alone are left."""
    here = await parent.start("cancel", "adopt")
    alone = await parent.start("detach")
    there = await parent.start("cancel", queue="other")
    running = await parent.start("cancel", queue="third", delay_ms=None)
    await parent.run_children("third")
    await parent.go()

    parents = await walk(orphans_of(store, namespace))

    assert parents == 1
    assert await parent.states([*here, *there]) == [JobState.CANCELLED] * 3
    assert await parent.states([*alone, *running]) == [JobState.SCHEDULED, JobState.PROCESSING]
    job = await store.query.get(namespace, running[0])
    assert job.cancel_reason == f"its parent {parent.id} has gone"
    assert await store.families.members(namespace, "default", parent.id) == []


async def test_children_that_have_ended_or_gone_stop_nobody(store: Store, namespace: str, parent: Parent) -> None:
    """What was never stored, too: its starter was cut short."""
    ended, gone, other = await parent.start("cancel", "cancel", "cancel")
    await store.lifecycle.cancel(namespace, ended, reason="not wanted", grace_ms=0)
    await store.lifecycle.delete(namespace, gone)
    child_id = await store.families.reserve(namespace, "other")
    lost = Start(Member(f"{parent.token}.1.9", child_id, "cancel", "-"), NewJob(type="work", queue="other"))
    await store.families.start(namespace, "default", parent.id, parent.token, [lost], "")
    await parent.go()

    await walk(orphans_of(store, namespace))

    assert await parent.states([ended, other]) == [JobState.CANCELLED] * 2
    assert await store.families.members(namespace, "default", parent.id) == []


async def test_large_family_is_walked_through_in_one_tick(store: Store, namespace: str, parent: Parent) -> None:
    """Hundreds of children of several calls."""
    for _ in range(6):
        await parent.start(*["cancel"] * 100)
    await parent.go(Move.RETRY)

    await walk(orphans_of(store, namespace))

    assert set(await parent.states(parent.children)) == {JobState.CANCELLED}
    assert await store.families.members(namespace, "default", parent.id) == []


class Cut(Lifecycle):
    """The real one, cut off from Redis for the cancel of one job."""

    def __init__(self, store: Store, job_id: str) -> None:
        super().__init__(store.link, store.registry)
        self.job_id = job_id

    async def cancel(self, namespace: str, job_id: str, *, reason: str, grace_ms: int, actor: str = "") -> JobState:
        if job_id == self.job_id:
            raise StoreUnavailableError("away", outcome_unknown=True)
        return await super().cancel(namespace, job_id, reason=reason, grace_ms=grace_ms, actor=actor)


async def test_child_that_could_not_be_ended_stays_to_be(store: Store, namespace: str, parent: Parent) -> None:
    """Its siblings are ended, and its parent is still noted: whoever comes by when that is nobody's any more ends it."""
    one, other = await parent.start("cancel", "cancel")
    await parent.go()
    lifecycle = Cut(store, one)

    with pytest.raises(StoreUnavailableError):
        await orphans_of(store, namespace, lifecycle).tick()
    states = await parent.states([one, other])
    key = f"gopher:{{{namespace}:default}}:orphans"
    noted = await store.link.call("ZRANGE", key, 0, -1)
    await store.link.call("ZADD", key, 1, parent.id)
    await walk(orphans_of(store, namespace))

    assert states == [JobState.SCHEDULED, JobState.CANCELLED]
    assert noted == [parent.id.encode()]
    assert await parent.states([one]) == [JobState.CANCELLED]


async def test_several_workers_share_the_parents(store: Store, namespace: str) -> None:
    """Each parent is one worker's at a time, and all are looked after."""
    parents = [Parent(store, namespace) for _ in range(5)]
    for number, each in enumerate(parents):
        each.children = [""] * number  # so that the ids of their claims differ
        await each.begin()
        each.children = []
        await each.start("cancel", "cancel")
        await each.go()
    counts: list[int] = []

    async def work() -> None:
        counts.append(await walk(orphans_of(store, namespace)))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work)

    assert sum(counts) == 5
    for each in parents:
        assert await each.states(each.children) == [JobState.CANCELLED] * 2


async def test_workers_are_told_of_orphans_at_once(store: Store, namespace: str, parent: Parent, nursery: trio.Nursery) -> None:
    """By the script that makes them: nobody waits for a sweep."""
    await parent.start("cancel")
    orphans = orphans_of(store, namespace)
    claimer = cast("Claimer", None)
    listener = Listener(
        control=store.control,
        namespace=namespace,
        queue="default",
        claimer=claimer,
        promoter=Promoter(store.lifecycle, namespace=namespace, queue="default", poll_seconds=3600),
        scheduler=Scheduler(store.schedules, namespace=namespace, queue="default"),
        scopes=Scopes(),
        orphans=orphans,
        inspector=Inspector(store.trees, Registry(), Scopes(), namespace=namespace, queue="default"),
        drain=lambda _worker, _grace: None,
    )
    await listener.start()
    await nursery.start(orphans.run)
    await trio.testing.wait_all_tasks_blocked(0.05)

    await parent.go(Move.BURY)

    async def are_ended() -> bool:
        return await parent.states(parent.children) == [JobState.CANCELLED]

    await until_async(are_ended)
