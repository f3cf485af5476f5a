"""The schedules of the queues: kept, looked at, steered, fired.

A schedule stands under its queue's hash tag, so that one script both spends a fire time and stores the job. Its record names the
one fire time that is next; a firing says which it means, and comes to nothing unless that is still so. So however many schedulers
are at it, each (schedule, fire time) makes one job at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gopher import cron
from gopher.errors import (
    ScheduleExistsError,
    ScheduleNotFoundError,
    ScheduleOverlapError,
    StoreError,
    TooManySchedulesError,
    invalid,
)
from gopher.schedule import due_ms
from gopher.store import keys, schedule_record
from gopher.store.ids import IdSource
from gopher.store.scripts import Script
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gopher.schedule import NewSchedule, Schedule
    from gopher.store.codec import Field
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Reply

LIMIT: Final = 1000
"""Schedules a queue at most, chosen: a list reads their names at once."""
_PAGE_BYTES: Final = 1 << 19
_RESUME_TRIES: Final = 5
_FIRINGS: Final = 50
"""A script call at most, chosen: each copies a payload, and a call is to stay within some ms."""


class DueSchedule(NamedTuple):
    """A schedule that is due, as far as a scheduler needs to know it.

    Attributes:
        name: Of the schedule.
        revision: Changes with every change by its author.
        next_ms: The fire time that is next.
        cron: As given.
        time_zone: As given.
        jitter_ms: As given.
        catch_up: Value of a `CatchUpPolicy`.
        labels: Of its job, JSON; None without any.
    """

    name: str
    revision: int
    next_ms: int
    cron: str
    time_zone: str
    jitter_ms: int
    catch_up: str
    labels: bytes | None


class Due(NamedTuple):
    """What is due.

    Attributes:
        now_ms: Redis time.
        next_seconds: How long until the next one is due; None when there is none.
        schedules: Those that are due, at most 100.
    """

    now_ms: int
    next_seconds: float | None
    schedules: list[DueSchedule]


class Firing(NamedTuple):
    """One firing to carry out.

    Attributes:
        schedule: As it was when due.
        expected_ms: The fire time that is next, as the record must still say.
        fire_ms: The fire time to spend, not before `expected_ms`.
        makes_job: False to let it pass.
        next_ms: The fire time after that; None for never.
    """

    schedule: DueSchedule
    expected_ms: int
    fire_ms: int
    makes_job: bool
    next_ms: int | None


class Schedules:
    """Keeps and fires the schedules of any queue of any namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._ids = IdSource()
        self._create = Script.load("create_schedule")
        self._update = Script.load("update_schedule")
        self._pause = Script.load("pause_schedule")
        self._resume = Script.load("resume_schedule")
        self._delete = Script.load("delete_schedule")
        self._trigger = Script.load("trigger_schedule")
        self._due = Script.load("due_schedules")
        self._fire = Script.load("fire_schedules")

    async def create(self, namespace: str, schedule: NewSchedule) -> Schedule:
        """Store a schedule; it fires from now on.

        Raises:
            ScheduleExistsError: Its queue has one of this name.
            TooManySchedulesError: Its queue is full.
            TooManyQueuesError: As for a job.
        """
        queue = schedule.job.queue
        # Before the queue is named: one that never fires again is refused.
        times = await self._times_of(schedule)
        await self._registry.name_queue(namespace, queue)
        args = [schedule.name, LIMIT, *times, *schedule_record.to_fields(schedule)]
        (word,) = await self._create(self._link, [keys.settings(namespace, queue)], args)
        if word == b"EXISTS":
            raise ScheduleExistsError(queue, schedule.name)
        if word == b"TOO_MANY":
            raise TooManySchedulesError(queue, LIMIT)
        return await self.get(namespace, queue, schedule.name)

    async def update(self, namespace: str, schedule: NewSchedule) -> Schedule:
        """Replace what the author of a schedule said.

        Raises:
            ScheduleNotFoundError: There is none of this name.
        """
        args = [schedule.name, *await self._times_of(schedule), *schedule_record.to_fields(schedule)]
        return await self._steer(self._update, namespace, schedule.job.queue, schedule.name, args)

    async def get(self, namespace: str, queue: str, name: str) -> Schedule:
        """Return a schedule.

        Raises:
            ScheduleNotFoundError: There is none of this name.
        """
        record = await self._link.call("HGETALL", keys.schedule(namespace, queue, name))
        if not record:
            raise ScheduleNotFoundError(queue, name)
        return schedule_record.from_record(namespace, queue, name, record)

    async def page(
        self, namespace: str, *, queue: str | None, size: int, cursor: str | None
    ) -> tuple[list[Schedule], str | None]:
        """Return a page of schedules by queue and name, and the cursor of the next page or None after the last.

        Args:
            namespace: Of the queues.
            queue: Only of this queue; None for all.
            size: How many at most, >= 1; a page of large payloads holds fewer.
            cursor: From the page before; None for the first.
        """
        after = tuple((cursor or "").split("/", 1)) if cursor else ("", "")
        found: list[Schedule] = []
        room = _PAGE_BYTES
        for each in [queue] if queue is not None else await self._registry.queues(namespace):
            if each < after[0]:
                continue
            names = sorted(name.decode() for name in await self._link.call("ZRANGE", keys.schedules(namespace, each), 0, -1))
            for name in names:
                if (each, name) <= after:
                    continue
                if len(found) == size or room <= 0:
                    return found, f"{found[-1].job.queue}/{found[-1].name}"
                record = await self._link.call("HGETALL", keys.schedule(namespace, each, name))
                if record:
                    found.append(schedule_record.from_record(namespace, each, name, record))
                    room -= len(found[-1].job.payload)
        return found, None

    async def pause(self, namespace: str, queue: str, name: str) -> Schedule:
        """Keep a schedule from firing.

        Raises:
            ScheduleNotFoundError: There is none of this name.
        """
        return await self._steer(self._pause, namespace, queue, name, [name])

    async def resume(self, namespace: str, queue: str, name: str) -> Schedule:
        """Let a paused schedule fire again; what it missed while paused is not made up for.

        Raises:
            ScheduleNotFoundError: There is none of this name.
        """
        for _ in range(_RESUME_TRIES):
            # The revision first: a change between the two makes it stale, and not the time wrong.
            revision = await self._link.call("HGET", keys.schedule(namespace, queue, name), "revision")
            schedule = await self.get(namespace, queue, name)
            args = [name, revision or 0, *await self._times_of(schedule)]
            (word,) = await self._resume(self._link, [keys.settings(namespace, queue)], args)
            if word != b"STALE":
                return await self.get(namespace, queue, name)
        raise StoreError(f"schedule {name!r} was changed again and again; try again")

    async def delete(self, namespace: str, queue: str, name: str) -> None:
        """Remove a schedule; the jobs it made stay.

        Raises:
            ScheduleNotFoundError: There is none of this name.
        """
        (word,) = await self._delete(self._link, [keys.settings(namespace, queue)], [name])
        if word == b"NOT_FOUND":
            raise ScheduleNotFoundError(queue, name)

    async def trigger(self, namespace: str, queue: str, name: str) -> str:
        """Make a job of a schedule now, whether or not it is paused; return its id.

        Raises:
            ScheduleNotFoundError: There is none of this name.
            ScheduleOverlapError: Its last job has not ended, and it skips.
        """
        revision, own = await self._link.call("HMGET", keys.schedule(namespace, queue, name), "revision", "job:labels")
        if revision is None:
            # Before the id: it would give the queue a number.
            raise ScheduleNotFoundError(queue, name)
        now_ms = await self._now_ms()
        job_id = self._ids.new(await self._registry.queue_number(namespace, queue))
        labels = schedule_record.labels_of_firing(own, name, now_ms)
        word, *rest = await self._trigger(self._link, [keys.settings(namespace, queue)], [name, job_id, labels])
        if word == b"NOT_FOUND":
            raise ScheduleNotFoundError(queue, name)
        if word == b"SKIPPED":
            raise ScheduleOverlapError(name, rest[0].decode())
        return job_id

    async def due(self, namespace: str, queue: str) -> Due:
        """Return what is due, at most 100, and when the next is."""
        _, now_ms, next_ms, *rows = await self._due(self._link, [keys.settings(namespace, queue)], [BATCH])
        return Due(now_ms, None if next_ms < 0 else next_ms / 1000, [_due_schedule(row) for row in rows])

    async def fire(self, namespace: str, queue: str, firings: Sequence[Firing]) -> list[str | None]:
        """Carry out firings, each if nobody else has.

        Returns:
            An entry a firing, in order: the id of the job that was made, or None.

        Cancellation:
            Some may have been carried out; another call finds out.
        """
        number = await self._registry.queue_number(namespace, queue)
        made: list[str | None] = []
        for start in range(0, len(firings), _FIRINGS):
            args = [word for firing in firings[start : start + _FIRINGS] for word in self._words(firing, number)]
            for word, *rest in await self._fire(self._link, [keys.settings(namespace, queue)], args):
                made.append(rest[0].decode() if word == b"FIRED" else None)
        return made

    def _words(self, firing: Firing, queue_number: int) -> Iterable[Field]:
        schedule, next_ms = firing.schedule, firing.next_ms
        return (
            schedule.name,
            schedule.revision,
            firing.expected_ms,
            firing.fire_ms,
            int(firing.makes_job),
            "" if next_ms is None else next_ms,
            "" if next_ms is None else due_ms(schedule.name, next_ms, schedule.jitter_ms),
            self._ids.new(queue_number),
            schedule_record.labels_of_firing(schedule.labels, schedule.name, firing.fire_ms),
        )

    async def _steer(self, script: Script, namespace: str, queue: str, name: str, args: Sequence[Field]) -> Schedule:
        (word,) = await script(self._link, [keys.settings(namespace, queue)], args)
        if word == b"NOT_FOUND":
            raise ScheduleNotFoundError(queue, name)
        return await self.get(namespace, queue, name)

    async def _times_of(self, schedule: NewSchedule) -> tuple[int, int]:
        """Return when a schedule fires next, and when that is due."""
        next_ms = cron.parsed(schedule.cron, schedule.time_zone).after(await self._now_ms())
        if next_ms is None:
            raise invalid("schedule.cron", "BAD_CRON", "never fires again")
        return next_ms, due_ms(schedule.name, next_ms, schedule.jitter_ms)

    async def _now_ms(self) -> int:
        return await self._registry.now_ms()


def _due_schedule(row: list[Reply]) -> DueSchedule:
    name, revision, next_ms, expression, time_zone, jitter_ms, catch_up, *labels = row
    return DueSchedule(
        name.decode(),
        int(revision),
        int(next_ms),
        expression.decode(),
        time_zone.decode(),
        int(jitter_ms),
        catch_up.decode(),
        labels[0] if labels else None,
    )
