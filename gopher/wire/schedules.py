"""Schedules as they cross the wire: a `ScheduleSpec`, checked, becomes a `NewSchedule`; a `Schedule` becomes a message, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import schedule_service_pb2 as pb

from gopher import cron
from gopher.errors import InvalidRequestError
from gopher.job import NewJob
from gopher.schedule import CatchUpPolicy, NewSchedule, OverlapPolicy, Schedule
from gopher.wire import check, convert
from gopher.wire.check import DAY_MS, MAX_LABELS, Faults
from gopher.wire.submission import new_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

E = TypeVar("E", OverlapPolicy, CatchUpPolicy)

MAX_JITTER_MS: Final = DAY_MS
MAX_COUNT: Final = 100
DEFAULT_COUNT: Final = 10
DEFAULT_TIME_ZONE: Final = "UTC"
ADDED_LABELS: Final = 2

OVERLAP_NUMBER: Final = {each: pb.OverlapPolicy.Value(f"OVERLAP_POLICY_{each.name}") for each in OverlapPolicy}
CATCH_UP_NUMBER: Final = {each: pb.CatchUpPolicy.Value(f"CATCH_UP_POLICY_{each.name}") for each in CatchUpPolicy}

_OVERLAP_OF: Final[dict[int, OverlapPolicy]] = {number: each for each, number in OVERLAP_NUMBER.items()}
_CATCH_UP_OF: Final[dict[int, CatchUpPolicy]] = {number: each for each, number in CATCH_UP_NUMBER.items()}
_EXCLUDED: Final = ("run_time", "delay", "deadline", "unique_key", "request_id")


def new_schedule(spec: pb.ScheduleSpec, *, max_payload_bytes: int) -> NewSchedule:
    """Return the schedule that a spec describes.

    Raises:
        InvalidRequestError: It names every fault.
    """
    faults = Faults("schedule.")
    name = check.name(faults, "name", spec.name)
    time_zone = zone_name(faults, "time_zone", spec.time_zone)
    expression(faults, "cron", spec.cron)
    jitter_ms = check.duration_ms(faults, "jitter", spec.jitter, 0, MAX_JITTER_MS) if spec.HasField("jitter") else 0
    overlap = OverlapPolicy.SKIP
    if spec.overlap:
        overlap = _known(faults, "overlap", spec.overlap, _OVERLAP_OF, overlap)
    catch_up = CatchUpPolicy.LAST
    if spec.catch_up:
        catch_up = _known(faults, "catch_up", spec.catch_up, _CATCH_UP_OF, catch_up)
    job = _job(faults, spec.job, max_payload_bytes)
    faults.refuse()
    return NewSchedule(
        name=name, cron=spec.cron, time_zone=time_zone, jitter_ms=jitter_ms, overlap=overlap, catch_up=catch_up, job=job
    )


def expression(faults: Faults, field: str, value: str) -> None:
    """Check a cron expression."""
    if not value:
        faults.add(field, "REQUIRED", "must be set")
        return
    try:
        cron.parsed(value, DEFAULT_TIME_ZONE)
    except ValueError as error:
        faults.add(field, "BAD_CRON", str(error))


def zone_name(faults: Faults, field: str, value: str) -> str:
    """Check a time zone, UTC if unset."""
    try:
        cron.zone(value or DEFAULT_TIME_ZONE)
    except ValueError as error:
        faults.add(field, "BAD_TIME_ZONE", str(error))
    return value or DEFAULT_TIME_ZONE


def _known(faults: Faults, field: str, value: int, known: Mapping[int, E], default: E) -> E:
    if value not in known:
        names = ", ".join(f"{number} ({each})" for number, each in known.items())
        faults.add(field, "BAD_ENUM", f"must be {names} or unset, got {value}")
    return known.get(value, default)


def _job(faults: Faults, spec: job_pb2.JobSpec, max_payload_bytes: int) -> NewJob:
    given = {field.name for field, _ in spec.ListFields()}
    for field in _EXCLUDED:
        if field in given:
            faults.add(f"job.{field}", "CONFLICT", "must not be set: a schedule says when, and what happens to overlaps")
    if len(spec.labels) > MAX_LABELS - ADDED_LABELS:
        faults.add("job.labels", "LABELS", f"must be at most {MAX_LABELS - ADDED_LABELS}, got {len(spec.labels)}")
    try:
        return new_job(spec, "job.", max_payload_bytes=max_payload_bytes)
    except InvalidRequestError as error:
        for each in error.violations:
            faults.add(each.field, each.reason, each.description)
        return NewJob(type="")


def count_of(faults: Faults, value: int) -> int:
    """Check how many times are asked for."""
    return check.integer(faults, "count", value, 1, MAX_COUNT) or DEFAULT_COUNT


def times_to_messages(times: list[int]) -> list[Timestamp]:
    """Return moments, ms since the epoch, as messages."""
    return [message for each in times if (message := convert.timestamp(each)) is not None]


def schedule_to_message(schedule: Schedule) -> pb.Schedule:
    """Return the schedule as clients see it."""
    return pb.Schedule(
        namespace=schedule.namespace,
        spec=spec_to_message(schedule),
        paused=schedule.paused,
        create_time=convert.timestamp(schedule.created_ms),
        update_time=convert.timestamp(schedule.updated_ms),
        next_fire_time=convert.timestamp(schedule.next_ms),
        last_fire_time=convert.timestamp(schedule.last_fire_ms),
        last_job_id=schedule.last_job_id or "",
        fired_total=schedule.fired_total,
        skipped_total=schedule.skipped_total,
    )


def spec_to_message(schedule: NewSchedule) -> pb.ScheduleSpec:
    """Return what the author of a schedule says as a message."""
    job = schedule.job
    return pb.ScheduleSpec(
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        jitter=convert.duration(schedule.jitter_ms or None),
        overlap=OVERLAP_NUMBER[schedule.overlap],
        catch_up=CATCH_UP_NUMBER[schedule.catch_up],
        job=job_pb2.JobSpec(
            type=job.type,
            payload=job.payload,
            content_type=job.content_type,
            queue=job.queue,
            priority=convert.PRIORITY_NUMBER[job.priority],
            labels=job.labels,
            limit_key=job.limit_key or "",
            retry_policy=convert.policy_to_message(job),
            timeout=convert.duration(job.timeout_ms),
            retention=convert.duration(job.retention_ms),
        ),
    )


def schedule_from_message(message: pb.Schedule) -> Schedule:
    """Return the schedule that a server's message tells of."""
    spec = message.spec
    return Schedule(
        namespace=message.namespace,
        name=spec.name,
        cron=spec.cron,
        time_zone=spec.time_zone,
        jitter_ms=convert.to_ms(spec.jitter),
        overlap=_OVERLAP_OF[spec.overlap],
        catch_up=_CATCH_UP_OF[spec.catch_up],
        # The server has checked it, by its own limit.
        job=new_job(spec.job, "job.", max_payload_bytes=len(spec.job.payload)),
        paused=message.paused,
        created_ms=convert.to_ms(message.create_time),
        updated_ms=convert.to_ms(message.update_time),
        next_ms=convert.to_ms(message.next_fire_time) if message.HasField("next_fire_time") else None,
        last_fire_ms=convert.to_ms(message.last_fire_time) if message.HasField("last_fire_time") else None,
        last_job_id=message.last_job_id or None,
        fired_total=message.fired_total,
        skipped_total=message.skipped_total,
    )
