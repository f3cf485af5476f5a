"""Following a job: nothing is missed while the connection stands, and nobody pays for anybody else."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher.errors import JobNotFoundError
from gopher.job import JobState, Move
from gopher.store import keys
from gopher.store.events import Follower, JobChange
from gopher.store.ids import IdSource

if TYPE_CHECKING:
    from tests.store.rig import Rig

PATIENCE_SECONDS = 20.0


async def taken(follower: Follower, count: int) -> list[JobChange | None]:
    """Return the next changes."""
    found: list[JobChange | None] = []
    with trio.fail_after(PATIENCE_SECONDS):
        async for change in follower:
            found.append(change)
            if len(found) == count:
                break
    return found


async def test_follower_is_told_every_change_of_its_job_in_order(rig: Rig) -> None:
    """From the claim to the end, with a word of the handler and a cancel in between, and nothing of other jobs."""
    job_id, other_id = await rig.submit(), await rig.submit()

    async with rig.store.events.follow(rig.namespace, job_id) as follower:
        first, second = await rig.claim(2)
        await rig.settle(other_id, second.token, Move.COMPLETE)
        await rig.say(job_id, first.token, "half\nway")
        await rig.store.lifecycle.cancel(rig.namespace, job_id, reason="enough", grace_ms=1)
        await rig.settle(job_id, first.token, Move.ACKNOWLEDGE_CANCEL)
        changes = await taken(follower, 4)

    at_ms = rig.now_ms
    assert changes == [
        JobChange(job_id, JobState.PROCESSING, 1, at_ms),
        JobChange(job_id, JobState.PROCESSING, 1, at_ms),
        JobChange(job_id, JobState.PROCESSING, 1, at_ms),
        JobChange(job_id, JobState.CANCELLED, 1, at_ms),
    ]


async def test_follower_is_told_that_its_job_was_deleted(rig: Rig) -> None:
    """A deleted job has no state."""
    job_id = await rig.submit()

    async with rig.store.events.follow(rig.namespace, job_id) as follower:
        await rig.store.lifecycle.delete(rig.namespace, job_id)
        (change,) = await taken(follower, 1)

    assert change is not None
    assert change.state is None


@pytest.mark.parametrize("is_followed", [False, True])
async def test_changes_are_published_only_where_somebody_is_subscribed(rig: Rig, is_followed: bool) -> None:
    """Of most jobs nobody hears, and to say what becomes of them is a share of what they cost."""

    async def published() -> int:
        text: str = (await rig.store.link.call("INFO", "commandstats")).decode()
        found = re.search(r"cmdstat_spublish:calls=(\d+)", text)
        return int(found[1]) if found else 0

    job_id = await rig.submit()
    async with rig.store.events.follow(rig.namespace, job_id) if is_followed else nullcontext():
        before = await published()
        (job,) = await rig.claim(1)
        await rig.settle(job_id, job.token, Move.COMPLETE)
        after = await published()

    assert after - before == (2 if is_followed else 0)


async def test_follow_refuses_an_id_of_no_queue(rig: Rig) -> None:
    """The number that the id carries belongs to no queue of the namespace."""
    with pytest.raises(JobNotFoundError):
        async with rig.store.events.follow(rig.namespace, IdSource().new(77)):
            pass


async def test_followers_of_one_queue_share_a_subscription_that_ends_with_the_last(rig: Rig) -> None:
    """A hundred idle watchers are one subscription, and none is left behind."""
    job_id = await rig.submit()
    channel = keys.events(rig.namespace, rig.queue)

    async with trio.open_nursery() as nursery:
        followed = [trio.Event() for _ in range(100)]
        for event in followed:
            nursery.start_soon(_follow_for_ever, rig, job_id, event)
        for event in followed:
            await event.wait()
        during = await rig.store.link.call("PUBSUB", "SHARDNUMSUB", channel)
        nursery.cancel_scope.cancel()
    after = await rig.store.link.call("PUBSUB", "SHARDNUMSUB", channel)

    assert during == [channel.encode(), 1]
    assert after == [channel.encode(), 0]


async def _follow_for_ever(rig: Rig, job_id: str, followed: trio.Event) -> None:
    async with rig.store.events.follow(rig.namespace, job_id):
        followed.set()
        await trio.sleep_forever()


async def test_follower_cancelled_while_it_subscribes_takes_nothing_from_another(rig: Rig) -> None:
    """One watcher gives up at its very start; the other goes on."""
    job_id = await rig.submit()

    async with rig.store.events.follow(rig.namespace, job_id) as follower:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with rig.store.events.follow(rig.namespace, job_id):
                pass
        await rig.claim()
        (change,) = await taken(follower, 1)

    assert change is not None
    assert change.state is JobState.PROCESSING


async def test_follower_is_told_of_a_renewed_connection(rig: Rig) -> None:
    """What was published while the connection was down cannot come; the follower is told to read the job again."""
    job_id = await rig.submit()

    async with rig.store.events.follow(rig.namespace, job_id) as follower:
        identity = await rig.store.link.call("CLIENT", "ID")
        await rig.store.link.call("CLIENT", "KILL", "ID", identity, "SKIPME", "no")
        (change,) = await taken(follower, 1)
        await rig.claim()
        (next_change,) = await taken(follower, 1)

    assert change is None
    assert next_change is not None


async def test_follower_that_does_not_read_is_cut_off_alone() -> None:
    """Its iteration ends after what fitted; whoever feeds it is never held up."""
    follower = Follower()
    change = JobChange("id", JobState.PROCESSING, 1, 1)

    for _ in range(1000):
        follower.put_nowait(change)
    found = [each async for each in follower]

    assert 1 <= len(found) < 1000


async def test_wait_returns_the_job_when_it_is_final(rig: Rig) -> None:
    """It waits through states that are not final, and answers at once when the job is final already."""
    job_id = await rig.submit()
    ended: list[JobState] = []

    async def wait() -> None:
        ended.append((await rig.store.wait(rig.namespace, job_id)).state)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            (claimed,) = await rig.claim()
            before = list(ended)
            await rig.settle(job_id, claimed.token, Move.COMPLETE)
    again = await rig.store.wait(rig.namespace, job_id)

    assert before == []
    assert ended == [JobState.COMPLETED]
    assert again.state is JobState.COMPLETED


async def test_wait_ends_when_the_job_is_deleted(rig: Rig) -> None:
    """A job that is gone will never be final."""
    job_id = await rig.submit()

    async def delete() -> None:
        await rig.store.lifecycle.delete(rig.namespace, job_id)

    with trio.fail_after(PATIENCE_SECONDS), pytest.RaisesGroup(JobNotFoundError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.store.wait, rig.namespace, job_id)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(delete)
