"""The table of moves: what any reader may conclude from it without knowing Redis."""

from __future__ import annotations

import pytest

from gopher.job import FINAL_STATES, TRANSITIONS, Job, JobState, Move, NewJob


def successors(state: JobState) -> set[JobState]:
    return {after for (before, _), after in TRANSITIONS.items() if before is state}


def reachable(start: JobState) -> set[JobState]:
    found = {start}
    while more := {after for state in found for after in successors(state)} - found:
        found |= more
    return found


@pytest.mark.parametrize("state", JobState)
def test_job_state_is_final_for_three_states_only(state: JobState) -> None:
    """Completed, failed and cancelled are final, and no other."""
    assert state.is_final == (state in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


@pytest.mark.parametrize("state", FINAL_STATES)
def test_transitions_leave_a_final_state_only_by_requeue(state: JobState) -> None:
    """A final job moves on only when an operator says so, and a completed one never does."""
    moves = {move for before, move in TRANSITIONS if before is state}

    assert moves == (set() if state is JobState.COMPLETED else {Move.REQUEUE})


def test_transitions_enter_processing_by_claim_only() -> None:
    """Nothing but a claim gives the right to run."""
    entries = {(before, move) for (before, move), after in TRANSITIONS.items() if after is JobState.PROCESSING}

    assert entries == {(JobState.ENQUEUED, Move.CLAIM), (JobState.PROCESSING, Move.CANCEL)}


@pytest.mark.parametrize("start", [JobState.SCHEDULED, JobState.ENQUEUED])
def test_transitions_reach_every_state_from_a_submit(start: JobState) -> None:
    """No state is unreachable: scheduled itself is reached again by a snooze."""
    assert reachable(start) == set(JobState)


@pytest.mark.parametrize("state", JobState)
def test_transitions_lead_every_job_to_a_final_state(state: JobState) -> None:
    """From wherever a job stands there is a way to its end."""
    assert reachable(state) & FINAL_STATES


@pytest.mark.parametrize("move", Move)
def test_transitions_use_every_move(move: Move) -> None:
    """A move that is legal nowhere would be a dead word."""
    assert any(used is move for _, used in TRANSITIONS)


def test_new_job_is_the_least_a_submitter_must_say() -> None:
    """A type alone makes a job of the default queue, of normal priority, with the JSON null as payload."""
    job = NewJob(type="email")

    assert (job.queue, job.priority, job.payload, job.content_type) == ("default", "normal", b"null", "application/json")
    assert [job.run_ms, job.delay_ms, job.deadline_ms, job.unique_key, job.request_id] == [None] * 5


def test_job_begins_with_no_attempt() -> None:
    """Before the first claim a job has no attempt, no token, no worker and no end."""
    job = Job(type="email", id="1", namespace="n", state=JobState.ENQUEUED, submitted_ms=0)

    assert (job.attempt, job.token, job.crashes, job.generation, job.attempts) == (0, 0, 0, 0, ())
    assert [job.worker, job.lease_ms, job.finished_ms, job.failure] == [None] * 4
