"""`examples.demo.show`: the demo from end to end, as a user runs it, and as a user breaks it off."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from examples.demo.product import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_SECONDS = 100.0  # it takes ten, and its own bounds add up to less than sixty


@contextmanager
def demo(folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in a process group of its own, as a shell does."""
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # nothing happens when it has ended; killed, it would leave its child behind
            process.wait(LIMIT_SECONDS)


def read_ports(process: subprocess.Popen[str]) -> list[int]:
    """Return the ports that gopher dev serves on, once it does."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("gopher dev serves"):
            return [int(word.strip(",\n").rpartition(":")[2]) for word in line.split() if "127.0.0.1:" in word]
    raise AssertionError("gopher dev did not get ready")


def assert_in_order(text: str, *turns: str) -> None:
    position = 0
    for turn in turns:
        assert turn in text[position:]
        position = text.index(turn, position) + len(turn)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_demo_shows_a_retry_and_a_dead_letter_and_checks_itself(tmp_path: Path) -> None:
    """The demo exits 0, shows each turn of the story in order, leaves its outputs, and nothing in it went wrong unseen."""
    with demo(tmp_path, REDIS_URL="redis://127.0.0.1:1/0") as process:
        shown, complaints = process.communicate(timeout=LIMIT_SECONDS)

    assert (process.returncode, complaints) == (0, "")
    assert_in_order(
        shown,
        "retrying    email             mail to grace@example.com           attempt 1  RETRY_ASKED",
        "completed   email             mail to grace@example.com           attempt 2",
        "One dead letter is listed",
        "550 5.1.1 no such mailbox",
        "requeues the job",
        "completed   email             mail to newcomer@example.com        attempt 2",
        "all is as shown",
    )
    (folder,) = tmp_path.glob("gopher-demo-*")
    assert len(list((folder / "out" / "pictures").glob("*.*"))) == 18
    assert sorted(path.name for path in (folder / "out" / "exports").iterdir()) == ["customers.csv", "orders.csv"]
    assert len(list((folder / "out" / "mail").glob("*/*.eml"))) == 3
    assert "Traceback" not in (folder / "gopher.log").read_text()


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["ctrl-c", "sigterm"])
def test_demo_stopped_leaves_nothing_running(tmp_path: Path, number: signal.Signals, *, whole_group: bool) -> None:
    """Stopped in mid-work, by Ctrl-C (which the child gets too) or SIGTERM, it says so in one line and its child has ended."""
    with demo(tmp_path) as process:
        ports = read_ports(process)
        assert [is_open(port) for port in ports] == [True, True]
        (os.killpg if whole_group else os.kill)(process.pid, number)
        _, complaints = process.communicate(timeout=LIMIT_SECONDS)

    assert (process.returncode, complaints) == (128 + number, f"demo stopped by {number.name}\n")
    assert [is_open(port) for port in ports] == [False, False]


def test_demo_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    """Without a redis-server the demo ends with 1 and one line that says what gopher dev said."""
    with demo(tmp_path, GOPHER_REDIS_SERVER=str(tmp_path / "gone")) as process:
        _, complaints = process.communicate(timeout=LIMIT_SECONDS)

    assert process.returncode == 1
    (line,) = complaints.splitlines()
    assert line.startswith("demo failed: gopher dev ended by itself with exit code 1: ")
    assert str(tmp_path / "gone") in line
