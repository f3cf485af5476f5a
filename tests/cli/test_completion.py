"""The completion scripts that `gopher --install-completion` writes, as the shells read them."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from gopher.cli.main import BULK_COMMANDS, COMMANDS, SCHEDULE_COMMANDS
from tests.programs import run

if TYPE_CHECKING:
    from pathlib import Path

SHELLS: Final = ("bash", "zsh", "fish")
COMPLETE: Final = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gopher; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, installed for a user who has nothing yet."""
    home = tmp_path_factory.mktemp("home")
    found = {shell: home / f"completion.{shell}" for shell in SHELLS}
    for shell, path in found.items():
        arguments = ("--install-completion", "--shell", shell, "--output", str(path))
        ended = run("gopher.cli.main", *arguments, environ={**os.environ, "HOME": str(home)})
        assert ended.returncode == 0, ended.stderr
    return found


def program(shell: str) -> str:
    """Return the path of a shell; skips the test where there is none."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    return found


def output_of(*command: str) -> list[str]:
    """Return the lines that a shell answers."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_accepted_by_its_shell(scripts: dict[str, Path], shell: str) -> None:
    """The shell parses the whole script without a word."""
    assert output_of(program(shell), "-n", str(scripts[shell])) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_script_knows_every_command(scripts: dict[str, Path], shell: str) -> None:
    """No command is missing, also where its shell is not here to ask."""
    text = scripts[shell].read_text()

    for commands in (*COMMANDS.values(), SCHEDULE_COMMANDS, BULK_COMMANDS):
        assert all(name in text for name, _, _ in commands)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sch"], ["schedule"]),
        (["schedule", "cr"], ["create"]),
        (["bulk", "st"], ["stop"]),
        (["submit", "email", "--prio"], ["--priority"]),
        (["submit", "email", "--priority", "h"], ["high"]),
    ],
    ids=" ".join,
)
def test_bash_completes(scripts: dict[str, Path], words: list[str], completed: list[str]) -> None:
    """Commands, commands of commands, options and the choices of an option."""
    assert output_of(program("bash"), "-c", COMPLETE, "bash", str(scripts["bash"]), "gopher", *words) == completed


def test_fish_completes_a_command(scripts: dict[str, Path]) -> None:
    """The one command that begins so, with its help."""
    ask = f"source {scripts['fish']}; complete -C 'gopher sch'"

    assert [line.split("\t")[0] for line in output_of(program("fish"), "--no-config", "-c", ask)] == ["schedule"]
