"""A program that holds idle watchers of jobs that are not due.

`TARGET CONNECTIONS WATCHERS JOBS` submits so many jobs, watches them in turn on so many streams, says `ready` when each has given its
first message, and goes on until it is ended. With no job at all it asks for one that there is not, which the bare server takes.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the watchers of one process are most cheaply grpc.aio's, which is asyncio's
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import grpc
import uvloop
from google.protobuf import duration_pb2

from gopher_pb.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, job_stream_pb2

from benchmarks.grpc_client import ONE_DAY_SECONDS
from benchmarks.grpc_watchers import OWN_CONNECTION
from benchmarks.plan import BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    Stub = job_service_pb2_grpc.JobServiceAsyncStub

AT_ONCE: Final = 200
"""Streams that are opened together: what is measured is the memory of idle ones, not of a rush."""


async def main(target: str, connections: int, watchers: int, jobs: int) -> None:
    """Open the streams and hold them."""
    async with AsyncExitStack() as channels:
        stubs = [
            job_service_pb2_grpc.JobServiceStub(
                await channels.enter_async_context(grpc.aio.insecure_channel(target, options=OWN_CONNECTION))
            )
            for _ in range(connections)
        ]
        job_ids = await _submit(stubs[0], jobs) or ["none"]
        held = []
        for begin in range(0, watchers, AT_ONCE):
            streams = [
                stubs[number % connections].WatchJob(
                    job_stream_pb2.WatchJobRequest(job_id=job_ids[number % len(job_ids)]), wait_for_ready=True
                )
                for number in range(begin, min(begin + AT_ONCE, watchers))
            ]
            await asyncio.gather(*(stream.read() for stream in streams))
            held += streams
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def _submit(stub: Stub, count: int) -> Sequence[str]:
    spec = job_pb2.JobSpec(type="noop", delay=duration_pb2.Duration(seconds=ONE_DAY_SECONDS))
    job_ids: list[str] = []
    for begin in range(0, count, BATCH):
        request = job_service_pb2.SubmitJobsRequest(jobs=[spec] * min(BATCH, count - begin))
        job_ids += [result.job_id for result in (await stub.SubmitJobs(request)).results]
    return job_ids


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
