"""The commands at a terminal of 80 columns."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from gopher.cli import output
from gopher.client import Client
from gopher.errors import GopherError
from tests.cli.terminal import CTRL_C, Terminal
from tests.cli.test_commands import fresh
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

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


def test_ctrl_c_on_a_wait_says_that_the_job_goes_on(dev_address: str, queue: str) -> None:
    """With its id, which nothing else has shown; the job is where it was."""
    for option in ("--wait", "--watch"):
        with Terminal(
            "submit", "echo", "-q", queue, "--delay", "1h", option, environ={"GOPHER_SERVER": dev_address}
        ) as terminal:
            terminal.until("scheduled")
            terminal.press(CTRL_C)
            code = terminal.wait()
        found = re.search(r"gopher: job (\S+) goes on: gopher watch \1 shows it, gopher cancel \1 ends it", terminal.shown)
        assert found is not None, terminal.shown
        with Client(dev_address) as client:
            state = client.get(found[1]).state

        assert (code, state) == (130, "scheduled"), terminal.shown
        assert "Traceback" not in terminal.shown


def test_ctrl_c_on_an_attached_job_says_that_it_was_cancelled(dev_address: str) -> None:
    """Once its handler has ended."""
    command = ["submit", "steps", "-p", '"endless"', "--attach"]
    with Terminal(*command, environ={"GOPHER_SERVER": dev_address}) as terminal:
        terminal.until("a quarter")
        terminal.press(CTRL_C)
        code = terminal.wait()

    assert code == 130
    assert re.search(r"gopher: job \S+ was cancelled\n", terminal.shown)


def test_ctrl_c_on_dev_says_that_a_second_stops_at_once(tmp_path: Path) -> None:
    """The first gives what runs its grace; the second does not wait for it, nor for a call that waits."""
    command = [
        "dev",
        "--app",
        "tests.client.app:registry",
        "--grpc",
        "127.0.0.1:0",
        "--http",
        "none",
        "--data-dir",
        str(tmp_path),
    ]
    with Terminal(*command, "--grace", "1h", environ={}) as terminal:
        found = re.search(r"grpc=(\S+)", terminal.until("types="))
        assert found is not None
        with Client(found[1]) as client, Client(found[1], call_seconds=300) as other:
            job_id = client.submit("steps", "endless")
            next(event for event in client.watch(job_id) if event.progress)
            waiting = threading.Thread(target=_wait_in_vain, args=(other, job_id))
            waiting.start()
            terminal.press(CTRL_C)
            terminal.until("stopping: what runs has 3600 s to end (--grace); Ctrl-C again stops at once")
            terminal.press(CTRL_C)
            code = terminal.wait()
        waiting.join(PATIENCE_SECONDS)

    assert code == 0
    assert "Traceback" not in terminal.shown


def _wait_in_vain(client: Client, job_id: str) -> None:
    with suppress(GopherError):  # the client is closed, or its server gone
        client.wait(job_id)


def test_table_leaves_out_what_is_spare_and_shortens_the_rest() -> None:
    """The first spare column goes first; of names the middle is left out, of sentences the end; the first column stays whole."""
    headings = ("ID", "TYPE", "MESSAGE", "AT")
    rows = [("i" * 20, "send_welcome_email", "it did not go as it should have gone", "2026-01-01")]

    assert output.fitting(headings, rows, ("AT",), 120) == {0: 20, 1: 18, 2: 36, 3: 10}
    assert output.fitting(headings, rows, ("AT",), 75) == {0: 20, 1: 15, 2: 24, 3: 10}
    assert output.fitting(headings, rows, ("AT",), 70) == {0: 20, 1: 18, 2: 28}
    assert output.fitting(headings, rows, ("AT",), 58) == {0: 20, 1: 17, 2: 17}
    assert output.fitting(headings, rows, ("AT",), 50) == {0: 20, 1: 13, 2: 13}
    assert output.fitting(headings, rows, ("AT",), 40) == {0: 20, 1: 18}
    assert output.fitting(headings, rows, ("AT",), 10) == {0: 20}
    assert output.shortened("send_welcome_email", 11) == "send_…email"
    assert output.shortened("it did not go", 8) == "it did…"
    assert output.shortened("寿司寿司寿司寿司", 8) == "寿司…司"
    assert output.shortened("short", 5) == "short"
