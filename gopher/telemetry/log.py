"""The log: one line an event on standard error, as JSON or for people.

Our own lines come from structlog, those of libraries from `logging`; both leave through the same processors, so they look alike.
Whatever a value holds, a line stays one line: JSON and the console renderer both escape line ends.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LIBRARY_LEVEL = logging.WARNING
"""Below this, libraries tell what only their authors want to know."""


def start(level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console"]) -> None:
    """Set the log up for this process; done once, by a program's composition root, before anything is logged."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
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
    """Keep each text value on its line; the traceback of an error is made later and keeps its lines."""
    for key, value in event.items():
        # A traceback handed over as text is meant to have lines.
        if key != "exception" and isinstance(value, str) and not value.isprintable():
            event[key] = repr(value)[1:-1]
    return event
