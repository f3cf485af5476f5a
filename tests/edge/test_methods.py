"""The table of rpcs against the protos, and what reflection tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gopher_pb.v1 import admin_service_pb2, job_service_pb2, queue_service_pb2, schedule_service_pb2, worker_service_pb2

from gopher.edge import methods, reflection
from gopher.edge.health import Health
from gopher.edge.interceptors import BatchedMethod, UnaryMethod
from gopher.edge.methods import Services
from gopher.errors import GopherError
from gopher.kin.carrier import Carrier
from gopher.retry import RetryPolicy
from gopher.runtime.upkeep import Upkeep
from gopher.service.admin import Admin
from gopher.service.bulk import Bulk
from gopher.service.jobs import Jobs
from gopher.service.limits import FlowControl
from gopher.service.nurseries import Nurseries
from gopher.service.pages import Pages
from gopher.service.queues import Queues
from gopher.service.remote_session import Terms
from gopher.service.remote_workers import RemoteWorkers
from gopher.service.run import Runs
from gopher.service.schedules import Schedules
from gopher.service.watch import Watch
from gopher.service.watch_jobs import WatchJobs
from gopher.store.store import Store
from gopher.telemetry import tracing
from tests.edge.rig import raw_stream_stream, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.edge.interceptors import Method

FILES = (admin_service_pb2, job_service_pb2, queue_service_pb2, schedule_service_pb2, worker_service_pb2)


def services() -> Services:
    store = Store("redis://127.0.0.1:1")
    pages, watch, queues = Pages(store.registry), Watch(store), Queues(store)
    jobs = Jobs(store, pages, accept_unknown_types=True, max_payload_bytes=1024)
    schedules = Schedules(store, pages, accept_unknown_types=True, max_payload_bytes=1024)
    admin = Admin(store, queues, pages)
    return Services(
        jobs=jobs,
        watch=watch,
        watch_jobs=WatchJobs(store),
        runs=Runs(store, jobs, watch),
        nurseries=Nurseries(store, Carrier(store), max_payload_bytes=1024),
        queues=queues,
        schedules=schedules,
        admin=admin,
        bulk=Bulk(store),
        workers=RemoteWorkers(store, Upkeep(store, poll_seconds=1, sweep_seconds=1), Terms(policy=RetryPolicy())),
        flow=FlowControl(store, queues),
        health=Health([]),
    )


async def table() -> Sequence[Method]:
    async with trio.open_nursery() as nursery:
        pass  # the methods only have to hold one
    return services().methods(nursery, nursery)


async def test_every_rpc_of_the_protos_has_a_row_of_its_shape() -> None:
    """No rpc is declared that is not served, none served that is not declared, and streams are streams, one way or both."""
    declared = {
        f"/{service.full_name}/{method.name}": (method.server_streaming, method.client_streaming)
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    declared |= {f"/{methods.HEALTH}/Check": (False, False), f"/{methods.HEALTH}/Watch": (True, False)}

    served = {method.path: (method.is_stream, method.is_duplex) for method in await table()}

    assert served == declared


async def test_submits_are_batched_unless_they_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traced submit has a Trio task, and so a context, of its own; an untraced one needs none."""
    path = f"/{methods.JOBS}/SubmitJob"
    plain = {method.path: method for method in await table()}[path]
    monkeypatch.setattr(tracing, "is_on", lambda: True)
    traced = {method.path: method for method in await table()}[path]

    assert isinstance(plain, BatchedMethod)
    assert isinstance(traced, UnaryMethod)


@pytest.mark.parametrize("version", [reflection.V1, reflection.V1ALPHA])
async def test_reflection_lists_the_services_and_describes_them(version: str) -> None:
    """Both versions of reflection answer, with the services and with the file that a service is in."""
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=methods.JOBS),
    ]

    async with serving(services().methods, reflected=[*methods.SERVICES, methods.HEALTH]) as rig:
        call = raw_stream_stream(rig.channel, f"/{version}/ServerReflectionInfo")
        sent = iter([request.SerializeToString() for request in requests])
        replies = await trio.to_thread.run_sync(list, call(sent))

    listed, described = map(reflection_pb2.ServerReflectionResponse.FromString, replies)
    names = {service.name for service in listed.list_services_response.service}
    assert names == {*methods.SERVICES, methods.HEALTH, reflection.V1ALPHA}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw) for raw in described.file_descriptor_response.file_descriptor_proto
    ]
    assert "gopher/v1/job_service.proto" in {file.name for file in files}


async def test_reflection_refuses_bytes_that_are_no_request() -> None:
    """They are answered with INVALID_ARGUMENT, inside of the stream, as an unknown question is."""
    async with serving(services().methods, reflected=methods.SERVICES) as rig:
        call = raw_stream_stream(rig.channel, f"/{reflection.V1}/ServerReflectionInfo")
        (reply,) = await trio.to_thread.run_sync(list, call(iter([b"\xff\xff"])))

    answer = reflection_pb2.ServerReflectionResponse.FromString(reply)
    assert answer.error_response.error_code == 3


async def test_reflection_is_unimplemented_when_it_is_off() -> None:
    """Nothing is told of a server that was not asked to tell."""
    async with serving(services().methods) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask(path=f"/{reflection.V1}/ServerReflectionInfo")

    assert caught.value.reason == "UNIMPLEMENTED"
