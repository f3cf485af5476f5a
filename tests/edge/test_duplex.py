"""Calls whose client streams too: order, back-pressure both ways, and each of the ways in which they end."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final
from unittest import mock

import grpc
import trio

from gopher_pb.v1 import job_service_pb2 as pb

from gopher.edge import handover
from gopher.edge.duplex import MAX_UNREAD, DuplexCall
from gopher.edge.grpc_server import Limits
from gopher.errors import GopherError, InvalidRequestError, JobNotFoundError
from gopher.wire.status import ServerStoppingError, SlowReaderError
from tests.edge.rig import PATIENCE_SECONDS, duplex, raw_stream_stream, serving
from tests.edge.test_streams import read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pytest
    from google.protobuf.message import Message

    from gopher.service.requests import Requests

    Send = Callable[[Message], Awaitable[None]]
    Asked = Requests[pb.GetJobRequest]

BIG: Final = "x" * 16_384


def named(name: object) -> bytes:
    return pb.GetJobRequest(job_id=str(name)).SerializeToString()


async def echo(requests: Asked, send: Send) -> None:
    async for request in requests:
        await send(request)


class Client:
    """Streams what the test tells it to, without an end until it is told."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.taken = 0
        self.release = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        for message in self._messages:
            self.taken += 1
            yield message
        self.release.wait(PATIENCE_SECONDS)


async def until_still(look: Callable[[], int]) -> int:
    """Wait until a figure that has begun to rise stands still, and return it."""
    before = -1
    while look() != before or before == 0:
        before = look()
        await trio.testing.wait_all_tasks_blocked(0.2)
    return before


async def test_each_side_streams_while_the_other_does() -> None:
    """Many more messages than the buffers hold come through in order, both ways, and the client's end ends the requests."""
    async with serving(duplex(echo)) as rig:
        sent = (named(number) for number in range(20 * MAX_UNREAD))
        ids, error = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(sent))

    assert ids == [str(number) for number in range(20 * MAX_UNREAD)]
    assert error is None


async def test_answer_comes_before_the_client_has_sent_all() -> None:
    """The first answer does not wait for a second request."""
    client = Client(named("first"))

    async with serving(duplex(echo)) as rig:
        call = raw_stream_stream(rig.channel)(iter(client))
        first = await trio.to_thread.run_sync(next, call)
        client.release.set()
        rest, error = await trio.to_thread.run_sync(read_all, call)

    assert first == named("first")
    assert rest == []
    assert error is None


async def test_client_that_sends_nothing_is_answered_with_nothing() -> None:
    """An end at once is no fault."""
    async with serving(duplex(echo)) as rig:
        ids, error = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(iter(())))

    assert ids == []
    assert error is None


async def test_what_has_arrived_is_taken_at_once() -> None:
    """All that is there can be taken, no more than is asked for; the other thread is told once that there is room again."""
    loop = mock.Mock()
    call = DuplexCall(handover.Handover(mock.Mock(), loop), mock.Mock(), math.inf, None)
    for number in range(8):
        call._arrive(named(number))
    call._end()

    batches = [await call.receive(5), await call.receive(100), await call.receive(100)]

    assert batches == [[named(number) for number in range(5)], [named(number) for number in range(5, 8)], []]
    assert loop.call_soon_threadsafe.call_count == 1


async def test_client_waits_while_its_requests_are_not_taken() -> None:
    """A client gets no further ahead of the handler than the buffers hold; once they are taken all of them come."""
    go_on, count = trio.Event(), 0

    async def dawdle(requests: Asked, _send: Send) -> None:
        nonlocal count
        await go_on.wait()
        async for _ in requests:
            count += 1

    client = Client(*[named(BIG)] * 2000)
    client.release.set()
    async with serving(duplex(dawdle)) as rig:
        call = raw_stream_stream(rig.channel)(iter(client))
        held = await until_still(lambda: client.taken)
        go_on.set()
        _, error = await trio.to_thread.run_sync(read_all, call)

    assert held < 1000
    assert count == 2000
    assert error is None


async def test_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that streams on and never reads its answers is cut, as the reader of any stream is, and its stream with it."""
    monkeypatch.setattr(handover, "STALL_SECONDS", 0.2)
    cut = trio.Event()

    async def note(requests: Asked, send: Send) -> None:
        try:
            await echo(requests, send)
        except SlowReaderError:
            cut.set()
            raise

    client = Client(*[named(BIG)] * 5000)
    async with serving(duplex(note)) as rig:
        call = raw_stream_stream(rig.channel)(iter(client))
        await cut.wait()
        held = await until_still(lambda: client.taken)
        ids, error = await trio.to_thread.run_sync(read_all, call)
        client.release.set()

    assert held < 5000
    assert len(ids) < 5000
    assert isinstance(error, SlowReaderError)


async def test_malformed_request_ends_the_call_after_those_before_it() -> None:
    """What came before is served; bytes that are no message end the call, and nothing after them is."""
    served: list[str] = []

    async def note(requests: Asked, _send: Send) -> None:
        while batch := await requests.take(100):
            served.extend(request.job_id for request in batch)

    client = Client(named("a"), named("b"), b"\xff\xff", named("c"))
    client.release.set()
    async with serving(duplex(note)) as rig:
        _, error = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(iter(client)))

    assert served == ["a", "b"]
    assert isinstance(error, InvalidRequestError)
    assert error.reason == "MALFORMED_MESSAGE"
    assert "gopher.v1.GetJobRequest" in error.message


async def test_message_over_the_limit_ends_the_call_and_its_scope() -> None:
    """A request that is too large is RESOURCE_EXHAUSTED; the handler is cancelled, and the connection lives on."""
    ended = trio.Event()

    async def note(requests: Asked, send: Send) -> None:
        try:
            first = await anext(requests)
            await send(first)
            async for _ in requests:
                raise AssertionError
            if first.job_id == "small":
                await trio.sleep_forever()  # the end of the requests comes first, the cancel next
        finally:
            ended.set()

    client = Client(named("small"), b"x" * 1025)
    async with serving(duplex(note), limits=Limits(message_bytes=1024)) as rig:
        _, error = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(iter(client)))
        client.release.set()
        await ended.wait()
        client = Client(named("again"))
        client.release.set()
        ids, _ = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(iter(client)))

    assert isinstance(error, GopherError)
    assert error.reason == "RESOURCE_EXHAUSTED"
    assert ids == ["again"]


async def test_client_that_cancels_or_vanishes_cancels_the_handler() -> None:
    """A cancel and a closed connection both end the handler's scope, while it waits and while its client says nothing."""
    outcomes: list[str] = []
    entered, ended = trio.Event(), trio.Event()

    async def hold(requests: Asked, _send: Send) -> None:
        nonlocal ended
        try:
            await requests.take(1)
            entered.set()
            await trio.sleep_forever()
        except trio.Cancelled:
            outcomes.append("cancelled")
            raise
        finally:
            ended.set()

    clients = [Client(named("a")), Client(named("a"))]
    async with serving(duplex(hold)) as rig:
        call = raw_stream_stream(rig.channel)(iter(clients[0]))
        await entered.wait()
        call.cancel()
        await ended.wait()
        entered, ended = trio.Event(), trio.Event()
        with grpc.insecure_channel(rig.address) as other:
            left = raw_stream_stream(other)(iter(clients[1]))
            await entered.wait()
        await ended.wait()
        left.cancel()
        for client in clients:
            client.release.set()

    assert outcomes == ["cancelled", "cancelled"]


async def test_deadline_of_the_call_ends_it() -> None:
    """A client's deadline is the deadline of the whole call, however much it still sends."""
    client = Client(named("a"))

    async with serving(duplex(echo)) as rig:
        call = raw_stream_stream(rig.channel)(iter(client), timeout=0.3)
        ids, error = await trio.to_thread.run_sync(read_all, call)
        client.release.set()

    assert ids == ["a"]
    assert error is not None
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_refusal_ends_the_call_while_the_client_still_streams() -> None:
    """A handler that refuses need not take what is on its way; the client learns why, and is not read on."""

    async def refuse(requests: Asked, _send: Send) -> None:
        await requests.take(1)
        raise JobNotFoundError("j1")

    client = Client(*[named(BIG)] * 5000)
    async with serving(duplex(refuse)) as rig:
        _, error = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(iter(client)))
        held = await until_still(lambda: client.taken)
        client.release.set()

    assert isinstance(error, JobNotFoundError)
    assert held < 5000


async def test_handler_that_returns_early_ends_the_call_with_ok() -> None:
    """The call ends with its handler, whatever the client would still send."""

    async def first_only(requests: Asked, send: Send) -> None:
        await send(await anext(requests))

    client = Client(named("a"), named("b"))
    async with serving(duplex(first_only)) as rig:
        ids, error = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(iter(client)))
        client.release.set()

    assert ids == ["a"]
    assert error is None


async def test_stop_of_the_server_ends_the_call() -> None:
    """A stop cancels the handler and tells the client, however long it would have gone on."""
    client = Client(named("a"))

    async with serving(duplex(echo)) as rig:
        call = raw_stream_stream(rig.channel)(iter(client))
        await trio.to_thread.run_sync(next, call)
        rig.server.stop()
        _, error = await trio.to_thread.run_sync(read_all, call)
        client.release.set()
        await rig.stopped.wait()

    assert isinstance(error, ServerStoppingError)


async def test_many_calls_at_once_do_not_cross() -> None:
    """Thirty clients that stream at the same time on one connection each get their own."""
    answers: dict[int, list[str]] = {}

    async def talk(number: int) -> None:
        sent = (named(f"{number}-{place}") for place in range(100))
        answers[number], _ = await trio.to_thread.run_sync(read_all, raw_stream_stream(rig.channel)(sent))

    async with serving(duplex(echo)) as rig, trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(talk, number)

    assert answers == {number: [f"{number}-{place}" for place in range(100)] for number in range(30)}
