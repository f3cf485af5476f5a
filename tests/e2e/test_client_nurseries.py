"""Nurseries of clients with real processes: workers, servers and clients that end in mid-nursery, and connections that are cut."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.client import ServerUnreachableError, TrioClient
from gopher.job import JobState
from tests.cutting_proxy import CuttingProxy
from tests.e2e.farm import end_of, states
from tests.programs import Program
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.nursery import ChildJob
    from tests.e2e.farm import Farm

PATIENCE_SECONDS: Final = 90.0
LEASE_SECONDS: Final = 1.5
"""So that workers sweep twice a second."""


def ids_of(children: Sequence[ChildJob]) -> list[str]:
    return [str(child.id) for child in children]


async def test_children_run_on_every_worker(farm: Farm) -> None:
    """Fifty children over two workers: the block ends when all have, each has run once, and both have worked."""
    server = await farm.server()
    for _ in range(2):
        await farm.worker("--concurrency", "2")

    with trio.fail_after(PATIENCE_SECONDS):
        async with TrioClient(server.address, namespace=farm.namespace) as client, client.open_nursery() as nursery:
            children = [nursery.start_soon("quick") for _ in range(50)]
        pids = {await child.result() for child in children}

    assert {child.state for child in children} == {JobState.COMPLETED}
    assert len(farm.events("start", ids_of(children))) == 50
    assert len(pids) == 2
    assert await farm.findings() == []


async def test_failing_child_cancels_the_others(farm: Farm) -> None:
    """Those that run are cut off, those that wait never run, and the block raises the one error."""
    server = await farm.server()
    await farm.worker("--concurrency", "2")
    await farm.worker("--concurrency", "1")
    children: list[ChildJob] = []

    with trio.fail_after(PATIENCE_SECONDS), pytest.RaisesGroup(pytest.RaisesExc(Exception, match="PAYLOAD_MISMATCH")):
        async with TrioClient(server.address, namespace=farm.namespace) as client, client.open_nursery() as nursery:
            children = [nursery.start_soon("hold", str(farm.gate)) for _ in range(2)]
            await farm_started(farm, children)
            nursery.start_soon("hold", 7)
            children += [nursery.start_soon("hold", str(farm.gate)) for _ in range(5)]
            await trio.sleep_forever()

    assert states(await farm.finals([str(child.id) for child in children if child.id])) == {JobState.CANCELLED}
    assert farm.events("end", [str(child.id) for child in children if child.id]) == []
    assert await farm.findings() == []


async def farm_started(farm: Farm, children: Sequence[ChildJob]) -> None:
    """Wait until all children run."""
    await until(lambda: all(child.id for child in children))
    await farm.started(ids_of(children))


async def test_children_of_a_client_that_was_killed_are_cancelled(farm: Farm) -> None:
    """After kill -9, its grace and a sweep: one that runs and those that wait are all cancelled, and nothing is left."""
    server = await farm.server()
    await farm.worker("--concurrency", "1", lease_seconds=LEASE_SECONDS)
    arguments = [server.address, farm.namespace, "1", str(farm.gate), "8"]
    with Program("tests.e2e.apps.nursery_client", *arguments, environ=os.environ) as client:
        ready = await trio.to_thread.run_sync(client.wait_ready)
        ids = ready["ids"].split(",")
        await farm.started(ids, 1)

        client.process.kill()
        await end_of(client)
        jobs = await farm.finals(ids)

    assert len(jobs) == 8
    assert states(jobs) == {JobState.CANCELLED}
    assert len(farm.events("start", ids)) == 1
    assert farm.events("end", ids) == []
    assert await farm.findings() == []


async def test_nursery_survives_the_death_of_its_server(farm: Farm) -> None:
    """Killed -9 in mid-nursery and started again, twice: the block ends well and each child has run once."""
    server = await farm.server()
    await farm.worker("--concurrency", "5")
    children: list[ChildJob] = []

    with trio.fail_after(PATIENCE_SECONDS):
        async with TrioClient(server.address, namespace=farm.namespace) as client, client.open_nursery(grace=60.0) as nursery:
            for round_ in range(2):
                children += [nursery.start_soon("hold", str(farm.gate)) for _ in range(20)]
                await nursery.start("quick", round_, on_cancel="detach")
                server.kill()
                children += [nursery.start_soon("hold", str(farm.gate)) for _ in range(20)]
                await server.start()
            farm.open_gate()

    assert {child.state for child in children} == {JobState.COMPLETED}
    assert len(set(ids_of(children))) == 80
    assert len(farm.events("start", ids_of(children))) == 80
    jobs, _ = await farm.store.query.list_jobs(farm.namespace, size=200)
    assert len(jobs) == 82
    assert await farm.findings() == []


async def test_nursery_whose_server_stays_away_ends_its_block(farm: Farm) -> None:
    """Once the grace is over the block says why, and the children are cancelled by the workers."""
    server = await farm.server()
    await farm.worker("--concurrency", "1", lease_seconds=LEASE_SECONDS)
    children: list[ChildJob] = []

    with trio.fail_after(PATIENCE_SECONDS), pytest.RaisesGroup(ServerUnreachableError):
        async with TrioClient(server.address, namespace=farm.namespace) as client, client.open_nursery(grace=1.0) as nursery:
            children += [await nursery.start("hold", str(farm.gate)) for _ in range(3)]
            server.kill()

    assert states(await farm.finals(ids_of(children))) == {JobState.CANCELLED}
    assert await farm.findings() == []


async def test_nursery_goes_on_by_another_server(farm: Farm) -> None:
    """A client that knows two servers goes on by the second when the first is killed or told to stop."""
    first, second = await farm.server(), await farm.server()
    await farm.worker("--concurrency", "5")
    both = f"ipv4:{first.address},{second.address}"
    children: list[ChildJob] = []

    with trio.fail_after(PATIENCE_SECONDS):
        async with TrioClient(both, namespace=farm.namespace) as client, client.open_nursery(grace=60.0) as nursery:
            children += [await nursery.start("hold", str(farm.gate)) for _ in range(3)]
            first.kill()
            children += [await nursery.start("hold", str(farm.gate)) for _ in range(3)]
            farm.open_gate()

    assert {child.state for child in children} == {JobState.COMPLETED}
    assert len(farm.events("start", ids_of(children))) == 6
    assert await farm.findings() == []


async def test_cut_connections_start_no_child_twice(farm: Farm) -> None:
    """Connections are reset in mid-frame, again and again: each of 300 children has run once, and its end is known."""
    server = await farm.server()
    proxy = CuttingProxy(server.address, cuts=40, at_bytes=(200, 6_000), seed=7)
    await farm.worker()

    with trio.fail_after(2 * PATIENCE_SECONDS):
        async with trio.open_nursery() as tasks:
            await tasks.start(proxy.run)
            client = TrioClient(proxy.address, namespace=farm.namespace)
            async with client, client.open_nursery(grace=60.0) as nursery:
                children = [nursery.start_soon("quick") for _ in range(300)]
            tasks.cancel_scope.cancel()

    assert proxy.cuts >= 5
    assert {child.state for child in children} == {JobState.COMPLETED}
    assert len(farm.events("start", ids_of(children))) == 300
    jobs, _ = await farm.store.query.list_jobs(farm.namespace, size=1_000)
    assert len(jobs) == 300
    assert await farm.findings() == []
