"""The commands at a terminal of 80 columns."""

from __future__ import annotations

import re
from typing import Final

import pytest

from gopher.cli import output
from gopher.client import Client
from tests.cli.terminal import Terminal
from tests.cli.test_commands import fresh

STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


def plain(shown: str) -> list[str]:
    return [STYLE.sub("", line) for line in shown.splitlines()]


@pytest.fixture(scope="module")
def queue(dev_address: str) -> str:
    """A queue with a long name, and things with long names in it."""
    queue = fresh("customer-notifications")
    with Client(dev_address) as client:
        client.submit_many([{"type": "echo", "payload": None, "queue": queue, "delay_seconds": 3600} for _ in range(3)])
        client.create_schedule(
            fresh("nightly-invoice-report"), "0 2 * * MON-FRI", "echo", queue=queue, time_zone="America/Argentina/Buenos_Aires"
        )
        client.cancel(client.list(queue=queue)[0].id)
        client.start_bulk_operation("cancel", queue=queue, labels={"customer": "number-four", "region": "west"})
    return queue


@pytest.mark.parametrize(
    "command",
    [("queues",), ("stats",), ("list",), ("list-failed",), ("schedule", "list"), ("bulk", "list"), ("breakers",), ("types",)],
)
@pytest.mark.usefixtures("queue")
def test_table_fits_the_terminal(dev_address: str, command: tuple[str, ...]) -> None:
    """No line is wider than 80 columns, and no row goes on in a second line."""
    with Terminal(*command, environ={"GOPHER_SERVER": dev_address}) as terminal:
        code = terminal.wait()

    lines = plain(terminal.shown)
    assert (code, [line for line in lines if len(line) > 80]) == (0, [])
    assert [line for line in lines if line.startswith(" ")] == []


def test_workers_fit_the_terminal(dev_address: str) -> None:
    """A worker with many types is one line; what there was no room for is named."""
    with Terminal("workers", environ={"GOPHER_SERVER": dev_address}) as terminal:
        terminal.wait()

    lines = plain(terminal.shown)
    assert [line for line in lines if len(line) > 80] == []
    assert len([line for line in lines if not line.startswith("(")]) == 2
    assert "HEARTBEAT; --json shows all)" in " ".join(lines)


def test_state_has_a_colour_at_a_terminal(dev_address: str, queue: str) -> None:
    """In a table and in a line; not where NO_COLOR is set, and the words are the same."""
    environ = {"GOPHER_SERVER": dev_address}
    shown = []
    for more in ({}, {"NO_COLOR": "1"}):
        with Terminal("list", "--queue", queue, environ=environ | more) as terminal:
            terminal.wait()
        shown.append(terminal.shown)
    job_id = next(line.split()[0] for line in plain(shown[0]) if "cancelled" in line)
    with Terminal("get", job_id, environ=environ) as terminal:
        terminal.wait()

    assert "\x1b[33mcancelled" in shown[0]
    assert "\x1b[33mcancelled" in terminal.shown
    assert "[33m" not in shown[1]
    assert plain(shown[0]) == plain(shown[1])


def test_table_leaves_out_what_is_spare_and_shortens_the_rest() -> None:
    """The first spare column goes first; of names the middle is left out, of sentences the end; the first column stays whole."""
    headings = ("ID", "TYPE", "MESSAGE", "AT")
    rows = [("i" * 20, "send_welcome_email", "it did not go as it should have gone", "2026-01-01")]

    assert output.fitting(headings, rows, ("AT",), 120) == {0: 20, 1: 18, 2: 36, 3: 10}
    assert output.fitting(headings, rows, ("AT",), 70) == {0: 20, 1: 17, 2: 17, 3: 10}
    assert output.fitting(headings, rows, ("AT",), 58) == {0: 20, 1: 17, 2: 17}
    assert output.fitting(headings, rows, ("AT",), 50) == {0: 20, 1: 13, 2: 13}
    assert output.fitting(headings, rows, ("AT",), 40) == {0: 20, 1: 18}
    assert output.fitting(headings, rows, ("AT",), 10) == {0: 20}
    assert output.shortened("send_welcome_email", 11) == "send_…email"
    assert output.shortened("it did not go", 8) == "it did…"
    assert output.shortened("寿司寿司寿司寿司", 8) == "寿司…司"
    assert output.shortened("short", 5) == "short"
