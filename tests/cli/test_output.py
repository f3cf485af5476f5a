from __future__ import annotations

import subprocess
import sys

import pytest

from gopher.cli import output
from gopher.cli.options import new_app
from gopher.errors import (
    CallExpiredError,
    ConfigError,
    GopherError,
    InvalidRequestError,
    JobAlreadyFinalError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    StartError,
    StoreFullError,
    StoreUnavailableError,
    UniqueKeyHeldError,
    Violation,
    WaitTimeoutError,
)


def run_raising(fault: BaseException) -> int:
    app = new_app("test", "A test.")

    def fail() -> None:
        raise fault

    app.default(fail)
    return output.guarded(app, [])


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (GopherError("odd"), output.FAILED),
        (StartError("port 1 is in use"), output.FAILED),
        (StartError("no redis", exit_code=7), 7),
        (ConfigError(["one"]), output.USAGE),
        (InvalidRequestError(Violation("type", "REQUIRED", "must be set")), output.USAGE),
        (JobNotFoundError("j"), 3),
        (JobAlreadyFinalError("j", "failed"), 4),
        (UniqueKeyHeldError("k", "j"), 4),
        (StoreUnavailableError("down"), output.UNREACHABLE),
        (CallExpiredError("late"), 6),
        (WaitTimeoutError("late"), 6),
        (StoreFullError("full"), 7),
        (JobFailedError("failed"), 8),
        (JobCancelledError("cancelled"), 9),
        (KeyboardInterrupt(), output.INTERRUPTED),
    ],
)
def test_guarded_ends_with_the_documented_code(fault: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of error has the exit code that --help lists, and nothing goes to stdout."""
    assert run_raising(fault) == code

    assert f"\n  {code} " in output.EXIT_CODES
    assert capsys.readouterr().out == ""


def test_guarded_says_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one line on stderr; what would begin a line or steer the terminal is shown as an escape."""
    run_raising(GopherError("a\nb\x1b[31m \u202e"))

    assert capsys.readouterr().err == "gopher: a\\nb\\x1b[31m \\u202e\n"


def test_guarded_says_each_problem_of_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a problem."""
    run_raising(ConfigError(["one", "two"]))

    assert capsys.readouterr().err == "gopher: one\ngopher: two\n"


def test_guarded_finds_the_one_error_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that comes out of nested nurseries is told as if there were none."""
    code = run_raising(ExceptionGroup("outer", [ExceptionGroup("inner", [StartError("port 1 is in use", exit_code=3)])]))

    assert code == 3
    assert capsys.readouterr().err == "gopher: port 1 is in use\n"


def test_guarded_lets_a_defect_through() -> None:
    """What is no error of ours keeps its traceback, also beside one that is."""
    with pytest.raises(ZeroDivisionError):
        run_raising(ZeroDivisionError())
    with pytest.RaisesGroup(GopherError, ZeroDivisionError):
        run_raising(ExceptionGroup("two", [GopherError("a"), ZeroDivisionError()]))


def test_guarded_says_nothing_when_the_reader_has_gone() -> None:
    """A pipe that is closed early ends the command in silence, with the code that a shell gives it."""
    code = (
        "from gopher.cli import output; from gopher.cli.options import new_app; import sys\n"
        "app = new_app('test', 'A test.')\n"
        "app.default(lambda: [output.line('x' * 1000) for _ in range(1000)] and None)\n"
        "sys.exit(output.guarded(app, []))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()

        assert child.stderr.read() == b""
        assert child.wait(20) == output.READER_GONE


def test_table_keeps_long_cells_whole_when_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe no cell is cut or wrapped, and none can add a line."""
    output.table(("ID", "MESSAGE"), [("1", "m" * 300), ("2", "a\nb")])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "m" * 300 in lines[1]
    assert "a\\nb" in lines[2]


def test_table_keeps_the_first_column_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An id can be copied from a terminal of any width; the other columns give way."""
    monkeypatch.setattr(output, "WIDEST_COLUMNS", 60)

    output.table(("ID", "TYPE", "MESSAGE"), [("01920000-0000-7000-8000-000000000000", "email", "m" * 100)])

    out = capsys.readouterr().out
    assert "01920000-0000-7000-8000-000000000000" in out
    assert max(map(len, out.splitlines())) <= 60
