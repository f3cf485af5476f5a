"""Lua does not roll back, and workers die: wherever the way of children is cut short, all of them come to be, each once, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gopher.errors import JobNotFoundError, ScriptReplyError
from gopher.job import JobState, Move
from tests.store.rig import LEASE_MS, Rig
from tests.store.test_interruptions import MOST_WRITES, cut_short

if TYPE_CHECKING:
    from gopher.store.codec import ClaimedJob
    from gopher.store.outbox import Child

QUEUES: Final = ("default", "other", "default", "other")


@pytest.fixture
async def other(rig: Rig) -> Rig:
    """A second queue of the same namespace and clock."""
    await rig.store.registry.add_types(rig.namespace, ["email"])
    return Rig(rig.store, rig.namespace, "other")


async def begin(rig: Rig, other: Rig) -> tuple[ClaimedJob, list[Child]]:
    """Make both queues anew; return a parent whose attempt runs, and what it has submitted."""
    for each in (rig, other):
        await each.clear()
        await each.set_clock()
    await rig.submit(unique_key="parent")
    (parent,) = await rig.claim()
    return parent, await brood(rig, parent)


async def brood(rig: Rig, parent: ClaimedJob) -> list[Child]:
    return [
        await rig.child(parent.id, parent.token, queue=queue, unique_key=f"child {at}", payload=b"%d" % at)
        for at, queue in enumerate(QUEUES)
    ]


async def is_settled(rig: Rig, parent: ClaimedJob, children: list[Child], at: int) -> bool:
    """Complete the parent, with the script cut short at a write; return whether it made fewer writes."""
    lifecycle = rig.store.lifecycle
    whole, lifecycle._settle = lifecycle._settle, cut_short(lifecycle._settle, at)
    try:
        await rig.settle(parent.id, parent.token, Move.COMPLETE, children=children)
    except ScriptReplyError as error:
        assert "cut short" in error.message  # noqa: PT017 - any other error is a bug of the script
        return False
    finally:
        lifecycle._settle = whole
    return True


async def run_all(rig: Rig, other: Rig) -> dict[str, list[bytes]]:
    """Let workers run whatever there is, each parent submitting anew; return the payloads of the children run, by parent attempt."""
    ran: dict[str, list[bytes]] = {}
    for _ in range(4):
        await rig.deliver(await rig.sweep_outbox())
        for queue in (rig, other):
            await queue.promote()
            await queue.reap()
            for job in await queue.claim(10):
                made = job._record.get(b"parent_id")
                children = [] if made else await brood(rig, job)
                if made:
                    ran.setdefault(made.decode(), []).append(job.payload)
                await queue.settle(job.id, job.token, Move.COMPLETE, children=children)
        for queue in (rig, other):
            await queue.advance(LEASE_MS + 1)
    return ran


async def state_of(rig: Rig, job_id: str) -> JobState | None:
    try:
        return await rig.state(job_id)
    except JobNotFoundError:
        return None


async def test_settle_cut_short_anywhere_makes_all_children_once_or_none(rig: Rig, other: Rig) -> None:
    """Nobody repeats the call: either its children are all delivered by the sweep, or the parent runs again and makes its own."""
    for at in range(1, MOST_WRITES):
        parent, children = await begin(rig, other)
        is_whole = await is_settled(rig, parent, children, at)
        was_completed = await rig.state(parent.id) is JobState.COMPLETED

        ran = await run_all(rig, other)

        assert {job_id: sorted(payloads) for job_id, payloads in ran.items()} == {parent.id: [b"0", b"1", b"2", b"3"]}, at
        of_the_first = [await state_of(rig, child.id) for child in children]
        assert of_the_first == [JobState.COMPLETED if was_completed else None] * len(QUEUES), at
        assert await rig.state(parent.id) is JobState.COMPLETED
        assert await rig.kept() == []
        if is_whole:
            return
    raise AssertionError(f"settle writes more than {MOST_WRITES} times")


async def test_settle_cut_short_anywhere_may_be_repeated(rig: Rig, other: Rig) -> None:
    """The same call once more, and a sweep, make all children once."""
    for at in range(1, MOST_WRITES):
        parent, children = await begin(rig, other)
        is_whole = await is_settled(rig, parent, children, at)

        await rig.settle(parent.id, parent.token, Move.COMPLETE, children=children)
        await rig.deliver(await rig.sweep_outbox())

        assert await rig.state(parent.id) is JobState.COMPLETED
        assert [await state_of(rig, child.id) for child in children] == [JobState.ENQUEUED] * len(QUEUES), at
        assert (len(await rig.names("job:*")), len(await other.names("job:*"))) == (3, 2)
        assert await rig.kept() == []
        if is_whole:
            return
    raise AssertionError(f"settle writes more than {MOST_WRITES} times")


@pytest.mark.parametrize("has_run", [False, True])
async def test_delivery_cut_short_anywhere_may_be_repeated(rig: Rig, other: Rig, has_run: bool) -> None:
    """Whoever delivers may die at any write; the next sweep makes all children once, also when the first were run meanwhile."""
    outbox = rig.store.outbox
    whole = outbox._deliver
    for at in range(1, MOST_WRITES):
        parent, children = await begin(rig, other)
        await is_settled(rig, parent, children, MOST_WRITES)
        outbox._deliver = cut_short(whole, at)
        try:
            await rig.deliver(await rig.sweep_outbox())
            is_whole = True
        except ScriptReplyError:
            is_whole = False
        finally:
            outbox._deliver = whole
        before = [job.payload for job in await other.claim(10)] if has_run else []

        await rig.deliver(await rig.sweep_outbox())

        after = [job.payload for job in await other.claim(10)]
        assert sorted(before + after) == [b"1", b"3"], at
        assert await rig.kept() == []
        if is_whole:
            return
    raise AssertionError(f"submit writes more than {MOST_WRITES} times")
