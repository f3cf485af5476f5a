"""A schedule as the fields of a Redis hash, and back; the job that it makes stands there under `job:`, as it will in its own record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gopher.job import JobState, NewJob
from gopher.schedule import FIRE_TIME_LABEL, SCHEDULE_LABEL, CatchUpPolicy, NewSchedule, OverlapPolicy, Schedule
from gopher.store import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

_JOB: Final = "job:"
_encode_labels = msgspec.json.Encoder(order="sorted").encode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode


def to_fields(schedule: NewSchedule) -> list[codec.Field]:
    """Return what the author of a schedule says: field, value, field, value."""
    fields: list[codec.Field] = [
        *("cron", schedule.cron),
        *("time_zone", schedule.time_zone),
        *("jitter_ms", schedule.jitter_ms),
        *("overlap", schedule.overlap.value),
        *("catch_up", schedule.catch_up.value),
    ]
    of_job = codec.to_fields(schedule.job)
    for name, value in zip(of_job[::2], of_job[1::2], strict=True):
        fields += (f"{_JOB}{name!s}", value)
    return fields


def from_record(namespace: str, queue: str, name: str, record: Mapping[bytes, bytes]) -> Schedule:
    """Return the schedule that a record, not empty, holds."""
    text = {field.decode(): value for field, value in record.items()}
    is_paused = "paused" in text
    return Schedule(
        name=name,
        namespace=namespace,
        cron=text["cron"].decode(),
        time_zone=text["time_zone"].decode(),
        jitter_ms=int(text["jitter_ms"]),
        overlap=OverlapPolicy(text["overlap"].decode()),
        catch_up=CatchUpPolicy(text["catch_up"].decode()),
        job=_job(namespace, queue, record),
        paused=is_paused,
        created_ms=int(text["created_ms"]),
        updated_ms=int(text["updated_ms"]),
        next_ms=None if is_paused or not text["next_ms"] else int(text["next_ms"]),
        last_fire_ms=int(text["last_fire_ms"]) if "last_fire_ms" in text else None,
        last_job_id=text["last_job"].decode() if "last_job" in text else None,
        fired_total=int(text.get("fired_total", 0)),
        skipped_total=int(text.get("skipped_total", 0)),
    )


def _job(namespace: str, queue: str, record: Mapping[bytes, bytes]) -> NewJob:
    prefix = _JOB.encode()
    fields = {field.removeprefix(prefix): value for field, value in record.items() if field.startswith(prefix)}
    fields[b"state"] = JobState.ENQUEUED.value.encode()
    made = codec.from_record(namespace, queue, "", fields, None)
    return NewJob(**{name: getattr(made, name) for name in NewJob.__struct_fields__})


def labels_of_firing(labels: bytes | None, name: str, fire_ms: int) -> bytes:
    """Return the labels of the job of a firing: its own, and which schedule and fire time it comes from, as JSON."""
    moment = datetime.fromtimestamp(fire_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    own = _decode_labels(labels) if labels else {}
    return _encode_labels({**own, SCHEDULE_LABEL: name, FIRE_TIME_LABEL: moment})
