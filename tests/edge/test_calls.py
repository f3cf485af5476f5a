"""Deadline and cancel, across the threads, and the end of every handler at a stop."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import grpc
import pytest
import trio

from gopher.edge import interceptors
from gopher.edge.grpc_server import GrpcServer, Limits
from gopher.errors import CallExpiredError
from gopher.wire.status import ServerStoppingError
from tests.edge.rig import ASK, PATIENCE_SECONDS, ask, raw_stream, raw_unary, serving, stream, unary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from gopher_pb.v1 import job_service_pb2 as pb

    Send = Callable[[Message], Awaitable[None]]


class Handler:
    """Holds its calls, and tells what becomes of them."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.ended = trio.Event()
        self.release = trio.Event()
        self.was_cancelled = False
        self.left_seconds = 0.0

    async def __call__(self, request: pb.GetJobRequest) -> Message:
        self.left_seconds = trio.current_effective_deadline() - trio.current_time()
        self.entered.set()
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.was_cancelled = True
            raise
        finally:
            self.ended.set()
        return request

    async def as_stream(self, request: pb.GetJobRequest, send: Send) -> None:
        await send(await self(request))


async def test_call_without_a_deadline_gets_thirty_seconds() -> None:
    """The server applies its own deadline where the caller set none."""
    handler = Handler()
    handler.release.set()

    async with serving(unary(handler)) as rig:
        await rig.ask()

    assert 25 < handler.left_seconds <= interceptors.DEFAULT_SECONDS == 30


async def test_call_with_a_deadline_of_years_gets_five_minutes() -> None:
    """No unary call may take longer than that, whatever its caller set."""
    handler = Handler()
    handler.release.set()

    async with serving(unary(handler)) as rig:
        await rig.ask(deadline_seconds=10 * 365 * 86_400)

    assert 295 < handler.left_seconds <= interceptors.LONGEST_SECONDS == 300


async def test_callers_deadline_is_the_handlers() -> None:
    """A Trio deadline is made of the rpc's."""
    handler = Handler()
    handler.release.set()

    async with serving(unary(handler)) as rig:
        await rig.ask(deadline_seconds=20)

    assert 15 < handler.left_seconds < 21


async def test_stream_without_a_deadline_has_none() -> None:
    """A stream lasts as long as its reader wants."""
    handler = Handler()
    handler.release.set()

    async with serving(stream(handler.as_stream)) as rig:
        await trio.to_thread.run_sync(list, raw_stream(rig.channel)(ASK))

    assert handler.left_seconds == math.inf


async def test_deadline_ends_the_handler() -> None:
    """When the caller's time is over the handler is cancelled and the caller told so."""
    handler = Handler()

    async with serving(unary(handler)) as rig:
        with pytest.raises(CallExpiredError):
            await rig.ask(deadline_seconds=0.2)
        await handler.ended.wait()

    assert handler.was_cancelled


async def test_servers_own_deadline_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the caller set no deadline it learns from the server that the time was over."""
    monkeypatch.setattr("gopher.edge.grpc_calls.DEFAULT_SECONDS", 0.1)
    handler = Handler()

    async with serving(unary(handler)) as rig:
        with pytest.raises(CallExpiredError) as caught:
            await rig.ask()

    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert handler.was_cancelled


async def test_cancel_by_the_client_ends_the_handler() -> None:
    """A client that cancels its call cancels the handler's scope."""
    handler = Handler()

    async with serving(unary(handler)) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.ask)
            await handler.entered.wait()
            nursery.cancel_scope.cancel()
        await handler.ended.wait()

    assert handler.was_cancelled


@pytest.mark.parametrize("is_stream", [False, True])
async def test_client_that_goes_away_ends_the_handler(*, is_stream: bool) -> None:
    """A connection that breaks cancels what was served over it."""
    handler = Handler()

    async with serving(stream(handler.as_stream, handler)) as rig:
        with grpc.insecure_channel(rig.address) as channel:
            call = raw_stream(channel)(ASK) if is_stream else raw_unary(channel).future(ASK)
            await handler.entered.wait()
        assert not call.is_active()
        await handler.ended.wait()

    assert handler.was_cancelled


async def test_handler_that_returns_in_spite_of_a_cancel_disturbs_nobody() -> None:
    """An answer that nobody waits for is dropped; the next call is served."""
    handler = Handler()

    async def shielded(request: pb.GetJobRequest) -> Message:
        # A handler that does not let itself be cancelled.
        with trio.CancelScope(shield=True):
            await handler(request)
        return request

    async with serving(unary(shielded)) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.ask)
            await handler.entered.wait()
            nursery.cancel_scope.cancel()
        handler.release.set()
        await handler.ended.wait()
        await rig.ask()

    assert not handler.was_cancelled


async def test_stop_lets_a_unary_call_finish() -> None:
    """A call under way when the stop begins is answered."""
    handler = Handler()
    replies = []

    async def call() -> None:
        replies.append(await rig.ask())

    async with serving(unary(handler)) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await handler.entered.wait()
        rig.server.stop()
        await trio.testing.wait_all_tasks_blocked(0.05)
        handler.release.set()

    assert replies == [ASK]


async def test_stop_cancels_a_unary_call_when_the_grace_is_over() -> None:
    """A call that outlasts the grace is cancelled, and its caller told to call again."""
    handler = Handler()

    async with serving(unary(handler), grace_seconds=0.1) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(_ask_in_vain, rig.channel)
        await handler.entered.wait()
        rig.server.stop()

    assert handler.was_cancelled


async def test_stop_waits_for_no_stream() -> None:
    """A stream, which may go on for days, is ended at once when no unary call is left."""
    handler = Handler()

    def read() -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            list(raw_stream(rig.channel)(ASK))
        return caught.value

    async with serving(stream(handler.as_stream)) as rig, trio.open_nursery() as nursery:
        errors: list[grpc.RpcError] = []

        async def call() -> None:
            errors.append(await trio.to_thread.run_sync(read))

        nursery.start_soon(call)
        await handler.entered.wait()
        rig.server.stop()

    assert [error.code() for error in errors] == [grpc.StatusCode.UNAVAILABLE]
    assert handler.was_cancelled


async def test_run_returns_only_when_every_handler_has_ended() -> None:
    """Also a handler that cleans up after its cancel has ended when `run` returns."""
    all_entered = trio.Event()
    entered = ended = 0

    async def linger(_request: pb.GetJobRequest) -> Message:
        nonlocal entered, ended
        entered += 1
        if entered == 20:
            all_entered.set()
        try:
            await trio.sleep_forever()
        finally:
            # A cleanup that takes its time.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE_SECONDS):
                for _ in range(100):
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
            ended += 1

    server = GrpcServer("127.0.0.1:0", unary(linger), limits=Limits(), grace_seconds=0.1)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(server.run)
            with grpc.insecure_channel(address) as channel:
                async with trio.open_nursery() as clients:
                    for _ in range(20):
                        clients.start_soon(_ask_in_vain, channel)
                    await all_entered.wait()
                    server.stop()

    assert ended == 20


async def _ask_in_vain(channel: grpc.Channel) -> None:
    with pytest.raises(ServerStoppingError):
        await ask(channel)


async def test_cancelled_server_ends_its_handlers_and_its_thread() -> None:
    """When the server is torn down nothing of it is left, and its callers are told."""
    handler = Handler()
    server = GrpcServer("127.0.0.1:0", unary(handler), limits=Limits(), grace_seconds=PATIENCE_SECONDS)
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
            address = await nursery.start(server.run)
            clients.start_soon(_ask_anew_in_vain, address)
            await handler.entered.wait()
            nursery.cancel_scope.cancel()

    threads = [thread for thread in threading.enumerate() if thread.name == "grpc"]
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert handler.was_cancelled
    assert not any(thread.is_alive() for thread in threads)


async def _ask_anew_in_vain(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        await _ask_in_vain(channel)
