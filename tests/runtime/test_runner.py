from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from gopher.handlers import Discard, Retry, Snooze
from gopher.job import Failure, Move, Outcome
from tests.runtime.rig import CLAIMED_MS, MAX_ATTEMPTS, MAX_RESULT_BYTES, Bench, claimed_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.lifecycle import Settlement


class Halt(BaseException):
    """What no `except Exception` catches."""


class MuteError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise LookupError


class DeafError(Exception):
    """An error that exits when it is asked for its text."""

    def __str__(self) -> str:
        raise SystemExit(3)


class UnsaidSnooze(Snooze):
    """A verdict without what it says."""

    def __init__(self) -> None:
        pass


def nested(group: Callable[[Exception], list[Exception]]) -> Exception:
    """Return groups within groups, deeper than Python can recurse."""
    error: Exception = ValueError("at the bottom")
    for _ in range(5_000):
        error = ExceptionGroup("", group(error))
    return error


def failure_of(settlement: Settlement) -> Failure:
    return msgspec.json.decode(settlement.failure, type=Failure)


def raising(error: BaseException) -> Callable[[object, object], object]:
    async def handler(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return handler


def in_groups(error: Exception) -> Exception:
    return ExceptionGroup("outer", [ExceptionGroup("inner", [error])])


# --- it ended by itself ---------------------------------------------------------------------------------------------------------


async def test_runner_completes_a_job_whose_handler_returns(bench: Bench) -> None:
    """What the handler returns is the result, as JSON."""

    @bench.handler
    async def work(job: object, payload: object) -> object:
        await trio.lowlevel.checkpoint()
        return {"got": payload}

    settlement = await bench.run(bench.take(claimed_job(payload=b"[1]")))

    assert settlement.move is Move.COMPLETE
    assert settlement.outcome is Outcome.SUCCEEDED
    assert settlement.result == b'{"got":[1]}'


async def test_runner_tells_the_handler_of_its_attempt(bench: Bench) -> None:
    """The context holds what was claimed, and whether the worker drains."""
    names = ("id", "type", "queue", "namespace", "attempt", "token", "labels", "deadline_ms", "shutdown_requested")
    seen: list[object] = []
    job = claimed_job(attempt=2, record={"labels": '{"tenant":"a"}', "deadline_ms": CLAIMED_MS + 60_000})

    @bench.handler
    async def work(context: object, payload: object) -> None:
        seen.extend(getattr(context, name) for name in names)
        bench.is_draining = True
        seen.append(context.shutdown_requested)  # type: ignore[attr-defined] # the test asks for no type
        await trio.lowlevel.checkpoint()

    await bench.run(bench.take(job))

    expected = [job.id, "work", "default", "test", 2, job.token, {"tenant": "a"}, CLAIMED_MS + 60_000, False, True]
    assert seen == expected


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("no"), id="error"),
        pytest.param(in_groups(ValueError("no")), id="groups of one"),
        pytest.param(SystemExit(3), id="sys.exit()"),
        pytest.param(BaseExceptionGroup("", [SystemExit(3)]), id="sys.exit() in a nursery"),
        pytest.param(Halt("no"), id="no Exception"),
        pytest.param(GeneratorExit(), id="GeneratorExit"),
        pytest.param(MuteError(), id="error with no text"),
        pytest.param(ValueError("\udcff"), id="text that is no UTF-8"),
        pytest.param(ValueError("x" * 10_000_000), id="endless text"),
        pytest.param(ExceptionGroup("", [ValueError(), KeyError()]), id="group of two"),
        pytest.param(StopAsyncIteration(), id="StopAsyncIteration"),
        pytest.param(KeyboardInterrupt(), id="KeyboardInterrupt"),
        pytest.param(BaseExceptionGroup("", [KeyboardInterrupt()]), id="KeyboardInterrupt in a nursery"),
        pytest.param(nested(lambda error: [error]), id="groups of one without end"),
        pytest.param(nested(lambda error: [error, ValueError()]), id="groups of two without end"),
        pytest.param(DeafError(), id="error whose text exits"),
        pytest.param(UnsaidSnooze(), id="verdict that was never made"),
    ],
)
async def test_runner_retries_whatever_the_handler_raises(bench: Bench, error: BaseException) -> None:
    """No error of a handler ends more than its attempt, and each is told as UTF-8 of at most 1 KiB."""
    bench.handler(raising(error))

    settlement = await bench.run()

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.RAISED)
    failure = failure_of(settlement)
    assert failure.reason == "HANDLER_RAISED"
    assert len(failure.message.encode()) <= 1024


@pytest.mark.parametrize(
    "wrap", [lambda error: error, lambda error: BaseExceptionGroup("", [error])], ids=["bare", "in a group"]
)
async def test_runner_takes_a_cancel_whose_scope_is_over_for_an_error(
    bench: Bench, wrap: Callable[[BaseException], BaseException]
) -> None:
    """A `Cancelled` that a handler has kept and raises again ends its attempt, and not the worker."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        kept: BaseException = ValueError()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:  # noqa: ASYNC103 - the fault that is tested
                kept = error
        raise wrap(kept)

    settlement = await bench.run()

    assert (settlement.move, settlement.outcome) == (Move.RETRY, Outcome.RAISED)
    assert failure_of(settlement).message.startswith("Cancelled")


async def test_runner_gives_a_job_back_whose_handler_raises_on_in_a_teardown(bench: Bench) -> None:
    """Where the worker is torn down, a group of the cancel and another error releases the job, and the slot ends."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            raise BaseExceptionGroup("", [error, KeyboardInterrupt()]) from None  # noqa: ASYNC104 - what a handler may do

    with trio.CancelScope() as worker:
        worker.cancel()
        await bench.run_alone(bench.take())

    assert worker.cancelled_caught
    assert bench.outcome.move is Move.RELEASE


async def test_ctrl_c_reaches_no_handler(bench: Bench) -> None:
    """Trio delivers it to the main task, so that what a handler raises is its own."""

    @bench.handler
    async def work(job: object, payload: object) -> bool:
        await trio.lowlevel.checkpoint()
        return trio.lowlevel.currently_ki_protected()

    settlement = await bench.run()

    assert settlement.result == b"true"


async def test_runner_names_the_error_inside_a_group(bench: Bench) -> None:
    """A nursery's wrapping does not hide what went wrong."""
    bench.handler(raising(in_groups(ValueError("no such file"))))

    settlement = await bench.run()

    assert failure_of(settlement).message == "ValueError: no such file"


@pytest.mark.parametrize("wrap", [lambda error: error, in_groups], ids=["bare", "in groups"])
@pytest.mark.parametrize(
    ("verdict", "move", "delay_ms", "reason"),
    [
        (Snooze(1.5), Move.SNOOZE, 1500, None),
        (Snooze(0), Move.SNOOZE, 0, None),
        (Retry("later", after=2), Move.RETRY, 2000, "RETRY_ASKED"),
        (Retry(after=0), Move.RETRY, 0, "RETRY_ASKED"),
        (Discard("never"), Move.BURY, 0, "DISCARDED"),
    ],
)
async def test_runner_obeys_a_verdict(
    bench: Bench,
    wrap: Callable[[Exception], Exception],
    verdict: Exception,
    move: Move,
    delay_ms: int,
    reason: str | None,
) -> None:
    """Snooze, Retry and Discard decide, also when a nursery has put them into groups of one."""
    bench.handler(raising(wrap(verdict)))

    settlement = await bench.run()

    assert (settlement.move, settlement.delay_ms) == (move, delay_ms)
    assert reason is None or failure_of(settlement).reason == reason


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("verdict", [Snooze, Retry])
async def test_runner_survives_a_verdict_with_an_impossible_delay(
    bench: Bench, verdict: type[Snooze | Retry], seconds: float
) -> None:
    """A delay that was put into a verdict past its check is bent into what Redis can hold."""
    error = verdict(1) if verdict is Snooze else Retry(after=1)
    setattr(error, "seconds" if verdict is Snooze else "after", seconds)
    bench.handler(raising(error))

    settlement = await bench.run()

    assert 0 <= settlement.delay_ms < 1 << 53


async def test_runner_spends_no_more_attempts_than_there_are(bench: Bench) -> None:
    """The last attempt's failure ends the job, also when the handler asks for a retry."""
    bench.handler(raising(Retry(after=1)))

    moves = []
    for number in range(1, MAX_ATTEMPTS + 1):
        moves.append((await bench.run(bench.take(claimed_job(attempt=number)))).move)
        bench.handed.settlements.clear()

    assert moves == [Move.RETRY] * (MAX_ATTEMPTS - 1) + [Move.BURY]


async def test_runner_counts_crashes_and_former_generations_apart(bench: Bench) -> None:
    """Attempts that a crash took, or that an operator's requeue forgave, spend none of those that are left."""
    bench.handler(raising(ValueError()))

    settlement = await bench.run(bench.take(claimed_job(attempt=7, record={"crashes": 2, "spent": 3})))

    assert settlement.move is Move.RETRY


@pytest.mark.parametrize(
    ("declared", "submitted", "attempt", "move"),
    [
        ({"max_attempts": 1}, {}, 1, Move.BURY),
        ({"max_attempts": 1}, {"max_attempts": 2}, 1, Move.RETRY),
        ({"max_attempts": 9}, {"max_attempts": 2}, 2, Move.BURY),
        ({}, {}, MAX_ATTEMPTS - 1, Move.RETRY),
    ],
)
async def test_runner_asks_submitter_then_handler_then_worker_for_the_attempts(
    bench: Bench, declared: dict[str, int], submitted: dict[str, int], attempt: int, move: Move
) -> None:
    """What the submitter leaves open is what the handler declares, and then the worker's default."""
    bench.registry.handler("work", **declared)(raising(ValueError()))  # type: ignore[arg-type] # the cases name one option

    settlement = await bench.run(bench.take(claimed_job(attempt=attempt, record=submitted)))

    assert settlement.move is move


async def test_runner_keeps_the_backoff_of_the_submitter(bench: Bench) -> None:
    """A submitter's backoff goes before the handler's."""
    bench.registry.handler("work", backoff_initial_seconds=1000, backoff_max_seconds=1000)(raising(ValueError()))

    settlement = await bench.run(
        bench.take(claimed_job(record={"backoff_initial_ms": 10, "backoff_max_ms": 20, "backoff_multiplier": "2.0"}))
    )

    assert 0 <= settlement.delay_ms <= 20


async def test_runner_survives_a_submitted_backoff_that_is_no_number(bench: Bench) -> None:
    """A record that was written past the checks of a submit delays its job; the worker goes on."""
    bench.handler(raising(ValueError()))

    settlement = await bench.run(bench.take(claimed_job(attempt=2, record={"backoff_multiplier": "nan"})))

    assert settlement.move is Move.RETRY
    assert 0 <= settlement.delay_ms < 1 << 53


# --- what goes in and comes out -------------------------------------------------------------------------------------------------


async def test_runner_buries_a_job_whose_payload_does_not_fit(bench: Bench) -> None:
    """A payload that the handler cannot take is never retried; the message names the field."""

    @bench.handler
    async def work(job: object, payload: dict[str, int]) -> None:
        await trio.lowlevel.checkpoint()

    settlement = await bench.run(bench.take(claimed_job(payload=b'{"a": "x"}')))

    assert settlement.move is Move.BURY
    failure = failure_of(settlement)
    assert failure.reason == "PAYLOAD_MISMATCH"
    assert "$[...]" in failure.message


async def test_runner_gives_bytes_to_a_handler_that_asks_for_them(bench: Bench) -> None:
    """A handler of bytes takes any content as it came; one of JSON takes JSON only."""

    @bench.handler
    async def work(job: object, payload: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return len(payload)

    @bench.registry.handler("json")
    async def json(job: object, payload: object) -> None:
        await trio.lowlevel.checkpoint()

    taken = await bench.run(bench.take(claimed_job(payload=b"\xff\x00", record={"content_type": "application/octet-stream"})))
    bench.handed.settlements.clear()
    refused = await bench.run(bench.take(claimed_job("json", b"\xff", record={"content_type": "application/octet-stream"})))

    assert taken.result == b"2"
    assert failure_of(refused).reason == "PAYLOAD_MISMATCH"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        pytest.param({1j: 1}, id="key"),
        pytest.param("\udcff", id="no UTF-8"),
        pytest.param(math.nan, id="NaN"),
        pytest.param({"mean": [None, -math.inf]}, id="an infinity within"),
        pytest.param("x" * MAX_RESULT_BYTES, id="too large"),
    ],
)
async def test_runner_buries_a_job_whose_result_cannot_be_kept(bench: Bench, value: object) -> None:
    """Running it again would not make its result fit."""

    @bench.handler
    async def work(job: object, payload: object) -> object:
        await trio.lowlevel.checkpoint()
        return value

    settlement = await bench.run()

    assert settlement.move is Move.BURY
    assert failure_of(settlement).reason == "RESULT_INVALID"


async def test_runner_buries_a_job_whose_result_has_no_end(bench: Bench) -> None:
    """A result that holds itself is no JSON, and no endless loop."""

    @bench.handler
    async def work(job: object, payload: object) -> object:
        await trio.lowlevel.checkpoint()
        endless: list[object] = []
        endless.append(endless)
        return endless

    settlement = await bench.run()

    assert failure_of(settlement).reason == "RESULT_INVALID"


async def test_runner_keeps_a_result_of_just_the_size_allowed(bench: Bench) -> None:
    """The limit itself is allowed."""

    @bench.handler
    async def work(job: object, payload: object) -> object:
        await trio.lowlevel.checkpoint()
        return "x" * (MAX_RESULT_BYTES - 2)

    settlement = await bench.run()

    assert settlement.move is Move.COMPLETE
    assert len(settlement.result) == MAX_RESULT_BYTES


async def test_runner_snoozes_a_job_of_a_type_it_lacks(bench: Bench) -> None:
    """Another worker may have the handler: no attempt is spent."""
    settlement = await bench.run(bench.take(claimed_job("unheard-of")))

    assert settlement.move is Move.SNOOZE
    assert settlement.delay_ms == 5000


async def test_runner_passes_progress_on(bench: Bench) -> None:
    """What the handler reports is kept, cut to the bounds; what is no number is its error."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await job.progress(2, "x" * 300)  # type: ignore[attr-defined] # the test asks for no type
        await job.progress(math.nan)  # type: ignore[attr-defined] # likewise

    settlement = await bench.run()

    assert bench.reports == [(1.0, "x" * 255)]
    assert failure_of(settlement).message.startswith("ValueError: the fraction")
