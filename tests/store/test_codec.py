"""A job as a hash and back: nothing is lost, nothing needless is kept, and a person can read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.job import CONTENT_TYPES, Attempt, Failure, Job, JobState, NewJob, Outcome, Priority
from gopher.store import codec
from gopher.store.codec import ClaimedJob

if TYPE_CHECKING:
    from collections.abc import Sequence

texts = st.text(max_size=20)
moments = st.integers(0, 1 << 52)
new_jobs = st.builds(
    NewJob,
    type=st.from_regex(r"[a-z][a-z0-9_.-]{0,63}", fullmatch=True),
    payload=st.binary(max_size=50),
    priority=st.sampled_from(Priority),
    content_type=st.sampled_from(sorted(CONTENT_TYPES)),
    labels=st.dictionaries(texts, texts, max_size=4),
    max_attempts=st.none() | st.integers(1, 100),
    backoff_initial_ms=st.none() | moments,
    backoff_max_ms=st.none() | moments,
    backoff_multiplier=st.none() | st.floats(1, 1e9),
    timeout_ms=st.none() | moments,
    deadline_ms=st.none() | moments,
    unique_key=st.none() | texts,
    request_id=st.none() | texts,
    retention_ms=st.none() | moments,
    parent_id=st.none() | texts,
    root_id=st.none() | texts,
    trace=st.none() | texts,
)


def as_bytes(value: codec.Field) -> bytes:
    """Return a value as Redis keeps it."""
    return value if isinstance(value, bytes) else str(value).encode()


def as_record(fields: Sequence[codec.Field], **more: codec.Field) -> dict[bytes, bytes]:
    pairs = [*zip(fields[::2], fields[1::2], strict=True), *more.items()]
    return {as_bytes(name): as_bytes(value) for name, value in pairs}


def read(record: dict[bytes, bytes], lease_ms: int | None = None) -> Job:
    return codec.from_record("n", "default", "id", record, lease_ms)


@given(new_jobs)
def test_from_record_gives_back_what_to_fields_was_given(job: NewJob) -> None:
    """Every field of a submission survives the hash, byte for byte."""
    record = as_record(codec.to_fields(job), state="enqueued", submitted_ms=1)

    found = read(record)

    submitted = {name: getattr(job, name) for name in NewJob.__struct_fields__}
    assert {name: getattr(found, name) for name in submitted} == submitted
    assert (found.id, found.namespace, found.state, found.submitted_ms) == ("id", "n", JobState.ENQUEUED, 1)


def test_to_fields_keeps_no_default() -> None:
    """A plain job costs its type and its payload."""
    assert codec.to_fields(NewJob(type="email", payload=b"{}")) == ["type", "email", "payload", b"{}"]


@given(new_jobs, st.none() | texts)
def test_fingerprint_does_not_see_the_trace(job: NewJob, trace: str | None) -> None:
    """The trace differs from call to call, also when the call is repeated."""
    assert codec.fingerprint(job) == codec.fingerprint(msgspec.structs.replace(job, trace=trace))


@pytest.mark.parametrize(
    "change",
    [
        {"type": "b"},
        {"payload": b"2"},
        {"priority": Priority.LOW},
        {"content_type": "application/octet-stream"},
        {"labels": {"a": "c"}},
        {"max_attempts": 3},
        {"timeout_ms": 1},
        {"run_ms": 1},
        {"delay_ms": 1},
        {"deadline_ms": 1},
        {"unique_key": "u"},
        {"retention_ms": 1},
    ],
)
def test_fingerprint_sees_every_other_change(change: dict[str, object]) -> None:
    """Another body under the same request id is found out."""
    job = NewJob(type="a", payload=b"1", labels={"a": "b"}, request_id="r")

    assert codec.fingerprint(job) != codec.fingerprint(msgspec.structs.replace(job, **change))


def test_fingerprint_is_the_same_for_equal_labels_in_another_order() -> None:
    """Labels have no order."""
    one, other = NewJob(type="a", labels={"x": "1", "y": "2"}), NewJob(type="a", labels={"y": "2", "x": "1"})

    assert codec.fingerprint(one) == codec.fingerprint(other)


def test_fingerprint_keeps_fields_apart() -> None:
    """Text that wanders from one field into the next makes another body."""
    one, other = NewJob(type="a", unique_key="xy", request_id="z"), NewJob(type="a", unique_key="x", request_id="yz")

    assert codec.fingerprint(one) != codec.fingerprint(other)


def test_from_record_reads_the_attempts_in_order() -> None:
    """Attempts that did not succeed have a field each; the one that did is told by the record."""
    failure = codec.encode_failure(Failure(reason="HANDLER_RAISED", message="a b  c"))
    record = as_record(
        ["type", "t", "payload", b"1", "attempt", 10, "worker", "w2", "started_ms", 50, "finished_ms", 60],
        state="completed",
        submitted_ms=1,
    )
    record[b"attempt:9"] = b"raised w1 30 40 " + failure
    record[b"attempt:2"] = b"lost w0 10 20 "

    attempts = read(record).attempts

    assert attempts == (
        Attempt(number=2, outcome=Outcome.LOST, worker="w0", started_ms=10, finished_ms=20),
        Attempt(
            number=9,
            outcome=Outcome.RAISED,
            worker="w1",
            started_ms=30,
            finished_ms=40,
            failure=Failure(reason="HANDLER_RAISED", message="a b  c"),
        ),
        Attempt(number=10, outcome=Outcome.SUCCEEDED, worker="w2", started_ms=50, finished_ms=60),
    )


@pytest.mark.parametrize("state", JobState)
def test_from_record_tells_a_lease_only_while_processing(state: JobState) -> None:
    """A lease read a moment ago is not told of a job that has moved on."""
    record = as_record(["type", "t", "payload", b"1"], state=state.value, submitted_ms=1)

    assert read(record, lease_ms=99).lease_ms == (99 if state is JobState.PROCESSING else None)


@pytest.mark.parametrize(
    ("more", "enqueued_ms"),
    [
        ({"state": "enqueued"}, 1),
        ({"state": "processing", "token": 4}, 1),
        ({"state": "retrying", "token": 4, "run_ms": 50}, 1),
        ({"state": "scheduled", "token": 4, "run_ms": 50}, 1),
        ({"state": "scheduled", "run_ms": 50}, None),
        ({"state": "cancelled", "run_ms": 50}, None),
        ({"state": "enqueued", "run_ms": 50, "enqueued_ms": 51}, 51),
        ({"state": "retrying", "token": 4, "run_ms": 90, "enqueued_ms": 51}, 51),
    ],
)
def test_from_record_tells_when_the_job_last_became_claimable(more: dict[str, codec.Field], enqueued_ms: int | None) -> None:
    """A job that was enqueued by its submit has no field for it; one that still waits for its first time has no moment."""
    record = as_record(["type", "t", "payload", b"1"], submitted_ms=1, **more)

    assert read(record).enqueued_ms == enqueued_ms


def test_claimed_job_reads_the_record_that_came_with_the_claim() -> None:
    """A worker knows payload, labels, trace and numbers without asking again."""
    job = NewJob(type="t", payload=b"[2]", labels={"a": "b"}, trace="00-1", max_attempts=7, backoff_multiplier=1.5)
    flat = [as_bytes(value) for value in (*codec.to_fields(job), "state", "enqueued")]

    claimed = ClaimedJob([b"id", 8, 2, flat], 1234)

    assert (claimed.id, claimed.token, claimed.attempt, claimed.claimed_ms) == ("id", 8, 2, 1234)
    assert (claimed.type, claimed.payload, claimed.content_type) == ("t", b"[2]", "application/json")
    assert (claimed.labels, claimed.trace) == ({"a": "b"}, "00-1")
    assert (claimed.number(b"max_attempts"), claimed.number(b"timeout_ms")) == (7, None)
    assert (claimed.decimal(b"backoff_multiplier"), claimed.decimal(b"none")) == (1.5, None)
