"""Jobs as messages, and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher_pb.v1 import job_pb2

from gopher.job import Attempt, Failure, Job, JobState, Outcome, Priority
from gopher.wire import convert

FULL = Job(
    id="01a20c6c-0282-7492-ab17-767f938b0000",
    namespace="ns",
    queue="mail",
    type="email",
    payload=b'{"a": 1}',
    priority=Priority.LOW,
    labels={"tenant": "a"},
    max_attempts=3,
    backoff_initial_ms=250,
    backoff_max_ms=60_001,
    backoff_multiplier=1.5,
    timeout_ms=1,
    run_ms=1_700_000_000_001,
    deadline_ms=1_700_000_000_999,
    unique_key="u",
    request_id="r",
    retention_ms=0,
    parent_id="p",
    root_id="q",
    state=JobState.RETRYING,
    submitted_ms=1_700_000_000_000,
    enqueued_ms=1_700_000_000_001,
    started_ms=1_700_000_000_002,
    finished_ms=1_700_000_000_003,
    attempt=2,
    crashes=1,
    worker="w1",
    lease_ms=1_700_000_030_000,
    cancel_reason="",
    progress=0.5,
    progress_message="half way",
    result=b"[]",
    failure=Failure(reason="TIMED_OUT", message="ended", code=4),
    attempts=(
        Attempt(number=1, outcome=Outcome.LOST, worker="w0", started_ms=1, finished_ms=2),
        Attempt(
            number=2, outcome=Outcome.RAISED, worker="w1", started_ms=3, finished_ms=4, failure=Failure(reason="X", message="y")
        ),
    ),
    generation=4,
)
BARE = Job(id="j1", namespace="ns", type="email", state=JobState.ENQUEUED, submitted_ms=1)


@pytest.mark.parametrize("job", [FULL, BARE], ids=["full", "bare"])
def test_job_comes_back_as_it_was(job: Job) -> None:
    """Every field that the wire carries survives; what is unset stays unset."""
    raw = convert.job_to_message(job).SerializeToString()

    assert convert.job_from_message(job_pb2.Job.FromString(raw)) == job


def test_lease_token_and_trace_stay_here() -> None:
    """A client has no use for them, and a token in the wrong hands could settle an attempt."""
    job = msgspec.structs.replace(BARE, token=7, trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

    back = convert.job_from_message(convert.job_to_message(job))

    assert (back.token, back.trace) == (0, None)


@pytest.mark.parametrize(
    ("enum", "numbers", "prefix"),
    [
        (job_pb2.JobState, convert.STATE_NUMBER, "JOB_STATE_"),
        (job_pb2.Priority, convert.PRIORITY_NUMBER, "PRIORITY_"),
        (job_pb2.Outcome, convert.OUTCOME_NUMBER, "OUTCOME_"),
    ],
)
def test_enums_of_proto_and_python_are_the_same(enum: type[job_pb2.JobState], numbers: dict[str, int], prefix: str) -> None:
    """Every word of the one is a word of the other, but for the proto's UNSPECIFIED."""
    names = {name.removeprefix(prefix).lower(): number for name, number in enum.items()}
    del names["unspecified"]

    assert names == {str(word): number for word, number in numbers.items()}


@given(st.integers(min_value=0, max_value=7_258_118_400_000))
def test_ms_come_back_as_they_were(ms: int) -> None:
    """A moment and a length of time in whole ms."""
    moment, length = convert.timestamp(ms), convert.duration(ms)

    assert moment is not None
    assert length is not None
    assert convert.to_ms(moment) == convert.to_ms(length) == ms
    assert 0 <= moment.nanos < 1_000_000_000
    assert moment.ToMilliseconds() == ms
