"""The commands below `schedule`, against a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from gopher.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(dev_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command below `schedule` and returns its exit code, output and errors."""
    monkeypatch.setenv("GOPHER_SERVER", dev_address)

    def run_command(*argv: str) -> tuple[int, str, str]:
        code = main(["schedule", *argv])
        out, err = capsys.readouterr()
        return code, out.strip(), err.strip()

    return run_command


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"s{uuid.uuid4().hex[:12]}"


def test_schedule_is_created_listed_steered_and_deleted(run: Run, name: str) -> None:
    """Each command answers with what a person, or a script, wants to know."""
    made = run(
        "create", name, "0 2 1 1 *", "echo", "-p", '{"a": 1}', "--tz", "Asia/Tokyo", "--overlap", "cancel-previous", "--json"
    )
    listed = run("list", "--limit", "0")
    paused = run("pause", name)
    resumed = run("resume", name)
    triggered = run("trigger", name)
    objects = [json.loads(line) for line in run("list", "--limit", "0", "--json")[1].splitlines()]
    deleted = run("delete", name)

    described = json.loads(made[1])
    assert (described["overlap"], described["time_zone"], described["job"]["payload"]) == (
        "cancel_previous",
        "Asia/Tokyo",
        {"a": 1},
    )
    assert described["next_fire_time"].endswith("-12-31T17:00:00.000Z")
    assert name in listed[1]
    assert paused == (0, "paused", "")
    assert resumed == (0, f"next {described['next_fire_time']}", "")
    assert (triggered[0], len(triggered[1])) == (0, 36)
    assert [each["last_job_id"] for each in objects if each["name"] == name] == [triggered[1]]
    assert deleted == (0, "deleted", "")
    assert run("pause", name) == (3, "", f"gopher: queue 'default' has no schedule '{name}'")


def test_bad_cron_is_told_in_one_line(run: Run, name: str) -> None:
    """The exit code is that of a faulty request, the line names the field and its place."""
    code, out, err = run("create", name, "0 24 * * *", "echo")

    assert (code, out) == (2, "")
    assert err == "gopher: CRON: field 2 of 5 (hour): expected 0 to 23, got '24'"


def test_preview_prints_a_moment_a_line(run: Run) -> None:
    """Of an expression that is no schedule yet, as clocks in its zone show it; through a change of clocks."""
    code, out, _ = run(
        "preview", "--cron", "30 2 * * *", "--tz", "Europe/Berlin", "--count", "2", "--after", "2026-03-28T12:00:00Z"
    )

    assert (code, out.splitlines()) == (0, ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"])
    assert run("preview", "--cron", "@daily", "--count", "1", "--json", "--after", "2026-01-01T00:00:00Z")[1] == (
        '{"fire_time":"2026-01-02T00:00:00.000Z"}'
    )


def test_preview_of_a_schedule_prints_the_clock_of_its_zone(run: Run, name: str) -> None:
    """No zone is given again: it is the schedule's."""
    run("create", name, "30 2 * * *", "echo", "--tz", "Asia/Kolkata")

    code, out, _ = run("preview", name, "--count", "1", "--after", "2026-03-28T12:00:00Z")

    assert (code, out) == (0, "2026-03-29T02:30:00+05:30")
