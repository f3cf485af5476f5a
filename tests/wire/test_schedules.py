"""A schedule over the wire: every fault named, nothing lost on the way there and back."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import schedule_service_pb2 as pb

from gopher.errors import InvalidRequestError
from gopher.job import NewJob, Priority
from gopher.schedule import CatchUpPolicy, OverlapPolicy, Schedule
from gopher.wire import schedules


def spec(**fields: object) -> pb.ScheduleSpec:
    given = {"name": "nightly", "cron": "@daily", "job": job_pb2.JobSpec(type="email"), **fields}
    return pb.ScheduleSpec(**given)  # type: ignore[arg-type] # the test names fields of ScheduleSpec


def faults_of(message: pb.ScheduleSpec) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        schedules.new_schedule(message, max_payload_bytes=100)
    return [(each.field, each.reason) for each in caught.value.violations]


def test_spec_with_the_least_gets_the_defaults() -> None:
    """Name, expression and type are enough: UTC, no jitter, skip, last."""
    found = schedules.new_schedule(spec(), max_payload_bytes=100)

    assert (found.time_zone, found.jitter_ms, found.overlap, found.catch_up) == (
        "UTC",
        0,
        OverlapPolicy.SKIP,
        CatchUpPolicy.LAST,
    )
    assert found.job == NewJob(type="email")


@pytest.mark.parametrize("cron", ["* * *", "61 * * * *", "0 0 30 2 *", "*/0 * * * *", "*" * 4096, "@every 1ms"])
def test_cron_that_cannot_work_is_refused(cron: str) -> None:
    """Each is refused as BAD_CRON of the field."""
    assert faults_of(spec(cron=cron)) == [("schedule.cron", "BAD_CRON")]


def test_faulty_field_of_a_cron_is_named_by_its_place() -> None:
    """The message says which field, what it must hold and what it holds."""
    with pytest.raises(InvalidRequestError, match=r"schedule\.cron: field 2 of 5 \(hour\): expected 0 to 23, got '24'"):
        schedules.new_schedule(spec(cron="0 24 * * *"), max_payload_bytes=100)


def test_every_fault_is_named_at_once() -> None:
    """One refusal tells all: of the schedule and of its job."""
    job = job_pb2.JobSpec(
        type="No", delay=Duration(), run_time=Timestamp(), deadline=Timestamp(), unique_key="u", request_id="r", payload=b"{"
    )
    message = spec(name="", cron="", time_zone="Mars", jitter=Duration(seconds=86401), overlap=9, catch_up=9, job=job)

    found = faults_of(message)

    assert set(found) == {
        ("schedule.name", "REQUIRED"),
        ("schedule.cron", "REQUIRED"),
        ("schedule.time_zone", "BAD_TIME_ZONE"),
        ("schedule.jitter", "OUT_OF_RANGE"),
        ("schedule.overlap", "BAD_ENUM"),
        ("schedule.catch_up", "BAD_ENUM"),
        *((f"schedule.job.{field}", "CONFLICT") for field in ("run_time", "delay", "deadline", "unique_key", "request_id")),
        ("schedule.job.type", "BAD_NAME"),
        ("schedule.job.payload", "BAD_JSON"),
    }


def test_two_labels_are_kept_free_for_the_origin() -> None:
    """62 labels are taken, 63 are not: two are added to each job."""
    job = job_pb2.JobSpec(type="email", labels={f"k{n}": "" for n in range(63)})

    assert faults_of(spec(job=job)) == [("schedule.job.labels", "LABELS")]
    del job.labels["k0"]
    assert len(schedules.new_schedule(spec(job=job), max_payload_bytes=100).job.labels) == 62


def test_schedule_goes_there_and_back_whole() -> None:
    """What the store holds is what a client gets."""
    job = NewJob(
        type="email", payload=b"\xff", content_type="application/octet-stream", queue="q", priority=Priority.LOW, labels={"a": "b"},
        limit_key="t",
        max_attempts=3, backoff_initial_ms=1, backoff_max_ms=2, backoff_multiplier=2.0, timeout_ms=5, retention_ms=6,
    )  # fmt: skip
    schedule = Schedule(
        name="nightly", cron="0 2 * * *", time_zone="Europe/Berlin", jitter_ms=7, overlap=OverlapPolicy.QUEUE,
        catch_up=CatchUpPolicy.ALL, job=job, namespace="ns", paused=False, created_ms=1, updated_ms=2, next_ms=3, last_fire_ms=4,
        last_job_id="j", fired_total=5, skipped_total=6,
    )  # fmt: skip

    message = pb.Schedule.FromString(schedules.schedule_to_message(schedule).SerializeToString())

    assert schedules.schedule_from_message(message) == schedule
    assert message.spec.job.retry_policy == job_pb2.RetryPolicy(
        max_attempts=3,
        initial_backoff=Duration(nanos=1_000_000),
        max_backoff=Duration(nanos=2_000_000),
        backoff_multiplier=2,
    )
