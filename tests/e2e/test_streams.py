"""A watch through cuts and crashes: what its reader is told, put together, is what has happened, each event once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trio

from gopher_pb.v1 import job_service_pb2_grpc, job_stream_pb2

from gopher.client import channel
from gopher.client.trio_client import TrioClient
from gopher.errors import StoreUnavailableError
from gopher.event import EventKind
from gopher.job import JobState, Move, Outcome
from gopher.store.history import Saying
from gopher.store.lifecycle import Settlement
from gopher.wire.keepalive import keepalive
from tests.cutting_proxy import CuttingProxy
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from gopher.client import JobEvent
    from gopher.store.codec import ClaimedJob
    from gopher.store.store import Store
    from tests.e2e.farm import Farm, FarmServer
    from tests.redis_server import RedisServer

EVENTS: Final = 10_000
CUTS: Final = 200
PATIENCE_SECONDS: Final = 180.0
RUSH: Final = 2_000
RUSH_CONNECTIONS: Final = 25


async def watched(client: TrioClient, job_id: str, events: list[JobEvent]) -> None:
    """Take all that a watch tells."""
    async for event in client.watch(job_id):
        events.append(event)  # noqa: PERF401 - they are looked at as they come


def emitted(events: list[JobEvent]) -> list[object]:
    return [event.output.value for event in events if event.output is not None]


async def test_stream_that_is_cut_200_times_tells_10000_events_once_each(farm: Farm) -> None:
    """Connections are reset in mid-frame, while a handler gives output; the concatenation is 1..10,000."""
    server = await farm.server()
    proxy = CuttingProxy(server.address, cuts=CUTS, at_bytes=(200, 9_000), seed=5)
    (job_id,) = await farm.submit("emit", EVENTS)
    events: list[JobEvent] = []

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            client = TrioClient(proxy.address, namespace=farm.namespace)
            async with trio.open_nursery() as watching:
                watching.start_soon(watched, client, job_id, events)
                await farm.worker()
            await client.aclose()
            nursery.cancel_scope.cancel()

    assert proxy.cuts == CUTS
    assert emitted(events) == list(range(1, EVENTS + 1))
    assert [event.sequence for event in events] == list(range(1, EVENTS + 4))
    assert events[-1].state is JobState.COMPLETED
    assert events[-1].is_final


async def test_stream_survives_the_death_of_its_server(farm: Farm) -> None:
    """Killed -9 in mid-watch and started again, twice: nothing is missed and nothing told twice."""
    server = await farm.server()
    (job_id,) = await farm.submit("emit", 3_000)
    events: list[JobEvent] = []
    client = TrioClient(server.address, namespace=farm.namespace)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as watching:
            watching.start_soon(watched, client, job_id, events)
            await farm.worker()
            for number in (500, 1_500):
                await until(lambda: len(events) >= number, within_seconds=PATIENCE_SECONDS)  # noqa: B023 - awaited at once
                server.kill()
                await server.start()
    await client.aclose()

    assert emitted(events) == list(range(1, 3_001))
    assert [event.sequence for event in events] == list(range(1, 3_004))
    assert {event.kind for event in events} == {EventKind.STATE, EventKind.OUTPUT}


async def test_watch_comes_to_the_end_though_redis_has_lost_events_and_given_their_numbers_away(
    lone_farm: Farm, redis_server: RedisServer
) -> None:
    """Redis comes back without the last event that was told, and has numbered the end of the job so before the server looks again."""
    server = await lone_farm.server()
    (job_id,) = await lone_farm.submit("emit", 1)
    store, where = lone_farm.store, (lone_farm.namespace, "default")
    claim = await store.lifecycle.claim(*where, worker="w", count=1, lease_ms=3_600_000, claim_id="c")
    assert claim is not None
    (job,) = claim.jobs
    events: list[JobEvent] = []
    client = TrioClient(server.address, namespace=lone_farm.namespace)

    async def say(number: int) -> None:
        saying = Saying(job.id, job.token, number, EventKind.LOG, "", b"info said")
        assert await store.histories.report(*where, [saying]) == ["OK"]
        await until(lambda: len(events) == 2 + number)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as watching:
            watching.start_soon(watched, client, job_id, events)
            await until(lambda: len(events) == 2)
            await say(1)
            kept = redis_server.keep_file()
            await say(2)
            os.kill(server.pid, signal.SIGSTOP)
            redis_server.kill()
            redis_server.restore_file(kept)
            redis_server.start()
            await until_async(lambda: settled(store, lone_farm.namespace, job))
            os.kill(server.pid, signal.SIGCONT)
    await client.aclose()

    assert [event.sequence for event in events] == [1, 2, 3, 4, 0, 4]
    assert [event.kind for event in events[-2:]] == [EventKind.TRUNCATED, EventKind.STATE]
    assert (events[-1].state, events[-1].is_final) == (JobState.COMPLETED, True)


async def settled(store: Store, namespace: str, job: ClaimedJob) -> bool:
    """Complete a job; tell whether Redis could be asked to."""
    done = Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, result=b"1")
    try:
        return await store.lifecycle.settle(namespace, "default", [done]) == ["completed"]
    except StoreUnavailableError:
        return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has clients look after a quiet connection within 2 s rather than 30."""
    quick = dict(keepalive(quiet_seconds=1, answer_seconds=1))
    monkeypatch.setattr(channel, "OPTIONS", tuple((name, quick.pop(name, value)) for name, value in channel.OPTIONS))
    assert quick == {}


@pytest.mark.usefixtures("impatient")
async def test_streams_whose_connection_carries_nothing_more_go_on_over_another(farm: Farm) -> None:
    """As after a cable was cut: nobody says so, and a watch, a nursery and an attached job lose nothing by it."""
    server = await farm.server()
    proxy = CuttingProxy(server.address, cuts=0, at_bytes=(1, 1), seed=5)
    (job_id,) = await farm.submit("hold", str(farm.gate))
    events: list[JobEvent] = []
    attached: list[JobEvent] = []

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            client = TrioClient(proxy.address, namespace=farm.namespace)
            async with trio.open_nursery() as watching, client.open_nursery() as children:
                watching.start_soon(watched, client, job_id, events)
                watching.start_soon(run, client, str(farm.gate), attached)
                child = children.start_soon("hold", str(farm.gate))
                await farm.worker()
                await until(lambda: bool(events and attached and child.id))
                proxy.silence()
                farm.open_gate()
            await client.aclose()
            nursery.cancel_scope.cancel()

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.sequence for event in attached] == list(range(1, len(attached) + 1))
    assert {events[-1].state, attached[-1].state, child.state} == {JobState.COMPLETED}
    assert len(farm.events("start", [job_id, attached[0].job_id, str(child.id)])) == 3
    assert await farm.findings() == []


async def run(client: TrioClient, payload: str, events: list[JobEvent]) -> None:
    """Run an attached job and take all that it tells."""
    async with client.run("hold", payload) as job:
        async for event in job.events():
            events.append(event)  # noqa: PERF401 - they are looked at as they come


def rushed(server: FarmServer) -> Counter[grpc.StatusCode]:
    """Watch what is no job at a server that stands still, let it go on, and count how the calls end."""
    request = job_stream_pb2.WatchJobRequest(job_id="none")
    with ExitStack() as open_channels:
        channels = [
            open_channels.enter_context(grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(RUSH_CONNECTIONS)
        ]
        for channel in channels:
            grpc.channel_ready_future(channel).result(PATIENCE_SECONDS)
        stubs = [job_service_pb2_grpc.JobServiceStub(channel) for channel in channels]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            streams = [stubs[number % len(stubs)].WatchJob(request, timeout=PATIENCE_SECONDS) for number in range(RUSH)]
        finally:
            os.kill(server.pid, signal.SIGCONT)
        return Counter(stream.code() for stream in streams)


async def test_rush_of_streams_is_answered_to_the_last(farm: Farm) -> None:
    """More calls than gRPC keeps by default for a server that is busy: none is cancelled without having been looked at."""
    server = await farm.server()

    with trio.fail_after(PATIENCE_SECONDS):
        codes = await trio.to_thread.run_sync(rushed, server)

    assert codes == {grpc.StatusCode.INVALID_ARGUMENT: RUSH}
