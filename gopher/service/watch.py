"""Following one job: WaitJob and WatchJob.

A follower is entered first, then the job is read, then changes are taken: so none is missed. A change that the read has told of
already may come again; it is left out where it would say nothing new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher_pb.v1 import job_event_pb2, job_stream_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.wire import check, convert
from gopher.wire.status import SlowReaderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.job import Job, JobState
    from gopher.store.events import JobChange
    from gopher.store.store import Store

    Send = Callable[[job_stream_pb2.WatchJobResponse], Awaitable[None]]


class Watch:
    """Answers WaitJob and WatchJob.

    Args:
        store: Where the jobs are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def wait_job(self, request: pb.WaitJobRequest) -> pb.WaitJobResponse:
        """Return the job once it is final."""
        job = await self._store.wait(check.namespace(request.namespace), request.job_id)
        return pb.WaitJobResponse(job=convert.job_to_message(job))

    async def watch_job(self, request: job_stream_pb2.WatchJobRequest, send: Send) -> None:
        """Send the changes of a job: first the whole job, last the whole job at its end."""
        namespace = check.namespace(request.namespace)
        async with self._store.events.follow(namespace, request.job_id) as changes:
            job = await self._store.query.get(namespace, request.job_id)
            view = _View(job)
            await send(view.message(job))
            if job.state.is_final:
                return
            async for change in changes:
                if change is None:
                    # The connection was renewed: whatever was missed shows in the job.
                    job = await self._store.query.get(namespace, request.job_id)
                    view = _View(job)
                    await send(view.message(job))
                elif not view.take(change):
                    continue
                elif change.state is None or change.state.is_final:
                    job = await self._store.query.get(namespace, request.job_id)
                    view = _View(job)
                    # It may have been requeued since, and then the stream goes on.
                    await send(view.message(job if job.state.is_final else None))
                else:
                    await send(view.message(None))
                if job.state.is_final:
                    return
        raise SlowReaderError


class _View:
    """What a watcher has been told so far.

    Args:
        job: As it was read.
    """

    def __init__(self, job: Job) -> None:
        known = (job.submitted_ms, job.enqueued_ms, job.started_ms, job.finished_ms)
        self._at_ms = max(moment for moment in known if moment is not None)
        self._job_id = job.id
        self._state = job.state
        self._attempt = job.attempt
        self._is_cancel_requested = job.cancel_reason is not None
        self._progress = job.progress or 0.0
        self._progress_message = job.progress_message or ""

    def take(self, change: JobChange) -> bool:
        """Take a change over; tell whether it says anything new."""
        if change.at_ms < self._at_ms:
            return False
        before = self._told()
        if change.attempt != self._attempt:
            self._progress, self._progress_message = 0.0, ""
        if change.progress is not None:
            self._progress, self._progress_message = change.progress, change.progress_message
        self._state = self._state if change.state is None else change.state
        self._attempt = change.attempt
        self._is_cancel_requested |= change.is_cancel_requested
        self._at_ms = change.at_ms
        return change.state is None or self._told() != before

    def _told(self) -> tuple[JobState, int, bool, float, str]:
        return self._state, self._attempt, self._is_cancel_requested, self._progress, self._progress_message

    def message(self, job: Job | None) -> job_stream_pb2.WatchJobResponse:
        """Return what the watcher is told now.

        Args:
            job: To be told whole; None for the change alone.
        """
        event = job_event_pb2.JobEvent(
            job_id=self._job_id,
            state=convert.STATE_NUMBER[self._state],
            attempt=self._attempt,
            event_time=convert.timestamp(self._at_ms),
            cancel_requested=self._is_cancel_requested,
            progress=self._progress,
            progress_message=self._progress_message,
            job=None if job is None else convert.job_to_message(job),
        )
        return job_stream_pb2.WatchJobResponse(event=event)
