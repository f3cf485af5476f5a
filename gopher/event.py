"""What an event of a job tells: its kind, and what comes with each kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from gopher.job import JSON_CONTENT_TYPE

if TYPE_CHECKING:
    from gopher.job import JobState, JsonValue


class EventKind(StrEnum):
    """What an event of a job tells."""

    STATE = "state"  # submitted, or its state or attempt has changed
    PROGRESS = "progress"  # the handler says how far it has come
    LOG = "log"  # the handler says a line of its log
    OUTPUT = "output"  # the handler gives a chunk of output
    CHILD = "child"  # a child was started, or has ended
    CANCEL_REQUESTED = "cancel_requested"  # the job goes on until its task tree has ended
    NOTICE = "notice"  # Gopher tells of the attempt
    TRUNCATED = "truncated"  # events before this one are kept no more
    HEARTBEAT = "heartbeat"  # nothing has happened; the stream is alive
    DELETED = "deleted"  # the job is no more


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a handler's log.

    Attributes:
        level: debug, info, warning or error.
        message: At most 4 KiB.
    """

    level: str
    message: str


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A chunk of a handler's output.

    Attributes:
        data: At most 64 KiB.
        content_type: `application/json` or `application/octet-stream`.
    """

    data: bytes
    content_type: str

    @property
    def value(self) -> JsonValue | bytes:
        """What the handler gave: bytes, or the decoded JSON."""
        return cast("JsonValue", msgspec.json.decode(self.data)) if self.content_type == JSON_CONTENT_TYPE else self.data


@dataclass(frozen=True, slots=True)
class ChildChange:
    """A child that was started, or has ended.

    Attributes:
        job_id: Of the child.
        type: Of the child.
        state: enqueued or scheduled when it was started, else final.
    """

    job_id: str
    type: str
    state: JobState


@dataclass(frozen=True, slots=True)
class Notice:
    """What Gopher tells of an attempt.

    Attributes:
        reason: UPPER_SNAKE.
        message: For people.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Truncation:
    """What a history no longer holds.

    Attributes:
        oldest_sequence: Of the oldest event that is kept.
        dropped_count: How many events of this stream are kept no more.
    """

    oldest_sequence: int
    dropped_count: int


EventDetail: TypeAlias = LogLine | OutputChunk | ChildChange | Notice | Truncation
"""What comes with an event, by its kind; the other kinds have nothing."""
