"""`examples.files`: a file is replaced whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from examples.files import replacing
from tests.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_replacing_puts_the_whole_file_in_place(tmp_path: Path) -> None:
    """A block that ends well leaves exactly the target, in a folder made for it."""
    target = tmp_path / "new" / "report.csv"

    with replacing(target) as file:
        file.write(b"whole")

    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path: Path, error: type[BaseException]) -> None:
    """A block that is broken off, even by an interrupt, leaves the old content and no litter."""
    target = tmp_path / "report.csv"
    target.write_bytes(b"old")

    def write_half() -> None:
        with replacing(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_replacing_lets_two_attempts_write_at_once(tmp_path: Path) -> None:
    """Two writers of one target do not mix: the last to end wins, whole."""
    target = tmp_path / "report.csv"

    with replacing(target) as late:
        late.write(b"from the late attempt")
        with replacing(target) as successor:
            successor.write(b"from its successor")
        assert target.read_bytes() == b"from its successor"

    assert target.read_bytes() == b"from the late attempt"
    assert list(tmp_path.iterdir()) == [target]


def test_replacing_removes_what_a_killed_attempt_has_left(tmp_path: Path) -> None:
    """The half file of a writer that was killed is gone after the next attempt; that of another target is not touched."""
    target, other = tmp_path / "report.csv", tmp_path / ".report.csv.old.abc.txt"
    other.write_bytes(b"not ours")
    program = (
        "import os, signal, sys; from pathlib import Path; from examples.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file: file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".report.csv.*.partial"))) == 1

    with replacing(target) as file:
        file.write(b"whole")

    assert target.read_bytes() == b"whole"
    assert sorted(tmp_path.iterdir()) == [other, target]
