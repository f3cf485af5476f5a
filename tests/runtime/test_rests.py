"""Rests: attempts give up their slot while they wait for children, and no more handlers run code than there are slots."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gopher.job import JobState, NewJob
from gopher.runtime.rests import Rests
from gopher.store.submission import SubmitReceipt
from tests.runtime.rig import attempt_of, claimed_job
from tests.waiting import until

if TYPE_CHECKING:
    import gopher
    from gopher.runtime.scopes import RunningAttempt
    from tests.runtime.home import Home


class House:
    """Rests, and how often something of them has changed."""

    def __init__(self) -> None:
        self.changes = 0
        self.rests = Rests(self._count)
        self.back: list[RunningAttempt] = []

    def _count(self) -> None:
        self.changes += 1

    async def rest(self, attempt: RunningAttempt, end: trio.Event) -> None:
        async with self.rests.resting(attempt):
            await end.wait()
        self.back.append(attempt)


def attempt() -> RunningAttempt:
    return attempt_of(claimed_job())


async def test_attempt_that_rests_goes_on_when_there_is_a_slot(nursery: trio.Nursery) -> None:
    """It counts as one without until it is admitted; the claimer is told when a slot is free, and when one is wanted."""
    house, end, one = House(), trio.Event(), attempt()
    nursery.start_soon(house.rest, one, end)
    await wait_all_tasks_blocked()
    seen = [(house.rests.count, house.rests.are_returning, house.changes, one.rests)]

    end.set()
    await wait_all_tasks_blocked()
    house.rests.admit(0)
    await wait_all_tasks_blocked()
    seen.append((house.rests.count, house.rests.are_returning, house.changes, one.rests))
    house.rests.admit(1)
    await wait_all_tasks_blocked()
    seen.append((house.rests.count, house.rests.are_returning, house.changes, one.rests))

    assert seen == [(1, False, 1, 1), (1, True, 2, 1), (0, False, 2, 0)]
    assert house.back == [one]


async def test_attempts_go_on_in_the_order_in_which_they_want_to(nursery: trio.Nursery) -> None:
    """As many at once as there are slots."""
    house, ends, attempts = House(), [trio.Event() for _ in range(3)], [attempt() for _ in range(3)]
    for each, end in zip(attempts, ends, strict=True):
        nursery.start_soon(house.rest, each, end)
        await wait_all_tasks_blocked()
    for place in (2, 0, 1):
        ends[place].set()
        await wait_all_tasks_blocked()

    house.rests.admit(2)
    await wait_all_tasks_blocked()
    first = [*house.back]
    house.rests.admit(5)
    await wait_all_tasks_blocked()

    assert {*map(id, first)} == {id(attempts[2]), id(attempts[0])}
    assert house.back[2] is attempts[1]
    assert house.rests.count == 0


async def test_attempt_with_several_blocks_has_one_slot(nursery: trio.Nursery) -> None:
    """It gives it up once, and wants it again when the last of its blocks has ended; the others go on at once."""
    house, ends, one = House(), [trio.Event() for _ in range(3)], attempt()
    for end in ends:
        nursery.start_soon(house.rest, one, end)
    await wait_all_tasks_blocked()
    counts = [house.rests.count]

    for end in ends:
        end.set()
        await wait_all_tasks_blocked()
        counts.append((house.rests.count, len(house.back)))  # type: ignore[arg-type] # pairs, after the first count
    house.rests.admit(1)
    await wait_all_tasks_blocked()

    assert counts == [1, (1, 1), (1, 2), (1, 2)]
    assert (house.rests.count, len(house.back), one.rests) == (0, 3, 0)


async def test_attempt_that_rests_again_before_it_was_admitted_takes_no_slot(nursery: trio.Nursery) -> None:
    """Of two blocks, one wants to go on while the other begins: the slot is left to the next."""
    house, first, second, one, other = House(), trio.Event(), trio.Event(), attempt(), attempt()
    nursery.start_soon(house.rest, one, first)
    await wait_all_tasks_blocked()
    first.set()
    await wait_all_tasks_blocked()
    nursery.start_soon(house.rest, one, second)
    nursery.start_soon(house.rest, other, first)
    await wait_all_tasks_blocked()

    house.rests.admit(1)
    await wait_all_tasks_blocked()

    assert {*map(id, house.back)} == {id(one), id(other)}
    assert (house.rests.count, one.rests, other.rests) == (1, 1, 0)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_waiting_for_a_slot", [False, True])
async def test_cancelled_attempt_goes_on_without_waiting_for_a_slot(nursery: trio.Nursery, is_waiting_for_a_slot: bool) -> None:
    """To clean up; it counts as one with a slot again, and nobody waits for one."""
    house, end, one = House(), trio.Event(), attempt()
    if is_waiting_for_a_slot:
        end.set()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(house.rest, one, end)
            await wait_all_tasks_blocked()
            scope.cancel()

    assert (house.rests.count, house.rests.are_returning, one.rests, house.back) == (0, False, 0, [])


async def test_attempt_that_is_admitted_and_cancelled_at_once_is_counted_once(nursery: trio.Nursery) -> None:
    """The admission came first: its slot is its own until the handler has ended."""
    house, end, one = House(), trio.Event(), attempt()
    end.set()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(house.rest, one, end)
            await wait_all_tasks_blocked()
            house.rests.admit(1)
            scope.cancel()

    assert (house.rests.count, house.rests.are_returning, one.rests) == (0, False, 0)


# --- in a whole worker --------------------------------------------------------------------------------------------------------------


def plant(home: Home, *, seed: int) -> None:
    """Register `node`: opens nurseries of nodes and leaves, at random, and counts as running code whenever it may."""
    chance = random.Random(seed)

    @home.registry.handler("node")
    async def node(job: gopher.JobContext, payload: int) -> int:
        home.code.enter()
        count = 1
        try:
            for _ in range(chance.randint(1, 2)):
                for _ in range(chance.randint(0, 3)):
                    await trio.lowlevel.checkpoint()
                async with job.open_nursery() as nursery:
                    children = [
                        nursery.start_soon("node", payload - 1)
                        if payload and chance.random() < 0.6
                        else nursery.start_soon("leaf", 1)
                        for _ in range(chance.randint(0, 3))
                    ]
                    home.code.leave()
                home.code.enter()
                count += sum([int(str(await child.result())) for child in children])
        finally:
            home.code.leave()
        return count


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_no_more_handlers_run_code_than_there_are_slots(home: Home, slots: int, seed: int) -> None:
    """Whatever trees there are, and with jobs of no tree between them; all of them end."""
    plant(home, seed=seed)

    async with home.working(home.worker(slots=slots)):
        ids = [job_id for _ in range(3) for job_id in (await home.submit("node", 3), await home.submit("leaf"))]
        jobs = [await home.final(job_id) for job_id in ids]

    nodes = await home.jobs("node")
    assert {job.state for job in jobs} == {job.state for job in nodes} == {JobState.COMPLETED}
    assert 0 < home.code.most <= slots
    assert home.code.running == 0
    assert await home.families() == []
    assert await home.findings() == []


async def test_parent_goes_on_before_jobs_that_wait_in_line(home: Home) -> None:
    """When its child has ended it has the next slot that there is, though hundreds wait."""
    order: list[str] = []

    @home.registry.handler("child")
    async def child(job: gopher.JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        order.append("child")

    @home.registry.handler("other")
    async def other(job: gopher.JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        order.append("other")

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("child")
        order.append("parent")

    job_id = await home.submit()
    for _ in range(300):
        await home.submit("other")
    async with home.working(home.worker(slots=1)):
        await home.final(job_id)
        await home.all_final("other")
    between = order[order.index("child") + 1 : order.index("parent")]

    # The news of the child's end may come just after the slot was given to another.
    assert len(between) <= 2
    assert len(order) == 302


async def test_branch_of_a_tree_is_finished_before_the_next_is_begun(home: Home) -> None:
    """Or a worker would hold all parents of a wide tree at once: also of trees that were submitted together."""
    held: list[int] = []

    @home.registry.handler("node")
    async def node(job: gopher.JobContext, payload: list[int]) -> None:
        held.append(len(worker._scopes))
        async with job.open_nursery() as nursery:
            for _ in range(payload[0] if payload else 0):
                nursery.start_soon("node", payload[1:])

    worker = home.worker(slots=1)
    jobs = [NewJob(type="node", payload=b"[4,3,2]") for _ in range(5)]
    roots = [
        answer.job_id for answer in await home.store.lifecycle.submit(home.namespace, jobs) if isinstance(answer, SubmitReceipt)
    ]
    async with home.working(worker):
        finals = [await home.final(job_id) for job_id in roots]

    # Its four levels, and what has ended and is not yet written.
    assert max(held) <= 8
    assert {job.state for job in finals} == {JobState.COMPLETED}
    assert len(held) == 5 * (1 + 4 + 12 + 24)


async def test_parents_go_on_when_slots_are_added_or_taken_away(home: Home) -> None:
    """A worker that adapts its slots lets as many go on as it has then."""
    opened = trio.Event()

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("leaf")
            await opened.wait()
        with home.code.section():
            await trio.lowlevel.checkpoint()

    worker = home.worker(slots=4)
    async with home.working(worker):
        ids = [await home.submit() for _ in range(4)]
        await until(lambda: len(worker._scopes) == 4)
        worker._claimer.resize(1)
        home.code.most = 0
        opened.set()
        jobs = [await home.final(job_id) for job_id in ids]
        worker._claimer.resize(3)
        again = [await home.final(await home.submit()) for _ in range(2)]

    assert {job.state for job in [*jobs, *again]} == {JobState.COMPLETED}
    assert home.code.most == 1


async def test_register_counts_no_resting_attempt_as_busy(home: Home) -> None:
    """Whoever looks at the worker sees the slots that handlers run in."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("sleep")

    worker = home.worker(slots=1)
    async with home.working(worker):
        job_id = await home.submit()
        await until(lambda: bool(home.begun))
        busy = worker._describe().busy
        await home.cancel(job_id)
        await home.final(job_id)

    assert busy == 1


async def test_suspects_wait_for_no_suspect_that_rests(home: Home) -> None:
    """A parent and a child, both lost with two workers before: on one worker the parent waits for the child, not the child for it."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            child = await nursery.start("leaf", delay_seconds=3600)
            await home.store.link.call("HSET", _job_key(home, child.id or ""), "crashes", 2)
            await home.store.lifecycle.requeue(home.namespace, [child.id or ""])

    job_id = await home.submit()
    await home.store.link.call("HSET", _job_key(home, job_id), "crashes", 2)
    async with home.working(home.worker(slots=2)):
        job = await home.final(job_id)

    assert job.state is JobState.COMPLETED


def _job_key(home: Home, job_id: str) -> str:
    from gopher.store import keys

    return keys.job(home.namespace, "default", job_id)
