"""The methods of the client for programs that block about cron schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar, cast

from gopher.client import dialogues, schedules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Unpack

    from gopher.client.schedules import ScheduleOptions
    from gopher.schedule import Schedule
    from gopher.submission import Payload

T = TypeVar("T")


class ScheduleMethods(ABC):
    """What the client for programs that block can do about schedules."""

    namespace: str

    @abstractmethod
    def _run(self, dialogue: dialogues.Dialogue[T]) -> T: ...

    def create_schedule(
        self, name: str, cron: str, job_type: str, payload: Payload = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """Store a schedule, which fires from now on, and return it.

        Args:
            name: Unique in the queue of its jobs.
            cron: Five fields, or a name such as `@daily`.
            job_type: Which handler its jobs are for.
            payload: Their input, as for `submit`.
            options: See `ScheduleOptions`.
        """
        spec = schedules.spec_of(name, cron, job_type, payload, cast("Mapping[str, object]", options))
        return self._run(dialogues.ask(schedules.create(self.namespace, spec)))

    def update_schedule(
        self, name: str, cron: str, job_type: str, payload: Payload = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """Replace all that `create_schedule` took, and return the schedule; what is left out is at its default again."""
        spec = schedules.spec_of(name, cron, job_type, payload, cast("Mapping[str, object]", options))
        return self._run(dialogues.ask(schedules.update(self.namespace, spec)))

    def get_schedule(self, name: str, *, queue: str | None = None) -> Schedule:
        """Return the schedule as it stands."""
        return self._run(dialogues.ask(schedules.get(self.namespace, queue, name)))

    def list_schedules(self, *, queue: str | None = None, limit: int | None = 100) -> Sequence[Schedule]:
        """Return the schedules of one queue or of all, by queue and name; `limit=None` returns all there are."""
        return self._run(dialogues.list_all(schedules.pages(self.namespace, queue), limit))

    def delete_schedule(self, name: str, *, queue: str | None = None) -> None:
        """Remove the schedule for good; the jobs it made stay."""
        self._run(dialogues.ask(schedules.delete(self.namespace, queue, name)))

    def pause_schedule(self, name: str, *, queue: str | None = None) -> Schedule:
        """Keep the schedule from firing, and return it."""
        return self._run(dialogues.ask(schedules.pause(self.namespace, queue, name)))

    def resume_schedule(self, name: str, *, queue: str | None = None) -> Schedule:
        """Let the schedule fire again, and return it; what it missed is not made up for."""
        return self._run(dialogues.ask(schedules.resume(self.namespace, queue, name)))

    def trigger_schedule(self, name: str, *, queue: str | None = None) -> str:
        """Make a job of the schedule now, beside its times, and return the job's id."""
        return self._run(dialogues.ask(schedules.trigger(self.namespace, queue, name)))

    def schedule_times(
        self,
        name: str | None = None,
        *,
        cron: str | None = None,
        time_zone: str | None = None,
        queue: str | None = None,
        count: int = 10,
        after: datetime | None = None,
    ) -> Sequence[int]:
        """Return when a schedule fires next, or with `cron` when one would: ms since the epoch, jitter left out.

        Args:
            name: Of the schedule.
            cron: In place of a name.
            time_zone: In which `cron` is read; None: UTC.
            queue: Of the schedule.
            count: How many times, at most 100.
            after: From when on; None: now.
        """
        return self._run(dialogues.ask(schedules.times(self.namespace, queue, name, cron, time_zone, count, after)))
