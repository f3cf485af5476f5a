"""RunJob with real processes: whatever takes the client away ends its job and the job's children; what takes the server away does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import grpc
import trio

from gopher_pb.v1 import job_pb2
from gopher_pb.v1.job_stream_pb2 import RunJobRequest

from gopher.client import TrioClient
from gopher.errors import CallExpiredError
from gopher.job import JobState
from gopher.store import keys
from gopher.wire.status import from_rpc_error
from tests.e2e.apps.attached import CHILDREN
from tests.e2e.farm import states
from tests.edge.rig import raw_stream
from tests.waiting import PATIENCE_SECONDS, until, until_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.errors import GopherError
    from gopher.job import Job
    from tests.e2e.farm import Farm
    from tests.programs import Program

APP: Final = "tests.e2e.apps.attached:registry"
RUN: Final = "/gopher.v1.JobService/RunJob"
ENDED: Final = {JobState.CANCELLED, JobState.FAILED}
"""At a deadline a job is cancelled by its call or failed as EXPIRED by its worker, whoever is first."""
GRACE_MS: Final = 5_000
"""The default. No handler here needs any of it: it is all there for a machine that is busy."""


async def family(farm: Farm) -> list[Job]:
    """Return the parent and its children; one that changes state meanwhile may be missed."""
    found: dict[str, Job] = {}
    for job_type in ("parent", "child"):
        page, _ = await farm.store.query.list_jobs(farm.namespace, type=job_type, size=100)
        found |= {job.id: job for job in page}
    return list(found.values())


async def all_ended(farm: Farm) -> list[Job]:
    """Wait until the parent and its children have ended, and return them, the parent first."""

    async def have_ended() -> bool:
        jobs = await family(farm)
        return len(jobs) == 1 + CHILDREN and all(job.state.is_final for job in jobs)

    await until_async(have_ended)
    return await family(farm)


async def all_run(farm: Farm) -> list[str]:
    """Wait until the parent and its children run, and return their ids, the parent's first."""

    async def run() -> bool:
        jobs = await family(farm)
        return len(jobs) == 1 + CHILDREN and len(farm.events("start", [job.id for job in jobs])) == 1 + CHILDREN

    await until_async(run)
    return [job.id for job in await family(farm)]


async def workers(farm: Farm) -> None:
    """Start one for the parent and another for its children."""
    for queues in ("default=1", "elsewhere=1"):
        await farm.worker("--queues", queues, lease_seconds=2.0, app=APP)


def end_of(call: Iterator[bytes]) -> GopherError | None:
    """Read a run to its end and return the error that it ends with."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return None


async def kill_and_see(farm: Farm, victim: Program) -> list[Job]:
    """Kill a process with -9 once the family runs, and return the family at its end."""
    ids = await all_run(farm)
    victim.process.kill()
    jobs = await farm.finals(ids)
    await until(lambda: len(farm.events("end", ids)) == len(ids))
    return jobs


async def test_deadline_of_the_call_ends_the_whole_tree(farm: Farm) -> None:
    """N3: with 2 s, a job of 60 s and its children on another worker have all ended within 2 s and the grace."""
    await workers(farm)
    address = (await farm.server()).address
    request = RunJobRequest(namespace=farm.namespace, job=job_pb2.JobSpec(type="parent")).SerializeToString()

    with grpc.insecure_channel(address) as channel:
        await trio.to_thread.run_sync(grpc.channel_ready_future(channel).result, PATIENCE_SECONDS)
        call = raw_stream(channel, RUN)(request, timeout=2.0)
        error = await trio.to_thread.run_sync(end_of, call)
    jobs = await all_ended(farm)
    ids = [job.id for job in jobs]

    assert error is not None
    assert error.reason in {"DEADLINE_EXCEEDED", CallExpiredError.reason}
    assert states(jobs) <= ENDED
    began_ms = jobs[0].submitted_ms
    assert all(job.deadline_ms == jobs[0].deadline_ms for job in jobs)
    assert max(job.finished_ms or 0 for job in jobs) - began_ms <= 2_100 + GRACE_MS
    assert len(farm.events("end", ids)) == len(farm.events("start", ids)) > 0
    assert await farm.findings() == []


async def test_client_killed_ends_the_whole_tree(farm: Farm) -> None:
    """kill -9 of the program that runs the job: the job and its children on another worker are cancelled, and nothing is left."""
    await workers(farm)
    address = (await farm.server()).address
    client = farm.command(address, "submit", "parent", "--attach")

    jobs = await kill_and_see(farm, client)

    assert states(jobs) == {JobState.CANCELLED}
    assert jobs[0].cancel_reason == "the client of RunJob has cancelled it or has gone"
    assert {job.attempt for job in jobs} == {1}
    assert await farm.findings() == []


async def test_server_killed_for_good_ends_the_whole_tree(farm: Farm) -> None:
    """kill -9 of the server, and none in its place: within the lease and a sweep a worker's reaper cancels the job."""
    await workers(farm)
    server = await farm.server()
    client = farm.command(server.address, "submit", "parent", "--attach")

    ids = await all_run(farm)
    server.kill()
    jobs = await farm.finals(ids)
    client.process.kill()

    assert states(jobs) == {JobState.CANCELLED}
    assert jobs[0].cancel_reason == "its client has vanished"
    assert await farm.findings() == []


async def test_rolling_restart_of_the_server_leaves_the_run_alone(farm: Farm) -> None:
    """Two restarts, one by SIGTERM and one by kill -9: the block goes on, the job runs once, and its result arrives."""
    await farm.worker(lease_seconds=2.0, app=APP)
    server = await farm.server()
    client = TrioClient(server.address, namespace=farm.namespace)

    async with client, client.run("hold", str(farm.gate), request_id="once") as job:
        await farm.started([job.id])
        first_call = await call_of(farm, job.id)
        assert await trio.to_thread.run_sync(server.stop) == 0
        await server.start()
        second_call = await attached_anew(farm, job.id, first_call)
        await trio.to_thread.run_sync(server.kill)
        await server.start()
        await attached_anew(farm, job.id, second_call)
        farm.open_gate()
        with trio.fail_after(PATIENCE_SECONDS):
            result = await job.result()
    (stored,) = await farm.jobs([job.id])

    assert (stored.state, stored.attempt, stored.cancel_reason) == (JobState.COMPLETED, 1, None)
    assert json.dumps(result).encode() == stored.result
    assert len(farm.events("start", [job.id])) == 1
    assert len((await farm.store.query.list_jobs(farm.namespace, size=100))[0]) == 1


async def call_of(farm: Farm, job_id: str) -> object:
    """Return the call that a job is attached to."""
    return await farm.store.link.call("HGET", keys.job(farm.namespace, "default", job_id), "attached_to")


async def attached_anew(farm: Farm, job_id: str, before: object) -> object:
    """Wait until another call holds the job, and return it."""

    async def is_another() -> bool:
        found: object = await call_of(farm, job_id)
        return found != before

    await until_async(is_another)
    return await call_of(farm, job_id)
