"""The commands that act on many jobs, against a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from gopher.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(dev_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns its exit code, output and errors."""
    monkeypatch.setenv("GOPHER_SERVER", dev_address)

    def run_command(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out.strip(), err.strip()

    return run_command


@pytest.fixture
def queue(run: Run) -> str:
    """A paused queue of the test's own, with three jobs labelled n=0 to n=2."""
    name = f"q-{uuid.uuid4().hex[:12]}"
    run("pause", name)
    for number in range(3):
        run("submit", "echo", "-q", name, "--label", f"n={number}")
    return name


def states(run: Run, queue: str) -> list[str]:
    return sorted(json.loads(line)["state"] for line in run("list", "-q", queue, "--json")[1].splitlines())


def test_bulk_cancel_narrows_by_its_options_and_waits(run: Run, queue: str) -> None:
    """A label narrows it, so it needs no confirmation; --wait says what it did."""
    found = run("bulk", "cancel", "-q", queue, "-t", "echo", "--state", "enqueued", "--label", "n=1", "--wait")

    assert found == (0, "completed: 1 done, 0 skipped, 0 failed, 5 looked at", "")
    assert states(run, queue) == ["cancelled", "enqueued", "enqueued"]


def test_bulk_that_destroys_wants_the_name(run: Run, queue: str) -> None:
    """Neither a whole queue is cancelled nor anything deleted without its name; nothing is asked."""
    refused = [
        run("bulk", "cancel", "-q", queue),
        run("bulk", "delete", "-q", queue, "--label", "n=1"),
        run("bulk", "delete", "-q", queue, "--confirm", "default"),
        run("purge-failed", "-q", queue),
    ]
    kept = states(run, queue)
    deleted = run("bulk", "delete", "-q", queue, "--confirm", queue, "--wait", "--json")

    for code, out, err in refused:
        assert (code, out) == (4, "")
        assert err == f"gopher: this ends or removes jobs for good: add --confirm {queue} to go ahead"
    assert kept == ["enqueued"] * 3
    assert (deleted[0], json.loads(deleted[1])["done"]) == (0, 3)
    assert states(run, queue) == []


def test_bulk_operation_is_listed_shown_watched_and_not_stopped_twice(run: Run, queue: str) -> None:
    """The id alone is printed, for a script to keep."""
    operation_id = run("bulk", "cancel", "-q", queue, "--confirm", queue, "--reason", "not wanted")[1]

    watched = run("bulk", "watch", operation_id)
    listed = [json.loads(line) for line in run("bulk", "list", "--json")[1].splitlines()]
    table = run("bulk", "list")[1]
    shown = dict(line.split(maxsplit=1) for line in run("bulk", "get", operation_id)[1].splitlines())
    stopped = run("bulk", "stop", operation_id)

    assert watched[0] == 0
    assert watched[1].startswith("completed: 3 done")
    assert listed[0]["id"] == operation_id
    assert operation_id in table
    assert (shown["state"], shown["done"], shown["reason"], shown["queue"]) == ("completed", "3", "not wanted", queue)
    assert stopped[0] == 4
    assert "already completed" in stopped[2]


def test_dead_letters_are_retried_and_purged(run: Run) -> None:
    """`retry-all` and `purge-failed` wait, and say how many."""
    queue = f"q-{uuid.uuid4().hex[:12]}"
    run("pause", queue)

    nothing = run("retry-all", "-q", queue)
    none = run("purge-failed", "-q", queue, "--confirm", queue, "--json")

    assert nothing == (0, "requeued 0", "")
    assert (none[0], json.loads(none[1])) == (0, {"purged": 0})


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["get", "x"], 2, "ID: 'x'"),
        (["stop", "01920000-0000-7000-8000-000000000000"], 3, "does not exist"),
        (["cancel", "--state", "completed"], 2, "must be one that a cancel can act on"),
        (["retry", "--label", "x"], 2, "--label: expected KEY=VALUE"),
        (["retry", "--type", "A B"], 2, "type: must match"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bulk_refusal_is_one_line_with_its_code(run: Run, argv: list[str], code: int, said: str) -> None:
    """What cannot work is refused, and nothing is started."""
    found, out, err = run("bulk", *argv)

    assert (found, out) == (code, "")
    assert said in err
