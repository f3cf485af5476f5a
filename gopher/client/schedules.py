"""The rpcs about schedules, built and read as in `calls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from gopher_pb.v1 import schedule_service_pb2 as pb

from gopher.client.calls import Call, call_of
from gopher.client.submission import SubmitOptions, job_spec
from gopher.errors import invalid
from gopher.schedule import CatchUpPolicy, OverlapPolicy
from gopher.wire import convert, schedules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from gopher.schedule import Schedule
    from gopher.submission import Payload

SCHEDULES: Final = "/gopher.v1.ScheduleService/"
_OWN_OPTIONS: Final = ("time_zone", "jitter_seconds", "overlap", "catch_up")

_Answer: TypeAlias = (
    pb.CreateScheduleResponse
    | pb.UpdateScheduleResponse
    | pb.GetScheduleResponse
    | pb.PauseScheduleResponse
    | pb.ResumeScheduleResponse
)


class ScheduleOptions(SubmitOptions, total=False):
    """What a schedule takes besides name, cron, type and payload: its own options, and those of the jobs it makes.

    `overlap` is `skip`, `queue` or `cancel_previous`; `catch_up` is `none`, `last` or `all`. Of the options of a job, those that say
    when, and its keys, are refused.
    """

    time_zone: str | None
    jitter_seconds: float | None
    overlap: str | None
    catch_up: str | None


def spec_of(name: str, cron: str, job_type: str, payload: Payload, options: Mapping[str, object]) -> pb.ScheduleSpec:
    """Return the message that describes a schedule.

    Raises:
        InvalidRequestError: An option is unknown, or its value cannot be put into a message.
    """
    own = {key: value for key, value in options.items() if key in _OWN_OPTIONS and value is not None}
    of_job = {key: value for key, value in options.items() if key not in _OWN_OPTIONS}
    spec = pb.ScheduleSpec(name=name, cron=cron, job=job_spec(job_type, payload, of_job, field="schedule.job"))
    for key, value in own.items():
        try:
            _put(spec, key, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid(f"schedule.{key}", "BAD_VALUE", f"{error}, got {value!r}") from error
    return spec


def _put(spec: pb.ScheduleSpec, key: str, value: object) -> None:
    match key, value:
        case "jitter_seconds", float() | int():
            spec.jitter.FromMilliseconds(round(value * 1000))
        case "overlap", _:
            spec.overlap = schedules.OVERLAP_NUMBER[OverlapPolicy(str(value))]
        case "catch_up", _:
            spec.catch_up = schedules.CATCH_UP_NUMBER[CatchUpPolicy(str(value))]
        case "time_zone", str():
            spec.time_zone = value
        case _:
            raise TypeError("has the wrong type")


def create(namespace: str, spec: pb.ScheduleSpec) -> Call[Schedule]:
    """Store a schedule; a second time it would be refused, so its outcome is never guessed."""
    request = pb.CreateScheduleRequest(namespace=namespace, schedule=spec)
    return call_of(SCHEDULES + "CreateSchedule", request, pb.CreateScheduleResponse, _schedule, repeatable=False)


def update(namespace: str, spec: pb.ScheduleSpec) -> Call[Schedule]:
    """Replace what was said of a schedule."""
    request = pb.UpdateScheduleRequest(namespace=namespace, schedule=spec)
    return call_of(SCHEDULES + "UpdateSchedule", request, pb.UpdateScheduleResponse, _schedule)


def get(namespace: str, queue: str | None, name: str) -> Call[Schedule]:
    """Look at one schedule."""
    request = pb.GetScheduleRequest(namespace=namespace, queue=queue or "", name=name)
    return call_of(SCHEDULES + "GetSchedule", request, pb.GetScheduleResponse, _schedule)


def pages(namespace: str, queue: str | None) -> Callable[[int, str], Call[tuple[list[Schedule], str]]]:
    """List schedules: from size and token of a page to the call that lists it."""

    def page_of(page_size: int, page_token: str) -> Call[tuple[list[Schedule], str]]:
        request = pb.ListSchedulesRequest(namespace=namespace, queue=queue or "", page_size=page_size, page_token=page_token)
        return call_of(SCHEDULES + "ListSchedules", request, pb.ListSchedulesResponse, _page)

    return page_of


def _page(reply: pb.ListSchedulesResponse) -> tuple[list[Schedule], str]:
    return [schedules.schedule_from_message(each) for each in reply.schedules], reply.next_page_token


def delete(namespace: str, queue: str | None, name: str) -> Call[None]:
    """Remove a schedule."""
    request = pb.DeleteScheduleRequest(namespace=namespace, queue=queue or "", name=name)
    return call_of(SCHEDULES + "DeleteSchedule", request, pb.DeleteScheduleResponse, lambda _: None, repeatable=False)


def pause(namespace: str, queue: str | None, name: str) -> Call[Schedule]:
    """Keep a schedule from firing."""
    request = pb.PauseScheduleRequest(namespace=namespace, queue=queue or "", name=name)
    return call_of(SCHEDULES + "PauseSchedule", request, pb.PauseScheduleResponse, _schedule)


def resume(namespace: str, queue: str | None, name: str) -> Call[Schedule]:
    """Let a schedule fire again."""
    request = pb.ResumeScheduleRequest(namespace=namespace, queue=queue or "", name=name)
    return call_of(SCHEDULES + "ResumeSchedule", request, pb.ResumeScheduleResponse, _schedule)


def trigger(namespace: str, queue: str | None, name: str) -> Call[str]:
    """Make a job of a schedule now and return its id."""
    request = pb.TriggerScheduleRequest(namespace=namespace, queue=queue or "", name=name)
    return call_of(
        SCHEDULES + "TriggerSchedule", request, pb.TriggerScheduleResponse, lambda reply: reply.job_id, repeatable=False
    )


def times(
    namespace: str,
    queue: str | None,
    name: str | None,
    cron: str | None,
    time_zone: str | None,
    count: int,
    after: datetime | None,
) -> Call[list[int]]:
    """Return when a schedule, or an expression, fires next: ms since the epoch."""
    request = pb.ListScheduleTimesRequest(
        namespace=namespace, queue=queue or "", name=name or "", cron=cron or "", time_zone=time_zone or "", count=count
    )
    if after is not None:
        if after.tzinfo is None:
            raise invalid("after", "BAD_VALUE", f"has no time zone, got {after!r}")
        request.after.FromDatetime(after)
    return call_of(
        SCHEDULES + "ListScheduleTimes",
        request,
        pb.ListScheduleTimesResponse,
        lambda reply: [convert.to_ms(each) for each in reply.times],
    )


def _schedule(reply: _Answer) -> Schedule:
    return schedules.schedule_from_message(reply.schedule)
