"""What a worker measures of its attempts, its claims and itself."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.job import Move, Outcome
from gopher.runtime.meter import QueueMeter, Usage, resident_bytes
from gopher.runtime.slots import Slots
from gopher.store.lifecycle import Settlement
from tests.runtime.rig import CLAIMED_MS, attempt_of, claimed_job
from tests.waiting import until

if TYPE_CHECKING:
    from gopher.runtime.scopes import RunningAttempt
    from tests.runtime.rig import Bench

ALL = 10_000


def ended(
    job_type: str = "work", seconds: float = 0.25, outcome: Outcome = Outcome.SUCCEEDED
) -> tuple[RunningAttempt, Settlement]:
    attempt = attempt_of(claimed_job(job_type))
    attempt.end()
    attempt.began_at = attempt.ended_at - seconds
    return attempt, Settlement(attempt.job.id, attempt.job.token, Move.COMPLETE, outcome)


def test_attempts_are_counted_by_type_and_outcome() -> None:
    """Each once, with how long it ran."""
    meter = QueueMeter()

    meter.count_attempts([ended(), ended(), ended(outcome=Outcome.TIMED_OUT), ended("other", 2.0)], ["completed"] * 4)

    grown = meter.take(ALL)
    assert grown["attempts:work:succeeded"] == 2
    assert grown["attempts:work:timed_out"] == 1
    assert grown["attempts:other:succeeded"] == 1
    assert grown["duration_us:work"] == pytest.approx(750_000, abs=2)
    assert sum(count for name, count in grown.items() if name.startswith("duration:work:")) == 3
    assert meter.ended == 4
    assert meter.busy_seconds == pytest.approx(2.75)


@pytest.mark.parametrize("word", ["STALE_LEASE", "NOT_FOUND", "GIVEN_UP"])
def test_attempt_whose_outcome_was_refused_is_not_counted(word: str) -> None:
    """Its job is somebody else's, who counts it."""
    meter = QueueMeter()

    meter.count_attempts([ended()], [word])

    assert meter.take(ALL) == {}


def test_attempt_that_never_began_is_not_counted() -> None:
    """It was given back, and no handler ran."""
    meter = QueueMeter()
    attempt = attempt_of(claimed_job())
    attempt.end()

    meter.count_attempts(
        [(attempt, Settlement(attempt.job.id, attempt.job.token, Move.RELEASE, Outcome.CANCELLED))], ["enqueued"]
    )

    assert meter.take(ALL) == {}


def test_waits_are_counted_from_when_a_job_was_enqueued() -> None:
    """By priority; a job that was never scheduled stands in line since its submit."""
    meter = QueueMeter()
    records: list[dict[str, object]] = [
        {"submitted_ms": CLAIMED_MS - 1000},
        {"submitted_ms": CLAIMED_MS - 1000},
        {"submitted_ms": CLAIMED_MS - 99_000, "enqueued_ms": CLAIMED_MS - 500, "priority": "high"},
    ]

    meter.count_claims([claimed_job(record=record) for record in records])

    assert meter.take(ALL) == {"wait:normal:0": 2, "wait_ms:normal": 2000, "wait:high:-2": 1, "wait_ms:high": 500}


def test_take_gives_what_has_grown_since() -> None:
    """Nothing when nothing was measured; what does not fit is left for the next call, and nothing is given twice."""
    meter = QueueMeter()
    meter.count_attempts([ended()], ["completed"])
    meter.count_lost(1)

    taken = [meter.take(2), meter.take(2), meter.take(2)]
    meter.count_lost(2)

    assert [len(each) for each in taken] == [2, 2, 0]
    assert taken[0].keys().isdisjoint(taken[1])
    assert meter.take(2) == {"leases_lost": 2}


async def test_run_time_is_that_of_the_handler(bench: Bench) -> None:
    """Neither what came before it nor the wait for its outcome to be written counts."""

    @bench.handler
    async def handle(_job: object, _payload: object) -> None:
        await trio.sleep(0.05)

    attempt = bench.take()
    before = attempt.run_seconds
    began_at = time.perf_counter()
    await bench.run_alone(attempt)
    took = time.perf_counter() - began_at

    assert before is None
    assert attempt.run_seconds is not None
    assert 0.05 <= attempt.run_seconds <= took
    assert attempt.run_seconds == attempt.run_seconds


async def test_utilisation_is_the_share_of_slot_time_in_which_handlers_ran(bench: Bench, nursery: trio.Nursery) -> None:
    """Half of it with one of two slots taken for the whole stretch, and nothing once all are free."""
    gate = trio.Event()

    @bench.handler
    async def handle(_job: object, _payload: object) -> None:
        await gate.wait()

    slots = Slots(bench.runner, nursery)
    attempt = bench.take()
    slots.put_nowait(attempt, bench.handed)
    slots.start_nowait()
    await until(lambda: attempt.began_at is not None)
    usage = Usage(lambda: 2, bench.scopes.snapshot)
    meter = QueueMeter()
    usage.add_meter(meter)
    usage.look()

    await trio.sleep(0.2)
    # As the keeper does, from another thread.
    looker = threading.Thread(target=usage.look)
    looker.start()
    looker.join()
    while_busy = usage.utilisation
    gate.set()
    with trio.fail_after(10):
        await bench.scopes.wait_empty()
    meter.count_attempts([(attempt, Settlement(attempt.job.id, 1, Move.COMPLETE, Outcome.SUCCEEDED))], ["completed"])
    usage.look()
    attempts_per_second = usage.attempts_per_second
    await trio.sleep(0.05)
    usage.look()

    # The clock is read twice, and between the two another process may run.
    assert while_busy == pytest.approx(0.5, abs=0.2)
    assert attempts_per_second > 0
    assert (usage.utilisation, usage.attempts_per_second) == (0, 0)
    assert usage.cpu_cores >= 0


def test_memory_is_that_of_this_process() -> None:
    """As Linux tells it: more than an interpreter's few MiB."""
    assert resident_bytes() > 5 * 1024 * 1024
