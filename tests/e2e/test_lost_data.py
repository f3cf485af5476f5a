"""A Redis that has lost its data under programs that run: they go on, and nothing waits for what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import redis
import trio

from gopher.client import TrioClient
from gopher.errors import GopherError
from gopher.job import JobState
from tests.e2e.farm import states
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.store import Store
    from tests.e2e.farm import Farm
    from tests.redis_server import RedisServer

LIMITED_APP: Final = "tests.e2e.apps.outage:registry"


def empty(server: RedisServer) -> None:
    """Take everything away from a redis-server that runs."""
    with redis.Redis.from_url(server.url) as operator:
        operator.flushall()


def restart_empty(server: RedisServer) -> None:
    """Start a redis-server again with none of its data."""
    server.kill()
    for path in server.directory.rglob("*.aof*"):
        path.unlink()
    server.start()


async def known(store: Store, namespace: str) -> object:
    """Return what the workers of a namespace have made known."""
    return (
        await store.registry.types(namespace),
        await store.registry.queues(namespace),
        await store.limits.rules(namespace, "default") if await store.registry.queues(namespace) else [],
        [breaker.name for breaker in await store.breakers.list_breakers(namespace)],
        len(await store.registry.workers(namespace)),
    )


@pytest.mark.parametrize("lose", [empty, restart_empty])
async def test_programs_go_on_after_redis_has_lost_its_data(
    lone_farm: Farm, redis_server: RedisServer, lose: Callable[[RedisServer], None]
) -> None:
    """Types, queues, limits, breakers and workers are known again; a job submitted afterwards runs, and is found and listed."""
    server = await lone_farm.server()
    await lone_farm.worker("--queues", "default,idle")
    await lone_farm.worker("--queues", "limited", app=LIMITED_APP)
    namespace, store = lone_farm.namespace, lone_farm.store
    before = await known(store, namespace)
    async with TrioClient(server.address, namespace=namespace) as client:
        await client.result(await client.submit("quick", {}), wait=30)

        lose(redis_server)
        job_id = await client.submit("quick", {})

        await client.result(job_id, wait=30)
        assert job_id in {job.id for job in await client.list()}

    async def is_known_again() -> bool:
        return await known(store, namespace) == before

    await until_async(is_known_again)
    assert states(await lone_farm.jobs([job_id])) == {JobState.COMPLETED}
    assert await lone_farm.findings() == []


async def test_nothing_waits_for_jobs_that_redis_has_lost(lone_farm: Farm, redis_server: RedisServer) -> None:
    """Whatever follows a lost job ends soon, each with an error that says so: waits, watches, attached jobs, nurseries, cancels."""
    server = await lone_farm.server()
    await lone_farm.worker()
    waiting: dict[str, object] = {}
    async with TrioClient(server.address, namespace=lone_farm.namespace) as client:
        (held,) = await lone_farm.hold()
        await lone_farm.started([held])

        async def result() -> None:
            await client.result(held)

        async def watch() -> None:
            async for _ in client.watch(held):
                pass

        async def cancel() -> None:
            later = await client.submit("hold", str(lone_farm.gate), delay_seconds=3600)
            await client.wait(later)

        async def attached() -> None:
            async with client.run("hold", str(lone_farm.gate)) as job:
                await job.result()

        async def nursery() -> None:
            async with client.open_nursery() as children:
                children.start_soon("hold", str(lone_farm.gate))

        ways: list[Callable[[], Awaitable[None]]] = [result, watch, cancel, attached, nursery]

        async def follow(way: Callable[[], Awaitable[None]]) -> None:
            waiting[way.__name__] = None
            try:
                await way()
            except* GopherError as errors:
                waiting[way.__name__] = str(errors.exceptions[0])

        async with trio.open_nursery() as following:
            for way in ways:
                following.start_soon(follow, way)
            # The held job, and those of the attached call and of the nursery.
            await until(lambda: len(lone_farm.all_events("start")) == 3)
            empty(redis_server)
            with trio.move_on_after(20):
                await until(lambda: None not in waiting.values())
            following.cancel_scope.cancel()

    assert {way: error is not None for way, error in waiting.items()} == dict.fromkeys(waiting, True), waiting


async def test_watch_over_many_jobs_goes_on_after_redis_has_lost_its_data(lone_farm: Farm, redis_server: RedisServer) -> None:
    """Its cursors are as good as before: the watcher reads what becomes of jobs that are submitted afterwards."""
    server = await lone_farm.server()
    await lone_farm.worker()
    completed: list[str] = []
    async with TrioClient(server.address, namespace=lone_farm.namespace) as client, trio.open_nursery() as watching:

        async def watch() -> None:
            async for event in client.watch_jobs(type="quick"):
                completed.extend([event.job_id] if event.state is JobState.COMPLETED else [])

        async def is_seen() -> bool:
            # Again and again, since a watch begins at some moment after its call.
            job_id = await client.submit("quick", {})
            await client.result(job_id, wait=30)
            return bool(completed)

        watching.start_soon(watch)
        await until_async(is_seen)
        empty(redis_server)
        completed.clear()

        await until_async(is_seen)
        watching.cancel_scope.cancel()

    assert completed
