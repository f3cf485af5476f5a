"""What a JobSpec may hold: every fault of the table of bad inputs, and what is let through."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from gopher_pb.v1.job_pb2 import JobSpec, RetryPolicy

from gopher.errors import InvalidRequestError
from gopher.job import NewJob, Priority
from gopher.wire import check
from gopher.wire.submission import new_job

if TYPE_CHECKING:
    from gopher.errors import Violation

DAY = 86_400
YEAR_0 = Timestamp(seconds=-62_167_219_200)
YEAR_9999 = Timestamp(seconds=253_370_764_800)


def read(spec: JobSpec) -> NewJob:
    return new_job(spec, "job.", max_payload_bytes=256 * 1024)


def violations(spec: JobSpec) -> tuple[Violation, ...]:
    with pytest.raises(InvalidRequestError) as caught:
        read(spec)
    return caught.value.violations


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"type": ""}, "job.type", "REQUIRED"),
        *[
            ({"type": name}, "job.type", "BAD_NAME")
            for name in (
                "../../x",
                "os.System",
                "a b",
                "a" * 300,
                "a" * 65,
                "email\r\n",
                "email\n",
                "еmail",  # noqa: RUF001 - the first letter is Cyrillic
                "1a",
                "_a",
                "\x00",
            )
        ],
        *[({"queue": name}, "job.queue", "BAD_NAME") for name in ("{x}", "a}b", "*", "\x00", "a:b", "Default", "a/b")],
        ({"payload": b"1" * (256 * 1024 + 1)}, "job.payload", "PAYLOAD_TOO_LARGE"),
        *[
            ({"payload": payload}, "job.payload", "BAD_JSON")
            for payload in (
                b"x",
                b"NaN",
                b"[Infinity]",
                b"-Infinity",
                b"1e400",
                b'{"a": -1e999}',
                b"9" * 5000,
                b"[" * 100_000,
                b"[" * 65 + b"]" * 65,
                b'{"a":' * 65 + b"1" + b"}" * 65,
                b"[1,]",
                b"{'a': 1}",
                b'"\xff"',
                b'"\xed\xa0\x80"',
                b"1 2",
                b"\xef\xbb\xbf1",
                b"01",
                b"nul",
                b'"\n"',
                b"\x80\x04K\x01.",
            )
        ],
        ({"content_type": "application/x-python-serialize"}, "job.content_type", "UNSUPPORTED_CONTENT_TYPE"),
        ({"content_type": "application/json; charset=utf-8"}, "job.content_type", "UNSUPPORTED_CONTENT_TYPE"),
        ({"priority": 99}, "job.priority", "BAD_ENUM"),
        ({"priority": -1}, "job.priority", "BAD_ENUM"),
        *[
            ({"retry_policy": RetryPolicy(max_attempts=number)}, "job.retry_policy.max_attempts", "OUT_OF_RANGE")
            for number in (-1, 101, 10**9)
        ],
        *[
            ({"retry_policy": RetryPolicy(backoff_multiplier=number)}, "job.retry_policy.backoff_multiplier", "OUT_OF_RANGE")
            for number in (-1, 0.5, 10.5, math.inf, math.nan)
        ],
        *[
            ({"retry_policy": RetryPolicy(initial_backoff=value)}, "job.retry_policy.initial_backoff", "OUT_OF_RANGE")
            for value in (Duration(), Duration(seconds=-1), Duration(seconds=7 * DAY + 1))
        ],
        (
            {"retry_policy": RetryPolicy(initial_backoff=Duration(seconds=9), max_backoff=Duration(seconds=8))},
            "job.retry_policy.max_backoff",
            "OUT_OF_RANGE",
        ),
        *[
            ({"timeout": value}, "job.timeout", "OUT_OF_RANGE")
            for value in (
                Duration(),
                Duration(nanos=999_999),
                Duration(seconds=-1),
                Duration(seconds=1, nanos=-1),
                Duration(seconds=-1, nanos=1),
                Duration(nanos=1_000_000_000),
                Duration(seconds=10**15),
                Duration(seconds=30 * DAY, nanos=1),
                Duration(seconds=-(2**63)),
                Duration(seconds=2**63 - 1, nanos=2**31 - 1),
            )
        ],
        *[
            ({name: value}, f"job.{name}", "OUT_OF_RANGE")
            for name in ("run_time", "deadline")
            for value in (YEAR_0, YEAR_9999, Timestamp(nanos=-1), Timestamp(nanos=10**9), Timestamp(seconds=-1))
        ],
        ({"delay": Duration(seconds=-1)}, "job.delay", "OUT_OF_RANGE"),
        ({"delay": Duration(seconds=3651 * DAY)}, "job.delay", "OUT_OF_RANGE"),
        ({"retention": Duration(seconds=31 * DAY)}, "job.retention", "OUT_OF_RANGE"),
        ({"delay": Duration(seconds=1), "run_time": Timestamp(seconds=1)}, "job.delay", "CONFLICT"),
        ({"labels": {str(number): "x" for number in range(65)}}, "job.labels", "LABELS"),
        ({"labels": {"k" * 64: "x"}}, f"job.labels['{'k' * 64}']", "LABELS"),
        ({"labels": {"": "x"}}, "job.labels['']", "LABELS"),
        ({"labels": {"k": "v" * 256}}, "job.labels['k']", "LABELS"),
        ({"labels": {"k": "a\nb"}}, "job.labels['k']", "LABELS"),
        ({"labels": {"a\x7f": "b"}}, "job.labels['a\\x7f']", "LABELS"),
        ({"unique_key": "x" * 256}, "job.unique_key", "OUT_OF_RANGE"),
        ({"unique_key": "a\x00b"}, "job.unique_key", "OUT_OF_RANGE"),
        ({"request_id": "ä" * 128}, "job.request_id", "OUT_OF_RANGE"),
    ],
)
def test_faulty_field_is_named_with_its_reason(fields: dict[str, object], field: str, reason: str) -> None:
    """One fault, one violation, at the path of the field."""
    spec = JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec

    (violation,) = violations(spec)

    assert (violation.field, violation.reason) == (field, reason)
    assert len(violation.description) < 200


def test_all_faults_are_named_at_once() -> None:
    """A caller mends a request in one go."""
    spec = JobSpec(type="A", queue="*", payload=b"{", priority=99, labels={"": ""}, timeout=Duration())  # type: ignore[arg-type]  # no such priority

    found = violations(spec)

    fields = {each.field for each in found}
    assert fields == {"job.type", "job.queue", "job.payload", "job.priority", "job.labels['']", "job.timeout"}


@pytest.mark.parametrize(
    ("payload", "offset"),
    [
        (b'{"a": NaN}', 6),
        (b'{"a": 1e400}', 6),
        (b'["1e400", 1e400]', 10),
        (b'{"a": "\xff"}', 7),
        (b'["\xc3\xa4", "\xc3"]', 8),
        (b"[1, 2", 5),
        (b"[" + b"9" * 5000 + b"]", 1),
    ],
)
def test_fault_of_json_is_told_with_its_offset(payload: bytes, offset: int) -> None:
    """The byte at which the JSON ceases to be JSON."""
    (violation,) = violations(JobSpec(type="email", payload=payload))

    assert violation.description.endswith(f"at offset {offset}")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"n": 9007199254740993, "big": 123456789012345678901234567890, "empty": [], "f": 1e-400}',
        b"[" * 64 + b"]" * 64,
        b'{"a":' * 63 + b"[]" + b"}" * 63,
        b'["' + b"[" * 5000 + b'", "\\"[[["]',
        b"[" + b"[]," * 1000 + b"[]]",
        b' "\xc3\xa4\\u00e4" ',
        b"0",
    ],
)
def test_json_is_kept_byte_for_byte(payload: bytes) -> None:
    """Nothing is parsed and written again: numbers, spaces and order stay as they came."""
    assert read(JobSpec(type="email", payload=payload)).payload == payload


@pytest.mark.parametrize(
    "payload", [b"[" * 262_144, b"[]," * 87_000 + b"[", b'"' + b'\\"' * 131_000, b"[" * 60 + b",[[1]]" * 40_000]
)
def test_check_of_hostile_json_is_quick(payload: bytes) -> None:
    """The largest payload, whatever it holds, keeps the loop for no more than a moment."""
    before = time.thread_time()

    check.json_fault(payload)

    assert time.thread_time() - before < 0.2


def test_opaque_bytes_are_no_json_and_need_not_be() -> None:
    """With application/octet-stream anything goes, also nothing."""
    for payload in (b"\x80\x04K\x01.", b""):
        spec = JobSpec(type="email", payload=payload, content_type="application/octet-stream")
        assert read(spec).payload == payload


def test_unset_fields_are_the_defaults() -> None:
    """A spec with a type alone is a job with nothing but defaults; empty JSON is null."""
    assert read(JobSpec(type="email")) == NewJob(type="email", payload=b"null")


def test_zero_max_attempts_is_the_handlers() -> None:
    """0 means that the handler decides."""
    assert read(JobSpec(type="email", retry_policy=RetryPolicy(max_attempts=0))).max_attempts is None


def test_every_field_arrives() -> None:
    """Lengths of time and moments in ms, a part of a ms counted as a whole one."""
    spec = JobSpec(
        type="email",
        payload=b"1",
        content_type="application/json",
        queue="mail",
        priority=1,  # type: ignore[arg-type]  # the number that the wire carries
        labels={"a": "b"},
        retry_policy=RetryPolicy(
            max_attempts=100,
            initial_backoff=Duration(nanos=1),
            max_backoff=Duration(seconds=7 * DAY),
            backoff_multiplier=10,
        ),
        timeout=Duration(seconds=30 * DAY),
        run_time=Timestamp(seconds=1, nanos=500_000_001),
        deadline=Timestamp(seconds=7_258_118_400),
        unique_key="u" * 255,
        request_id="ä" * 127,
        retention=Duration(),
    )
    spec.retry_policy.initial_backoff.nanos = 1_000_001

    job = new_job(spec, "job.", max_payload_bytes=1024, trace="t")

    assert job == NewJob(
        type="email",
        payload=b"1",
        queue="mail",
        priority=Priority.HIGH,
        labels={"a": "b"},
        max_attempts=100,
        backoff_initial_ms=2,
        backoff_max_ms=7 * DAY * 1000,
        backoff_multiplier=10,
        timeout_ms=30 * DAY * 1000,
        run_ms=1501,
        deadline_ms=7_258_118_400_000,
        unique_key="u" * 255,
        request_id="ä" * 127,
        retention_ms=0,
        trace="t",
    )


def test_moment_in_the_past_is_let_through() -> None:
    """It means now."""
    assert read(JobSpec(type="email", run_time=Timestamp(seconds=1))).run_ms == 1000


@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_a_refusal(raw: bytes) -> None:
    """Whatever message the bytes make, nothing but InvalidRequestError is raised."""
    spec = JobSpec()
    try:
        spec.ParseFromString(raw)
    except Exception:  # noqa: BLE001 - bytes that are no message are refused before
        return

    with suppress(InvalidRequestError):
        job = read(spec)
        assert job.content_type != "application/json" or check.json_fault(job.payload) is None
