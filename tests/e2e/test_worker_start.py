from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.programs import ROOT, Program, run

if TYPE_CHECKING:
    from pathlib import Path

MODULE: Final = "gopher.cli.worker"
GOOD_APP: Final = "tests.e2e.apps.work:registry"
ENVIRON: Final = {**os.environ, "GOPHER_REDIS_URL": "redis://127.0.0.1:1", "GOPHER_REDIS_TIMEOUT": "0.3"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--app, GOPHER_APP"),
        (["--app", "nonsense"], 2, "--app"),
        (["--app", "tests.no_such_module:registry"], 2, "ModuleNotFoundError: No module named 'tests.no_such_module'"),
        (["--app", "tests.e2e.apps.work:absent"], 2, "has no gopher.Registry called 'absent'"),
        (["--app", "tests.e2e.apps.empty:registry"], 2, "the registry has no handlers"),
        (["--app", "tests.e2e.apps.quits:registry"], 2, "quits.py:7: SystemExit: no licence"),
        (["--app", GOOD_APP, "--queues", "a=x"], 2, "--queues"),
        (["--app", GOOD_APP], 5, "redis at "),
        (["--app", GOOD_APP, "--redis-url", "unix:///tmp/no-such-socket"], 5, "redis at "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_worker_that_cannot_start_says_why_in_one_line(arguments: list[str], code: int, said: str) -> None:
    """No traceback, nothing on standard output: one line that names the fault, and the exit code of its kind."""
    ended = run(MODULE, *arguments, environ=ENVIRON)

    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("gopher: ")
    assert said in ended.stderr


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [("tests.e2e.apps.empty:registry", 2, "the registry has no handlers"), (GOOD_APP, 5, "redis at ")],
)
def test_processes_that_cannot_start_say_why_once(app: str, code: int, said: str) -> None:
    """Of several processes the first tells what is wrong, the parent that it cannot go on; the others are not even started."""
    ended = run(MODULE, "--app", app, "--processes", "3", environ=ENVIRON)

    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    *logged, cause, summary = ended.stderr.splitlines()
    assert [line for line in logged if "worker.spawning" not in line] == []
    assert said in cause
    assert summary == "gopher: the worker processes cannot start, see above"


def test_worker_that_cannot_start_ends_without_the_threads_of_its_application() -> None:
    """With the exit code of its fault; the threads are named."""
    ended = run(MODULE, "--app", "tests.e2e.apps.left_thread:registry", environ=ENVIRON)

    assert ended.returncode == 5
    assert "left-behind" in ended.stderr.splitlines()[-1]


def test_application_is_found_in_the_working_directory(tmp_path: Path) -> None:
    """`--app` puts the working directory on the import path, and says what is wrong with what is found there."""
    (tmp_path / "mine.py").write_text("def broken(:\n")

    with Program(MODULE, "--app", "mine:registry", environ=ENVIRON | {"PYTHONPATH": str(ROOT)}, directory=tmp_path) as program:
        code = program.wait()

    assert code == 2
    (line,) = program.errors
    assert f"--app 'mine:registry' cannot be imported: {tmp_path / 'mine.py'}:1: SyntaxError" in line


def test_import_that_fails_names_the_line_of_the_application(tmp_path: Path) -> None:
    """The innermost one that is the application's own, wherever below it the error was raised."""
    (tmp_path / "mine.py").write_text("import gopher\n\nimport settings\n")
    (tmp_path / "settings.py").write_text("import json\n\nTABLE = json.loads('{')\n")

    with Program(MODULE, "--app", "mine:registry", environ=ENVIRON | {"PYTHONPATH": str(ROOT)}, directory=tmp_path) as program:
        code = program.wait()

    assert code == 2
    (line,) = program.errors
    assert f"cannot be imported: {tmp_path / 'settings.py'}:3: JSONDecodeError: " in line
