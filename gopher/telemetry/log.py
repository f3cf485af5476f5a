"""The log: one line an event on standard error, as JSON or for people.

Our own lines come from structlog, those of libraries from `logging`; both leave through the same processors, so they look alike.
Whatever a value holds, a line stays one line: JSON and the console renderer both escape line ends.

A line that is written while an attempt runs, by its handler or by a library that it calls, says whose it is: `job_id`, `type`, `queue`,
`attempt`, and `trace_id` where the job's trace is known.
"""

from __future__ import annotations

import logging
import sys
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import structlog

from gopher.telemetry import tracing

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Form: TypeAlias = Literal["json", "console"]

LIBRARY_LEVEL = logging.WARNING
"""Below this, libraries tell what only their authors want to know."""


class Job(Protocol):
    """What a line tells of a job."""

    @property
    def id(self) -> str:
        """Of the job."""

    @property
    def type(self) -> str:
        """Name of the handler."""

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1."""

    @property
    def trace(self) -> str | None:
        """W3C traceparent of the submitter."""


class Attempt(Protocol):
    """Whose lines they are; implemented by the attempts of a worker, and of a handler's own process."""

    @property
    def job(self) -> Job:
        """Which job."""

    @property
    def queue(self) -> str:
        """Of the job."""


class Slot:
    """Names the attempt that runs in a Trio task, and in all that it starts.

    A slot is put into the context once and told of each attempt, because to set and reset a variable of the context for each would
    cost a short handler as much as its metrics do.

    Attributes:
        attempt: The one that runs now; None between two.
    """

    __slots__ = ("attempt",)

    def __init__(self) -> None:
        self.attempt: Attempt | None = None


_slot: Final[ContextVar[Slot]] = ContextVar("gopher_slot")


def open_slot() -> Slot:
    """Have the lines of this context, and of those copied from it, say whose they are; returns what is to be told."""
    slot = Slot()
    _slot.set(slot)
    return slot


def current_slot() -> Slot:
    """Return the slot of this context; one that no line reads where there is none."""
    return _slot.get(None) or Slot()


def attempt_in(context: Context) -> Attempt | None:
    """Return the attempt that runs in a context now, if any. Safe in any thread."""
    slot = context.get(_slot)
    return None if slot is None else slot.attempt


def _name_attempt(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    slot = _slot.get(None)
    if slot is not None and (attempt := slot.attempt) is not None:
        job = attempt.job
        told = {"job_id": job.id, "type": job.type, "queue": attempt.queue, "attempt": job.attempt}
        trace_id = tracing.trace_id_of(tracing.current() or job.trace)
        if trace_id is not None:
            told["trace_id"] = trace_id
        for name, value in told.items():
            event.setdefault(name, value)
    return event


class _State:
    """What `start` was called with; the log that it stands for is one a process as well."""

    started: tuple[Level, Form] | None = None


def started() -> tuple[Level, Form] | None:
    """Return what `start` was called with, for a child process that is to log alike; None when it was not."""
    return _State.started


def is_debug() -> bool:
    """Whether lines of the level debug are written: asked where even the call that drops one costs too much."""
    return _State.started is not None and _State.started[0] == "debug"


def start(level: Level, form: Form) -> None:
    """Set the log up for this process; done once, by a program's composition root, before anything is logged."""
    _State.started = (level, form)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_attempt,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor]
    if form == "json":
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        rendering = [
            _escape_line_ends,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, LIBRARY_LEVEL), force=True)


def _escape_line_ends(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep each text value on its line, but for tracebacks and stacks."""
    for key, value in event.items():
        # A traceback or a stack handed over as text is meant to have lines.
        if key not in ("exception", "stack") and isinstance(value, str) and not value.isprintable():
            event[key] = repr(value)[1:-1]
    return event
