"""Runs a program at a terminal of its own, 80 columns wide, as a person does, who may press Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

from tests.programs import ROOT, STOP_SECONDS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

CTRL_C = b"\x03"


class Terminal:
    """A program that runs at a terminal; it is killed when the block is left and it still runs.

    Attributes:
        shown: All that it has written so far, lines ended as a terminal shows them.

    Args:
        arguments: As in `python -m gopher.cli.main`.
        environ: What is added to the environment.
        columns: How wide the terminal is.
        directory: Where the program is started.
    """

    def __init__(self, *arguments: str, environ: dict[str, str], columns: int = 80, directory: Path = ROOT) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        plain = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR", "CI"}}
        # The shell between makes the terminal the program's own, so that Ctrl-C reaches it as it reaches any.
        code = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, sys.executable, "-m", "gopher.cli.main", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**plain, "TERM": "xterm-256color", **environ},
            cwd=directory,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        os.close(self._master)

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._master, key)

    def until(self, words: str) -> str:
        """Wait until the words are shown; return all that is."""
        while words not in self.shown:
            assert self._read(), f"{words!r} was never shown:\n{self.shown}"
        return self.shown

    def wait(self) -> int:
        """Return the exit code once the program has ended, with all it has written taken."""
        while self._read():
            pass
        return self.process.wait(STOP_SECONDS)

    def _read(self) -> bool:
        """Take what is written next; tell whether there was something, and not the end."""
        end = time.monotonic() + STOP_SECONDS
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"nothing more is shown:\n{self.shown}"
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # the last writer has closed it
            return False
        self.shown += chunk.decode(errors="replace").replace("\r\n", "\n")
        return bool(chunk)
