"""The traceback that is kept with a failed attempt."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what a handler here is made of
from typing import TYPE_CHECKING, Final

import pytest
import structlog.testing
import trio

from gopher.handlers import Discard, Retry
from gopher.job import MAX_TRACEBACK_BYTES, Move
from gopher.runtime.tracebacks import RemoteTraceback, traceback_of
from tests.runtime.rig import Bench, claimed_job

if TYPE_CHECKING:
    from gopher.contexts import JobContext, SyncJobContext

HEADING: Final = "Traceback (most recent call last):"


class UnprintableError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise LookupError


def caught(function: object, *args: object) -> Exception:
    try:
        function(*args)  # type: ignore[operator] # the test gives a function
    except Exception as error:  # noqa: BLE001 - it is what the test wants
        return error
    raise AssertionError


def fail(secret: str) -> None:
    raise ValueError("no good" + secret[:0])


def wrap() -> None:
    try:
        fail("s3cret")
    except ValueError as error:
        raise RuntimeError("wrapped") from error


def descend(depth: int) -> None:
    ascend(depth)


def ascend(depth: int) -> None:
    # Two functions in turn, since Python shows one that calls itself but three times.
    if depth:
        descend(depth - 1)
    raise ValueError("at the bottom")


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("within")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


def test_traceback_shows_what_was_raised_from_what_and_no_values() -> None:
    """Both errors with their lines; of the variables nothing."""
    shown = traceback_of(caught(wrap))

    assert shown.startswith(HEADING)
    assert "ValueError: no good" in shown
    assert shown.endswith("RuntimeError: wrapped")
    assert 'raise RuntimeError("wrapped") from error' in shown
    assert shown.count("s3cret") == 1  # in the source line that has it


def test_long_traceback_loses_its_middle() -> None:
    """At most 8 KiB: the first frames and the last ones with the error are there, and how much is missing between them."""
    shown = traceback_of(caught(descend, 150))
    frames = shown.count(", in ascend")

    assert len(shown.encode()) <= MAX_TRACEBACK_BYTES
    assert shown.startswith(HEADING)
    assert 10 < frames < 150
    assert " bytes left out ..." in shown
    assert shown.endswith("ValueError: at the bottom")


def test_traceback_of_a_group_shows_its_members() -> None:
    """What a nursery raises names the error of each child."""
    shown = traceback_of(ExceptionGroup("two", [caught(fail, ""), KeyError("other")]))

    assert "ValueError: no good" in shown
    assert "KeyError: 'other'" in shown


@pytest.mark.parametrize("error", [nested(100_000), UnprintableError()], ids=["deep group", "no text"])
def test_traceback_that_cannot_be_made_is_no_error(error: BaseException) -> None:
    """Its attempt must end all the same."""
    assert type(error).__name__ in traceback_of(error)


def test_surrogates_in_a_message_are_escaped() -> None:
    """Redis and gRPC take UTF-8 only."""
    assert "\\udcff" in traceback_of(ValueError("\udcff"))


def test_remote_traceback_is_shown_as_it_came() -> None:
    """The frames of this process say nothing of what another one has met."""
    error = ValueError("x")
    error.__cause__ = RemoteTraceback("there")

    assert traceback_of(error) == "there"


async def kept_of(bench: Bench, job_type: str, payload: bytes = b"null") -> list[str]:
    bench.handed.settlements.clear()
    settlement = await bench.run(bench.take(claimed_job(job_type, payload)))
    return settlement.result.decode().splitlines()


async def test_attempt_keeps_its_traceback_from_the_handlers_frames_on(bench: Bench) -> None:
    """On Trio, in a thread and on asyncio; nothing of the worker stands before the handler."""

    @bench.registry.handler("on-trio")
    async def on_trio(job: JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        fail("")

    @bench.registry.handler("in-thread")
    def in_thread(job: SyncJobContext, payload: object) -> None:
        fail("")

    @bench.registry.handler("on-asyncio", asyncio=True)
    async def on_asyncio(job: JobContext, payload: object) -> None:
        await asyncio.sleep(0)
        fail("")

    async with bench.open_lifespans():
        kept = {name: await kept_of(bench, name) for name in ("on-trio", "in-thread", "on-asyncio")}

    for name, lines in kept.items():
        assert lines[0] == HEADING
        assert lines[1].endswith(f"in {name.replace('-', '_')}")
        assert lines[-1] == "ValueError: no good"


@pytest.mark.parametrize(
    ("raised", "last"), [("ValueError", "ValueError: \\udcff no"), ("Retry", "gopher.handlers.Retry: later")]
)
async def test_attempt_keeps_the_traceback_of_its_own_process(raised: str, last: str) -> None:
    """It is made where the handler ran, and begins with its frames."""
    bench = Bench("tests.runtime.process_app:registry")
    bench.registry.handler("raise", process=True)(lambda job, payload: None)

    lines = await kept_of(bench, "raise", f'"{raised}"'.encode())

    assert lines[0] == HEADING
    assert "process_app.py" in lines[1]
    assert lines[-1] == last


@pytest.mark.parametrize(("verdict", "move"), [(Retry("later", after=1.0), Move.RETRY), (Discard("never"), Move.BURY)])
async def test_verdict_keeps_what_it_was_raised_from(bench: Bench, verdict: Exception, move: Move) -> None:
    """Why a handler has given up or wants another attempt is often an error of something else."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        raise verdict from OSError("connection refused")

    settlement = await bench.run(bench.take(claimed_job()))

    assert settlement.move is move
    assert b"OSError: connection refused" in settlement.result


async def test_worker_keeps_no_tracebacks_if_told_so(bench: Bench) -> None:
    """Then the log alone has it."""
    bench.runner._keep_tracebacks = False

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        fail("")

    with structlog.testing.capture_logs() as logs:
        settlement = await bench.run(bench.take(claimed_job()))

    assert settlement.result == b""
    assert [entry["event"] for entry in logs if "ValueError: no good" in entry["exception"]] == ["attempt.raised"]


async def test_refused_payload_is_a_line_without_the_payload(bench: Bench) -> None:
    """What does not fit is named by its reason; it holds no traceback, since Gopher has raised it."""

    @bench.handler
    async def work(job: object, payload: int) -> None:
        await trio.lowlevel.checkpoint()

    with structlog.testing.capture_logs() as logs:
        settlement = await bench.run(bench.take(claimed_job(payload=b'"s3cret"')))

    assert settlement.result == b""
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("attempt.refused", "PAYLOAD_MISMATCH")]
    assert "s3cret" not in str(logs)
