"""Child processes on a leash, each with its output in a file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from gopher.errors import StartError
from gopher.leash import leashed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
TAIL_LINES: Final = 15
_LOOK_SECONDS: Final = 0.02


class ChildProgram:
    """A program that runs while the block lasts; it is killed at the end.

    Args:
        command: Program and arguments.
        log: Where its output goes.
        environ: Its whole environment.
    """

    def __init__(self, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        program = shutil.which(command[0], path=environ.get("PATH"))
        if program is None:
            raise StartError(f"there is no program {command[0]!r}")
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - the command is our caller's
                leashed([program, *command[1:]]),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once, with all that it has started: a worker's command may be a wrapper."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def tail(self) -> str:
        """Return the last lines of its output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:])

    async def wait_end(self, within_seconds: float) -> int | None:
        """Return its exit code; None if it has not ended in time."""
        with trio.move_on_after(within_seconds):
            while self.process.poll() is None:  # noqa: ASYNC110 - the end of a process has no event
                await trio.sleep(_LOOK_SECONDS)
        return self.process.poll()

    async def wait_ready(self) -> str:
        """Return the gRPC address that a server of ours says it serves at.

        Raises:
            StartError: It has ended, or takes too long.
        """
        with trio.move_on_after(START_SECONDS):
            while self.process.poll() is None:
                for line in self._log.read_text(errors="replace").splitlines():
                    if line.startswith("ready "):
                        return dict(word.split("=", 1) for word in line.split()[1:])["grpc"]
                await trio.sleep(_LOOK_SECONDS)
        raise StartError(f"the server did not start:\n{self.tail()}")


def server_command(lease_seconds: float) -> list[str]:
    """Return the command line of a server that any job may be submitted to."""
    lease = ["--remote-lease", f"{lease_seconds:g}"]
    return [
        sys.executable,
        "-m",
        "gopher.cli.server",
        "--grpc",
        "127.0.0.1:0",
        "--accept-unknown-types",
        "--grace",
        "1",
        *lease,
    ]
