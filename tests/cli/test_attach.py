"""`gopher submit --attach`: a command that a job does not outlive."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from gopher.client import Client
from gopher.client.runs import LEFT
from gopher.job import JobState
from tests.cli.test_commands import fresh, run
from tests.programs import Program
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.cli.test_commands import Run

__all__ = ["run"]


def test_attach_tells_each_change_and_the_result(run: Run) -> None:
    """As `--watch` does, and with its exit code."""
    code, out, err = run("submit", "steps", "--attach")

    assert (code, err) == (0, "")
    assert "a quarter" in out
    assert out.splitlines()[-1] == '"done"'


def test_attach_with_json_prints_an_object_a_change(run: Run) -> None:
    """The last one is final and holds the whole job."""
    code, out, _ = run("submit", "echo", "-p", "7", "--attach", "--json")

    last = json.loads(out.splitlines()[-1])
    assert (code, last["state"], last["job"]["result"]) == (0, "completed", 7)


def test_attach_ends_as_the_job_does(run: Run) -> None:
    """8 of one that failed; what a submit refuses is refused, and there is no job."""
    queue = fresh("q")

    failed = run("submit", "fail", "-p", '"no way"', "--attach")
    unknown = run("submit", "no-such-type", "--attach", "--queue", queue)

    assert failed[0] == 8
    assert "no way" in failed[2]
    assert unknown[0] == 4
    assert run("list", "--queue", queue, "--json")[1] == ""


@pytest.mark.parametrize("other", [["--wait"], ["--watch"], ["--wait-timeout", "3"]])
def test_attach_goes_alone(run: Run, other: list[str]) -> None:
    """Two ways to wait contradict each other: it is said, and nothing is submitted."""
    queue = fresh("q")

    code, out, err = run("submit", "echo", "--queue", queue, "--attach", *other)

    assert (code, out) == (2, "")
    assert "--attach" in err
    assert run("list", "--queue", queue, "--json")[1] == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_command_that_ends_first_cancels_the_job(dev_address: str, number: signal.Signals, code: int) -> None:
    """Ctrl-C waits for the job's end; one that is killed is missed by the server."""
    request_id = fresh("r")
    command = ["submit", "steps", "-p", '"endless"', "--attach", "--json", "--request-id", request_id]

    with Program("gopher.cli.main", *command, environ={**os.environ, "GOPHER_SERVER": dev_address}) as program:
        event = json.loads(program.next_line() or "")
        while not event["progress"]:
            event = json.loads(program.next_line() or "")
        program.process.send_signal(number)
        ended = program.wait()
    with Client(dev_address) as client:
        state_then = client.get(event["job_id"]).state
        job = client.wait(event["job_id"], PATIENCE_SECONDS)

    assert ended == code
    assert job.state is JobState.CANCELLED
    if number is signal.SIGINT:
        assert (state_then, job.cancel_reason) == (JobState.CANCELLED, LEFT)
    else:
        assert job.cancel_reason == "the client of RunJob has cancelled it or has gone"
