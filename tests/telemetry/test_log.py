"""The log, as a process writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.programs import ROOT, STOP_SECONDS

PROGRAM = """
import logging, sys
import structlog
from gopher.telemetry import log
log.start(sys.argv[1], sys.argv[2])
logger = structlog.get_logger()
logger.debug("quiet")
logger.info("job.submitted", label="two\\nlines\\x1b[31m")
logging.getLogger("library").warning("careful %s", "now")
logging.getLogger("library").info("chatter")
try:
    1 / 0
except ZeroDivisionError:
    logger.error("rpc.defect", exc_info=True)
"""

ATTEMPTS = """
import logging, sys, types
import structlog
from gopher.telemetry import log
log.start("info", sys.argv[1])
logger = structlog.get_logger()
slot = log.open_slot()
for traceparent in ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None):
    job = types.SimpleNamespace(id="j1", type="email", attempt=2, trace=traceparent)
    slot.attempt = types.SimpleNamespace(job=job, queue="mail")
    logger.info("one\\ntwo")
    logging.getLogger("library").warning("three\\nfour")
    logger.info("own", job_id="j2")
    slot.attempt = None
logger.info("after")
"""


def logged(*arguments: str, program: str = PROGRAM) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=ROOT,
        timeout=STOP_SECONDS,
        check=True,
    )
    assert ended.stdout == ""
    return ended.stderr.splitlines()


def test_json_log_is_one_object_a_line() -> None:
    """Whatever a value holds; our lines and those of libraries alike, the error with its traceback."""
    records = [json.loads(line) for line in logged("info", "json")]

    assert [record["event"] for record in records] == ["job.submitted", "careful now", "rpc.defect"]
    assert [record["level"] for record in records] == ["info", "warning", "error"]
    assert records[0]["label"] == "two\nlines\x1b[31m"
    assert "ZeroDivisionError" in records[2]["exception"]
    assert all(record["timestamp"].endswith("Z") for record in records)


def test_console_log_keeps_a_value_on_its_line() -> None:
    """A line end or an escape of a terminal in a value is shown, not obeyed."""
    lines = logged("info", "console")

    (submitted,) = [line for line in lines if "job.submitted" in line]
    assert "two\\nlines\\x1b[31m" in submitted


def test_level_is_the_least_that_is_told() -> None:
    """At error neither info nor warnings are told, at debug all of ours are."""
    errors = [json.loads(line)["event"] for line in logged("error", "json")]
    everything = [json.loads(line)["event"] for line in logged("debug", "json")]

    assert errors == ["rpc.defect"]
    assert everything[0] == "quiet"


def test_lines_of_an_attempt_say_whose_they_are() -> None:
    """Ours and those of libraries, with the trace where the job has one; what a line says itself stands; afterwards nothing is left."""
    records = [json.loads(line) for line in logged("json", program=ATTEMPTS)]

    names = ("job_id", "type", "queue", "attempt", "trace_id")
    assert [tuple(record.get(name) for name in names) for record in records] == [
        ("j1", "email", "mail", 2, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("j1", "email", "mail", 2, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("j2", "email", "mail", 2, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("j1", "email", "mail", 2, None),
        ("j1", "email", "mail", 2, None),
        ("j2", "email", "mail", 2, None),
        (None, None, None, None, None),
    ]


def test_line_end_in_a_message_begins_no_line() -> None:
    """Neither in a handler's message nor in a library's, in either form."""
    for form in ("json", "console"):
        assert len(logged(form, program=ATTEMPTS)) == 7
