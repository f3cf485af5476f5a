from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher import config
from gopher.cli.options import run_program

if TYPE_CHECKING:
    from pathlib import Path

    from gopher.config import Settings

APP = ["--app", "mail:registry"]


@pytest.fixture(autouse=True)
def no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for section in config.SECTIONS.values():
        for _, spec, _ in config.settings_of(section):
            for variable in spec.variables:
                monkeypatch.delenv(variable, raising=False)


def run_worker(*argv: str) -> tuple[int, list[Settings]]:
    seen: list[Settings] = []
    return run_program(config.WORKER, seen.append, argv), seen


def test_run_program_gives_the_body_its_settings() -> None:
    """Flags reach the body converted, and no return value means that all went well."""
    code, seen = run_worker(*APP, "--queues", "a=2,b=1", "--concurrency=7", "--tracing", "--grace", "1m")

    assert code == 0
    assert seen[0].worker.queues == {"a": 2, "b": 1}
    assert (seen[0].worker.concurrency, seen[0].worker.grace_seconds) == (7, 60.0)
    assert seen[0].telemetry.tracing


def test_run_program_returns_the_code_of_the_body() -> None:
    """What the body returns is the exit code."""
    assert run_program(config.WORKER, lambda _: 5, APP) == 5


def test_run_program_reads_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is named by --config or GOPHER_CONFIG, and the variables come before it."""
    file = tmp_path / "gopher.toml"
    file.write_text("[worker]\napp = 'mail:registry'\nconcurrency = 3\nprocesses = 3\n")
    monkeypatch.setenv("WORKER_CONCURRENCY", "2")

    _, by_flag = run_worker("--config", str(file))
    monkeypatch.setenv("GOPHER_CONFIG", str(file))
    _, by_variable = run_worker()

    for settings in by_flag + by_variable:
        assert (settings.worker.app, settings.worker.concurrency, settings.worker.processes) == ("mail:registry", 2, 3)


def test_run_program_prints_the_settings_and_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    """--print-config shows what is in force and where it comes from."""
    code, seen = run_worker(*APP, "--concurrency=7", "--print-config")

    assert (code, seen) == (0, [])
    assert "concurrency = 7  # flag --concurrency\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--concurency", "7"], "Unknown option: --concurency"),
        (["7"], "Unused Tokens: ['7']"),
        (["--concurrency"], "--concurrency requires an argument"),
        (
            ["--concurrency", "many"],
            "--concurrency, GOPHER_CONCURRENCY, WORKER_CONCURRENCY, worker.concurrency: expected a number",
        ),
        (["--config", "absent.toml"], "cannot read absent.toml"),
        (["--app", "no registry"], "--app, GOPHER_APP, worker.app: expected MODULE:REGISTRY"),
    ],
)
def test_run_program_says_what_is_wrong_in_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A faulty command line ends with 2 and a line that names the flag."""
    code, seen = run_worker(*APP, *argv) if "--app" not in argv else run_worker(*argv)

    lines = capsys.readouterr().err.splitlines()
    assert (code, seen, len(lines)) == (2, [], 1)
    assert said in lines[0]


@pytest.mark.parametrize("program", [config.SERVER, config.WORKER, config.DEV], ids=lambda program: program.name)
def test_help_shows_each_flag_with_its_variables(program: config.Program, capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every flag and variable of the program's sections."""
    run_program(program, lambda _: 1, ["--help"])

    shown = capsys.readouterr().out
    for table in program.tables:
        for _, spec, _ in config.settings_of(config.SECTIONS[table]):
            assert spec.flag is None or spec.flag in shown
