"""Events of jobs as messages and as JSON: what comes with each kind."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import job_event_pb2

from gopher.event import ChildChange, EventDetail, EventKind, LogLine, Notice, OutputChunk, Truncation
from gopher.wire import convert

if TYPE_CHECKING:
    from gopher.job import JsonValue

KIND_NUMBER: Final = {kind: job_event_pb2.JobEventKind.Value(f"JOB_EVENT_KIND_{kind.name}") for kind in EventKind}
KIND_OF: Final[dict[int, EventKind]] = {number: kind for kind, number in KIND_NUMBER.items()} | {0: EventKind.STATE}
"""A server of an older version says no kind: all it tells is states."""


def detail_of(event: job_event_pb2.JobEvent) -> EventDetail | None:
    """Return what comes with an event; None for the kinds that have nothing."""
    match event.WhichOneof("detail"):
        case "log":
            return LogLine(event.log.level, event.log.message)
        case "output":
            return OutputChunk(event.output.data, event.output.content_type)
        case "child":
            return ChildChange(event.child.job_id, event.child.type, convert.STATE_OF[event.child.state])
        case "notice":
            return Notice(event.notice.reason, event.notice.message)
        case "truncation":
            return Truncation(event.truncation.oldest_sequence, event.truncation.dropped_count)
        case None:
            return None


def add_detail(event: job_event_pb2.JobEvent, detail: EventDetail | None) -> None:
    """Put what comes with an event into its message."""
    match detail:
        case LogLine(level, message):
            event.log.level, event.log.message = level, message
        case OutputChunk(data, content_type):
            event.output.data, event.output.content_type = data, content_type
        case ChildChange(job_id, job_type, state):
            event.child.job_id, event.child.type = job_id, job_type
            event.child.state = convert.STATE_NUMBER[state]
        case Notice(reason, message):
            event.notice.reason, event.notice.message = reason, message
        case Truncation(oldest, dropped):
            event.truncation.oldest_sequence, event.truncation.dropped_count = oldest, dropped
        case None:
            pass


def details_object(detail: EventDetail | None) -> dict[str, JsonValue]:
    """Return what comes with an event as parts of a JSON object, of which at most one is not null."""
    parts: dict[str, JsonValue] = dict.fromkeys(("log", "output", "child", "notice", "truncation"))
    match detail:
        case LogLine():
            parts["log"] = {"level": detail.level, "message": detail.message}
        case OutputChunk(data, content_type):
            value = detail.value
            parts["output"] = {
                "content_type": content_type,
                "data": None if isinstance(value, bytes) else value,
                "data_base64": base64.b64encode(data).decode("ascii") if isinstance(value, bytes) else None,
            }
        case ChildChange():
            parts["child"] = {"job_id": detail.job_id, "type": detail.type, "state": detail.state.value}
        case Notice():
            parts["notice"] = {"reason": detail.reason, "message": detail.message}
        case Truncation():
            parts["truncation"] = {"oldest_sequence": detail.oldest_sequence, "dropped_count": detail.dropped_count}
        case None:
            pass
    return parts
