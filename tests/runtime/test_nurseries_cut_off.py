"""Nurseries whose Redis goes away: nothing is started twice or forgotten, and every block ends once Redis is back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher.errors import StoreUnavailableError
from gopher.job import JobState
from gopher.store.families import Families
from gopher.store.store import Store
from tests.runtime.home import Home
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from collections.abc import Sequence

    import gopher
    from gopher.store.families import Start, Started
    from tests.redis_server import RedisServer


@pytest.fixture
async def lone_home(redis_server: RedisServer, nursery: trio.Nursery) -> Home:
    """Room for workers on a redis-server of the test's own, which gives up a call soon."""
    store = Store(redis_server.url)
    store.link._connect_grace_seconds = 0.5
    await nursery.start(store.run)
    return Home(store, redis_server.url, "test")


async def answers(home: Home) -> bool:
    """Tell whether there is a connection again."""
    try:
        await home.store.link.call("PING")
    except StoreUnavailableError:
        return False
    return True


async def test_children_are_stored_once_redis_is_back(lone_home: Home, redis_server: RedisServer) -> None:
    """A block that starts them while there is none waits, and does not end of it."""
    home = lone_home

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> object:
        async with job.open_nursery() as nursery:
            await nursery.start("leaf", "before")
            redis_server.kill()
            later = nursery.start_soon("leaf", "later", queue="other")
            await trio.sleep(1)  # the time that the fault lasts
            redis_server.start()
            last = await nursery.start("leaf", "last")
        return [await later.result(), await last.result()]

    async with home.working(home.worker(), home.worker(queues=("other",))):
        job = await home.run()
    leaves = await home.jobs("leaf")

    assert (job.state, job.result) == (JobState.COMPLETED, b'["later","last"]')
    assert [(leaf.state, leaf.attempt) for leaf in leaves] == [(JobState.COMPLETED, 1)] * 3
    assert await home.findings() == []


async def test_children_are_cancelled_once_redis_is_back(lone_home: Home, redis_server: RedisServer) -> None:
    """Their parent was cancelled while there was none: its block ends when they have."""
    home = lone_home

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> str:
        with trio.CancelScope() as scope:
            async with job.open_nursery() as nursery:
                await nursery.start("sleep")
                await nursery.start("leaf", delay_seconds=3600)
                await until(lambda: bool(home.begun))
                redis_server.kill()
                scope.cancel()
                restart.set()
        return "went on"

    restart = trio.Event()
    async with home.working():
        job_id = await home.submit()
        await restart.wait()
        await trio.sleep(1)  # the time that the fault lasts
        redis_server.start()
        await until_async(lambda: answers(home))
        job = await home.final(job_id)

    assert (job.state, job.result) == (JobState.COMPLETED, b'"went on"')
    assert home.ended == home.begun
    assert await home.states("leaf") == await home.states("sleep") == [JobState.CANCELLED]


async def test_end_of_a_child_that_came_while_redis_was_away_is_not_missed(lone_home: Home, redis_server: RedisServer) -> None:
    """Who waits for it looks once there is a connection again; so does who has yet to learn why it failed."""
    home = lone_home
    gate = trio.Event()

    @home.registry.handler("gated", max_attempts=1)
    async def gated(job: gopher.JobContext, payload: object) -> None:
        home.begun.append(job.id)
        await gate.wait()
        raise ValueError("late news")

    @home.registry.handler("parent", max_attempts=1)
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("gated")

    async with home.working():
        job_id = await home.submit()
        await until(lambda: bool(home.begun))
        redis_server.kill()
        gate.set()
        await trio.sleep(1)  # the time that the fault lasts
        redis_server.start()
        await until_async(lambda: answers(home))
        job = await home.final(job_id)

    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert "late news" in job.failure.message


class Forgetful(Families):
    """The real ones, whose replies are lost a while after the children were stored.

    Attributes:
        losses: How many replies are still to be lost.
        meanwhile: Waited for in between.
    """

    losses = 1
    meanwhile = trio.Event()

    async def start(
        self, namespace: str, queue: str, parent_id: str, token: int, starts: Sequence[Start], line_ms: str
    ) -> Started | None:
        started = await super().start(namespace, queue, parent_id, token, starts, line_ms)
        if self.losses:
            self.losses -= 1
            await self.meanwhile.wait()
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)
        return started


async def test_child_that_ended_before_its_start_was_answered_is_not_missed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply was lost, and with it the news of its end: the second try finds both."""
    families = Forgetful(home.store.link, home.store.registry)
    families.meanwhile = trio.Event()
    home.store.families = families

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> object:
        async with job.open_nursery() as nursery:
            child = nursery.start_soon("leaf", "there")
        return await child.result()

    worker = home.worker()
    missed = worker._carrier._endings
    async with home.working(worker):
        job_id = await home.submit()

        async def is_done() -> bool:
            return await home.states("leaf") == [JobState.COMPLETED]

        # As if the connection had been down: nobody is told.
        monkeypatch.setattr(missed, "follow", lambda *_: None)
        with trio.fail_after(30):
            while not await is_done():  # noqa: ASYNC110 - what is looked at has no event
                await trio.sleep(0.01)
        families.meanwhile.set()
        job = await home.final(job_id)

    assert (job.state, job.result) == (JobState.COMPLETED, b'"there"')
    assert len(await home.jobs("leaf")) == 1
