from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest
import trio

import gopher  # noqa: TC001 - an annotation here is resolved when the handler is registered
from gopher.contexts import JobContext, Saying, SyncJobContext
from gopher.errors import PayloadMismatchError
from gopher.event import EventKind
from gopher.handlers import LONGEST_DELAY_SECONDS, Discard, Executor, Registry, Retry, Snooze
from gopher.job import JSON_CONTENT_TYPE, JsonValue

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal


@dataclass
class Email:
    """A payload as handlers declare it."""

    to: str
    copies: int = 1


class Order(msgspec.Struct):
    """The same, as a Struct."""

    number: int


async def on_trio(job: JobContext, payload: Email) -> None: ...


def in_a_thread(job: SyncJobContext, payload: Email) -> None: ...


def context_of(kind: type[JobContext | SyncJobContext] = JobContext, **fields: object) -> JobContext | SyncJobContext:
    known: dict[str, object] = {
        "id": "i",
        "type": "t",
        "queue": "q",
        "namespace": "n",
        "attempt": 1,
        "token": 7,
        "labels": {},
        "deadline_ms": None,
        "is_draining": lambda: False,
    }
    return kind(**(known | fields))  # type: ignore[arg-type] # the fields of AttemptInfo


@pytest.mark.parametrize(
    ("function", "options", "executor"),
    [
        (on_trio, {}, Executor.TRIO),
        (in_a_thread, {}, Executor.THREAD),
        (on_trio, {"asyncio": True}, Executor.ASYNCIO),
        (on_trio, {"process": True}, Executor.PROCESS),
        (in_a_thread, {"process": True}, Executor.PROCESS),
    ],
)
def test_registry_tells_where_a_handler_runs(
    function: Callable[[object, object], object], options: dict[str, bool], executor: Executor
) -> None:
    """A coroutine function runs on Trio, a plain one in a thread, unless marked otherwise."""
    registry = Registry()

    registry.handler("work", **options)(function)  # type: ignore[arg-type]  # only switches are among them

    spec = registry.get("work")
    assert spec is not None
    assert spec.executor is executor


def test_registry_knows_its_types() -> None:
    """The types are sorted; a type that nobody has registered is None."""
    registry = Registry()
    registry.register_handler("b", on_trio)
    registry.handler("a")(in_a_thread)

    assert registry.types == ["a", "b"]
    assert registry.get("c") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "Bad Name"}, "must match"),
        ({"type": "x" * 65}, "must match"),
        ({"type": "email\n"}, "must match"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 101}, "max_attempts"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": math.nan}, "timeout_seconds"),
        ({"backoff_initial_seconds": 0}, "backoff"),
        ({"backoff_initial_seconds": math.nan}, "backoff"),
        ({"backoff_initial_seconds": 10, "backoff_max_seconds": 5}, "backoff"),
        ({"backoff_max_seconds": math.inf}, "backoff"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier"),
        ({"backoff_multiplier": math.nan}, "backoff_multiplier"),
    ],
)
def test_registry_refuses_what_cannot_work(options: dict[str, object], said: str) -> None:
    """What would fail at the first job fails when it is declared, and the message names the option."""
    with pytest.raises(ValueError, match=said):
        Registry().handler(**({"type": "work"} | options))  # type: ignore[arg-type] # the cases name one option


def plain(job: object, payload: object) -> None: ...


@pytest.mark.parametrize(
    ("options", "function", "said"),
    [
        ({"asyncio": True}, plain, "must be an async def"),
        ({"asyncio": True, "process": True}, on_trio, "cannot be both"),
        ({}, lambda job: None, "must take two arguments"),
    ],
)
def test_registry_refuses_a_function_that_cannot_be_called(
    options: dict[str, bool], function: Callable[[object, object], object], said: str
) -> None:
    """A function that does not go with its mark, or does not take a job and a payload, is refused by name."""
    with pytest.raises(ValueError, match=said):
        Registry().handler("work", **options)(function)  # type: ignore[arg-type]  # only switches are among them


def test_registry_refuses_a_second_handler_of_a_type() -> None:
    """Which of the two should run would be a matter of luck."""
    registry = Registry()
    registry.register_handler("work", on_trio)

    with pytest.raises(ValueError, match="'work' has a handler already"):
        registry.register_handler("work", in_a_thread)


# --- payloads -------------------------------------------------------------------------------------------------------------------


def takes_any(job: JobContext, payload) -> None: ...  # type: ignore[no-untyped-def] # a handler may leave it open


def takes_json(job: JobContext, payload: JsonValue) -> None: ...


def takes_public_json(job: JobContext, payload: gopher.JsonValue) -> None: ...


def takes_json_by_name(job: JobContext, payload: dict[str, JsonValue]) -> None: ...


def takes_dataclass(job: JobContext, payload: Email) -> None: ...


def takes_struct(job: JobContext, payload: Order) -> None: ...


def takes_choice(job: JobContext, payload: Literal["a", "b"] | None) -> None: ...


def decode(function: Callable[..., object], payload: bytes, content_type: str = JSON_CONTENT_TYPE) -> object:
    registry = Registry()
    registry.register_handler("work", function)
    spec = registry.get("work")
    assert spec is not None
    return spec.read_payload(payload, content_type)


@pytest.mark.parametrize(
    ("function", "payload", "value"),
    [
        (takes_any, b'{"a":[1,null]}', {"a": [1, None]}),
        (takes_json, b'{"a":[1,null]}', {"a": [1, None]}),
        (takes_public_json, b'{"a":[1,null]}', {"a": [1, None]}),
        (takes_public_json, b"9007199254740993", 9007199254740993),
        (takes_json_by_name, b'{"a":[1,{"b":null}]}', {"a": [1, {"b": None}]}),
        (takes_dataclass, b'{"to":"x"}', Email("x")),
        (takes_struct, b'{"number":3}', Order(3)),
        (takes_choice, b'"b"', "b"),
        (functools.wraps(takes_struct)(lambda *args: None), b'{"number":3}', Order(3)),
    ],
)
def test_payload_is_decoded_into_what_the_handler_declares(
    function: Callable[..., object], payload: bytes, value: object
) -> None:
    """The annotation of the second parameter says; with none any JSON is taken."""
    assert decode(function, payload) == value


@pytest.mark.parametrize(
    ("function", "payload", "content_type", "said"),
    [
        (takes_dataclass, b'{"copies":2}', JSON_CONTENT_TYPE, "missing required field `to`"),
        (takes_dataclass, b'{"to":"x","copies":"2"}', JSON_CONTENT_TYPE, r"at `\$.copies`"),
        (takes_choice, b'"c"', JSON_CONTENT_TYPE, "Invalid enum value"),
        (takes_any, b"[1,", JSON_CONTENT_TYPE, "truncated"),
        (takes_any, b"\xff", "application/octet-stream", "wants JSON"),
    ],
)
def test_payload_that_does_not_fit_is_refused(
    function: Callable[..., object], payload: bytes, content_type: str, said: str
) -> None:
    """The message names the type of the job and the place."""
    with pytest.raises(PayloadMismatchError, match=said) as caught:
        decode(function, payload, content_type)

    assert "'work'" in caught.value.message


def test_bytes_are_given_as_they_came() -> None:
    """A handler that asks for bytes takes any content type."""

    def takes_bytes(job: JobContext, payload: bytes) -> None: ...

    assert decode(takes_bytes, b"\xff", "application/octet-stream") == b"\xff"
    assert decode(takes_bytes, b"{") == b"{"


def test_annotations_of_the_other_parameters_need_not_exist() -> None:
    """Only the payload's is looked at: the rest may be there for the type checker alone."""

    def handler(job: Decimal, payload: int) -> Decimal: ...  # type: ignore[empty-body] # only its annotations matter

    assert decode(handler, b"3") == 3


def test_annotation_of_the_payload_must_exist() -> None:
    """A payload type that is imported for the type checker alone is told by name, when the handler is registered."""

    def handler(job: object, payload: Decimal) -> None: ...

    with pytest.raises(ValueError, match=r"payload's annotation .* name 'Decimal' is not defined; it must be importable"):
        Registry().register_handler("work", handler)


# --- verdicts and contexts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, LONGEST_DELAY_SECONDS + 1])
def test_verdict_refuses_an_impossible_delay(seconds: float) -> None:
    """A delay that no job can wait for is the handler's error, where it is made."""
    with pytest.raises(ValueError, match="the delay of Snooze must be 0 to"):
        Snooze(seconds)
    with pytest.raises(ValueError, match="the delay of Retry must be 0 to"):
        Retry(after=seconds)


def test_verdicts_say_what_they_are() -> None:
    """Their texts are what is kept with the attempt."""
    assert str(Retry("busy", after=1.5)) == "busy"
    assert str(Retry()) == "the handler asked for a retry"
    assert Retry().after is None
    assert str(Discard("too old")) == "too old"
    assert Snooze(0).seconds == 0


def test_context_tells_the_deadline_as_a_moment() -> None:
    """The deadline is aware of its time zone; without one there is none."""
    assert context_of(deadline_ms=1_800_000_000_500).deadline == datetime(2027, 1, 15, 8, 0, 0, 500_000, UTC)
    assert context_of().deadline is None


def test_copy_of_a_context_knows_the_same() -> None:
    """A thread's context is that of the attempt, with another way to report."""
    context = context_of(labels={"a": "b"}, is_draining=lambda: True)

    copy = context.copy_as(SyncJobContext)

    assert type(copy) is SyncJobContext
    assert (copy.id, copy.token, copy.labels, copy.shutdown_requested) == ("i", 7, {"a": "b"}, True)


@pytest.mark.parametrize(("fraction", "told"), [(-1, 0.0), (0.5, 0.5), (2, 1.0), (math.inf, 1.0)])
def test_progress_is_bent_into_its_bounds(fraction: float, told: float) -> None:
    """A fraction outside of 0 to 1 counts as the nearer end, and a message is cut."""
    context, said = speaker()

    context.progress(fraction, "x" * 300)

    assert said == [(EventKind.PROGRESS, told, b"x" * 255)]


def speaker() -> tuple[SyncJobContext, list[Saying]]:
    """Return a context, and where what it says ends up."""
    said: list[Saying] = []
    context = context_of(SyncJobContext)
    assert isinstance(context, SyncJobContext)
    context.say = lambda *saying: said.append(saying)
    return context, said


@pytest.mark.parametrize(
    ("message", "line"),
    [("hello", b"hello"), ("", b""), ("é" * 3000, "é".encode() * 2048), ("xé" * 2000, ("xé" * 1365 + "x").encode())],
)
def test_log_line_is_cut_at_the_end_of_a_character(message: str, line: bytes) -> None:
    """At most 4 KiB are kept, and what is kept is UTF-8."""
    context, said = speaker()

    context.log(message, level="warning")

    assert said == [(EventKind.LOG, "", b"warning " + line)]


def test_log_refuses_a_level_that_is_none() -> None:
    """The message names those there are."""
    context, said = speaker()

    with pytest.raises(ValueError, match="debug, info, warning or error, not 'loud'"):
        context.log("x", level="loud")

    assert said == []


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"\x00\xff", b"application/octet-stream \x00\xff"),
        ("text", b'application/json "text"'),
        ({"n": 2**60, "empty": []}, b'application/json {"n":1152921504606846976,"empty":[]}'),
        (None, b"application/json null"),
        (b"x" * 65_536, b"application/octet-stream " + b"x" * 65_536),
    ],
)
def test_output_is_bytes_or_json(data: JsonValue | bytes, kept: bytes) -> None:
    """Bytes stay as they are; all else is encoded."""
    context, said = speaker()

    context.emit(data)

    assert said == [(EventKind.OUTPUT, "", kept)]


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"x" * 65_537, "at most 65536 bytes, not 65537"), (object(), "JSON can hold"), ({"mean": float("nan")}, "NaN")],
)
def test_output_that_cannot_be_kept_is_refused(data: object, why: str) -> None:
    """It is the handler's error, told before anything is said."""
    context, said = speaker()

    with pytest.raises(ValueError, match=why):
        context.emit(data)  # type: ignore[arg-type] # on purpose

    assert said == []


async def test_progress_that_is_no_number_is_refused() -> None:
    """What could not be shown is the handler's error."""
    said: list[Saying] = []

    async def keep(kind: EventKind, progress: float | str, detail: bytes) -> None:
        await trio.lowlevel.checkpoint()
        said.append((kind, progress, detail))

    context = context_of()
    assert isinstance(context, JobContext)
    context.say = keep

    with pytest.raises(ValueError, match="not nan"):
        await context.progress(math.nan)

    assert said == []
