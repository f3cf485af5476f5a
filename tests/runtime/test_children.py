"""What handlers submit: checked, taken in, and left behind by none but a completed attempt; the same from every kind of handler."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what one of the handlers here is made of
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import gopher
from gopher.errors import InvalidRequestError, StoreError, TooManyChildrenError, UnknownTypeError
from gopher.handlers import Discard, Retry, Snooze
from gopher.job import Move, NewJob, Priority
from gopher.runtime import child
from gopher.runtime.children import MAX_CHILDREN, new_child
from gopher.runtime.scopes import CancelReason
from gopher.runtime.subprocesses import Refused
from gopher.store.outbox import _words_of
from gopher.telemetry import tracing
from tests.runtime import process_app
from tests.runtime.rig import Bench, claimed_job
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from gopher.contexts import JobContext, SyncJobContext
    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.lifecycle import Settlement
    from gopher.store.outbox import Child

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROOT = "01998c2e-7a00-7000-8000-000000000000"


@dataclass
class Order:
    id: int


def record_of(made: Child) -> dict[str, str]:
    """Return the fields that a child's record will have."""
    words = [word.decode("latin-1") for word in _words_of(made.entry)]
    fields = words[10:] if words[2] else words[4:]
    return dict(zip(fields[::2], fields[1::2], strict=True))


async def run(bench: Bench, attempt: RunningAttempt | None = None) -> Settlement:
    with trio.fail_after(PATIENCE_SECONDS):
        return await bench.run(attempt)


async def test_handler_on_trio_submits_children(bench: Bench) -> None:
    """The id comes at once; the child goes with the outcome, and has its parent, its root, the trace and the earlier deadline."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> list[str]:
        late = datetime.fromtimestamp(1_900_000_000, UTC)
        return [await job.submit("mail", Order(7), queue="other"), await job.submit("mail", deadline=late)]

    soon_ms = 1_800_000_060_000
    job = claimed_job(record={"root_id": ROOT, "trace": TRACE, "deadline_ms": soon_ms})
    settlement = await run(bench, bench.take(job))

    assert settlement.move is Move.COMPLETE
    assert settlement.plain_attempt == 0
    assert [child.id for child in settlement.children] == msgspec.json.decode(settlement.result)
    assert [child.queue for child in settlement.children] == ["other", "default"]
    first, second = map(record_of, settlement.children)
    assert (first["type"], first["payload"]) == ("mail", '{"id":7}')
    assert (first["parent_id"], first["root_id"], first["trace"]) == (job.id, ROOT, TRACE)
    assert first["deadline_ms"] == second["deadline_ms"] == str(soon_ms)


async def test_root_of_a_child_of_a_root_is_its_parent(bench: Bench) -> None:
    """A job that no handler has submitted is the root of all that comes of it."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> str:
        return await job.submit("mail")

    settlement = await run(bench)

    assert record_of(settlement.children[0])["root_id"] == settlement.job_id


async def test_handler_in_a_thread_submits_children(bench: Bench) -> None:
    """A plain function says `job.submit` with no await."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> str:
        return job.submit("mail", [1], priority="high")

    settlement = await run(bench)

    assert msgspec.json.decode(settlement.result) == settlement.children[0].id
    assert record_of(settlement.children[0])["priority"] == "high"


async def test_handler_on_asyncio_submits_children(bench: Bench) -> None:
    """Several of its tasks may at once."""

    async def work(job: JobContext, payload: object) -> list[str]:
        return list(await asyncio.gather(job.submit("mail", 1), job.submit("mail", 2)))

    bench.registry.handler("work", asyncio=True)(work)
    settlement = await run(bench)

    assert sorted(child.id for child in settlement.children) == sorted(msgspec.json.decode(settlement.result))


@pytest.fixture
def process_bench() -> Bench:
    made = Bench("tests.runtime.process_app:registry")
    made.registry = process_app.registry
    return made


async def test_handler_in_a_subprocess_submits_children(process_bench: Bench) -> None:
    """They are checked there, and taken in here; a refusal is raised in the handler as the error that it is."""
    attempt = process_bench.take(claimed_job("parent", b'["mail","BAD","unknown","mail"]'))
    settlement = await run(process_bench, attempt)

    first, bad, unknown, last = msgspec.json.decode(settlement.result)
    assert [child.id for child in settlement.children] == [first, last]
    assert record_of(settlement.children[0])["labels"] == '{"n":"1"}'
    assert bad.startswith("InvalidRequestError INVALID_REQUEST: type: must match")
    assert unknown.startswith("UnknownTypeError UNKNOWN_JOB_TYPE: no worker has registered")


async def test_coroutine_in_a_subprocess_submits_children(process_bench: Bench) -> None:
    """Its Trio tasks may at once; bytes stay bytes."""
    settlement = await run(process_bench, process_bench.take(claimed_job("parent-trio", b'["mail","mail","mail"]')))

    assert sorted(child.id for child in settlement.children) == msgspec.json.decode(settlement.result)
    assert {record_of(child)["payload"] for child in settlement.children} == {"\xff"}


def test_submit_of_a_subprocess_whose_attempt_was_cancelled_raises() -> None:
    """Nobody answers any more, and the handler is not left waiting."""
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as lines:
        ours.shutdown(socket.SHUT_WR)

        with pytest.raises(ConnectionError, match="cancelled the attempt"):
            child.Worker(theirs, lines).submit(NewJob(type="mail"))


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (Refused("TooManyChildrenError", "too many", {"limit": "3"}), TooManyChildrenError),
        (Refused("StoreUnavailableError", "redis is away", {}), StoreError),
    ],
)
def test_refusal_reaches_the_subprocess_as_the_error_it_is(refused: Refused, error: type[gopher.GopherError]) -> None:
    """By its class, its message and its facts; what Redis has to do with is a StoreError."""
    found = child.error_of(refused)

    assert (type(found), found.message, found.metadata) == (error, refused.message, refused.metadata)


@pytest.mark.parametrize("error", [ValueError("no"), Retry(), Snooze(1), Discard("no")], ids=lambda error: type(error).__name__)
async def test_attempt_that_does_not_complete_leaves_no_children(bench: Bench, error: Exception) -> None:
    """Whatever else comes of it: they were only thought of."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        await job.submit("mail")
        raise error

    settlement = await run(bench)

    assert settlement.move is not Move.COMPLETE
    assert settlement.children == ()


@pytest.mark.parametrize("reason", list(CancelReason))
async def test_cancelled_attempt_leaves_no_children(bench: Bench, nursery: trio.Nursery, reason: CancelReason) -> None:
    """Nor does one that timed out, or whose worker drains."""
    submitted = trio.Event()

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        await job.submit("mail")
        submitted.set()
        await trio.sleep_forever()

    attempt = bench.take()
    nursery.start_soon(bench.run, attempt)
    with trio.fail_after(PATIENCE_SECONDS):
        await submitted.wait()
        attempt.cancel(reason)
        await bench.scopes.wait_empty()

    assert bench.outcome.children == ()


async def test_submit_after_the_attempt_has_ended_is_refused(bench: Bench) -> None:
    """A context that outlives its handler does not lose jobs in silence."""
    kept: list[JobContext] = []

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        kept.append(job)

    await run(bench)

    with pytest.raises(RuntimeError, match="has ended"):
        await kept[0].submit("mail")


async def test_cancelled_submit_takes_nothing_in(bench: Bench) -> None:
    """The handler may go on, as if it had not asked."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await job.submit("mail")
        return scope.cancelled_caught

    settlement = await run(bench)

    assert (settlement.result, settlement.children) == (b"true", ())


async def test_attempt_has_a_bound_of_children(bench: Bench) -> None:
    """The one too many is refused by name; those before it go with the outcome."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> str:
        for _ in range(MAX_CHILDREN):
            await job.submit("mail")
        with pytest.raises(TooManyChildrenError) as caught:
            await job.submit("mail")
        return caught.value.message

    settlement = await run(bench)

    assert len(settlement.children) == MAX_CHILDREN
    assert b"at most 1,000 jobs: let its children submit the rest" in settlement.result


async def test_attempt_has_a_bound_of_bytes(bench: Bench) -> None:
    """All children of an attempt together stay within what one call may carry."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> str:
        for _ in range(4):
            await job.submit("mail", "x" * 250_000)
        with pytest.raises(TooManyChildrenError) as caught:
            await job.submit("mail", "x" * 100_000)
        return caught.value.message

    settlement = await run(bench)

    assert b"at most 1 MiB" in settlement.result
    assert len(settlement.children) == 4


async def test_child_of_a_type_that_nobody_knows_is_refused(bench: Bench) -> None:
    """As SubmitJob refuses it."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> None:
        with pytest.raises(UnknownTypeError):
            await job.submit("unknown")

    settlement = await run(bench)

    assert (settlement.move, settlement.children) == (Move.COMPLETE, ())


async def test_child_hangs_under_the_span_of_its_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """From each kind of handler: the trace is the parent's, the span is the attempt's."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(tracing._State, "tracer", provider.get_tracer("test"))
    spans: list[int] = []

    async def on_trio(job: JobContext, payload: object) -> None:
        spans.append(trace.get_current_span().get_span_context().span_id)
        await job.submit("mail")

    def in_a_thread(job: SyncJobContext, payload: object) -> None:
        spans.append(trace.get_current_span().get_span_context().span_id)
        job.submit("mail")

    bench.registry.handler("trio")(on_trio)
    bench.registry.handler("thread")(in_a_thread)
    bench.registry.handler("asyncio", asyncio=True)(on_trio)
    for kind in ("trio", "thread", "asyncio"):
        await bench.run_alone(bench.take(claimed_job(kind, record={"trace": TRACE})))

    found = [record_of(settlement.children[0])["trace"].split("-") for settlement in bench.handed.settlements]
    assert [words[1] for words in found] == [TRACE.split("-")[1]] * 3
    assert [int(words[2], 16) for words in found] == spans


def test_new_child_says_what_the_options_say() -> None:
    """Each lands in its field, in the units of the store; what is None is unset."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    job = new_child(
        "mail",
        {"a": 1},
        {
            "queue": "q",
            "priority": Priority.LOW,
            "labels": {"a": "b"},
            "max_attempts": 3,
            "backoff_initial_seconds": 0.5,
            "backoff_max_seconds": 2,
            "backoff_multiplier": 3,
            "timeout_seconds": 1.0005,
            "run_at": moment,
            "deadline": moment + timedelta(hours=1),
            "unique_key": "k",
            "retention_seconds": 0,
            "delay_seconds": None,
        },
    )

    ms = round(moment.timestamp() * 1000)
    assert job == NewJob(
        type="mail",
        payload=b'{"a":1}',
        queue="q",
        priority=Priority.LOW,
        labels={"a": "b"},
        max_attempts=3,
        backoff_initial_ms=500,
        backoff_max_ms=2000,
        backoff_multiplier=3,
        timeout_ms=1001,
        run_ms=ms,
        deadline_ms=ms + 3_600_000,
        unique_key="k",
        retention_ms=0,
    )
    assert new_child("mail", None, {}) == NewJob(type="mail")
    assert new_child("mail", b"\xff", {}).content_type == "application/octet-stream"
    assert new_child("mail", b"[1]", {"content_type": "application/json"}).payload == b"[1]"


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        ({"queue": "Bad Queue"}, "queue", "BAD_NAME"),
        ({"queue": 5}, "queue", "BAD_VALUE"),
        ({"priority": "urgent"}, "priority", "BAD_VALUE"),
        ({"content_type": "text/html"}, "content_type", "UNSUPPORTED_CONTENT_TYPE"),
        ({"labels": {"a": 1}}, "labels", "BAD_VALUE"),
        ({"labels": {"": "x"}}, "labels['']", "LABELS"),
        ({"max_attempts": 0}, "max_attempts", "OUT_OF_RANGE"),
        ({"max_attempts": 101}, "max_attempts", "OUT_OF_RANGE"),
        ({"max_attempts": 1.5}, "max_attempts", "BAD_VALUE"),
        ({"backoff_initial_seconds": 2, "backoff_max_seconds": 1}, "backoff_max_seconds", "OUT_OF_RANGE"),
        ({"backoff_multiplier": float("nan")}, "backoff_multiplier", "OUT_OF_RANGE"),
        ({"timeout_seconds": 0}, "timeout_seconds", "OUT_OF_RANGE"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds", "OUT_OF_RANGE"),
        ({"delay_seconds": -1}, "delay_seconds", "OUT_OF_RANGE"),
        ({"delay_seconds": float("nan")}, "delay_seconds", "OUT_OF_RANGE"),
        ({"delay_seconds": 1, "run_at": datetime(2030, 1, 1, tzinfo=UTC)}, "delay_seconds", "CONFLICT"),
        ({"run_at": datetime(2030, 1, 1)}, "run_at", "BAD_VALUE"),  # noqa: DTZ001 - the fault
        ({"deadline": datetime(2300, 1, 1, tzinfo=UTC)}, "deadline", "OUT_OF_RANGE"),
        ({"unique_key": "k" * 256}, "unique_key", "OUT_OF_RANGE"),
        ({"retention_seconds": 10**9}, "retention_seconds", "OUT_OF_RANGE"),
        ({"request_id": "r"}, "request_id", "UNKNOWN_FIELD"),
        ({"timeout": 3}, "timeout", "UNKNOWN_FIELD"),
    ],
)
def test_new_child_refuses_what_cannot_work(options: dict[str, object], field: str, reason: str) -> None:
    """By the option's name and with the reason, as the server refuses a submit."""
    with pytest.raises(InvalidRequestError) as caught:
        new_child("mail", None, options)  # type: ignore[arg-type] # what a handler without a type checker may say

    assert [(each.field, each.reason) for each in caught.value.violations] == [(field, reason)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (object(), "BAD_JSON"),
        (float("nan"), "BAD_JSON"),
        ("x" * 262_143, "PAYLOAD_TOO_LARGE"),
        (b"\xff" * 262_145, "PAYLOAD_TOO_LARGE"),
    ],
    ids=["object", "nan", "text", "bytes"],
)
def test_new_child_refuses_payloads_that_cannot_be_kept(payload: object, reason: str) -> None:
    """The limit is that of a submit, 256 KiB."""
    with pytest.raises(InvalidRequestError) as caught:
        new_child("mail", payload, {})

    assert caught.value.violations[0].reason == reason


@pytest.mark.parametrize("job_type", ["Mail", "", 5, None])
def test_new_child_refuses_what_is_no_type(job_type: object) -> None:
    """Whatever was given in its place."""
    with pytest.raises(InvalidRequestError) as caught:
        new_child(job_type, None, {})  # type: ignore[arg-type] # likewise

    assert caught.value.violations[0].field == "type"


def test_new_child_names_every_fault() -> None:
    """A handler's author need not find them one by one."""
    with pytest.raises(gopher.GopherError, match=r"type: .*queue: .*timeout_seconds: "):
        new_child("Mail", None, {"queue": "Q", "timeout_seconds": -1})
