"""Events as watchers are told them: an event of a history as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gopher_pb.v1 import job_event_pb2

from gopher.event import EventKind
from gopher.wire import convert
from gopher.wire.events import KIND_NUMBER, add_detail
from gopher.wire.status import failure_to_status

if TYPE_CHECKING:
    from gopher_pb.v1 import job_pb2

    from gopher.job import Failure, Job
    from gopher.store.history import HistoryEvent
    from gopher.store.store import Store


async def message_with_reason(store: Store, job: Job) -> job_pb2.Job:
    """Return a job that was just read, with why it waits."""
    reason = await store.waiting.explain(job)
    return convert.job_to_message(job if reason is None else msgspec.structs.replace(job, waiting_reason=reason))


def event_message(job_id: str, event: HistoryEvent, cursor: str, failure: Failure | None = None) -> job_event_pb2.JobEvent:
    """Convert an event to its message, with the failure of the attempt if the event reports one."""
    message = job_event_pb2.JobEvent(
        job_id=job_id,
        state=convert.STATE_NUMBER[event.state],
        attempt=event.attempt,
        event_time=convert.timestamp(event.at_ms),
        cancel_requested=event.is_cancel_requested,
        progress=event.progress,
        kind=KIND_NUMBER[event.kind],
        sequence=event.sequence,
        cursor=cursor,
        failure=None if failure is None else failure_to_status(failure),
    )
    if event.kind is EventKind.PROGRESS:
        message.progress_message = event.detail.decode()
    add_detail(message, event.told)
    return message


def heartbeat(last: job_event_pb2.JobEvent) -> job_event_pb2.JobEvent:
    """Return a sign of life after an event: where the job stands has not changed, nor has the cursor."""
    return job_event_pb2.JobEvent(
        job_id=last.job_id,
        state=last.state,
        attempt=last.attempt,
        event_time=last.event_time,
        cancel_requested=last.cancel_requested,
        progress=last.progress,
        kind=job_event_pb2.JOB_EVENT_KIND_HEARTBEAT,
        cursor=last.cursor,
    )


def truncated(following: job_event_pb2.JobEvent, dropped: int, cursor: str) -> job_event_pb2.JobEvent:
    """Return the news that events are kept no more.

    Args:
        following: The first one that is kept.
        dropped: How many are missing before it.
        cursor: Of the event just before it.
    """
    return job_event_pb2.JobEvent(
        job_id=following.job_id,
        state=following.state,
        attempt=following.attempt,
        event_time=following.event_time,
        cancel_requested=following.cancel_requested,
        progress=following.progress,
        kind=job_event_pb2.JOB_EVENT_KIND_TRUNCATED,
        cursor=cursor,
        truncation=job_event_pb2.Truncation(oldest_sequence=following.sequence, dropped_count=dropped),
    )
