"""A watch of many jobs through cuts and crashes: each job's states are told once."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.client.trio_client import TrioClient
from gopher.event import EventKind
from gopher.store import keys
from gopher.wire.status import CursorTooOldError
from tests.cutting_proxy import CuttingProxy
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from gopher.client import JobEvent
    from tests.e2e.farm import Farm

JOBS: Final = 1_000
CUTS: Final = 40
PATIENCE_SECONDS: Final = 180.0


async def watched(client: TrioClient, events: list[JobEvent]) -> None:
    """Take all that a watch tells."""
    async for event in client.watch_jobs(queue="default"):
        events.append(event)  # noqa: PERF401 - they are looked at as they come


async def has_begun(farm: Farm) -> bool:
    return bool(await farm.store.link.call("HEXISTS", keys.settings(farm.namespace, "default"), "watched_until"))


def told(events: list[JobEvent]) -> Counter[tuple[str, str, int]]:
    return Counter((event.job_id, event.state.value, event.attempt) for event in events)


async def test_each_state_of_1000_jobs_is_told_once_though_the_stream_is_cut_and_its_server_killed(farm: Farm) -> None:
    """Connections are reset in mid-frame and the server is killed -9 twice, while the jobs are submitted and run."""
    server = await farm.server()
    proxy = CuttingProxy(server.address, cuts=CUTS, at_bytes=(200, 9_000), seed=5)
    await farm.store.registry.queue_number(farm.namespace, "default")
    events: list[JobEvent] = []

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            client = TrioClient(proxy.address, namespace=farm.namespace)
            nursery.start_soon(watched, client, events)
            await until_async(lambda: has_begun(farm), within_seconds=PATIENCE_SECONDS)
            ids = await farm.submit("quick", count=JOBS)
            await farm.worker()
            for number in (500, 1_500):
                await until(lambda: len(events) >= number, within_seconds=PATIENCE_SECONDS)  # noqa: B023 - awaited at once
                server.kill()
                await server.start()
            await until(lambda: len(events) >= 3 * JOBS, within_seconds=PATIENCE_SECONDS)
            await farm.finals(ids)
            nursery.cancel_scope.cancel()
    await client.aclose()

    states = (("enqueued", 0), ("processing", 1), ("completed", 1))
    assert told(events) == Counter((job_id, *state) for job_id in ids for state in states)
    assert {event.kind for event in events} == {EventKind.STATE}


@pytest.mark.parametrize(("queues", "is_told"), [(8, True), (100, False)])
async def test_refusal_of_an_old_cursor_tells_one_that_holds_or_none(farm: Farm, queues: int, is_told: bool) -> None:
    """A cursor speaks of each queue: one that has no room in an error is left out, and never cut."""
    server = await farm.server()
    for number in range(queues):
        await farm.store.registry.queue_number(farm.namespace, f"a-long-name-{number}")
    client = TrioClient(server.address, namespace=farm.namespace)

    with trio.fail_after(PATIENCE_SECONDS):
        async with aclosing(client.watch_jobs()) as events, trio.open_nursery() as nursery:
            nursery.start_soon(submit_on, client, "a-long-name-7")
            cursor = (await anext(events)).cursor
            nursery.cancel_scope.cancel()
        await farm.store.link.call("HSET", keys.settings(farm.namespace, "a-long-name-7"), "watched_until", 1)
        async with aclosing(client.watch_jobs(cursor=cursor)) as events:
            with pytest.raises(CursorTooOldError) as caught:
                await anext(events)
        oldest = caught.value.metadata.get("oldest_cursor", "")
        async with aclosing(client.watch_jobs(cursor=oldest)) as events, trio.open_nursery() as nursery:
            nursery.start_soon(submit_on, client, "a-long-name-7")
            event = await anext(events)
            nursery.cancel_scope.cancel()
    await client.aclose()

    assert bool(oldest) is is_told
    assert event.queue == "a-long-name-7"


async def submit_on(client: TrioClient, queue: str) -> None:
    """Submit jobs, for as long as nobody has seen one."""
    while True:
        await client.submit("quick", {}, queue=queue)
        await trio.sleep(0.2)
