from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from gopher.job import Failure, Move, Outcome
from gopher.runtime.scopes import CancelReason
from tests.runtime import process_app
from tests.runtime.rig import MAX_RESULT_BYTES, Bench, claimed_job
from tests.waiting import PATIENCE_SECONDS, runs, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.lifecycle import Settlement

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A runner of the handlers in `process_app`; no process of theirs is left behind."""
    made = Bench("tests.runtime.process_app:registry")
    made.registry = process_app.registry
    yield made
    made.executors.kill()


async def run(bench: Bench, attempt: RunningAttempt) -> Settlement:
    with trio.fail_after(PATIENCE_SECONDS):
        return await bench.run(attempt)


async def family_of(bench: Bench) -> list[int]:
    """Wait until the handler tells the pids of its processes."""
    await until(lambda: bool(bench.reports))
    return [int(pid) for pid in bench.reports[0][1].split()]


@pytest.mark.parametrize("kind", ["echo", "echo-trio"])
async def test_subprocess_returns_what_the_handler_returns(bench: Bench, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Payload and context go in, what is said and the result come out, and what is printed stays off the worker's standard output."""
    attempt = bench.take(claimed_job(kind, b'{"a":[1,"\xc3\xa9"]}', attempt=2))

    settlement = await run(bench, attempt)

    assert settlement.move is Move.COMPLETE
    assert msgspec.json.decode(settlement.result) == [attempt.job.id, 2, {"a": [1, "é"]}]
    assert bench.reports == [(0.5, "half")]
    assert bench.said[1:] == [("log", b"info echoed"), ("output", b"application/octet-stream \xff")]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("raised", "move", "delay_ms", "reason", "message"),
    [
        ("Retry", Move.RETRY, 2000, "RETRY_ASKED", "later"),
        ("Snooze", Move.SNOOZE, 3000, None, None),
        ("Discard", Move.BURY, 0, "DISCARDED", "never"),
        ("StatusError", Move.RETRY, 7000, "NO_DISK", "no disk"),
        ("KeyError", Move.BURY, 0, "HANDLER_RAISED", "KeyError: 'final'"),
        ("ValueError", Move.RETRY, None, "HANDLER_RAISED", "ValueError: \\udcff no"),
    ],
)
async def test_subprocess_raises_what_the_handler_raises(
    bench: Bench, raised: str, move: Move, delay_ms: int | None, reason: str | None, message: str | None
) -> None:
    """Verdicts cross the process's border, also out of a nursery; of any other error its text does."""
    settlement = await run(bench, bench.take(claimed_job("raise", msgspec.json.encode(raised))))

    assert settlement.move is move
    assert delay_ms is None or settlement.delay_ms == delay_ms
    if reason is not None:
        failure = msgspec.json.decode(settlement.failure, type=Failure)
        assert (failure.reason, failure.message) == (reason, message)


@pytest.mark.parametrize(
    ("kind", "payload", "reason", "move"),
    [
        ("no-json", b"null", "RESULT_INVALID", Move.BURY),
        ("nan", b"null", "RESULT_INVALID", Move.BURY),
        ("lie", b"%d" % (MAX_RESULT_BYTES + 1), "RESULT_INVALID", Move.BURY),
        ("raise", b"[]", "PAYLOAD_MISMATCH", Move.BURY),
        ("family", b'"exit"', "HANDLER_RAISED", Move.RETRY),
        ("flood", b"1", "RESULT_INVALID", Move.BURY),
    ],
)
async def test_subprocess_tells_how_else_it_ends(bench: Bench, kind: str, payload: bytes, reason: str, move: Move) -> None:
    """A result that is no JSON, a payload that does not fit and an end without a word are told as they are elsewhere."""
    settlement = await run(bench, bench.take(claimed_job(kind, payload)))

    assert settlement.move is move
    assert msgspec.json.decode(settlement.failure, type=Failure).reason == reason


@pytest.mark.parametrize(("size", "is_kept"), [(MAX_RESULT_BYTES, True), (MAX_RESULT_BYTES + 1, False), (50_000_000, False)])
async def test_subprocess_keeps_a_result_that_is_too_large_to_itself(bench: Bench, size: int, is_kept: bool) -> None:
    """A result of just the size allowed comes; of a larger one only the news, and what was allowed."""
    settlement = await run(bench, bench.take(claimed_job("large", str(size).encode())))

    if is_kept:
        assert len(settlement.result) == size
    else:
        failure = msgspec.json.decode(settlement.failure, type=Failure)
        assert (settlement.move, failure.reason) == (Move.BURY, "RESULT_INVALID")
        assert failure.message == f"RESULT_TOO_LARGE: {size} bytes, the limit is {MAX_RESULT_BYTES}"


async def test_subprocess_runs_where_the_worker_was_started(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that changes the working directory takes no later one along, be it to where nothing is any more."""
    start, _ = str(Path.cwd()), bench.executors  # made here, as a worker makes them when it starts
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    settlement = await run(bench, bench.take(claimed_job("where")))

    assert msgspec.json.decode(settlement.result) == start


async def test_subprocess_tells_with_which_status_it_ended(bench: Bench) -> None:
    """Whoever reads the failure of a handler that just went learns the exit status."""
    settlement = await run(bench, bench.take(claimed_job("family", b'"exit"')))

    failure = msgspec.json.decode(settlement.failure, type=Failure)
    assert failure.message == "the handler's process ended with exit status 7 and no outcome"


@pytest.mark.parametrize("end", ["return", "exit", "thread"])
async def test_subprocess_leaves_no_child_behind_when_it_ends(bench: Bench, end: str) -> None:
    """What the handler has started ends with it, also when it returns, dies, or a thread of its keeps its process alive."""
    attempt = bench.take(claimed_job("family", msgspec.json.encode(end)))
    attempt.grace_seconds = 0.1

    settlement = await run(bench, attempt)

    assert settlement.move is (Move.RETRY if end == "exit" else Move.COMPLETE)
    pids = await family_of(bench)
    await until(lambda: not any(runs(pid) for pid in pids))


@pytest.mark.parametrize("ear", ["hearing", "deaf"])
async def test_cancel_ends_a_subprocess_with_all_its_children(bench: Bench, nursery: trio.Nursery, ear: str) -> None:
    """SIGTERM, and SIGKILL once the grace is over, go to the whole group; the outcome is written when all have ended."""
    attempt = bench.take(claimed_job("family", msgspec.json.encode(ear)))
    nursery.start_soon(bench.run, attempt)
    pids = await family_of(bench)

    attempt.cancel(CancelReason.REQUESTED, grace_seconds=0.2)
    await until(lambda: attempt.is_over)

    assert (bench.outcome.move, bench.outcome.outcome) == (Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)
    assert not runs(pids[0])
    await until(lambda: not runs(pids[1]))


async def test_cancel_reaches_a_trio_handler_in_a_subprocess(
    bench: Bench, nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    """There SIGTERM is a cancellation like any other."""
    attempt = bench.take(claimed_job("sleep-trio"))
    nursery.start_soon(bench.run, attempt)
    (pid,) = await family_of(bench)

    attempt.cancel(CancelReason.SHUTDOWN, grace_seconds=PATIENCE_SECONDS)
    await until(lambda: attempt.is_over)

    assert bench.outcome.move is Move.RELEASE
    assert not runs(pid)
    assert capfd.readouterr().err == "cancelled as Trio cancels\n"


async def test_teardown_of_the_worker_ends_a_subprocess(bench: Bench) -> None:
    """When the nursery around the attempt is cancelled nothing is left of its processes."""
    attempt = bench.take(claimed_job("family", b'"deaf"'))
    attempt.grace_seconds = 0.1

    with trio.CancelScope() as worker:
        async with trio.open_nursery() as attempts:
            attempts.start_soon(bench.run, attempt)
            pids = await family_of(bench)
            worker.cancel()

    assert bench.outcome.move is Move.RELEASE
    await until(lambda: not any(runs(pid) for pid in pids))


async def test_kill_ends_subprocesses_that_are_within_their_grace(bench: Bench, nursery: trio.Nursery) -> None:
    """A worker that goes without its handlers takes their whole process groups with it."""
    attempt = bench.take(claimed_job("family", b'"deaf"'))
    nursery.start_soon(bench.run, attempt)
    pids = await family_of(bench)

    attempt.cancel(CancelReason.REQUESTED, grace_seconds=3600)
    bench.executors.kill()
    await until(lambda: attempt.is_over)

    await until(lambda: not any(runs(pid) for pid in pids))


async def test_waits_for_subprocesses_do_not_queue(bench: Bench, nursery: trio.Nursery) -> None:
    """One that ends is seen to end while more others than Trio has threads for everybody are being waited for."""
    limiter = trio.to_thread.current_default_thread_limiter()
    for _ in range(int(limiter.total_tokens)):
        limiter.acquire_on_behalf_of_nowait(object())

    settlement = await run(bench, bench.take(claimed_job("echo")))

    assert settlement.move is Move.COMPLETE


@pytest.mark.parametrize("end", ["return", "hearing", "deaf"])
async def test_subprocess_leaves_no_daemon_behind(bench: Bench, nursery: trio.Nursery, end: str) -> None:
    """A child that has left the process group, and its parent, ends all the same: on return, on SIGTERM and on SIGKILL."""
    attempt = bench.take(claimed_job("daemon", msgspec.json.encode(end)))
    nursery.start_soon(bench.run, attempt)
    pids = await family_of(bench)

    attempt.cancel(CancelReason.REQUESTED, grace_seconds=0.2)
    await until(lambda: attempt.is_over)

    await until(lambda: not any(runs(pid) for pid in pids))


async def test_sigterm_shows_in_the_context_of_a_plain_handler(
    bench: Bench, nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a plain def a cancel is a SystemExit in its main thread; others look at `job.cancel_requested`."""
    attempt = bench.take(claimed_job("flag"))
    nursery.start_soon(bench.run, attempt)
    await until(lambda: bool(bench.reports))

    attempt.cancel(CancelReason.REQUESTED)
    await until(lambda: attempt.is_over)

    assert "flag False True 143" in capfd.readouterr().err
    assert bench.outcome.move is Move.ACKNOWLEDGE_CANCEL
