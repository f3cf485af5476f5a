"""ScheduleService: keeps cron schedules, steers them, tells when they fire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher_pb.v1 import schedule_service_pb2 as pb

from gopher import cron
from gopher.errors import UnknownTypeError
from gopher.job import DEFAULT_QUEUE
from gopher.service.jobs import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from gopher.wire import check, schedules
from gopher.wire.check import Faults

if TYPE_CHECKING:
    from typing import Protocol

    from gopher.schedule import NewSchedule
    from gopher.service.pages import Pages
    from gopher.store.store import Store

    class _NamesOne(Protocol):
        namespace: str
        queue: str
        name: str


class Schedules:
    """Answers the rpcs.

    Args:
        store: Where the schedules are.
        pages: Makes and reads page tokens.
        accept_unknown_types: Whether to take schedules of a type that no worker has registered.
        max_payload_bytes: Largest payload.
    """

    def __init__(self, store: Store, pages: Pages, *, accept_unknown_types: bool, max_payload_bytes: int) -> None:
        self._store = store
        self._pages = pages
        self._accept_unknown_types = accept_unknown_types
        self._max_payload_bytes = max_payload_bytes

    async def create_schedule(self, request: pb.CreateScheduleRequest) -> pb.CreateScheduleResponse:
        """Store a schedule."""
        namespace, schedule = await self._read(request)
        made = await self._store.schedules.create(namespace, schedule)
        return pb.CreateScheduleResponse(schedule=schedules.schedule_to_message(made))

    async def update_schedule(self, request: pb.UpdateScheduleRequest) -> pb.UpdateScheduleResponse:
        """Replace what the author of a schedule said."""
        namespace, schedule = await self._read(request)
        updated = await self._store.schedules.update(namespace, schedule)
        return pb.UpdateScheduleResponse(schedule=schedules.schedule_to_message(updated))

    async def _read(self, request: pb.CreateScheduleRequest | pb.UpdateScheduleRequest) -> tuple[str, NewSchedule]:
        namespace = check.namespace(request.namespace)
        schedule = schedules.new_schedule(request.schedule, max_payload_bytes=self._max_payload_bytes)
        if not self._accept_unknown_types and not await self._store.registry.is_known_type(namespace, schedule.job.type):
            raise UnknownTypeError(schedule.job.type)
        return namespace, schedule

    async def get_schedule(self, request: pb.GetScheduleRequest) -> pb.GetScheduleResponse:
        """Return one schedule."""
        found = await self._store.schedules.get(*_which(request))
        return pb.GetScheduleResponse(schedule=schedules.schedule_to_message(found))

    async def list_schedules(self, request: pb.ListSchedulesRequest) -> pb.ListSchedulesResponse:
        """Return a page of schedules."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        queue = check.optional_name(faults, "queue", request.queue)
        size = check.integer(faults, "page_size", request.page_size, 1, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE
        faults.refuse()
        cursor = await self._pages.cursor(namespace, request)
        found, cursor = await self._store.schedules.page(namespace, queue=queue, size=size, cursor=cursor)
        token = await self._pages.token(namespace, request, cursor)
        return pb.ListSchedulesResponse(schedules=map(schedules.schedule_to_message, found), next_page_token=token)

    async def delete_schedule(self, request: pb.DeleteScheduleRequest) -> pb.DeleteScheduleResponse:
        """Remove a schedule."""
        await self._store.schedules.delete(*_which(request))
        return pb.DeleteScheduleResponse()

    async def pause_schedule(self, request: pb.PauseScheduleRequest) -> pb.PauseScheduleResponse:
        """Keep a schedule from firing."""
        paused = await self._store.schedules.pause(*_which(request))
        return pb.PauseScheduleResponse(schedule=schedules.schedule_to_message(paused))

    async def resume_schedule(self, request: pb.ResumeScheduleRequest) -> pb.ResumeScheduleResponse:
        """Let a schedule fire again."""
        resumed = await self._store.schedules.resume(*_which(request))
        return pb.ResumeScheduleResponse(schedule=schedules.schedule_to_message(resumed))

    async def trigger_schedule(self, request: pb.TriggerScheduleRequest) -> pb.TriggerScheduleResponse:
        """Make a job of a schedule now."""
        return pb.TriggerScheduleResponse(job_id=await self._store.schedules.trigger(*_which(request)))

    async def list_schedule_times(self, request: pb.ListScheduleTimesRequest) -> pb.ListScheduleTimesResponse:
        """Tell when a schedule, or an expression, fires next."""
        faults = Faults()
        count = schedules.count_of(faults, request.count)
        after_ms = check.moment_ms(faults, "after", request.after) if request.HasField("after") else None
        faults.refuse()
        expression = await self._expression(request)
        moment_ms = await self._store.registry.now_ms() if after_ms is None else after_ms
        times: list[int] = []
        while len(times) < count and (found := expression.after(moment_ms)) is not None:
            moment_ms = found
            times.append(moment_ms)
        return pb.ListScheduleTimesResponse(times=schedules.times_to_messages(times))

    async def _expression(self, request: pb.ListScheduleTimesRequest) -> cron.Cron:
        if request.name and not request.cron and not request.time_zone:
            found = await self._store.schedules.get(*_which(request))
            return cron.parsed(found.cron, found.time_zone)
        faults = Faults()
        if request.name:
            faults.add("name", "CONFLICT", "must not be set together with cron or time_zone")
        time_zone = schedules.zone_name(faults, "time_zone", request.time_zone)
        schedules.expression(faults, "cron", request.cron)
        faults.refuse()
        return cron.parsed(request.cron, time_zone)


def _which(request: _NamesOne) -> tuple[str, str, str]:
    """Return namespace, queue and name of the schedule that a request names."""
    namespace = check.namespace(request.namespace)
    faults = Faults()
    queue = check.name(faults, "queue", request.queue) if request.queue else DEFAULT_QUEUE
    name = check.name(faults, "name", request.name)
    faults.refuse()
    return namespace, queue, name
