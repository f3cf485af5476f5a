"""From outside: whatever looks at or changes something that does not exist leaves nothing behind in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from gopher_pb.v1 import admin_service_pb2, job_service_pb2, queue_service_pb2, schedule_service_pb2, worker_service_pb2

from gopher.job import NewJob
from tests.edge.rest_rig import PATIENCE_SECONDS, UNKNOWN_ID, serving
from tests.edge.rig import raw_stream, raw_stream_stream

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from tests.edge.rest_rig import Rest

FILES: Final = (job_service_pb2, queue_service_pb2, schedule_service_pb2, admin_service_pb2, worker_service_pb2)
METHODS: Final = [
    method for each in FILES for service in each.DESCRIPTOR.services_by_name.values() for method in service.methods
]
CREATING: Final = {"PauseQueue", "UpdateQueue", "SetRateLimit", "StartBulkOperation"}
"""They make what they name, or a record of their own that ends."""
TEXTS: Final = {
    "queue": "ghost",
    "name": "ghost",
    "type": "ghost",
    "confirm": "ghost",
    "worker_id": "ghost",
    "job_id": UNKNOWN_ID,
    "root_id": UNKNOWN_ID,
    "operation_id": UNKNOWN_ID,
    "page_token": "Zm9yZ2VkIHRva2VuIG9mIG5vYm9keQ==",
    "cursor": "Zm9yZ2VkIHRva2VuIG9mIG5vYm9keQ==",
    "resume_token": "Zm9yZ2VkIHRva2VuIG9mIG5vYm9keQ==",
    "cron": "0 0 * * *",
}


def filled(message: Message, namespace: str, *, left_out: str = "") -> Message:
    """Return a message whose every text names something invented, in the namespace; one field is left out."""
    for field in message.DESCRIPTOR.fields:
        if field.name == left_out:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.name in {
            "job",
            "jobs",
            "spec",
            "schedule",
            "hello",
            "open",
            "start",
        }:
            part = getattr(message, field.name)
            filled(part.add() if field.is_repeated else part, namespace, left_out=left_out)
        elif (
            field.type == FieldDescriptor.TYPE_STRING
            and not field.is_repeated
            and (field.name in TEXTS or field.name == "namespace")
        ):
            setattr(message, field.name, namespace if field.name == "namespace" else TEXTS[field.name])
    return message


def call(address: str, method: MethodDescriptor, namespace: str) -> int:
    """Call a method with every field set, and with each that may be left out unset; return how many calls were made."""
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = GetMessageClass(method.input_type)
    calls = 0
    with grpc.insecure_channel(address) as channel:
        for left_out in ("", "queue", "page_token", "cursor", "resume_token", "name"):
            data = filled(request(), namespace, left_out=left_out).SerializeToString()
            replies = (
                raw_stream_stream(channel, path)(iter([data]), timeout=PATIENCE_SECONDS)
                if method.client_streaming
                else raw_stream(channel, path)(data, timeout=PATIENCE_SECONDS)
            )
            try:
                next(replies, None)
            except grpc.RpcError:
                pass
            finally:
                replies.cancel()
            calls += 1
    return calls


async def permanent_keys(rest: Rest, namespace: str) -> set[str]:
    """Return the keys of a namespace that do not end by themselves."""
    cursor, found = b"0", set()
    while True:
        cursor, names = await rest.store.link.call("SCAN", cursor, "MATCH", f"*{namespace}*", "COUNT", 10_000)
        for name in names:
            if await rest.store.link.call("PTTL", name) == -1:
                found.add(name.decode())
        if cursor == b"0":
            return found


@pytest.mark.parametrize("method", [each for each in METHODS if each.name not in CREATING], ids=lambda each: each.name)
async def test_invented_names_leave_nothing(redis_url: str, namespace: str, method: MethodDescriptor) -> None:
    """No key, no name of a queue: neither in a namespace that is not used, nor in one that is."""
    invented = f"{namespace}-invented"
    async with serving(redis_url, namespace, accept_unknown_types=False) as rest:
        await rest.store.lifecycle.submit(namespace, [NewJob(type="t")])
        queues = await rest.store.registry.queues(namespace)
        keys = await permanent_keys(rest, namespace)

        calls = [await trio.to_thread.run_sync(call, rest.grpc_address, method, each) for each in (invented, namespace)]

        assert await permanent_keys(rest, namespace) == keys
        assert await rest.store.registry.queues(namespace) == queues
    assert calls == [6, 6]
