"""ScheduleService: what each rpc answers and refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import schedule_service_pb2 as pb

from gopher.errors import (
    InvalidRequestError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ScheduleOverlapError,
    UnknownTypeError,
)

if TYPE_CHECKING:
    from tests.service.conftest import Rig


def spec(name: str = "nightly", cron: str = "0 2 * * *", queue: str = "", **fields: object) -> pb.ScheduleSpec:
    job = job_pb2.JobSpec(type="email", queue=queue)
    return pb.ScheduleSpec(name=name, cron=cron, job=job, **fields)  # type: ignore[arg-type] # the test names fields of ScheduleSpec


async def create(rig: Rig, message: pb.ScheduleSpec) -> pb.Schedule:
    request = pb.CreateScheduleRequest(namespace=rig.namespace, schedule=message)
    return (await rig.lax_schedules.create_schedule(request)).schedule


async def test_schedule_is_created_changed_and_deleted(rig: Rig) -> None:
    """Each rpc answers with the schedule as it then stands, and a deleted one is gone."""
    service, which = rig.lax_schedules, {"namespace": rig.namespace, "name": "nightly"}
    made = await create(rig, spec())

    got = (await service.get_schedule(pb.GetScheduleRequest(**which))).schedule
    paused = (await service.pause_schedule(pb.PauseScheduleRequest(**which))).schedule
    resumed = (await service.resume_schedule(pb.ResumeScheduleRequest(**which))).schedule
    update = pb.UpdateScheduleRequest(namespace=rig.namespace, schedule=spec(cron="0 3 * * *"))
    updated = (await service.update_schedule(update)).schedule
    await service.delete_schedule(pb.DeleteScheduleRequest(**which))

    assert got == made
    assert (paused.paused, paused.HasField("next_fire_time")) == (True, False)
    assert (resumed.paused, resumed.next_fire_time) == (False, made.next_fire_time)
    assert (updated.spec.cron, updated.next_fire_time.ToDatetime().hour) == ("0 3 * * *", 3)
    with pytest.raises(ScheduleNotFoundError):
        await service.get_schedule(pb.GetScheduleRequest(**which))


async def test_create_refuses_an_unknown_type_a_taken_name_and_a_bad_cron(rig: Rig) -> None:
    """Nothing is stored of what is refused."""
    request = pb.CreateScheduleRequest(namespace=rig.namespace, schedule=spec())

    with pytest.raises(UnknownTypeError):
        await rig.schedules.create_schedule(request)
    with pytest.raises(InvalidRequestError, match="never fire"):
        await create(rig, spec(cron="0 0 30 2 *"))
    listing = pb.ListSchedulesRequest(namespace=rig.namespace)
    assert list((await rig.schedules.list_schedules(listing)).schedules) == []
    await create(rig, spec())
    with pytest.raises(ScheduleExistsError):
        await create(rig, spec())


async def test_trigger_answers_with_a_job_and_minds_the_overlap(rig: Rig) -> None:
    """The job is there and bears the schedule's name; a second one is refused while it has not ended."""
    await create(rig, spec())
    request = pb.TriggerScheduleRequest(namespace=rig.namespace, queue="default", name="nightly")

    job_id = (await rig.schedules.trigger_schedule(request)).job_id

    job = await rig.store.query.get(rig.namespace, job_id)
    assert job.labels["gopher.schedule"] == "nightly"
    with pytest.raises(ScheduleOverlapError):
        await rig.schedules.trigger_schedule(request)


async def test_list_goes_through_all_pages(rig: Rig) -> None:
    """Pages of one give every schedule once; a token of another list is refused."""
    for name, queue in (("a", "two"), ("b", "one"), ("c", "two")):
        await create(rig, spec(name, queue=queue))
    found, token = [], ""

    while True:
        request = pb.ListSchedulesRequest(namespace=rig.namespace, page_size=1, page_token=token)
        page = await rig.schedules.list_schedules(request)
        found += [each.spec.name for each in page.schedules]
        token = page.next_page_token
        if not token:
            break
        other = pb.ListSchedulesRequest(namespace=rig.namespace, queue="two", page_token=token)
        with pytest.raises(InvalidRequestError, match="page_token"):
            await rig.schedules.list_schedules(other)

    assert found == ["b", "a", "c"]


async def test_preview_tells_times_of_a_schedule_and_of_an_expression(rig: Rig) -> None:
    """Both ways give the same moments, through a change of clocks."""
    await create(rig, spec(cron="30 2 * * *", time_zone="Europe/Berlin"))
    after = Timestamp()
    after.FromDatetime(datetime(2026, 3, 28, tzinfo=UTC))
    of_schedule = pb.ListScheduleTimesRequest(namespace=rig.namespace, name="nightly", count=3, after=after)
    of_cron = pb.ListScheduleTimesRequest(cron="30 2 * * *", time_zone="Europe/Berlin", count=3, after=after)

    first = (await rig.schedules.list_schedule_times(of_schedule)).times
    second = (await rig.schedules.list_schedule_times(of_cron)).times

    assert [f"{each.ToDatetime():%d %H:%M}" for each in first] == ["28 01:30", "29 01:00", "30 00:30"]
    assert list(first) == list(second)
    default = (await rig.schedules.list_schedule_times(pb.ListScheduleTimesRequest(cron="@hourly"))).times
    assert len(default) == 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "REQUIRED"),
        ({"cron": "x"}, "BAD_CRON"),
        ({"cron": "@daily", "time_zone": "Mars"}, "BAD_TIME_ZONE"),
        ({"cron": "@daily", "count": 101}, "OUT_OF_RANGE"),
        ({"cron": "@daily", "name": "nightly"}, "CONFLICT"),
        ({"time_zone": "UTC", "name": "nightly"}, "CONFLICT"),
    ],
)
async def test_preview_refuses_what_it_cannot_tell(rig: Rig, fields: dict[str, object], reason: str) -> None:
    """A bad expression, zone or count, and a name beside an expression."""
    request = pb.ListScheduleTimesRequest(**fields)  # type: ignore[arg-type] # the test names fields of the request

    with pytest.raises(InvalidRequestError) as caught:
        await rig.schedules.list_schedule_times(request)

    assert caught.value.violations[0].reason == reason
