"""A program that keeps a fixed number of submits under way on one gRPC channel and counts what is answered.

`unary|batch|stream TARGET IN_FLIGHT SECONDS` prints `{"calls": n, "seconds": s}` for the time after a short warm-up; of a stream, an
answered item counts as a call. It is the same `grpc.aio` on uvloop as the servers are, so on two cores neither side starves the
other.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - what is measured is grpc.aio, which is asyncio's
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import grpc
import msgspec
import uvloop

from gopher_pb.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, job_stream_pb2

from benchmarks.client import payload_of, say
from benchmarks.plan import BATCH, PAYLOAD_BYTES

WARM_SECONDS: Final = 0.5

Call: TypeAlias = Callable[[], Awaitable[None]]


async def main(kind: str, target: str, in_flight: int, seconds: float) -> None:
    """Load the target and print the count."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        call = _batch(stub) if kind == "batch" else _unary(stub)
        load = partial(_stream_load, stub) if kind == "stream" else partial(_load, call)
        await load(in_flight, WARM_SECONDS)
        start = time.perf_counter()
        calls = await load(in_flight, seconds)
        say({"calls": calls, "seconds": time.perf_counter() - start})


async def _load(call: Call, in_flight: int, seconds: float) -> int:
    end = time.perf_counter() + seconds

    async def repeat() -> int:
        calls = 0
        while time.perf_counter() < end:
            await call()
            calls += 1
        return calls

    return sum(await asyncio.gather(*(repeat() for _ in range(in_flight))))


async def _stream_load(stub: job_service_pb2_grpc.JobServiceAsyncStub, in_flight: int, seconds: float) -> int:
    """Stream items in one call, with so many that have no answer yet, and return how many were answered."""
    end = time.perf_counter() + seconds
    request = job_stream_pb2.SubmitJobStreamRequest(job=_spec())
    room = asyncio.Semaphore(in_flight)

    async def requests() -> AsyncIterator[job_stream_pb2.SubmitJobStreamRequest]:
        while time.perf_counter() < end:
            await room.acquire()
            yield request

    answers = 0
    async for response in stub.SubmitJobStream(requests()):
        if response.HasField("error"):
            raise SystemExit(f"a job was refused: {response.error.message}")
        answers += 1
        room.release()
    return answers


def _spec() -> job_pb2.JobSpec:
    return job_pb2.JobSpec(type="noop", payload=msgspec.json.encode(payload_of(PAYLOAD_BYTES)))


def _unary(stub: job_service_pb2_grpc.JobServiceAsyncStub) -> Call:
    request = job_service_pb2.SubmitJobRequest(job=_spec())

    async def call() -> None:
        await stub.SubmitJob(request)

    return call


def _batch(stub: job_service_pb2_grpc.JobServiceAsyncStub) -> Call:
    request = job_service_pb2.SubmitJobsRequest(jobs=[_spec() for _ in range(BATCH)])

    async def call() -> None:
        response = await stub.SubmitJobs(request)
        refused = [result.error.message for result in response.results if result.HasField("error")]
        if refused:
            raise SystemExit(f"a job was refused: {refused[0]}")

    return call


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
