"""A bulk operation outlives the server that works on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.bulk import BulkKind, BulkPlan, BulkState
from gopher.job import Failure, JobState, Move, NewJob, Outcome
from gopher.store import codec, keys
from gopher.store.lifecycle import Settlement
from tests.e2e.farm import end_of
from tests.programs import Program
from tests.waiting import until_async

if TYPE_CHECKING:
    from tests.e2e.farm import Farm
    from tests.redis_server import RedisServer

JOBS = 5_000
FAILURE = codec.encode_failure(Failure(reason="HANDLER_RAISED", message="no"))


async def bury(farm: Farm, count: int) -> set[str]:
    """Make dead letters and return their ids."""
    lifecycle, ids = farm.store.lifecycle, set[str]()
    await lifecycle.submit(farm.namespace, [NewJob(type="work", payload=str(n).encode()) for n in range(count)])
    while len(ids) < count:
        claim = await lifecycle.claim(
            farm.namespace, "default", worker="w", count=100, lease_ms=60_000, claim_id=f"c{len(ids)}"
        )
        assert claim is not None
        jobs = claim.jobs
        buried = [Settlement(job.id, job.token, Move.BURY, Outcome.RAISED, 0, b"", FAILURE) for job in jobs]
        await lifecycle.settle(farm.namespace, "default", buried)
        ids |= {job.id for job in jobs}
    return ids


async def members(farm: Farm, key: str) -> list[str]:
    return [each.decode() for each in await farm.store.link.call("ZRANGE", key, 0, -1)]


@pytest.mark.parametrize("kind", [BulkKind.RETRY, BulkKind.DELETE])
async def test_operation_survives_kill_of_its_server(lone_farm: Farm, redis_server: RedisServer, kind: BulkKind) -> None:
    """Of two servers the one that works is killed -9 in the middle: the other ends it, n leave, n enter, none twice."""
    farm = lone_farm
    ids = await bury(farm, JOBS)
    environ = {**os.environ, "GOPHER_REDIS_URL": redis_server.url}
    address = ["--grpc", "127.0.0.1:0", "--http", "none"]
    bulk, failed_key = farm.store.bulk, keys.index(farm.namespace, "default", JobState.FAILED)

    with Program("gopher.cli.server", *address, environ=environ) as first:
        await trio.to_thread.run_sync(first.wait_ready)
        started = await bulk.start(farm.namespace, BulkPlan(kind=kind, states=(JobState.FAILED,)))

        async def is_under_way() -> bool:
            return (await bulk.get(farm.namespace, started.id)).done > 0

        await until_async(is_under_way)
        first.process.kill()
        await end_of(first)
    half = await bulk.get(farm.namespace, started.id)
    with Program("gopher.cli.server", *address, environ=environ) as second:
        await trio.to_thread.run_sync(second.wait_ready)

        async def has_ended() -> bool:
            return (await bulk.get(farm.namespace, started.id)).has_ended

        await until_async(has_ended)
    ended = await bulk.get(farm.namespace, started.id)

    assert (half.state, 0 < half.done < JOBS) == (BulkState.RUNNING, True)
    assert (ended.state, ended.done, ended.skipped, ended.failed) == (BulkState.COMPLETED, JOBS, 0, 0)
    assert await members(farm, failed_key) == []
    entered = await members(farm, keys.queue(farm.namespace, "default") + "enqueued:normal")
    assert sorted(entered) == (sorted(ids) if kind is BulkKind.RETRY else [])
    assert {(await farm.store.query.get(farm.namespace, each)).generation for each in entered} <= {1}
    assert await farm.findings() == []
