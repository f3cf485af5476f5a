"""RunNursery over a real socket, against the whole server on a real Redis: faulty clients, deaf ones, and those that go."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import grpc
import pytest
import trio

from gopher_pb.v1.job_stream_pb2 import RunNurseryRequest, RunNurseryResponse

from gopher.cli.server import Server
from gopher.config import ServerConfig
from gopher.edge import handover
from gopher.errors import InvalidRequestError, NurseryGoneError
from gopher.job import JobState
from gopher.store.store import Store
from gopher.wire.status import ServerStoppingError, SlowReaderError, from_rpc_error
from tests.edge.rig import PATIENCE_SECONDS, raw_stream_stream
from tests.edge.test_duplex import Client
from tests.service.nursery_rig import CLOSE, LEAVE, Desk, cancel, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.service.nursery_rig import Said

PATH: Final = "/gopher.v1.JobService/RunNursery"


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
async def desk(redis_url: str, namespace: str, nursery: trio.Nursery) -> Desk:
    """What opens nurseries, goes on with them elsewhere, and sweeps up."""
    store = Store(redis_url, client_name="test")
    await nursery.start(store.run)
    return Desk(store, redis_url, namespace, nursery)


@pytest.fixture
def channel(server: tuple[Server, str]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server[1]) as opened:
        yield opened


def client_of(*requests: Said | bytes) -> Client:
    return Client(*(each if isinstance(each, bytes) else each.SerializeToString() for each in requests))


def read(call: Iterator[bytes], count: int | None = None) -> tuple[list[RunNurseryResponse], Exception | None]:
    """Return so many answers, None: all, and the error that the stream ends with."""
    answers: list[RunNurseryResponse] = []
    try:
        while len(answers) != count:
            answers.append(RunNurseryResponse.FromString(next(call)))
    except StopIteration:
        pass
    except grpc.RpcError as error:
        return answers, from_rpc_error(error)
    return answers, None


async def talk(channel: grpc.Channel, *requests: Said | bytes) -> tuple[list[RunNurseryResponse], Exception | None]:
    call = raw_stream_stream(channel, PATH)(iter(client_of(*requests)))
    with trio.fail_after(PATIENCE_SECONDS):
        return await trio.to_thread.run_sync(read, call)


async def test_nursery_is_run_over_the_wire(channel: grpc.Channel, desk: Desk) -> None:
    """Opened, started, ended, joined; and OK once it is left."""
    heard: list[str | None] = []

    def converse() -> list[str | None]:
        said = [LEAVE, CLOSE, cancel()]
        waiting = threading.Semaphore(0)

        def requests() -> Iterator[bytes]:
            yield desk.open().SerializeToString()
            yield start(1).SerializeToString()
            while said:
                waiting.acquire()
                yield said.pop().SerializeToString()

        for raw in raw_stream_stream(channel, PATH)(requests()):
            heard.append(RunNurseryResponse.FromString(raw).WhichOneof("message"))
            if heard[-1] != "opened":
                waiting.release()
        return heard

    with trio.fail_after(PATIENCE_SECONDS):
        await trio.to_thread.run_sync(converse)

    assert heard == ["opened", "started", "ended", "joined"]


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([b"\xff\xff\xff\xff"], "MALFORMED_MESSAGE"),
        ([RunNurseryRequest()], "REQUIRED"),
        ([CLOSE], "REQUIRED"),
        ([start(1)], "REQUIRED"),
    ],
)
async def test_bad_first_message_ends_the_stream(channel: grpc.Channel, requests: list[Said | bytes], reason: str) -> None:
    """Nothing is opened, and its status says what is wrong."""
    answers, error = await talk(channel, *requests)

    assert answers == []
    assert isinstance(error, InvalidRequestError)
    assert reason in {error.reason, error.violations[0].reason}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"\xff\xff\xff\xff", "MALFORMED_MESSAGE"),
        (RunNurseryRequest(), "OUT_OF_ORDER"),
        (LEAVE, "OUT_OF_ORDER"),
        (start(0), "OUT_OF_RANGE"),
    ],
)
async def test_bad_message_ends_the_stream_and_leaves_the_nursery_to_its_grace(
    channel: grpc.Channel, desk: Desk, request_: Said | bytes, reason: str
) -> None:
    """What was started stands until then; the connection lives on."""
    client = client_of(desk.open(grace_seconds=1), start(1))
    call = raw_stream_stream(channel, PATH)(iter(client))
    answers, _ = await trio.to_thread.run_sync(read, call, 2)
    call.cancel()
    client.release.set()
    opened, started = answers[0].opened, answers[1].started
    _, error = await talk(channel, desk.open(token=opened.resume_token, grace_seconds=1), request_)
    await desk.sweep(opened.nursery_id)

    assert isinstance(error, InvalidRequestError)
    assert reason in {error.reason, error.violations[0].reason}
    assert await desk.state(started.job_id) is JobState.CANCELLED


async def test_client_that_never_reads_is_held_back_and_cut(
    server: tuple[Server, str], channel: grpc.Channel, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says the same again and again, and takes no answer, is stopped by the bounds, then cut; others are served."""
    cut = trio.Event()

    class NotedError(SlowReaderError):
        def __init__(self) -> None:
            super().__init__()
            cut.set()

    monkeypatch.setattr(handover, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(handover, "SlowReaderError", NotedError)
    # Answers of 900 bytes, so that gRPC's own window, which grows to some MB, is full before all is said.
    faulty = start(1, type="", queue="*", content_type="none", priority=99, unique_key="\n", limit_key="\n")
    client = client_of(desk.open(3), *[faulty] * 60_000)

    with grpc.insecure_channel(server[1]) as own:
        call = raw_stream_stream(own, PATH)(iter(client))
        others, _ = await talk(channel, desk.open(), CLOSE, LEAVE)
        with trio.fail_after(PATIENCE_SECONDS):
            await cut.wait()
        answers, error = await trio.to_thread.run_sync(read, call)
        client.release.set()

    assert others[0].HasField("opened")
    assert isinstance(error, SlowReaderError)
    assert len(answers) < 60_000


async def test_connection_that_breaks_leaves_the_nursery_to_its_grace(server: tuple[Server, str], desk: Desk) -> None:
    """Its children are cancelled after that, and the right to come back is over."""
    client = client_of(desk.open(grace_seconds=1), start(1), start(2))
    with grpc.insecure_channel(server[1]) as own:
        answers, _ = await trio.to_thread.run_sync(read, raw_stream_stream(own, PATH)(iter(client)), 3)
    client.release.set()
    await desk.sweep(answers[0].opened.nursery_id)
    late = desk.dial(desk.open(token=answers[0].opened.resume_token))

    assert isinstance(await late.end(), NurseryGoneError)
    assert {await desk.state(answer.started.job_id) for answer in answers[1:]} == {JobState.CANCELLED}


async def test_server_that_stops_lets_go(server: tuple[Server, str], channel: grpc.Channel, desk: Desk) -> None:
    """The stream ends at once with why, and another server goes on with the nursery."""
    client = client_of(desk.open(), start(1))
    call = raw_stream_stream(channel, PATH)(iter(client))
    answers, _ = await trio.to_thread.run_sync(read, call, 2)

    server[0].stop()
    _, error = await trio.to_thread.run_sync(read, call)
    client.release.set()
    again = desk.dial(desk.open(token=answers[0].opened.resume_token), cancel(), CLOSE)
    await again.leave()

    assert isinstance(error, ServerStoppingError)
    assert again.heard("started")[0].started.job_id == answers[1].started.job_id
