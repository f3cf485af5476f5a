from __future__ import annotations

import msgspec
import pytest

from gopher.job import Attempt, Failure, Job, JobState, Outcome, Priority
from gopher.wire.shape import job_object, moment

JOB = Job(
    id="j1",
    namespace="ns",
    type="email",
    queue="mail",
    priority=Priority.HIGH,
    payload=b'{"n":9007199254740993,"list":[]}',
    state=JobState.RETRYING,
    submitted_ms=1_893_456_000_123,
    attempt=1,
    timeout_ms=1500,
    cancel_reason="",
    failure=Failure(reason="TIMED_OUT", message="late", code=4),
    attempts=(Attempt(number=1, outcome=Outcome.TIMED_OUT, worker="w", started_ms=0, finished_ms=1),),
)


def test_job_object_decodes_payload_and_result() -> None:
    """JSON stands as JSON, without loss."""
    shown = job_object(msgspec.structs.replace(JOB, result=b'{"ok":true}'))

    assert shown["payload"] == {"n": 9007199254740993, "list": []}
    assert shown["payload_base64"] is None
    assert shown["result"] == {"ok": True}


def test_job_object_shows_other_payloads_in_base64() -> None:
    """Opaque bytes are not guessed at."""
    shown = job_object(msgspec.structs.replace(JOB, payload=b"\xff\x00", content_type="application/octet-stream"))

    assert (shown["payload"], shown["payload_base64"]) == (None, "/wA=")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "j1"),
        ("job_id", "j1"),
        ("state", "retrying"),
        ("status", "retrying"),
        ("priority", "high"),
        ("submit_time", "2030-01-01T00:00:00.123Z"),
        ("start_time", None),
        ("timeout_seconds", 1.5),
        ("cancel_requested", True),
        (
            "failure",
            {
                "code": "DEADLINE_EXCEEDED",
                "reason": "TIMED_OUT",
                "message": "late",
                "metadata": {},
                "retry_after_seconds": None,
            },
        ),
        (
            "attempts",
            [
                {
                    "number": 1,
                    "outcome": "timed_out",
                    "worker": "w",
                    "start_time": "1970-01-01T00:00:00.000Z",
                    "end_time": "1970-01-01T00:00:00.001Z",
                    "failure": None,
                    "traceback": None,
                }
            ],
        ),
    ],
)
def test_job_object_says_each_thing_in_its_form(key: str, value: object) -> None:
    """States are words, moments RFC 3339, lengths of time seconds, failures have the name of their code."""
    assert job_object(JOB)[key] == value


def test_job_object_has_the_same_keys_for_every_job() -> None:
    """A script finds every key, set or not."""
    bare = Job(id="j", namespace="n", type="t", state=JobState.ENQUEUED, submitted_ms=0)

    assert job_object(bare).keys() == job_object(JOB).keys()


def test_moment_of_nothing_is_nothing() -> None:
    """What is unset stays unset."""
    assert moment(None) is None
