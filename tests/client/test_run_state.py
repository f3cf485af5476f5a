"""What a client knows of an attached job, from made-up events and a clock of the test's own."""

from __future__ import annotations

import pytest

from gopher_pb.v1 import job_stream_pb2

from gopher.client.runs import MAX_EVENTS, Run
from gopher.client.values import JobEvent
from gopher.errors import CallExpiredError, InvalidRequestError, StoreUnavailableError, invalid
from gopher.event import EventKind
from gopher.job import Job, JobState
from gopher.wire.status import CursorTooOldError, ServerStoppingError, from_status, to_status


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def event(sequence: int, state: JobState = JobState.PROCESSING, kind: EventKind = EventKind.PROGRESS) -> JobEvent:
    job = Job(id="j1", namespace="n", type="t", state=state, submitted_ms=0) if state.is_final else None
    return JobEvent(
        job_id="j1",
        kind=kind,
        sequence=sequence,
        cursor=f"c{sequence}",
        state=state,
        attempt=1,
        event_ms=0,
        cancel_requested=False,
        progress=0.0,
        progress_message="",
        job=job,
        detail=None,
    )


def run_of(clock: Clock | None = None, within: float | None = None) -> Run:
    return Run("n", "t", None, {}, grace=None, within=within, now=clock or Clock())


def request_of(run: Run) -> job_stream_pb2.RunJobRequest:
    return job_stream_pb2.RunJobRequest.FromString(run.call().request)


def test_each_call_has_the_same_request_id_and_the_last_cursor() -> None:
    """So the server finds the same job, and goes on where the last call was cut."""
    run = run_of()
    first = request_of(run)

    run.take(event(1))
    run.take(event(2))
    second = request_of(run)

    assert first.job.request_id
    assert second.job == first.job
    assert (first.cursor, second.cursor) == ("", "c2")
    assert request_of(run_of()).job.request_id != first.job.request_id


def test_time_of_the_run_is_one_over_all_its_calls() -> None:
    """A later call gets what is left, also when that is nothing."""
    clock = Clock()
    run = run_of(clock, within=10.0)
    first = run.call().deadline_seconds
    clock.now += 7
    second = run.call().deadline_seconds
    clock.now += 7
    third = run.call().deadline_seconds

    assert (first, second, third) == (10.0, 3.0, 0.001)
    assert run_of().call().deadline_seconds is None


def test_events_that_nobody_took_are_kept_up_to_the_bound() -> None:
    """Of more the oldest are dropped; whoever reads late goes on with the oldest that is kept."""
    run = run_of()

    for sequence in range(1, MAX_EVENTS + 6):
        run.take(event(sequence))
    kept = [each.sequence for _, each in run.after(0)]
    places = [place for place, _ in run.after(MAX_EVENTS + 3)]

    assert (kept[0], kept[-1], len(kept)) == (6, MAX_EVENTS + 5, MAX_EVENTS)
    assert places == [MAX_EVENTS + 4, MAX_EVENTS + 5]


def test_signs_of_life_are_told_to_nobody() -> None:
    """A heartbeat is no event of the job."""
    run = run_of()

    run.take(event(0, kind=EventKind.HEARTBEAT))

    assert not run.has_news(0)


def test_history_that_has_moved_on_is_told_and_gone_on_with() -> None:
    """A cursor that has become too old is no end of the run."""
    run = run_of()
    run.take(event(3))
    too_old = from_status(to_status(CursorTooOldError("job j1", 9, "c8")))

    pause = run.pause_seconds(too_old)

    assert pause == 0.0
    assert [each.kind for _, each in run.after(1)] == [EventKind.TRUNCATED]
    assert request_of(run).cursor == "c8"


@pytest.mark.parametrize("error", [ServerStoppingError(), StoreUnavailableError("away", outcome_unknown=True), None])
def test_server_that_is_away_for_a_while_is_called_again(error: ServerStoppingError | StoreUnavailableError | None) -> None:
    """For a minute from its last sign of life."""
    clock = Clock()
    run = run_of(clock)
    run.take(event(1))

    clock.now += 50

    assert run.pause_seconds(error) < 5
    clock.now += 11
    if error is not None:
        with pytest.raises(type(error)):
            run.pause_seconds(error)


def test_refusal_and_the_end_of_its_time_end_the_run() -> None:
    """Neither is better another time."""
    run = run_of()

    with pytest.raises(InvalidRequestError):
        run.pause_seconds(invalid("job.type", "REQUIRED", "is required"))
    with pytest.raises(CallExpiredError, match="within the time of its run"):
        run.pause_seconds(CallExpiredError("x"))


def test_final_event_ends_the_run() -> None:
    """Then there is a result, or what there is in place of it."""
    run = run_of()

    run.take(event(1, JobState.COMPLETED, EventKind.STATE))

    assert (run.is_final, run.has_ended, run.result()) == (True, True, None)
