"""The yardstick of gRPC itself: a bare `grpc.aio` server on uvloop that answers SubmitJob, holds WatchJob, and does nothing else."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what is measured is grpc.aio, which is asyncio's
import sys
from typing import Final

import grpc
import uvloop

from gopher_pb.v1 import job_event_pb2, job_pb2, job_service_pb2, job_stream_pb2

SERVICE: Final = "gopher.v1.JobService"
ANSWER: Final = job_service_pb2.SubmitJobResponse(
    job_id="01890000-0000-7000-8000-000000000000", state=job_pb2.JOB_STATE_ENQUEUED
)
EVENT: Final = job_stream_pb2.WatchJobResponse(
    event=job_event_pb2.JobEvent(job_id=ANSWER.job_id, state=ANSWER.state, cursor="x" * 100, job=job_pb2.Job(id=ANSWER.job_id))
)


class Echo:
    """Answers every submit alike, and never ends a stream."""

    async def submit_job(
        self, _request: job_service_pb2.SubmitJobRequest, _context: object
    ) -> job_service_pb2.SubmitJobResponse:
        """Return an answer of the size of the real one."""
        return ANSWER

    async def watch_job(
        self,
        _request: job_stream_pb2.WatchJobRequest,
        context: grpc.aio.ServicerContext[job_stream_pb2.WatchJobRequest, job_stream_pb2.WatchJobResponse],
    ) -> None:
        """Send an event of the size of the real one, and no other."""
        await context.write(EVENT)
        await asyncio.get_running_loop().create_future()


async def main() -> None:
    """Serve until ended."""
    handler = grpc.unary_unary_rpc_method_handler(
        Echo().submit_job,
        request_deserializer=job_service_pb2.SubmitJobRequest.FromString,
        response_serializer=job_service_pb2.SubmitJobResponse.SerializeToString,
    )
    watch_handler = grpc.unary_stream_rpc_method_handler(
        Echo().watch_job,
        request_deserializer=job_stream_pb2.WatchJobRequest.FromString,
        response_serializer=job_stream_pb2.WatchJobResponse.SerializeToString,
    )
    server = grpc.aio.server()
    for name, served in (("SubmitJob", handler), ("WatchJob", watch_handler)):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {name: served}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"ready grpc=127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
