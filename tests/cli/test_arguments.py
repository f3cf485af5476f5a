from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

import pytest

from gopher.cli.arguments import Moment, Seconds, State, labels_of, payload_of
from gopher.cli.options import new_app
from gopher.cli.output import guarded
from gopher.errors import InvalidRequestError
from gopher.job import JobState

if TYPE_CHECKING:
    from pathlib import Path


def parse_moment(text: str) -> datetime | None:
    app = new_app("test", "A test.")

    def main(*, at: Moment = None) -> datetime | None:
        return at

    app.default(main)
    return app(["--at", text])  # type: ignore[no-any-return]  # what main returns


def test_moment_is_rfc_3339() -> None:
    """A moment with a zone is that moment."""
    assert parse_moment("2030-01-31T12:00:00Z") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert parse_moment("2030-01-31T12:00:00.5+02:00") == datetime(2030, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)


def test_moment_without_a_zone_is_local_time() -> None:
    """Whoever types a time means the clock on the wall."""
    assert parse_moment("2030-01-31T12:00:00") == datetime(2030, 1, 31, 12).astimezone()


def test_moment_may_be_a_length_of_time_from_now() -> None:
    """`90s` is in a minute and a half."""
    before = datetime.now(UTC)

    moment = parse_moment("90s")

    assert moment is not None
    assert timedelta(seconds=90) <= moment - before <= timedelta(seconds=120)


@pytest.mark.parametrize("text", ["tomorrow", "2030-13-01", "", "-5"])
def test_moment_refuses_all_else_in_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names the option and says what was expected."""
    app = new_app("test", "A test.")

    def main(*, at: Moment = None, delay: Seconds = None) -> None:
        raise AssertionError

    app.default(main)

    assert guarded(app, [f"--at={text}"]) == 2
    assert guarded(app, [f"--delay={text}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--at" in lines[0]
    assert "expected a moment" in lines[0]
    assert "--delay" in lines[1]


def test_state_lists_the_states_there_are() -> None:
    """The choices of --state are those of `JobState`."""
    assert get_args(State) == tuple(state.value for state in JobState)


def test_labels_of_splits_at_the_first_equals_sign() -> None:
    """A value may hold further ones, and may be empty."""
    assert labels_of(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert labels_of(None) == {}


@pytest.mark.parametrize("pairs", [["a"], ["=b"], ["a=1", "a=2"]])
def test_labels_of_refuses_what_is_no_pair(pairs: list[str]) -> None:
    """No sign, no key and a key twice are refused by name."""
    with pytest.raises(InvalidRequestError, match="--label: expected KEY=VALUE"):
        labels_of(pairs)


def test_payload_of_reads_text_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text itself, @FILE and - each give their bytes untouched."""
    file = tmp_path / "payload"
    file.write_bytes(b"\xff\x00")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}')))

    assert payload_of('{"ä": 1}') == '{"ä": 1}'.encode()
    assert payload_of(f"@{file}") == b"\xff\x00"
    assert payload_of("-") == b'{"a": 1}'


def test_payload_of_says_which_file_it_cannot_read(tmp_path: Path) -> None:
    """A missing file is named, with the reason."""
    with pytest.raises(InvalidRequestError, match=r"absent\.json': No such file or directory"):
        payload_of(f"@{tmp_path / 'absent.json'}")
