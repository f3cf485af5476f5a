from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gopher_pb.v1 import job_pb2

from gopher.client.submission import SubmitOptions, job_spec
from gopher.errors import InvalidRequestError
from gopher.wire.convert import to_ms


def test_job_spec_sets_what_is_given_and_nothing_else() -> None:
    """Each option lands in its field; what is None stays unset, which means what the handler declares."""
    moment = datetime(2030, 1, 31, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1)))

    spec = job_spec(
        "email",
        {"a": 1},
        {
            "queue": "mail",
            "priority": "high",
            "labels": {"k": "v"},
            "max_attempts": 3,
            "backoff_initial_seconds": 0.5,
            "backoff_max_seconds": 60,
            "backoff_multiplier": 3.0,
            "timeout_seconds": 1.5,
            "delay_seconds": 90,
            "deadline": moment,
            "unique_key": "u",
            "request_id": "r",
            "retention_seconds": 3600,
        },
    )
    bare = job_spec("email", None, dict.fromkeys(SubmitOptions.__annotations__))

    assert (spec.type, spec.queue, spec.priority, dict(spec.labels)) == (
        "email",
        "mail",
        job_pb2.PRIORITY_HIGH,
        {"k": "v"},
    )
    assert (spec.retry_policy.max_attempts, spec.retry_policy.backoff_multiplier) == (3, 3.0)
    assert (to_ms(spec.retry_policy.initial_backoff), to_ms(spec.retry_policy.max_backoff)) == (500, 60_000)
    assert (to_ms(spec.timeout), to_ms(spec.delay), to_ms(spec.retention)) == (1500, 90_000, 3_600_000)
    assert to_ms(spec.deadline) == int(moment.timestamp() * 1000)
    assert (spec.unique_key, spec.request_id, spec.content_type) == ("u", "r", "application/json")
    assert {field.name for field, _ in bare.ListFields()} == {"type", "payload", "content_type"}


def test_job_spec_takes_bytes_for_opaque_unless_told() -> None:
    """Bytes are application/octet-stream; bytes that are JSON already can be sent as such."""
    assert job_spec("x", b"{}", {}).content_type == "application/octet-stream"
    assert job_spec("x", b"{}", {"content_type": "application/json"}).content_type == "application/json"


def test_job_spec_sends_a_zero_length_of_time() -> None:
    """Zero is said, not left out: the server refuses it by name."""
    assert job_spec("x", None, {"timeout_seconds": 0}).HasField("timeout")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("priority", "urgent"),
        ("priority", 3),
        ("labels", "a=b"),
        ("labels", {"a": 1}),
        ("max_attempts", "three"),
        ("max_attempts", 2**40),
        ("timeout_seconds", "soon"),
        ("timeout_seconds", float("nan")),
        ("timeout_seconds", float("inf")),
        ("delay_seconds", 1e30),
        ("run_at", 5),
        ("run_at", datetime(2030, 1, 1)),  # noqa: DTZ001 -- without a zone on purpose
        ("deadline", "2030-01-01"),
        ("queue", 5),
        ("request_id", b"\xff"),
        ("colour", "red"),
    ],
)
def test_job_spec_refuses_what_no_message_can_carry(option: str, value: object) -> None:
    """The refusal is one of ours, names the option and shows the value."""
    with pytest.raises(InvalidRequestError) as caught:
        job_spec("email", None, {option: value}, field="jobs[7]")

    assert caught.value.violations[0].field == f"jobs[7].{option}"


def test_job_spec_names_the_zone_that_is_missing() -> None:
    """A moment without a zone would mean another time on another machine."""
    with pytest.raises(InvalidRequestError, match="no time zone"):
        job_spec("email", None, {"run_at": datetime(2030, 1, 1)})  # noqa: DTZ001 -- without a zone on purpose

    assert job_spec("email", None, {"run_at": datetime(2030, 1, 1, tzinfo=UTC)}).run_time.seconds == 1_893_456_000
