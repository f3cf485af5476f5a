"""SubmitJobStream over a real socket, against the whole server on a real Redis: faulty clients, slow ones, silent ones."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trio

from gopher_pb.v1 import job_pb2, queue_service_pb2
from gopher_pb.v1.job_stream_pb2 import SubmitJobStreamRequest, SubmitJobStreamResponse

from gopher.cli.server import Server
from gopher.config import ServerConfig
from gopher.edge import handover
from gopher.errors import GopherError, InvalidRequestError
from gopher.store.store import Store
from gopher.wire.status import ServerStoppingError, SlowReaderError, from_rpc_error, from_status
from tests.edge.rig import PATIENCE_SECONDS, ask, raw_stream_stream
from tests.edge.test_duplex import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATH: Final = "/gopher.v1.JobService/SubmitJobStream"


@pytest.fixture
async def server(redis_url: str, nursery: trio.Nursery) -> AsyncIterator[tuple[Server, str]]:
    """A server that takes every type, and its address."""
    store = Store(redis_url, client_name="test")
    await nursery.start(store.run)
    server = Server(ServerConfig(grpc_address="127.0.0.1:0", accept_unknown_types=True), store)
    addresses = await nursery.start(server.run)
    yield server, addresses.grpc
    server.stop()


@pytest.fixture
def channel(server: tuple[Server, str]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server[1]) as opened:
        yield opened


def asked(namespace: str = "", **fields: object) -> bytes:
    spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec
    return SubmitJobStreamRequest(namespace=namespace, job=spec).SerializeToString()


def read_all(call: Iterator[bytes]) -> tuple[list[SubmitJobStreamResponse], Exception | None]:
    """Return the answers, and the error that the stream ends with."""
    answers: list[SubmitJobStreamResponse] = []
    try:
        answers.extend(map(SubmitJobStreamResponse.FromString, call))
    except grpc.RpcError as error:
        return answers, from_rpc_error(error)
    return answers, None


async def submit(channel: grpc.Channel, *messages: bytes) -> tuple[list[SubmitJobStreamResponse], Exception | None]:
    call = raw_stream_stream(channel, PATH)(iter(messages))
    return await trio.to_thread.run_sync(read_all, call)


async def queues(channel: grpc.Channel, namespace: str) -> dict[str, int]:
    """Return how many jobs wait, by queue."""
    request = queue_service_pb2.ListQueuesRequest(namespace=namespace).SerializeToString()
    reply = queue_service_pb2.ListQueuesResponse.FromString(
        await ask(channel, request, path="/gopher.v1.QueueService/ListQueues")
    )
    return {queue.name: queue.enqueued_normal for queue in reply.queues}


async def test_faulty_items_are_answered_and_the_others_are_stored(channel: grpc.Channel, namespace: str) -> None:
    """Each refusal has code, reason and field as that of SubmitJob has, and takes nothing from its neighbours."""
    faulty = [
        asked(type=""),
        asked(type="../../x"),
        asked(queue="a}b"),
        asked(payload=b"1" * 300_000),
        asked(payload=b'{"a": NaN}'),
        asked(payload=b"[" * 60_000),
        asked(content_type="application/x-python-serialize"),
        asked(priority=99),
        SubmitJobStreamRequest().SerializeToString(),
    ]

    answers, error = await submit(channel, asked(namespace), *faulty, asked())

    assert error is None
    assert [answer.sequence for answer in answers] == list(range(1, len(faulty) + 3))
    assert [from_status(answer.error).reason for answer in answers[1:-1]] == [
        "REQUIRED",
        "BAD_NAME",
        "BAD_NAME",
        "PAYLOAD_TOO_LARGE",
        "BAD_JSON",
        "BAD_JSON",
        "UNSUPPORTED_CONTENT_TYPE",
        "BAD_ENUM",
        "REQUIRED",
    ]
    assert await queues(channel, namespace) == {"default": 2}


async def test_malformed_message_ends_the_stream_after_what_came_before(channel: grpc.Channel, namespace: str) -> None:
    """What was sent before it is stored and answered; it and what follows are not."""
    answers, error = await submit(channel, asked(namespace), asked(), b"\xff\xff\xff\xff", asked())

    assert [bool(answer.job_id) for answer in answers] == [True, True]
    assert isinstance(error, InvalidRequestError)
    assert error.reason == "MALFORMED_MESSAGE"
    assert await queues(channel, namespace) == {"default": 2}


@pytest.mark.parametrize("bad", ["a:b", "*", "x" * 1000, "\0"])
async def test_bad_namespace_stores_nothing(channel: grpc.Channel, namespace: str, bad: str) -> None:
    """A namespace that is none ends the stream with the first message."""
    answers, error = await submit(channel, asked(bad), asked(namespace))

    assert answers == []
    assert isinstance(error, InvalidRequestError)
    assert error.reason == "BAD_NAME"
    assert await queues(channel, namespace) == {}


async def test_message_over_the_limit_ends_the_stream(channel: grpc.Channel, namespace: str) -> None:
    """A message larger than the server takes is RESOURCE_EXHAUSTED, and the connection lives on."""
    _, error = await submit(channel, asked(namespace), asked(payload=b"1" * 2 * 1024 * 1024))
    answers, _ = await submit(channel, asked(namespace, queue="again"))

    assert isinstance(error, GopherError)
    assert error.reason == "RESOURCE_EXHAUSTED"
    assert len(answers) == 1


async def test_client_that_never_reads_is_held_back_and_cut(
    server: tuple[Server, str], channel: grpc.Channel, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends on and on and takes no answer is stopped by the bounds, then cut; others are served meanwhile."""
    cut = trio.Event()

    class NotedError(SlowReaderError):
        def __init__(self) -> None:
            super().__init__()
            cut.set()

    monkeypatch.setattr(handover, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(handover, "SlowReaderError", NotedError)
    # Answers of 900 bytes, so that gRPC's own window, which grows to some MB, is full before all items are sent.
    faulty = asked(namespace, type="", queue="*", content_type="none", priority=99, unique_key="\n", request_id="\n")
    client = Client(asked(namespace), *[faulty] * 60_000)

    with grpc.insecure_channel(server[1]) as own:
        call = raw_stream_stream(own, PATH)(iter(client))
        others, _ = await submit(channel, asked(namespace, queue="other"))
        with trio.fail_after(PATIENCE_SECONDS):
            await cut.wait()
        answers, error = await trio.to_thread.run_sync(read_all, call)
        client.release.set()

    assert len(others) == 1
    assert isinstance(error, SlowReaderError)
    assert len(answers) < 60_000
    assert await queues(channel, namespace) == {"default": 1, "other": 1}


async def test_client_that_sends_nothing_costs_nothing_and_ends_with_the_server(
    server: tuple[Server, str], channel: grpc.Channel, namespace: str
) -> None:
    """A silent client is neither answered nor in the way; the stop of the server ends its stream."""
    client = Client()
    call = raw_stream_stream(channel, PATH)(iter(client))
    answers, _ = await submit(channel, asked(namespace))

    server[0].stop()
    silent, error = await trio.to_thread.run_sync(read_all, call)
    client.release.set()

    assert len(answers) == 1
    assert silent == []
    assert isinstance(error, ServerStoppingError)


async def test_thousands_of_items_with_a_slow_reader_all_become_jobs(channel: grpc.Channel, namespace: str) -> None:
    """A reader that lags holds its own stream back and no more: in the end each item is answered once, in order."""
    count = 5000
    sent = iter([asked(namespace, payload=str(number).encode()) for number in range(count)])
    lag = threading.Event()

    def read_slowly() -> tuple[list[int], list[str]]:
        sequences, ids = list[int](), list[str]()
        for raw in raw_stream_stream(channel, PATH)(sent):
            answer = SubmitJobStreamResponse.FromString(raw)
            sequences.append(answer.sequence)
            ids.append(answer.job_id)
            if len(ids) % 500 == 0:
                lag.wait(0.05)
        return sequences, ids

    with trio.fail_after(PATIENCE_SECONDS):
        sequences, ids = await trio.to_thread.run_sync(read_slowly)

    assert sequences == list(range(1, count + 1))
    assert len(set(ids)) == count
    assert await queues(channel, namespace) == {"default": count}
