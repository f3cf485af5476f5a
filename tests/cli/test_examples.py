"""The examples of the help texts, parsed by the commands they show."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from gopher import config
from gopher.cli.examples import EXAMPLES
from gopher.cli.main import main, make_app
from gopher.cli.options import run_program

if TYPE_CHECKING:
    from gopher.config import Settings

OF_GOPHER = [command for command in EXAMPLES if not command.startswith("gopher-")]


@pytest.mark.parametrize("command", OF_GOPHER)
def test_example_parses(command: str) -> None:
    """Each is a command line that its command takes, whole."""
    program, *argv = shlex.split(EXAMPLES[command])

    function, bound, _ = make_app().parse_args(argv)

    words = command.split()
    assert (program, argv[: len(words)]) == ("gopher", words)
    assert function.__module__.startswith("gopher.cli.")
    assert bound.arguments


def test_example_of_the_worker_parses() -> None:
    """Its settings are accepted, values and all."""
    program, *argv = shlex.split(EXAMPLES["gopher-worker"])
    seen: list[Settings] = []

    code = run_program(config.WORKER, seen.append, argv)

    assert (program, code) == ("gopher-worker", 0)
    assert seen[0].worker.queues == {"mail": 3, "default": 1}


@pytest.mark.parametrize("command", [*OF_GOPHER, "worker"])
def test_help_ends_with_the_example(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal of the usual width it stands on one line, to be copied."""
    monkeypatch.setenv("COLUMNS", "80")

    assert main([*command.split(), "--help"]) == 0

    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert shown[-2:] == ["Example:", EXAMPLES["gopher-worker" if command == "worker" else command]]


def test_examples_are_there_for_the_commands_with_many_options() -> None:
    """Those that people look up most."""
    assert {"submit", "watch", "cancel", "schedule create", "bulk", "gopher-worker"} <= EXAMPLES.keys()


def test_help_of_other_commands_has_no_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an empty heading nor that of the group."""
    for command in (["get"], ["schedule", "pause"], ["bulk", "stop"]):
        assert main([*command, "--help"]) == 0
        assert "Example" not in capsys.readouterr().out
