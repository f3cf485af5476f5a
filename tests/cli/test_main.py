from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from gopher.cli.main import main
from gopher.cli.output import EXIT_CODES, UNREACHABLE
from gopher.retry import RetryPolicy

COMMANDS: Final = [
    "dev",
    "server",
    "worker",
    "submit",
    "get",
    "watch",
    "tree",
    "cancel",
    "retry",
    "delete",
    "list",
    "list-failed",
    "retry-all",
    "purge-failed",
    "bulk",
    "queues",
    "pause",
    "resume",
    "purge",
    "stats",
    "workers",
    "drain",
    "types",
    "health",
    "admin",
]

NO_OPERATION: Final = "01920000-0000-7000-8000-000000000000"
NOBODY: Final = ["--server", "127.0.0.1:1"]


def test_help_lists_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The names that scripts depend on, and what the exit codes mean."""
    assert main(["--help"]) == 0

    words = capsys.readouterr().out.split()
    assert set(COMMANDS) <= set(words)
    assert set(EXIT_CODES.split()) <= set(words)


def test_help_loads_neither_grpc_nor_trio() -> None:
    """`gopher --help` answers at once: what only a command needs is loaded by that command."""
    code = "import sys; from gopher.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"

    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    loaded = set(child.stderr.split())
    assert "cyclopts" in loaded
    assert loaded & {"grpc", "trio", "redis", "starlette", "h11", "opentelemetry"} == set()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in {"dev", "server", "worker", "admin", "bulk"}])
def test_command_has_the_options_of_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every client command names a server and a namespace, and answers in JSON when asked to."""
    assert main([command, "--help"]) == 0

    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--server", "GOPHER_SERVER", "--namespace", "--json"))


@pytest.mark.parametrize(
    "argv",
    [
        ["submit", "email"],
        ["get", "x"],
        ["watch", "x"],
        ["cancel", "x"],
        ["retry", "x"],
        ["tree", "x"],
        ["delete", "x"],
        ["list"],
        ["list-failed"],
        ["retry-all"],
        ["purge-failed", "--confirm", "default"],
        *(["bulk", verb] for verb in ("cancel", "retry", "delete", "list")),
        *(["bulk", verb, NO_OPERATION] for verb in ("get", "watch", "stop")),
        ["queues"],
        ["pause", "q"],
        ["resume", "q"],
        ["purge", "q", "--confirm", "q"],
        ["stats"],
        ["workers"],
        ["drain", "w"],
        ["types"],
        ["health"],
        ["admin", "audit"],
        ["schedule", "create", "s", "@daily", "email"],
        ["schedule", "list"],
        *(["schedule", verb, "s"] for verb in ("pause", "resume", "trigger", "delete", "preview")),
    ],
    ids=" ".join,
)
def test_command_without_a_server_says_so(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nobody at the address, every command ends with the same code and one line that names it."""
    monkeypatch.setattr("gopher.client.dialogues.REPEATS", RetryPolicy(max_attempts=1))

    code = main([*argv, *NOBODY])

    out, err = capsys.readouterr()
    assert (code, out) == (UNREACHABLE, "")
    assert err == "gopher: no server answers at 127.0.0.1:1: Connection refused\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sbmit"], 'Unknown command "sbmit". Did you mean "submit"?'),
        (["get"], "requires an argument"),
        (["get", "a", "b"], "Unused Tokens"),
        (["submit"], "--type requires an argument"),
        (["submit", "email", "--priority", "urgent"], 'Choose from: "high", "normal", "low"'),
        (["submit", "email", "--retries", "x"], 'unable to convert "x" into int'),
        (["submit", "email", "--delay", "soon"], "expected seconds"),
        (["submit", "email", "--at", "soon"], "expected a moment"),
        (["submit", "email", "--label", "x"], "expected KEY=VALUE"),
        (["submit", "email", "-p", "@absent.json"], "cannot read 'absent.json'"),
        (["list", "--state", "running"], "Choose from:"),
        (["list", "--limit", "x"], "unable to convert"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_faulty_command_line_is_refused_in_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command, option or value ends with 2 and a line that says what is wrong."""
    code = main([*argv, *NOBODY] if len(argv) > 1 else argv)

    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_purge_without_a_terminal_never_asks(capsys: pytest.CaptureFixture[str]) -> None:
    """What destroys wants the name again, and says with which option."""
    code = main(["purge", "mail", *NOBODY])

    assert code == 4
    assert "add --confirm mail" in capsys.readouterr().err


def test_purge_refuses_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The wrong name is as good as none."""
    assert main(["purge", "mail", "--confirm", "mial", *NOBODY]) == 4
