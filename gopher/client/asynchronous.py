"""What the clients for asyncio and for Trio share: every method, awaited; they add how a call is carried and how time passes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Self, TypeVar, cast

from gopher.client import calls, channel, dialogues, operations, schedules
from gopher.client.async_bulk import AsyncBulkMethods
from gopher.client.async_limits import AsyncLimitMethods
from gopher.client.async_nursery import AsyncNurseryMethods
from gopher.client.async_runs import AsyncRunMethods
from gopher.client.async_streams import AsyncStreamMethods
from gopher.errors import GopherError
from gopher.job import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Unpack

    from gopher.client import values
    from gopher.client.schedules import ScheduleOptions
    from gopher.client.submission import JobItem, SubmitOptions
    from gopher.job import Job, JsonValue
    from gopher.schedule import Schedule
    from gopher.submission import Payload
    from gopher.wire.task_tree import TaskTree

T = TypeVar("T")


class AsyncMethods(AsyncBulkMethods, AsyncLimitMethods, AsyncNurseryMethods, AsyncRunMethods, AsyncStreamMethods):
    """The methods of `gopher.client.Client`, which documents them, to be awaited.

    Args:
        address: HOST:PORT of the server.
        token: Sent as bearer token.
        namespace: Where queues, types and jobs are.
        call_seconds: Deadline of a call that has none of its own.
    """

    def __init__(
        self,
        address: str = channel.DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        call_seconds: float = channel.CALL_SECONDS,
    ) -> None:
        self.address = address
        self.namespace = namespace
        self._metadata = channel.metadata_for(token)
        self._call_seconds = call_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection; calls under way end with a `CallEndedError`."""

    @abstractmethod
    async def _carry(self, call: calls.Call[T], deadline_seconds: float) -> T:
        """Make the call and return what its reply means."""

    @abstractmethod
    def _stream(self, call: calls.Call[T]) -> AsyncGenerator[T]:
        """Make the call and yield what each reply means."""

    @abstractmethod
    async def _pause(self, seconds: float) -> None:
        """Let time pass."""

    async def submit(self, job_type: str, payload: Payload = None, **options: Unpack[SubmitOptions]) -> str:
        """Submit a job and return its id."""
        return (await self.submit_for_receipt(job_type, payload, **options)).job_id

    async def submit_for_receipt(
        self, job_type: str, payload: Payload = None, **options: Unpack[SubmitOptions]
    ) -> calls.Receipt:
        """Submit a job and return the whole answer: id, state, and whether the request id had been used before."""
        return await self._run(dialogues.submit(self.namespace, job_type, payload, cast("Mapping[str, object]", options)))

    async def submit_many(self, items: Iterable[JobItem]) -> list[str]:
        """Submit any number of jobs in batches and return their ids, in order."""
        return await self._run(dialogues.submit_many(self.namespace, cast("Iterable[Mapping[str, object]]", items)))

    async def get(self, job_id: str) -> Job:
        """Return the job as it stands."""
        return await self._run(dialogues.ask(calls.get(self.namespace, job_id)))

    async def tree(self, job_id: str) -> TaskTree:
        """Return what the job does at this moment: the Trio tasks of its handler, and the jobs that it has started."""
        return await self._run(dialogues.ask(calls.tree(self.namespace, job_id)))

    async def wait(self, job_id: str, wait: float | None = None) -> Job:
        """Return the job once it is final; `wait` is in seconds, None: as long as it takes."""
        return await self._run(dialogues.wait(self.namespace, job_id, wait))

    async def result(self, job_id: str, wait: float | None = None) -> JsonValue:
        """Return what the handler returned, once the job is completed."""
        return await self._run(dialogues.result(self.namespace, job_id, wait))

    def watch(self, job_id: str, cursor: str | None = None) -> AsyncGenerator[values.JobEvent]:
        """Yield all that has happened to the job and what happens, from the oldest event or behind the cursor, until it is final."""
        return self._follow(dialogues.Watching(self.namespace, job_id, cursor))

    def watch_jobs(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        labels: Mapping[str, str] | None = None,
        root_id: str | None = None,
        kinds: Iterable[str] = (),
        cursor: str | None = None,
    ) -> AsyncGenerator[values.JobEvent]:
        """Yield what happens to all jobs that match, from now on or from behind a cursor, for as long as it is read."""
        which = calls.event_filter(queue, type, labels, root_id, kinds)
        return self._follow(dialogues.WatchingJobs(self.namespace, which, cursor))

    async def _follow(self, watching: dialogues.Watching) -> AsyncGenerator[values.JobEvent]:
        while True:
            cut: GopherError | None = None
            events = self._stream(watching.call)
            try:
                async for event in events:
                    if watching.is_news(event):
                        yield event
                if watching.has_ended:
                    return
            except GopherError as error:
                cut = error
            finally:
                await events.aclose()  # noqa: ASYNC102 -- it ends the call and waits for nothing
            if cut is not None and (skipped := watching.skipped(cut)) is not None:
                yield skipped
            else:
                await self._pause(watching.pause_seconds(cut))

    async def cancel(
        self, job_id: str, *, reason: str = "", actor: str = "", grace: float | None = None, wait: bool = False
    ) -> Job:
        """End the job as cancelled and return it; with `wait`, once it is final."""
        return await self._run(
            dialogues.cancel(self.namespace, job_id, reason=reason, actor=actor, grace_seconds=grace, wait_final=wait)
        )

    async def retry(self, job_id: str) -> Job:
        """Give a failed or cancelled job new attempts, or start a waiting one now; return it."""
        return await self._run(dialogues.ask(calls.retry(self.namespace, job_id)))

    async def delete(self, job_id: str) -> None:
        """Remove a job that is not processing, for good."""
        await self._run(dialogues.ask(calls.delete(self.namespace, job_id)))

    async def list(
        self,
        *,
        queue: str | None = None,
        state: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        labels: Mapping[str, str] | None = None,
        limit: int | None = 100,
    ) -> Sequence[Job]:
        """Return jobs that match all that is given; `limit=None` returns all there are."""
        which = calls.job_filter(queue=queue, state=state, job_type=type, labels=labels)
        return await self._run(dialogues.list_all(calls.pages(self.namespace, which), limit))

    async def list_failed(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        limit: int | None = 100,
    ) -> Sequence[Job]:
        """Return dead letters, oldest first."""
        which = calls.job_filter(queue=queue, job_type=type)
        return await self._run(dialogues.list_all(calls.failed_pages(self.namespace, which), limit))

    async def requeue_failed(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        job_ids: Sequence[str] = (),
    ) -> int:
        """Give all dead letters that match new attempts, and return how many there were."""
        return await self._run(dialogues.ask(calls.requeue_failed(self.namespace, queue, type, job_ids)))

    async def queues(self) -> Sequence[values.Queue]:
        """Return the queues of the namespace, by name."""
        return await self._run(dialogues.ask(operations.queues(self.namespace)))

    async def pause(self, queue: str) -> values.Queue:
        """Stop claims from the queue; one not yet used is created."""
        return await self._run(dialogues.ask(operations.pause(self.namespace, queue)))

    async def resume(self, queue: str) -> values.Queue:
        """Let claims from the queue go on."""
        return await self._run(dialogues.ask(operations.resume(self.namespace, queue)))

    async def purge(self, queue: str, *, confirm: str) -> int:
        """Remove the queue's waiting jobs for good, and return how many; `confirm` must repeat the queue's name."""
        return await self._run(dialogues.ask(operations.purge(self.namespace, queue, confirm)))

    async def create_schedule(
        self, name: str, cron: str, job_type: str, payload: Payload = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """Store a schedule, which fires from now on, and return it."""
        spec = schedules.spec_of(name, cron, job_type, payload, cast("Mapping[str, object]", options))
        return await self._run(dialogues.ask(schedules.create(self.namespace, spec)))

    async def update_schedule(
        self, name: str, cron: str, job_type: str, payload: Payload = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """Replace all that `create_schedule` took, and return the schedule; what is left out is at its default again."""
        spec = schedules.spec_of(name, cron, job_type, payload, cast("Mapping[str, object]", options))
        return await self._run(dialogues.ask(schedules.update(self.namespace, spec)))

    async def get_schedule(self, name: str, *, queue: str | None = None) -> Schedule:
        """Return the schedule as it stands."""
        return await self._run(dialogues.ask(schedules.get(self.namespace, queue, name)))

    async def list_schedules(self, *, queue: str | None = None, limit: int | None = 100) -> Sequence[Schedule]:
        """Return the schedules of one queue or of all, by queue and name; `limit=None` returns all there are."""
        return await self._run(dialogues.list_all(schedules.pages(self.namespace, queue), limit))

    async def delete_schedule(self, name: str, *, queue: str | None = None) -> None:
        """Remove the schedule for good; the jobs it made stay."""
        await self._run(dialogues.ask(schedules.delete(self.namespace, queue, name)))

    async def pause_schedule(self, name: str, *, queue: str | None = None) -> Schedule:
        """Keep the schedule from firing, and return it."""
        return await self._run(dialogues.ask(schedules.pause(self.namespace, queue, name)))

    async def resume_schedule(self, name: str, *, queue: str | None = None) -> Schedule:
        """Let the schedule fire again, and return it; what it missed is not made up for."""
        return await self._run(dialogues.ask(schedules.resume(self.namespace, queue, name)))

    async def trigger_schedule(self, name: str, *, queue: str | None = None) -> str:
        """Make a job of the schedule now, beside its times, and return the job's id."""
        return await self._run(dialogues.ask(schedules.trigger(self.namespace, queue, name)))

    async def schedule_times(
        self,
        name: str | None = None,
        *,
        cron: str | None = None,
        time_zone: str | None = None,
        queue: str | None = None,
        count: int = 10,
        after: datetime | None = None,
    ) -> Sequence[int]:
        """Return when a schedule fires next, or with `cron` when one would: ms since the epoch, jitter left out."""
        return await self._run(dialogues.ask(schedules.times(self.namespace, queue, name, cron, time_zone, count, after)))

    async def stats(self) -> values.Stats:
        """Return the figures of the namespace."""
        return await self._run(dialogues.ask(operations.stats(self.namespace)))

    async def workers(self) -> Sequence[values.Worker]:
        """Return the workers that live, by id."""
        return await self._run(dialogues.ask(operations.workers(self.namespace)))

    async def drain_worker(self, worker_id: str, *, grace: float | None = None) -> values.Worker:
        """Tell the worker to drain and exit, and return it as it last described itself.

        Args:
            worker_id: Which.
            grace: How many seconds attempts may go on; None: as it was started with.
        """
        return await self._run(dialogues.ask(operations.drain_worker(self.namespace, worker_id, grace)))

    async def types(self) -> Sequence[values.JobType]:
        """Return the types that are known, by name."""
        return await self._run(dialogues.ask(operations.types(self.namespace)))

    def audit(self, *, repair: bool = False) -> AsyncGenerator[values.AuditReport]:
        """Yield what an audit finds, as it goes; the last report is done and has the totals."""
        return self._stream(operations.audit(self.namespace, repair=repair))

    async def is_serving(self) -> bool:
        """Tell whether the server says that it serves."""
        return await self._run(dialogues.ask(operations.health()))

    async def _run(self, dialogue: dialogues.Dialogue[T]) -> T:
        try:
            step = next(dialogue)
            while True:
                try:
                    answer = await self._take(step)
                except GopherError as error:
                    step = dialogue.throw(error)
                else:
                    step = dialogue.send(answer)
        except StopIteration as end:
            return cast("T", end.value)

    async def _take(self, step: dialogues.Step) -> object:
        if isinstance(step, dialogues.Pause):
            await self._pause(step.seconds)
            return None
        return await self._carry(step, self._call_seconds if step.deadline_seconds is None else step.deadline_seconds)
