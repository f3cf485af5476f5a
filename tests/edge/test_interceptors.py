"""Group commit: which calls leave together, and what becomes of those that do not belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from google.rpc import status_pb2
from opentelemetry import trace

from gopher_pb.v1 import job_service_pb2 as pb

from gopher.edge import interceptors
from gopher.edge.interceptors import BatchedMethod, UnaryMethod
from gopher.errors import CallExpiredError, GopherError, InvalidRequestError, JobNotFoundError, StoreUnavailableError
from gopher.telemetry import tracing
from gopher.wire.status import ServerStoppingError, from_status
from tests.edge.rig import batched, raw_unary, serving, unary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from gopher.edge.handover import Reply


class Handler:
    """Notes its batches; holds the first one."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = trio.Event()
        self.release = trio.Event()

    async def __call__(self, requests: Sequence[pb.GetJobRequest]) -> Sequence[Message | GopherError]:
        self.batches.append([request.job_id for request in requests])
        self.entered.set()
        await self.release.wait()
        return [JobNotFoundError(each.job_id) if each.job_id.startswith("no") else each for each in requests]


def request_for(name: str) -> bytes:
    return pb.GetJobRequest(job_id=name).SerializeToString()


async def test_calls_that_come_while_a_batch_is_under_way_leave_together() -> None:
    """The first call leaves alone and at once; those that wait for it leave in one batch."""
    handler = Handler()
    answers: dict[str, str] = {}

    async def call(name: str) -> None:
        reply = await rig.ask(request_for(name))
        answers[name] = pb.GetJobRequest.FromString(reply).job_id

    async with serving(batched(handler)) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(call, "first")
        await handler.entered.wait()
        for number in range(10):
            nursery.start_soon(call, f"job-{number}")
        await trio.testing.wait_all_tasks_blocked(0.1)
        handler.release.set()

    assert handler.batches[0] == ["first"]
    assert sum(map(len, handler.batches)) == 11
    assert len(handler.batches) < 6
    assert answers == {name: name for name in ["first", *(f"job-{number}" for number in range(10))]}


async def test_refusal_of_one_call_leaves_the_others_alone() -> None:
    """In a batch each call has its own answer; a malformed one is refused before the batch leaves."""
    handler = Handler()
    outcomes: dict[bytes, str] = {}

    async def call(request: bytes) -> None:
        try:
            await rig.ask(request)
        except GopherError as error:
            outcomes[request] = error.reason
        else:
            outcomes[request] = "OK"

    async with serving(batched(handler)) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(call, request_for("first"))
        await handler.entered.wait()
        for request in (request_for("a"), request_for("no-such"), b"\xff\xff", request_for("b")):
            nursery.start_soon(call, request)
        await trio.testing.wait_all_tasks_blocked(0.1)
        handler.release.set()

    assert outcomes == {
        request_for("first"): "OK",
        request_for("a"): "OK",
        request_for("no-such"): "JOB_NOT_FOUND",
        b"\xff\xff": "MALFORMED_MESSAGE",
        request_for("b"): "OK",
    }


async def test_call_whose_client_has_gone_is_left_out() -> None:
    """A call that was cancelled before its batch left does nothing."""
    handler = Handler()

    async with serving(batched(handler)) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(rig.ask, request_for("first"))
        await handler.entered.wait()
        async with trio.open_nursery() as impatient:
            impatient.start_soon(rig.ask, request_for("gone"))
            await trio.testing.wait_all_tasks_blocked(0.1)
            impatient.cancel_scope.cancel()
        with pytest.raises(CallExpiredError):
            await rig.ask(request_for("late"), deadline_seconds=0.2)
        await trio.testing.wait_all_tasks_blocked(0.1)
        handler.release.set()
        await rig.ask(request_for("last"))

    assert [name for batch in handler.batches for name in batch] == ["first", "last"]


async def test_failure_of_a_batch_is_told_to_each_of_its_calls() -> None:
    """When Redis fails, every call of the batch learns it, and the next batch is tried."""
    failures = 0

    async def fail_once(requests: Sequence[pb.GetJobRequest]) -> Sequence[Message | GopherError]:
        nonlocal failures
        failures += 1
        await trio.lowlevel.checkpoint()
        if failures == 1:
            raise StoreUnavailableError("gone")
        return requests

    async with serving(batched(fail_once)) as rig:
        with pytest.raises(StoreUnavailableError):
            await rig.ask()
        await rig.ask()


async def test_batch_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch holds those behind it for longer than a call may take."""
    monkeypatch.setattr(interceptors, "DEFAULT_SECONDS", 0.1)
    handler = Handler()

    async with serving(batched(handler)) as rig:
        with pytest.raises(CallExpiredError):
            await rig.ask()


async def test_stop_answers_the_calls_that_wait() -> None:
    """When the grace is over, both the batch under way and those behind it are told that the server stops."""
    handler = Handler()

    async def call() -> None:
        with pytest.raises(ServerStoppingError):
            await rig.ask()

    async with serving(batched(handler), grace_seconds=0.2) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await handler.entered.wait()
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked(0.05)
        rig.server.stop()


async def test_largest_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More calls than a batch holds leave in several."""
    monkeypatch.setattr(interceptors, "MAX_BATCH", 3)
    handler = Handler()

    async with serving(batched(handler)) as rig, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(rig.ask, request_for(f"job-{number}"))
        await handler.entered.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)
        handler.release.set()

    assert max(map(len, handler.batches)) == 3
    assert sum(map(len, handler.batches)) == 20


async def test_defect_in_a_batch_is_each_calls_internal_error() -> None:
    """A bug in a batch handler shows an error id only."""

    async def break_down(_requests: Sequence[pb.GetJobRequest]) -> Sequence[Message | GopherError]:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("secret")

    async with serving(batched(break_down)) as rig:
        with pytest.raises(GopherError) as caught:
            await rig.ask()

    assert caught.value.reason == "INTERNAL"
    assert "secret" not in caught.value.message
    assert not isinstance(caught.value, InvalidRequestError)


class LateCall:
    """A call that was on its way while the server stopped; notes how it ends."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def finish(self, reply: Reply) -> None:
        self.replies.append(reply)


@pytest.mark.parametrize("kind", [UnaryMethod, BatchedMethod])
async def test_call_that_comes_after_the_nursery_closed_is_told_that_the_server_stops(
    kind: type[UnaryMethod[pb.GetJobRequest] | BatchedMethod[pb.GetJobRequest]],
) -> None:
    """No call is left without an answer, whenever it comes."""
    call = LateCall()
    async with trio.open_nursery() as nursery:
        pass

    kind("/test.Service/Method", pb.GetJobRequest, nursery, pytest.fail).accept(call)  # type: ignore[arg-type]  # as much of a call as is used

    (reply,) = call.replies
    assert isinstance(reply, status_pb2.Status)
    assert isinstance(from_status(reply), ServerStoppingError)


async def test_traced_call_runs_in_the_context_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceparent in the call's metadata is the parent of whatever the handler records."""
    monkeypatch.setattr(tracing, "is_on", lambda: True)
    trace_ids: list[int] = []

    async def note(request: pb.GetJobRequest) -> Message:
        await trio.lowlevel.checkpoint()
        trace_ids.append(trace.get_current_span().get_span_context().trace_id)
        return request

    async with serving(unary(note)) as rig:
        metadata = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
        call = raw_unary(rig.channel)
        await trio.to_thread.run_sync(lambda: call(request_for("x"), metadata=metadata))
        await rig.ask(request_for("x"))

    assert trace_ids == [0x4BF92F3577B34DA6A3CE929D0E0E4736, 0]
