"""Endings: who follows a job is told once how it has ended, at the cost of one subscription a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.errors import StoreError
from gopher.job import JobState, Move
from gopher.store import endings as endings_module
from gopher.store import keys
from gopher.store.endings import Endings
from gopher.store.link import Link
from tests.store.rig import DELAY_MS, LEASE_MS, Rig
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis_server import RedisServer

NAMESPACE: Final = "test"


class Told:
    """What was told of jobs, by id."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, JobState | None]] = []

    def of(self, job_id: str) -> Callable[[JobState | None], None]:
        return lambda state: self.ends.append((job_id, state))

    async def count(self, count: int) -> None:
        await until(lambda: len(self.ends) >= count)


@pytest.fixture
def told() -> Told:
    return Told()


async def follow(rig: Rig, told: Told, *job_ids: str) -> None:
    await rig.store.endings.listen(rig.namespace, rig.queue)
    for job_id in job_ids:
        rig.store.endings.follow(rig.namespace, rig.queue, job_id, told.of(job_id))


async def complete(rig: Rig) -> None:
    (job,) = await rig.claim()
    await rig.settle(job.id, job.token, Move.COMPLETE)


async def subscribers(rig: Rig) -> int:
    reply = await rig.store.link.call("PUBSUB", "SHARDNUMSUB", keys.events(rig.namespace, rig.queue))
    return int(reply[1])


async def test_each_way_to_end_is_told_once(rig: Rig, told: Told) -> None:
    """Completed, failed, cancelled, expired and deleted; and of a state that is not final nothing."""
    completed, failed, deleted = await rig.submit(), await rig.submit(), await rig.submit()
    cancelled = await rig.submit(delay_ms=DELAY_MS)
    expired = await rig.submit(deadline_ms=rig.now_ms + LEASE_MS, delay_ms=DELAY_MS)
    await follow(rig, told, completed, failed, deleted, cancelled, expired)

    await complete(rig)
    (job,) = await rig.claim()
    await rig.settle(job.id, job.token, Move.RETRY)
    await rig.promote()
    await rig.store.lifecycle.delete(rig.namespace, deleted)
    (job,) = await rig.claim()
    await rig.settle(job.id, job.token, Move.BURY)
    await rig.cancel(cancelled)
    await rig.advance(LEASE_MS)
    await rig.promote()
    await rig.requeue(failed)
    await complete(rig)
    await told.count(5)

    assert told.ends == [
        (completed, JobState.COMPLETED),
        (deleted, None),
        (failed, JobState.FAILED),
        (cancelled, JobState.CANCELLED),
        (expired, JobState.FAILED),
    ]


async def test_jobs_of_one_message_are_told_of_each_to_its_own(rig: Rig, told: Told) -> None:
    """A purge ends many in one call; whoever is not followed is nobody's."""
    ids = [await rig.submit() for _ in range(5)]
    await follow(rig, told, *ids[1:4])

    await rig.store.lifecycle.purge(rig.namespace, rig.queue)
    await told.count(3)

    assert sorted(told.ends) == sorted((job_id, None) for job_id in ids[1:4])


async def test_job_that_is_forgotten_is_told_of_no_more(rig: Rig, told: Told) -> None:
    """Forgetting twice, or what was never followed, is no fault."""
    kept, forgotten = await rig.submit(), await rig.submit()
    await follow(rig, told, kept, forgotten)

    for _ in range(2):
        rig.store.endings.forget(rig.namespace, rig.queue, forgotten)
    rig.store.endings.forget(rig.namespace, "unheard-of", forgotten)
    await rig.store.lifecycle.purge(rig.namespace, rig.queue)
    await told.count(1)

    assert told.ends == [(kept, None)]


async def test_one_that_is_told_may_follow_and_forget_others(rig: Rig, told: Told) -> None:
    """As a nursery does, which forgets the siblings of a child that has ended: also of those in the same message."""
    first, second = await rig.submit(), await rig.submit()
    await follow(rig, told, second)
    ends: list[JobState | None] = []

    def tell(state: JobState | None) -> None:
        ends.append(state)
        rig.store.endings.forget(rig.namespace, rig.queue, second)

    rig.store.endings.follow(rig.namespace, rig.queue, first, tell)
    await rig.store.lifecycle.purge(rig.namespace, rig.queue)
    await until(lambda: bool(ends))

    assert (ends, told.ends) == ([None], [])


async def test_queue_that_nobody_follows_is_left_after_a_while(
    rig: Rig, told: Told, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One subscription serves any number of jobs, and stays as long as one of them is followed; then it is made anew when wanted."""
    monkeypatch.setattr(endings_module, "_LINGER_SECONDS", 0.01)
    await nursery.start(rig.store.endings.run)
    first, second = await rig.submit(), await rig.submit()
    await follow(rig, told, first, second)
    counts = [await subscribers(rig)]

    await complete(rig)
    rig.store.endings.forget(rig.namespace, rig.queue, first)
    counts.append(await subscribers(rig))
    rig.store.endings.forget(rig.namespace, rig.queue, second)

    async def is_left() -> bool:
        return await subscribers(rig) == 0

    await until_async(is_left)
    await follow(rig, told, second)
    await complete(rig)
    await told.count(2)

    assert counts == [1, 1]
    assert told.ends == [(first, JobState.COMPLETED), (second, JobState.COMPLETED)]


async def test_many_that_begin_to_listen_at_once_share_a_subscription(rig: Rig, told: Told, nursery: trio.Nursery) -> None:
    """Whoever is slower joins the faster."""
    job_id = await rig.submit()
    async with trio.open_nursery() as many:
        for _ in range(5):
            many.start_soon(rig.store.endings.listen, rig.namespace, rig.queue)

    await follow(rig, told, job_id)
    await complete(rig)
    await told.count(1)

    assert await subscribers(rig) == 1
    assert told.ends == [(job_id, JobState.COMPLETED)]


async def test_what_was_followed_is_followed_again_after_a_reconnect(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Those who follow are told by the link's hook to look for themselves; later ends come by the new subscription."""
    link = Link(redis_server.url)
    await nursery.start(link.run)
    endings = Endings(link)
    reconnects: list[bool] = []
    ends: list[JobState | None] = []
    link.on_reconnect.append(lambda: reconnects.append(True))
    await endings.listen(NAMESPACE, "default")
    endings.follow(NAMESPACE, "default", "j" * 36, ends.append)

    redis_server.kill()
    redis_server.start()
    await until(lambda: bool(reconnects))
    await link.call("SPUBLISH", keys.events(NAMESPACE, "default"), f"1\n{'j' * 36} processing 1 -\n{'j' * 36} completed 1 -")
    await until(lambda: bool(ends))

    assert ends == [JobState.COMPLETED]


async def test_listening_fails_where_redis_is_not_there(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Nothing is followed then, and the next try begins anew."""
    link = Link(redis_server.url, connect_grace_seconds=0.1)
    await nursery.start(link.run)
    endings = Endings(link)
    redis_server.stop()

    with pytest.raises(StoreError):
        await endings.listen(NAMESPACE, "default")
    redis_server.start()
    ends: list[JobState | None] = []

    async def listens() -> bool:
        try:
            await endings.listen(NAMESPACE, "default")
        except StoreError:
            return False
        return True

    await until_async(listens)
    endings.follow(NAMESPACE, "default", "j" * 36, ends.append)
    await link.call("SPUBLISH", keys.events(NAMESPACE, "default"), f"1\n{'j' * 36} cancelled 1 -")
    await until(lambda: bool(ends))

    assert ends == [JobState.CANCELLED]
