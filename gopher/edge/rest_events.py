"""What a job's event is in JSON: the data of each server-sent event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from gopher.edge.rest_answers import JobFailure, JobView, WaitingView, job_view
from gopher.event import EventKind  # noqa: TC001 - msgspec reads the annotations
from gopher.job import JobState  # noqa: TC001 - as above
from gopher.wire import convert
from gopher.wire.events import KIND_OF, detail_of, details_object
from gopher.wire.shape import failure_object, moment, reason_object
from gopher.wire.status import failure_from_status

if TYPE_CHECKING:
    from gopher_pb.v1 import job_event_pb2


class LogView(Struct, frozen=True):
    """A line of a handler's log; the level is debug, info, warning or error."""

    level: str
    message: str


class OutputView(Struct, frozen=True):
    """A chunk of a handler's output: JSON stands decoded in `data`, any other in `data_base64`."""

    content_type: str
    data: Raw
    data_base64: str | None


class ChildView(Struct, frozen=True):
    """A child that was started, or has ended."""

    job_id: str
    type: str
    state: JobState


class NoticeView(Struct, frozen=True):
    """What Gopher tells of an attempt."""

    reason: str
    message: str


class TruncationView(Struct, frozen=True):
    """What a job's history no longer holds."""

    oldest_sequence: int
    dropped_count: int


class JobChange(Struct, frozen=True, kw_only=True):
    """One event of a job; `job` is the whole job in the first and in the last, null in between.

    `sequence` is its place in the job's history, 0 where it is no part of it. `failure` is why the attempt failed, in events that say
    retrying or failed. `waiting_reason` is why the job waits, in those that were the newest when they were read. One of the last five
    tells what comes with its kind.
    """

    kind: EventKind
    sequence: int
    cursor: str
    job_id: str
    state: JobState
    attempt: int
    event_time: str | None
    cancel_requested: bool
    progress: float
    progress_message: str
    job: JobView | None
    failure: JobFailure | None
    waiting_reason: WaitingView | None
    log: LogView | None
    output: OutputView | None
    child: ChildView | None
    notice: NoticeView | None
    truncation: TruncationView | None


def job_change(event: job_event_pb2.JobEvent) -> JobChange:
    """Return one event of a job."""
    details = details_object(detail_of(event))
    output = details["output"]
    # Whatever the handler gave stands in the answer as it is.
    raw = {"output": output | {"data": Raw(msgspec.json.encode(output["data"]))}} if isinstance(output, dict) else {}
    shape = {
        "kind": KIND_OF[event.kind].value,
        "sequence": event.sequence,
        "cursor": event.cursor,
        "job_id": event.job_id,
        "state": convert.STATE_OF[event.state].value,
        "attempt": event.attempt,
        "event_time": moment(convert.to_ms(event.event_time)),
        "cancel_requested": event.cancel_requested,
        "progress": event.progress,
        "progress_message": event.progress_message,
        "job": job_view(event.job) if event.HasField("job") else None,
        "failure": failure_object(failure_from_status(event.failure)) if event.HasField("failure") else None,
        "waiting_reason": reason_object(convert.reason_of(event)),
    }
    return msgspec.convert(shape | details | raw, JobChange)
