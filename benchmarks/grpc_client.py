"""Gopher's client program that speaks gRPC: single submits for the latency, cancels, and idle watchers.

`probe SAMPLES LOW HIGH` is as `benchmarks.client` has it. `cancel probe SAMPLES LOW HIGH` starts as
many jobs and a worker's slots full more, waits until every slot has one, and prints the same of its cancels. `watch COUNT` follows one job that is not due on COUNT streams, says
`ready` when each has given its first message, and goes on until it is ended.
"""

from __future__ import annotations

import os
import sys

import grpc
import msgspec
import trio
from google.protobuf import duration_pb2

from gopher_pb.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, job_stream_pb2

from benchmarks.client import SubmitOne, probe
from benchmarks.plan import CONCURRENCY

ONE_DAY_SECONDS = 86_400


async def main(arguments: list[str]) -> None:
    """Carry out one command."""
    with grpc.insecure_channel(os.environ["GOPHER_SERVER"]) as channel:
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        match arguments:
            case ["probe", samples, low_ms, high_ms]:
                await probe(_submit_by(stub), int(samples), float(low_ms), float(high_ms))
            case ["cancel", "probe", samples, low_ms, high_ms]:
                await probe(_cancel_by(stub, int(samples)), int(samples), float(low_ms), float(high_ms))
            case ["watch", count]:
                await watch(stub, int(count))
            case _:
                raise SystemExit("usage: probe SAMPLES LOW_MS HIGH_MS | watch COUNT")


def _submit_by(stub: job_service_pb2_grpc.JobServiceStub) -> SubmitOne:
    async def submit_one(sequence: int) -> None:
        job = job_pb2.JobSpec(type="stamp", payload=msgspec.json.encode(sequence))
        stub.SubmitJob(job_service_pb2.SubmitJobRequest(job=job))
        await trio.lowlevel.checkpoint()

    return submit_one


def _cancel_by(stub: job_service_pb2_grpc.JobServiceStub, jobs: int) -> SubmitOne:
    """Start this many jobs, and as many more as can run at once, and return what cancels one of the former."""
    ids = [
        stub.SubmitJob(
            job_service_pb2.SubmitJobRequest(job=job_pb2.JobSpec(type="linger", payload=str(number).encode()))
        ).job_id
        for number in range(jobs + CONCURRENCY)
    ]
    for job_id in ids[:CONCURRENCY]:
        while stub.GetJob(job_service_pb2.GetJobRequest(job_id=job_id)).job.state != job_pb2.JOB_STATE_PROCESSING:
            pass  # each look is a round trip

    async def cancel_one(sequence: int) -> None:
        stub.CancelJob(job_service_pb2.CancelJobRequest(job_id=ids[sequence]))
        await trio.lowlevel.checkpoint()

    return cancel_one


async def watch(stub: job_service_pb2_grpc.JobServiceStub, count: int) -> None:
    """Hold `count` streams open until cancelled."""
    delay = duration_pb2.Duration(seconds=ONE_DAY_SECONDS)
    job = job_pb2.JobSpec(type="noop", delay=delay)
    job_id = stub.SubmitJob(job_service_pb2.SubmitJobRequest(job=job)).job_id
    streams = [stub.WatchJob(job_stream_pb2.WatchJobRequest(job_id=job_id)) for _ in range(count)]
    for stream in streams:
        next(stream)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
