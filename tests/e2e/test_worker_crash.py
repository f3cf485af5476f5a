from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import trio

from gopher.client import TrioClient
from gopher.job import JobState, Outcome
from gopher.store import keys
from tests.e2e.farm import Farm, end_of, states
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

LEASE_SECONDS = 1.0


async def test_jobs_of_a_killed_worker_run_elsewhere(farm: Farm) -> None:
    """After kill -9 in mid-job another worker runs the jobs again; each ends once and none is lost."""
    victim = await farm.worker(lease_seconds=LEASE_SECONDS)
    ids = await farm.hold(20)
    await farm.started(ids)
    await farm.worker(lease_seconds=LEASE_SECONDS)

    victim.process.kill()
    await farm.started(ids, 2 * len(ids))
    farm.open_gate()
    jobs = await farm.finals(ids)

    assert states(jobs) == {JobState.COMPLETED}
    assert {(job.crashes, job.attempt) for job in jobs} == {(1, 2)}
    assert {tuple(attempt.outcome for attempt in job.attempts) for job in jobs} == {(Outcome.LOST, Outcome.SUCCEEDED)}
    assert len(farm.events("end", ids)) == len(ids)
    assert await farm.findings() == []


async def test_outcome_of_a_worker_that_was_stopped_is_refused(farm: Farm) -> None:
    """A worker that wakes after its lease finds its job taken: what it writes is stale, the result is the other's."""
    sleeper = await farm.worker(lease_seconds=LEASE_SECONDS)
    (job_id,) = await farm.hold()
    await farm.started([job_id])
    other = await farm.worker(lease_seconds=LEASE_SECONDS)

    os.kill(sleeper.process.pid, signal.SIGSTOP)
    await farm.started([job_id], 2)
    farm.open_gate()
    os.kill(sleeper.process.pid, signal.SIGCONT)
    (job,) = await farm.finals([job_id])
    await until(lambda: any("lease.lost" in line for line in sleeper.errors))

    assert job.result == str(other.process.pid).encode()
    assert (job.attempt, job.crashes) == (2, 1)
    assert job_id in next(line for line in sleeper.errors if "lease.lost" in line)
    assert await farm.findings() == []


async def test_handler_that_blocks_the_loop_keeps_its_lease(farm: Farm) -> None:
    """The keeper is a thread: a handler that stops the loop for three leases runs once."""
    await farm.worker("--concurrency", "1", lease_seconds=LEASE_SECONDS)
    await farm.worker("--concurrency", "1", lease_seconds=LEASE_SECONDS)

    ids = await farm.submit("block", 3 * LEASE_SECONDS)
    (job,) = await farm.finals(ids)

    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 1, 0)
    assert len(farm.events("start", ids)) == 1


async def test_job_that_kills_its_workers_is_buried(farm: Farm) -> None:
    """The third crash makes it a dead letter with CRASH_LOOP; workers are restarted and everybody else's jobs end well.

    Also those that were claimed together with it, and lost with it.
    """
    pills = await farm.submit("exit", 9)
    others = await farm.submit("quick", count=49)
    parent = await farm.worker("--processes", "2", lease_seconds=LEASE_SECONDS)
    (pill,) = await farm.finals(pills)
    jobs = await farm.finals(others)

    assert (pill.state, pill.crashes) == (JobState.FAILED, 3)
    assert pill.failure is not None
    assert pill.failure.reason == "CRASH_LOOP"
    assert states(jobs) == {JobState.COMPLETED}
    assert len(farm.events("start", pills)) == 3
    await until(lambda: sum("worker.restarting" in line for line in parent.errors) == 3)
    assert parent.stop() == 0
    assert await farm.findings() == []


async def test_nothing_is_lost_when_redis_starts_anew_under_load(lone_farm: Farm, redis_server: RedisServer) -> None:
    """Workers wait for Redis, write what they have and go on; every job that was acknowledged ends."""
    farm = lone_farm
    workers = [await farm.worker("--concurrency", "20", lease_seconds=2) for _ in range(2)]

    ids = await farm.submit("quick", count=1000)
    await farm.started(ids, 300)
    redis_server.kill()
    redis_server.start()
    jobs = await farm.finals(ids)

    assert states(jobs) == {JobState.COMPLETED}
    assert all(worker.process.poll() is None for worker in workers)
    assert await farm.findings() == []


async def test_jobs_go_on_when_redis_was_away_for_longer_than_a_lease(lone_farm: Farm, redis_server: RedisServer) -> None:
    """Handlers are ended when their leases are, and their jobs start anew once Redis is back."""
    farm = lone_farm
    worker = await farm.worker(lease_seconds=LEASE_SECONDS)
    ids = await farm.hold(5)
    await farm.started(ids)

    redis_server.stop()
    await until(lambda: any("keeper.delayed" in line for line in worker.errors))
    await trio.sleep(LEASE_SECONDS)  # the time that the fault lasts
    redis_server.start()
    await farm.started(ids, 2 * len(ids))
    farm.open_gate()
    jobs = await farm.finals(ids)

    assert states(jobs) == {JobState.COMPLETED}
    assert len(farm.events("end", ids)) == len(ids)
    assert await farm.findings() == []
    assert worker.stop() == 0
    assert await end_of(worker) == 0


async def test_job_of_a_queue_whose_workers_are_all_gone_is_taken_back(farm: Farm) -> None:
    """A server does it, so that a cancel which waits for the worker ends."""
    server = await farm.server()
    worker = await farm.worker(lease_seconds=2)
    (job_id,) = await farm.hold()
    await farm.started([job_id])
    worker.process.kill()
    # As if the worker were gone for long.
    processing = keys.index(farm.namespace, "default", JobState.PROCESSING)
    await farm.store.link.call("ZADD", processing, "XX", await farm.store.registry.now_ms() - 60_000, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with TrioClient(server.address, namespace=farm.namespace) as client:
            job = await client.cancel(job_id, wait=True)

    assert job.state is JobState.CANCELLED
    assert await farm.findings() == []
