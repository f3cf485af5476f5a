"""The operations of REST on schedules, and the schedule that a submit asks for. What they take and answer is declared here."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final, cast

import msgspec
from msgspec import Meta, Raw, Struct

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import schedule_service_pb2 as pb

from gopher.edge.rest_bodies import CRON, TIME_ZONE, JobOptions, Moment, Name, NoBody, Query, Text, duration, misfit, timestamp
from gopher.edge.rest_calls import DELETE, GET, POST, PUT, Call
from gopher.errors import InvalidRequestError, Violation
from gopher.job import DEFAULT_QUEUE, Priority
from gopher.schedule import CatchUpPolicy, OverlapPolicy
from gopher.service.jobs import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from gopher.wire import convert
from gopher.wire.schedules import (
    CATCH_UP_NUMBER,
    DEFAULT_COUNT,
    MAX_COUNT,
    MAX_JITTER_MS,
    OVERLAP_NUMBER,
    schedule_from_message,
)
from gopher.wire.shape import moment, schedule_object

if TYPE_CHECKING:
    from gopher.edge.rest_bodies import Recurring
    from gopher.edge.rest_calls import Operation
    from gopher.job import JsonValue
    from gopher.service.schedules import Schedules

_DIGEST_BYTES: Final = 6
_TYPE_CHARACTERS: Final = 64 - 1 - 2 * _DIGEST_BYTES
"""What a derived name keeps of the type, so that it is no longer than a name may be."""
_RECURRING_NAMES: Final = {"schedule.cron": "recurring.cron_expression", "schedule.time_zone": "recurring.time_zone"}


class ScheduleQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which queue."""

    queue: Annotated[Name, Meta(description="A schedule's name is unique in its queue.")] = DEFAULT_QUEUE


class SchedulesQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which schedules to list."""

    queue: Annotated[Name | None, Meta(description="Only schedules of this queue.")] = None
    page_size: Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE, description="A page of large payloads holds fewer.")] = (
        DEFAULT_PAGE_SIZE
    )
    page_token: Annotated[str, Meta(description="`next_page_token` of the page before.")] = ""


Count = Annotated[int, Meta(ge=1, le=MAX_COUNT, description="How many times at most.")]
After = Annotated[Moment | None, Meta(description="From when on. Null: now.")]


class TimesQuery(ScheduleQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which times of a schedule to tell."""

    count: Count = DEFAULT_COUNT
    after: After = None


class PreviewQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which times of an expression to tell."""

    cron: Annotated[str, Meta(description=CRON)]
    time_zone: Annotated[Text | None, Meta(description=TIME_ZONE)] = None
    count: Count = DEFAULT_COUNT
    after: After = None


class ScheduledJob(JobOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a schedule submits: a job that has no times and no keys of its own."""

    queue: Annotated[
        Name | None, Meta(description="Null: `default`; of a schedule that is there, its queue, which it keeps.")
    ] = None


class ScheduleBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule, but for its name."""

    cron: Annotated[str, Meta(description=CRON)]
    time_zone: Annotated[Text | None, Meta(description=TIME_ZONE)] = None
    jitter_seconds: Annotated[
        float, Meta(ge=0, le=MAX_JITTER_MS / 1000, description="Each firing is put off by up to this long.")
    ] = 0
    overlap: Annotated[OverlapPolicy, Meta(description="What a firing does while the last job has not ended.")] = (
        OverlapPolicy.SKIP
    )
    catch_up: Annotated[CatchUpPolicy, Meta(description="What becomes of firings that no worker was there for.")] = (
        CatchUpPolicy.LAST
    )
    job: ScheduledJob

    def spec(self, name: str, queue: str) -> pb.ScheduleSpec:
        """Return the message.

        Raises:
            InvalidRequestError: The job has two payloads.
        """
        job = self.job.spec()
        job.queue = queue
        return pb.ScheduleSpec(
            name=name,
            cron=self.cron,
            time_zone=self.time_zone or "",
            jitter=duration(self.jitter_seconds),
            overlap=OVERLAP_NUMBER[self.overlap],
            catch_up=CATCH_UP_NUMBER[self.catch_up],
            job=job,
        )


class NewScheduleBody(ScheduleBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule."""

    name: Annotated[Name, Meta(description="Unique in the queue of its job.")]


class ScheduledJobView(Struct, frozen=True, kw_only=True):
    """What a schedule submits."""

    queue: str
    type: str
    priority: Priority
    content_type: str
    payload: Raw
    payload_base64: str | None
    labels: dict[str, str]
    max_attempts: int | None
    backoff_initial_seconds: float | None
    backoff_max_seconds: float | None
    backoff_multiplier: float | None
    non_retryable_reasons: list[str]
    limit_key: str | None
    timeout_seconds: float | None
    retention_seconds: float | None


class ScheduleView(Struct, frozen=True, kw_only=True):
    """A schedule; moments are RFC 3339 in UTC."""

    name: str
    namespace: str
    queue: str
    cron: str
    time_zone: str
    jitter_seconds: float
    overlap: OverlapPolicy
    catch_up: CatchUpPolicy
    paused: bool
    create_time: str | None
    update_time: str | None
    next_fire_time: str | None
    last_fire_time: str | None
    last_job_id: str | None
    fired_total: int
    skipped_total: int
    job: ScheduledJobView


class SchedulePage(Struct, frozen=True):
    """A page of schedules, by queue and name; the token is null on the last page."""

    schedules: list[ScheduleView]
    next_page_token: str | None


class ScheduleDeleted(Struct, frozen=True):
    """The schedule is no more; the jobs that it made stay."""

    name: str


class Triggered(Struct, frozen=True):
    """The job that a schedule has made."""

    name: str
    job_id: str


class FireTimes(Struct, frozen=True):
    """When it fires, jitter left out; fewer than were asked for where it never fires again."""

    times: list[str]


class ScheduleCalls:
    """Answers them.

    Args:
        schedules: The service.
    """

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    def operations(self) -> list[Operation]:
        """Return the operations."""
        path, one = "/api/v1/schedules", "/api/v1/schedules/{name}"
        of_one, view, created = ScheduleQuery, ScheduleView, HTTPStatus.CREATED
        return [
            Call(
                POST,
                path,
                "Make a schedule.",
                self._create,
                query=Query,
                body=NewScheduleBody,
                answer=view,
                status=created,
            ),
            Call(
                GET, path, "List schedules, page by page.", self._list, query=SchedulesQuery, body=NoBody, answer=SchedulePage
            ),
            Call(GET, one, "Look at a schedule.", self._get, query=of_one, body=NoBody, answer=view),
            Call(PUT, one, "Replace what a schedule says.", self._replace, query=of_one, body=ScheduleBody, answer=view),
            Call(DELETE, one, "Remove a schedule.", self._delete, query=of_one, body=NoBody, answer=ScheduleDeleted),
            Call(POST, f"{one}/pause", "Keep a schedule from firing.", self._pause, query=of_one, body=NoBody, answer=view),
            Call(POST, f"{one}/resume", "Let a schedule fire again.", self._resume, query=of_one, body=NoBody, answer=view),
            Call(
                POST,
                f"{one}/trigger",
                "Make a job of a schedule now; its times stay as they are.",
                self._trigger,
                query=of_one,
                body=NoBody,
                answer=Triggered,
                status=created,
            ),
            Call(
                GET,
                f"{one}/times",
                "Tell when a schedule fires next.",
                self._times,
                query=TimesQuery,
                body=NoBody,
                answer=FireTimes,
            ),
            Call(
                GET,
                "/api/v1/schedule-times",
                "Tell when a schedule with this expression would fire.",
                self._preview,
                query=PreviewQuery,
                body=NoBody,
                answer=FireTimes,
            ),
        ]

    async def _create(self, _name: str, query: Query, body: NewScheduleBody) -> ScheduleView:
        spec = body.spec(body.name, body.job.queue or DEFAULT_QUEUE)
        request = pb.CreateScheduleRequest(namespace=query.namespace, schedule=spec)
        return _view((await self._schedules.create_schedule(request)).schedule)

    async def _list(self, _name: str, query: SchedulesQuery, _body: NoBody) -> SchedulePage:
        request = pb.ListSchedulesRequest(
            namespace=query.namespace, queue=query.queue or "", page_size=query.page_size, page_token=query.page_token
        )
        reply = await self._schedules.list_schedules(request)
        return SchedulePage([_view(each) for each in reply.schedules], reply.next_page_token or None)

    async def _get(self, name: str, query: ScheduleQuery, _body: NoBody) -> ScheduleView:
        request = pb.GetScheduleRequest(namespace=query.namespace, queue=query.queue, name=name)
        return _view((await self._schedules.get_schedule(request)).schedule)

    async def _replace(self, name: str, query: ScheduleQuery, body: ScheduleBody) -> ScheduleView:
        if body.job.queue not in {None, query.queue}:
            raise misfit("job.queue", "CONFLICT", f"must be {query.queue} or left out: a schedule keeps its queue")
        request = pb.UpdateScheduleRequest(namespace=query.namespace, schedule=body.spec(name, query.queue))
        return _view((await self._schedules.update_schedule(request)).schedule)

    async def _delete(self, name: str, query: ScheduleQuery, _body: NoBody) -> ScheduleDeleted:
        await self._schedules.delete_schedule(pb.DeleteScheduleRequest(namespace=query.namespace, queue=query.queue, name=name))
        return ScheduleDeleted(name)

    async def _pause(self, name: str, query: ScheduleQuery, _body: NoBody) -> ScheduleView:
        request = pb.PauseScheduleRequest(namespace=query.namespace, queue=query.queue, name=name)
        return _view((await self._schedules.pause_schedule(request)).schedule)

    async def _resume(self, name: str, query: ScheduleQuery, _body: NoBody) -> ScheduleView:
        request = pb.ResumeScheduleRequest(namespace=query.namespace, queue=query.queue, name=name)
        return _view((await self._schedules.resume_schedule(request)).schedule)

    async def _trigger(self, name: str, query: ScheduleQuery, _body: NoBody) -> Triggered:
        request = pb.TriggerScheduleRequest(namespace=query.namespace, queue=query.queue, name=name)
        return Triggered(name, (await self._schedules.trigger_schedule(request)).job_id)

    async def _times(self, name: str, query: TimesQuery, _body: NoBody) -> FireTimes:
        request = pb.ListScheduleTimesRequest(
            namespace=query.namespace, queue=query.queue, name=name, count=query.count, after=timestamp(query.after)
        )
        return _times(await self._schedules.list_schedule_times(request))

    async def _preview(self, _name: str, query: PreviewQuery, _body: NoBody) -> FireTimes:
        request = pb.ListScheduleTimesRequest(
            namespace=query.namespace,
            cron=query.cron,
            time_zone=query.time_zone or "",
            count=query.count,
            after=timestamp(query.after),
        )
        return _times(await self._schedules.list_schedule_times(request))


async def create_recurring(schedules: Schedules, namespace: str, job: job_pb2.JobSpec, recurring: Recurring) -> ScheduleView:
    """Make the schedule that a submit asks for, under a name that the request alone gives: repeated, it finds its schedule there.

    Raises:
        GopherError: The request is refused; faults are named as fields of the submit.
    """
    time_zone = recurring.time_zone or ""
    said = [recurring.cron_expression.encode(), time_zone.encode(), job.SerializeToString(deterministic=True)]
    digest = hashlib.blake2b(b"\0".join(said), digest_size=_DIGEST_BYTES).hexdigest()
    spec = pb.ScheduleSpec(
        name=f"{job.type[:_TYPE_CHARACTERS]}-{digest}", cron=recurring.cron_expression, time_zone=time_zone, job=job
    )
    try:
        reply = await schedules.create_schedule(pb.CreateScheduleRequest(namespace=namespace, schedule=spec))
    except InvalidRequestError as error:
        raise InvalidRequestError(*(_of_submit(each) for each in error.violations)) from None
    return _view(reply.schedule)


def _of_submit(violation: Violation) -> Violation:
    name = _RECURRING_NAMES.get(violation.field, violation.field.removeprefix("schedule."))
    return Violation(name, violation.reason, violation.description)


def _view(message: pb.Schedule) -> ScheduleView:
    shape = schedule_object(schedule_from_message(message))
    job = cast("dict[str, JsonValue]", shape["job"])  # `schedule_object` makes it
    raw = {"payload": Raw(msgspec.json.encode(job["payload"]))}
    return msgspec.convert(shape | {"job": job | raw}, ScheduleView)


def _times(reply: pb.ListScheduleTimesResponse) -> FireTimes:
    return FireTimes([text for each in reply.times if (text := moment(convert.to_ms(each))) is not None])
