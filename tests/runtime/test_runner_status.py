"""What a failure tells in gRPC's words, which failures are final, and which name the moment of the next attempt."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what a handler calls by mistake
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest
import trio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import gopher
from gopher.job import Failure, Move
from gopher.wire.convert import job_to_message
from gopher.wire.status import DETAILS_KEY, failure_from_status, failure_to_status
from tests.runtime.rig import claimed_job
from tests.runtime.test_runner import failure_of, in_groups, raising

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.runtime.rig import Bench

UNAVAILABLE = 14
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5


def trailer(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    return ((DETAILS_KEY, status.SerializeToString()),)


@pytest.fixture
def dependency() -> Iterator[str]:
    """A real gRPC server whose one method says that it is unavailable for 7 s, and why."""
    advice = error_details_pb2.RetryInfo()
    advice.retry_delay.FromMilliseconds(7000)
    status = status_pb2.Status(code=UNAVAILABLE, message="the disk is being changed")
    for detail in (
        error_details_pb2.ErrorInfo(reason="DISK_CHANGE", domain="storage", metadata={"disk": "sda"}),
        advice,
        error_details_pb2.Help(links=[error_details_pb2.Help.Link(description="more")]),
    ):
        status.details.add().Pack(detail)

    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(trailer(status))
        context.abort(grpc.StatusCode.UNAVAILABLE, status.message)
        raise AssertionError

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(refuse)
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("storage.Disks", {"Read": handler})])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


async def test_status_error_says_all_that_a_status_has(bench: Bench) -> None:
    """Code, reason, metadata and delay are kept; the next attempt comes exactly when it was said."""
    error = gopher.StatusError("UNAVAILABLE", "no disk", reason="NO_DISK", retry_after=7, metadata={"disk": "sda"})
    bench.handler(raising(in_groups(error)))

    settlement = await bench.run()

    assert (settlement.move, settlement.delay_ms) == (Move.RETRY, 7000)
    failure = failure_of(settlement)
    assert failure == Failure(
        reason="NO_DISK", message="no disk", code=UNAVAILABLE, metadata={"disk": "sda"}, retry_after_ms=7000
    )


async def test_error_of_a_handlers_own_call_is_kept_whole(bench: Bench, dependency: str) -> None:
    """What a dependency answers is the failure: its code, reason, facts, further details, and its advice is followed."""

    @bench.registry.handler("work")
    def work(job: object, payload: object) -> None:
        with grpc.insecure_channel(dependency) as channel:
            read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/storage.Disks/Read")
            read(b"")

    settlement = await bench.run()

    assert (settlement.move, settlement.delay_ms) == (Move.RETRY, 7000)
    failure = failure_of(settlement)
    assert (failure.code, failure.reason, failure.metadata) == (UNAVAILABLE, "DISK_CHANGE", {"disk": "sda"})
    assert failure.message == "the disk is being changed"
    (detail,) = failure.details
    assert any_pb2.Any.FromString(detail).TypeName() == "google.rpc.Help"
    assert failure_from_status(failure_to_status(failure)) == failure


async def test_errors_that_a_handler_calls_non_retryable_end_the_job(bench: Bench) -> None:
    """A KeyError is a LookupError: buried at the first attempt, its failure kept."""
    bench.registry.handler("work", non_retryable=(LookupError,))(raising(KeyError("user")))

    settlement = await bench.run()

    assert settlement.move is Move.BURY
    assert failure_of(settlement).reason == "HANDLER_RAISED"


@pytest.mark.parametrize(("reasons", "move"), [("NO_SUCH_USER", Move.BURY), ("OTHER TIMED_OUT", Move.RETRY)])
async def test_reasons_that_a_job_calls_non_retryable_end_it(bench: Bench, reasons: str, move: Move) -> None:
    """The submitter names reasons; any other failure is followed by another attempt."""
    bench.handler(raising(gopher.StatusError("NOT_FOUND", "who?", reason="NO_SUCH_USER")))

    settlement = await bench.run(bench.take(claimed_job(record={"non_retryable_reasons": reasons})))

    assert settlement.move is move
    assert failure_of(settlement).code == NOT_FOUND


async def test_time_out_can_be_non_retryable(bench: Bench) -> None:
    """The reasons of Gopher's own failures count as well."""

    @bench.registry.handler("work", timeout_seconds=0.01)
    async def work(job: object, payload: object) -> None:
        await trio.sleep_forever()

    settlement = await bench.run(bench.take(claimed_job(record={"non_retryable_reasons": "TIMED_OUT"})))

    assert settlement.move is Move.BURY
    assert failure_of(settlement).code == DEADLINE_EXCEEDED


async def test_metadata_of_a_failure_is_bounded(bench: Bench) -> None:
    """Redis does not keep what a handler should have logged."""
    metadata = {f"key{at}": "x" * 100 for at in range(100)}
    bench.handler(raising(gopher.StatusError("INTERNAL", "much", metadata=metadata)))

    failure = failure_of(await bench.run())

    assert 0 < len(failure.metadata) < 11
    assert len(failure_to_status(failure).SerializeToString()) < 2048


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"code": "OK"}, "code"),
        ({"code": "Unavailable"}, "code"),
        ({"code": "UNAVAILABLE", "reason": "no disk"}, "reason"),
        ({"code": "UNAVAILABLE", "retry_after": float("nan")}, "delay"),
    ],
)
def test_status_error_that_cannot_be_is_refused(arguments: dict[str, object], said: str) -> None:
    """A slip is told where it was made."""
    with pytest.raises(ValueError, match=said):
        gopher.StatusError(message="m", **arguments)  # type: ignore[arg-type] # that is the point


def test_job_carries_its_non_retryable_reasons_over_the_wire() -> None:
    """They stand in the retry policy, even alone."""
    job = gopher.Job(
        id="j",
        namespace="n",
        type="t",
        state=gopher.JobState.ENQUEUED,
        submitted_ms=0,
        non_retryable_reasons=("NO_SUCH_USER",),
        priority=gopher.Priority.NORMAL,
    )

    assert list(job_to_message(job).retry_policy.non_retryable_reasons) == ["NO_SUCH_USER"]


@pytest.mark.parametrize("act", [lambda: asyncio.sleep(1), lambda: asyncio.sleep(0), lambda: asyncio.Event().wait()])
async def test_calls_of_asyncio_on_trio_are_told_how_to_run(bench: Bench, act: Callable[[], Awaitable[object]]) -> None:
    """What they raise names neither Trio nor what to do: the failure adds it."""

    @bench.registry.handler("work")
    async def work(job: object, payload: object) -> None:
        await act()

    failure = failure_of(await bench.run())

    assert failure.reason == "HANDLER_RAISED"
    assert failure.message.endswith(" (handlers run on Trio: register one that calls asyncio with asyncio=True)")


async def test_other_errors_are_told_as_they_are(bench: Bench) -> None:
    """One that only resembles what a call of asyncio raises has no advice added."""
    bench.handler(raising(RuntimeError("no running engine")))

    assert failure_of(await bench.run()).message == "RuntimeError: no running engine"
