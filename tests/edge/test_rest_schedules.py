"""REST on schedules: what their author says comes back, they are steered as over gRPC, and a submit can ask for one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from tests.edge.rest_rig import send

if TYPE_CHECKING:
    from gopher.job import JsonValue
    from tests.edge.rest_rig import Answer, Rest

PATH: Final = "/api/v1/schedules"
TIMES: Final = "/api/v1/schedule-times"
NIGHTLY: Final[dict[str, JsonValue]] = {
    "name": "nightly",
    "cron": "0 2 * * MON-FRI",
    "time_zone": "Europe/Berlin",
    "jitter_seconds": 1.5,
    "overlap": "cancel_previous",
    "catch_up": "all",
    "job": {
        "type": "report",
        "queue": "mail",
        "payload": {"kind": "sales"},
        "priority": "high",
        "retries": 4,
        "labels": {"a": "b"},
        "limit_key": "tenant-7",
        "timeout_seconds": 2.5,
        "retention_seconds": 60,
    },
}
PLAIN: Final[dict[str, JsonValue]] = {"name": "nightly", "cron": "0 2 * * *", "job": {"type": "email"}}
RECURRING: Final[dict[str, JsonValue]] = {"cron_expression": "0 2 * * *", "time_zone": "Asia/Tokyo"}


async def put(rest: Rest, path: str, body: object, **query: str) -> Answer:
    """Replace something."""
    return await send(rest.address, "PUT", rest.path(path, **query), json.dumps(body).encode())


def faults(answer: Answer) -> list[tuple[JsonValue, JsonValue]]:
    """Return which fields were refused, and why."""
    details = answer.error["details"]
    assert isinstance(details, list)
    return [(each["field"], each["reason"]) for each in details if isinstance(each, dict)]


async def test_schedule_comes_back_as_it_was_made(rest: Rest) -> None:
    """All that the author says, down to the job, is in the answer to the POST, to a GET and in the list."""
    made = await rest.post(PATH, NIGHTLY)

    found = await rest.get(f"{PATH}/nightly", queue="mail")
    listed = await rest.get(PATH)
    said = {key: made[key] for key in NIGHTLY if key != "job"}
    job = made["job"]
    assert isinstance(job, dict)
    assert made.status == 201
    assert said == {key: value for key, value in NIGHTLY.items() if key != "job"}
    assert (job["type"], job["queue"], job["payload"], job["priority"]) == ("report", "mail", {"kind": "sales"}, "high")
    assert (job["max_attempts"], job["labels"], job["limit_key"]) == (5, {"a": "b"}, "tenant-7")
    assert (job["timeout_seconds"], job["retention_seconds"]) == (2.5, 60)
    assert found.json == made.json
    assert listed.json == {"schedules": [made.json], "next_page_token": None}


async def test_list_goes_page_by_page_and_by_queue(rest: Rest) -> None:
    """A token leads to the rest, and is of use for the same question only."""
    for name in ("a", "b"):
        await rest.post(PATH, PLAIN | {"name": name})
    await rest.post(PATH, NIGHTLY)

    first = await rest.get(PATH, queue="default", page_size="1")
    token = str(first["next_page_token"])
    second = await rest.get(PATH, queue="default", page_size="1", page_token=token)
    other = await rest.get(PATH, queue="mail", page_token=token)

    assert [each["name"] for each in first.list("schedules") + second.list("schedules")] == ["a", "b"]
    assert [each["name"] for each in (await rest.get(PATH, queue="mail")).list("schedules")] == ["nightly"]
    assert (other.status, other.reason) == (400, "BAD_PAGE_TOKEN")


async def test_put_replaces_all_but_name_and_queue(rest: Rest) -> None:
    """What the new body leaves out is at its default again; another queue is refused, and changes nothing."""
    await rest.post(PATH, NIGHTLY)
    body = {"cron": "30 4 * * *", "job": {"type": "email"}}

    refused = await put(rest, f"{PATH}/nightly", body | {"job": {"type": "email", "queue": "other"}}, queue="mail")
    kept = await rest.get(f"{PATH}/nightly", queue="mail")
    replaced = await put(rest, f"{PATH}/nightly", body, queue="mail")
    unknown = await put(rest, f"{PATH}/nightly", body)

    assert (refused.status, faults(refused)) == (400, [("job.queue", "CONFLICT")])
    assert kept["cron"] == NIGHTLY["cron"]
    assert (replaced.status, replaced["cron"], replaced["time_zone"], replaced["overlap"]) == (200, "30 4 * * *", "UTC", "skip")
    assert replaced["queue"] == "mail"
    assert (unknown.status, unknown.reason) == (404, "SCHEDULE_NOT_FOUND")


async def test_schedule_is_paused_resumed_and_removed(rest: Rest) -> None:
    """Each answer tells how it stands; once removed it is not found."""
    await rest.post(PATH, PLAIN)

    paused = await rest.post(f"{PATH}/nightly/pause")
    resumed = await rest.post(f"{PATH}/nightly/resume")
    deleted = await rest.delete(f"{PATH}/nightly")
    gone = [await rest.get(f"{PATH}/nightly"), await rest.delete(f"{PATH}/nightly"), await rest.post(f"{PATH}/nightly/pause")]

    assert (paused["paused"], paused["next_fire_time"]) == (True, None)
    assert resumed["paused"] is False
    assert resumed["next_fire_time"] is not None
    assert (deleted.status, deleted.json) == (200, {"name": "nightly"})
    assert [(each.status, each.reason) for each in gone] == [(404, "SCHEDULE_NOT_FOUND")] * 3


async def test_trigger_makes_a_job_and_minds_the_overlap(rest: Rest) -> None:
    """The job is there with the limit key of its schedule; while it has not ended there is no second."""
    await rest.post(PATH, PLAIN | {"job": {"type": "email", "payload": [1], "limit_key": "t"}})

    triggered = await rest.post(f"{PATH}/nightly/trigger")
    again = await rest.post(f"{PATH}/nightly/trigger")
    job = await rest.get(f"/api/v1/jobs/{triggered['job_id']}")
    schedule = await rest.get(f"{PATH}/nightly")

    assert (triggered.status, triggered["name"]) == (201, "nightly")
    assert (job["type"], job["payload"], job["limit_key"]) == ("email", [1], "t")
    assert (again.status, again.reason) == (400, "OVERLAP")
    assert (schedule["last_job_id"], schedule["fired_total"]) == (triggered["job_id"], 1)


async def test_times_are_told_of_a_schedule_and_of_an_expression(rest: Rest) -> None:
    """Both tell the same, by the zone's clock, from the moment that is asked for."""
    await rest.post(PATH, PLAIN | {"time_zone": "Asia/Tokyo"})
    when = {"count": "2", "after": "2030-01-31T12:00:00Z"}

    of_schedule = await rest.get(f"{PATH}/nightly/times", **when)
    of_expression = await rest.get(TIMES, cron="0 2 * * *", time_zone="Asia/Tokyo", **when)

    assert of_schedule.json == {"times": ["2030-01-31T17:00:00.000Z", "2030-02-01T17:00:00.000Z"]}
    assert of_expression.json == of_schedule.json


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ({}, "cron", "REQUIRED"),
        ({"cron": ""}, "cron", "REQUIRED"),
        ({"cron": "0 25 * * *"}, "cron", "BAD_CRON"),
        ({"cron": "@daily", "time_zone": "Mars/North"}, "time_zone", "BAD_TIME_ZONE"),
        ({"cron": "@daily", "time_zone": "a\0b"}, "time_zone", "BAD_TIME_ZONE"),
        ({"cron": "@daily", "count": "101"}, "count", "OUT_OF_RANGE"),
        ({"cron": "@daily", "after": "tomorrow"}, "after", "BAD_TIME"),
        ({"cron": "@daily", "after": "0001-01-01T00:00:00+23:59"}, "after", "OUT_OF_RANGE"),
        ({"cron": "@daily", "after": "9999-12-31T23:59:59-23:59"}, "after", "OUT_OF_RANGE"),
    ],
)
async def test_times_that_cannot_be_told_are_refused(rest: Rest, query: dict[str, str], field: str, reason: str) -> None:
    """The refusal names the parameter."""
    refused = await rest.get(TIMES, **query)

    assert refused.status == 400
    assert faults(refused) == [(field, reason)]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"name": "A b"}, "name", "BAD_NAME"),
        ({"cron": "0 25 * * *"}, "cron", "BAD_CRON"),
        ({"cron": "0 0 30 2 *"}, "cron", "BAD_CRON"),
        ({"cron": 5}, "cron", "BAD_TYPE"),
        ({"time_zone": "Mars/North"}, "time_zone", "BAD_TIME_ZONE"),
        ({"jitter_seconds": 86_401}, "jitter_seconds", "OUT_OF_RANGE"),
        ({"overlap": "both"}, "overlap", "BAD_ENUM"),
        ({"catch_up": "some"}, "catch_up", "BAD_ENUM"),
        ({"job": {}}, "job.type", "REQUIRED"),
        ({"job": {"type": "email", "priority": "urgent"}}, "job.priority", "BAD_ENUM"),
        ({"job": {"type": "email", "labels": {"": "x"}}}, "job.labels['']", "LABELS"),
        (
            {"job": {"type": "email", "backoff_initial_seconds": 9, "backoff_max_seconds": 1}},
            "job.backoff_max_seconds",
            "OUT_OF_RANGE",
        ),
        ({"job": {"type": "email", "payload": 1, "payload_base64": "AA=="}}, "payload_base64", "CONFLICT"),
        ({"job": {"type": "email", "execute_at": "2030-01-31T12:00:00Z"}}, "job.execute_at", "UNKNOWN_FIELD"),
        ({"queue": "mail"}, "queue", "UNKNOWN_FIELD"),
    ],
)
async def test_schedule_that_cannot_be_is_refused(rest: Rest, change: dict[str, object], field: str, reason: str) -> None:
    """Each fault is named as the request names it, and nothing is stored."""
    refused = await rest.post(PATH, PLAIN | change)

    assert refused.status == 400
    assert faults(refused) == [(field, reason)]
    assert (await rest.get(PATH)).list("schedules") == []


async def test_unknown_field_of_the_job_is_told_the_fields_of_a_job(rest: Rest) -> None:
    """The message lists what is known in that very place."""
    refused = await rest.post(PATH, PLAIN | {"job": {"type": "email", "execute_at": None}})

    assert "timeout_seconds" in str(refused.error["message"])
    assert "execute_at," not in str(refused.error["message"])


@pytest.mark.parametrize("path", ["/api/jobs", "/api/v1/jobs"])
async def test_recurring_submit_makes_a_schedule_once(rest: Rest, path: str) -> None:
    """The answer is the schedule, no job is made, and the same request again finds the first one in its way."""
    body = {"type": "email", "payload": {"to": "x"}, "retries": 2, "recurring": RECURRING}

    made = await rest.post(path, body)
    again = await rest.post(path, body)
    other = await rest.post(path, body | {"payload": {"to": "y"}})

    found = await rest.get(f"{PATH}/{made['name']}")
    job = made["job"]
    assert isinstance(job, dict)
    assert (made.status, made["cron"], made["time_zone"]) == (201, "0 2 * * *", "Asia/Tokyo")
    assert (job["type"], job["payload"], job["max_attempts"]) == ("email", {"to": "x"}, 3)
    assert found.json == made.json
    assert (again.status, again.reason, again.error["metadata"]) == (409, "SCHEDULE_EXISTS", {"schedule": made["name"]})
    assert other.status == 201
    assert len((await rest.get(PATH)).list("schedules")) == 2
    assert (await rest.get("/api/v1/jobs")).list("jobs") == []


async def test_recurring_submit_keeps_every_option_of_the_job(rest: Rest) -> None:
    """The schedule is in the job's queue, under a name that fits however long the type is."""
    made = await rest.post("/api/v1/jobs", {"type": "t" * 64, "queue": "mail", "limit_key": "k", "recurring": RECURRING})

    job = made["job"]
    assert isinstance(job, dict)
    assert (made.status, made["queue"], job["limit_key"]) == (201, "mail", "k")
    assert len(str(made["name"])) == 64
    assert str(made["name"]).startswith("t" * 51 + "-")
    assert (await rest.get(f"{PATH}/{made['name']}", queue="mail")).status == 200


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"recurring": {}}, "recurring.cron_expression", "REQUIRED"),
        ({"recurring": {"cron_expression": ""}}, "recurring.cron_expression", "REQUIRED"),
        ({"recurring": {"cron_expression": "daily"}}, "recurring.cron_expression", "BAD_CRON"),
        ({"recurring": {"cron_expression": "@daily", "time_zone": "Mars/North"}}, "recurring.time_zone", "BAD_TIME_ZONE"),
        ({"recurring": {"cron_expression": "@daily", "name": "x"}}, "recurring.name", "UNKNOWN_FIELD"),
        ({"execute_at": "2030-01-31T12:00:00Z"}, "execute_at", "CONFLICT"),
        ({"delay_seconds": 0}, "delay_seconds", "CONFLICT"),
        ({"deadline": "2030-01-31T12:00:00Z"}, "deadline", "CONFLICT"),
        ({"unique_key": "k"}, "unique_key", "CONFLICT"),
        ({"request_id": "r"}, "request_id", "CONFLICT"),
    ],
)
async def test_recurring_submit_that_cannot_be_is_refused(
    rest: Rest, change: dict[str, object], field: str, reason: str
) -> None:
    """Each fault is named as the submit names it, and nothing is stored."""
    refused = await rest.post("/api/v1/jobs", {"type": "email", "recurring": RECURRING} | change)

    assert refused.status == 400
    assert faults(refused) == [(field, reason)]
    assert (await rest.get(PATH)).list("schedules") == []
    assert (await rest.get("/api/v1/jobs")).list("jobs") == []


async def test_recurring_has_no_place_in_a_batch(rest: Rest) -> None:
    """It is refused by name, alone; the job beside it is stored."""
    batch = await rest.post("/api/v1/jobs/batch", {"jobs": [{"type": "email", "recurring": RECURRING}, {"type": "email"}]})

    first, second = batch.list("results")
    error = first["error"]
    assert isinstance(error, dict)
    assert error["reason"] == "UNKNOWN_FIELD"
    assert second["status"] == "enqueued"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
async def test_moment_beyond_the_calendar_is_refused(rest: Rest, moment: str) -> None:
    """One that is no date in UTC is out of range, not a defect."""
    refused = await rest.post("/api/v1/jobs", {"type": "email", "execute_at": moment})

    assert refused.status == 400
    assert faults(refused) == [("execute_at", "OUT_OF_RANGE")]
