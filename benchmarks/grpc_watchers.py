"""A program that watches jobs on many streams at once and tells how long each event took to reach each of them.

`TARGET CONNECTIONS WATCHERS EVENTS` prints `{"waited_ms": [...]}`. It is `grpc.aio` on uvloop, as the server is; each channel has a
connection of its own.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the watchers of one process are most cheaply grpc.aio's, which is asyncio's
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import grpc
import uvloop
from google.protobuf import duration_pb2

from gopher_pb.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, job_stream_pb2

from benchmarks.client import say
from benchmarks.grpc_client import ONE_DAY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)
QUIET_SECONDS: Final = 0.3
"""Between the last stream's first message and the event."""


async def main(target: str, connections: int, watchers: int, events: int) -> None:
    """Open the channels, make the events, and print what the watchers saw."""
    waited_ms: list[float] = []
    async with AsyncExitStack() as channels:
        stubs = [
            job_service_pb2_grpc.JobServiceStub(
                await channels.enter_async_context(grpc.aio.insecure_channel(target, options=OWN_CONNECTION))
            )
            for _ in range(connections)
        ]
        for _ in range(events):
            waited_ms += await _tell_all([stubs[number % connections] for number in range(watchers)])
    say({"waited_ms": waited_ms})


async def _tell_all(stubs: Sequence[job_service_pb2_grpc.JobServiceAsyncStub]) -> list[float]:
    """Watch one job, once by each of the stubs, cancel it, and return after how many ms each watcher had heard."""
    spec = job_pb2.JobSpec(type="noop", delay=duration_pb2.Duration(seconds=ONE_DAY_SECONDS))
    job_id = (await stubs[0].SubmitJob(job_service_pb2.SubmitJobRequest(job=spec))).job_id
    streams = [stub.WatchJob(job_stream_pb2.WatchJobRequest(job_id=job_id)) for stub in stubs]
    await asyncio.gather(*(stream.read() for stream in streams))

    async def hear(number: int) -> int:
        await streams[number].read()
        return time.monotonic_ns()

    hearing = [asyncio.create_task(hear(number)) for number in range(len(streams))]
    await asyncio.sleep(QUIET_SECONDS)
    start = time.monotonic_ns()
    await stubs[0].CancelJob(job_service_pb2.CancelJobRequest(job_id=job_id))
    heard = await asyncio.gather(*hearing)
    for stream in streams:
        stream.cancel()
    return [(moment - start) / 1e6 for moment in heard]


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
