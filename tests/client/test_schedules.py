"""Schedules by the three clients, against a real server and a real worker."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

import pytest

from gopher.errors import InvalidRequestError, ScheduleExistsError, ScheduleNotFoundError
from gopher.schedule import CatchUpPolicy, OverlapPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.schedule import Schedule
    from tests.client.faces import Face

PATIENCE: Final = 60


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"s{uuid.uuid4().hex[:12]}"


def test_schedule_lives_from_create_to_delete(face: Face, name: str) -> None:
    """Every method does what its name says, and what was given comes back."""
    made = cast(
        "Schedule",
        face.create_schedule(
            name, "0 2 1 1 *", "echo", {"a": 1}, time_zone="Asia/Tokyo", jitter_seconds=1.5, overlap="queue", catch_up="all",
            priority="high", max_attempts=2, labels={"k": "v"},
        ),
    )  # fmt: skip

    job_id = face.trigger_schedule(name)
    result = face.result(job_id, wait=PATIENCE)
    paused = cast("Schedule", face.pause_schedule(name))
    resumed = cast("Schedule", face.resume_schedule(name))
    updated = cast("Schedule", face.update_schedule(name, "@daily", "echo"))
    listed = cast("Sequence[Schedule]", face.list_schedules(limit=None))

    assert (made.jitter_ms, made.overlap, made.catch_up) == (1500, OverlapPolicy.QUEUE, CatchUpPolicy.ALL)
    assert (made.job.payload, made.job.max_attempts, made.job.labels) == (b'{"a":1}', 2, {"k": "v"})
    assert result == {"a": 1}
    assert (paused.paused, resumed.paused, resumed.last_job_id) == (True, False, job_id)
    assert (updated.cron, updated.time_zone, updated.fired_total) == ("@daily", "UTC", 1)
    assert face.get_schedule(name) in listed
    face.delete_schedule(name)
    with pytest.raises(ScheduleNotFoundError):
        face.get_schedule(name)


def test_errors_come_back_as_they_are(face: Face, name: str) -> None:
    """The server's refusals keep their class and name the field; what no message can carry is refused before."""
    face.create_schedule(name, "@daily", "echo")

    with pytest.raises(ScheduleExistsError):
        face.create_schedule(name, "@daily", "echo")
    with pytest.raises(InvalidRequestError, match=r"field 1 of 5 \(minute\)"):
        face.create_schedule(f"{name}-2", "61 * * * *", "echo")
    with pytest.raises(InvalidRequestError, match=r"schedule\.overlap"):
        face.create_schedule(f"{name}-2", "@daily", "echo", overlap="maybe")
    with pytest.raises(InvalidRequestError, match=r"schedule\.job\.colour"):
        face.create_schedule(f"{name}-2", "@daily", "echo", colour="red")
    with pytest.raises(InvalidRequestError, match="time zone"):
        face.schedule_times(cron="@daily", after=datetime(2026, 1, 1))  # noqa: DTZ001 - the fault
    face.delete_schedule(name)


def test_times_are_told_from_a_moment_on(face: Face) -> None:
    """Moments are ms since the epoch."""
    start = datetime(2026, 1, 1, tzinfo=UTC)

    found = face.schedule_times(cron="@hourly", count=2, after=start)

    start_ms = int(start.timestamp() * 1000)
    assert found == [start_ms + 3_600_000, start_ms + 7_200_000]
