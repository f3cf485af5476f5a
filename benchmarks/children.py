"""The programs a run starts: their environment, their lines of output, and their certain end.

Each child leads a session of its own, so that a Ctrl-C on the terminal reaches the driver only and the driver ends the children
one by one, the measured ones before the Redis they use; it is on a leash, so that it ends even with a driver that was killed.
What a child writes to standard error goes to a file; its last line is the message if the child fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import which
from typing import IO, TYPE_CHECKING, Final

import msgspec
import trio

from gopher.leash import leashed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
STOP_SECONDS: Final = 5.0
"""How long a child may take to leave after SIGTERM: workers have nothing left to do by then."""
READY_SECONDS: Final = 30.0


class MeasurementError(Exception):
    """A measurement could not be made; the text is one line that says why."""


class Child:
    """A running program of which the driver reads lines."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], output: trio.lowlevel.FdStream, errors: IO[bytes]) -> None:
        self.pid = process.pid
        self._name = name
        self._process = process
        self._output = output
        self._errors = errors
        self._buffer = b""

    async def line(self) -> str:
        """Return the next line of standard output.

        Raises:
            MeasurementError: The program has ended its output.
        """
        while b"\n" not in self._buffer:
            received = await self._output.receive_some()
            if not received:
                raise MeasurementError(f"{self._name} ended too early: {self._last_error()}")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    async def line_starting(self, word: str) -> str:
        """Skip to the next line that starts with `word`, and return it."""
        while not (line := await self.line()).startswith(word):
            pass
        return line

    async def ready(self) -> str:
        """Wait for the line that says the program serves, and return it."""
        with trio.move_on_after(READY_SECONDS):
            return await self.line_starting("ready")
        raise MeasurementError(f"{self._name} was not ready after {READY_SECONDS:.0f} s: {self._last_error()}")

    def require_running(self) -> None:
        """Check that the program has not ended.

        Raises:
            MeasurementError: It has.
        """
        if self._process.poll() is not None:
            raise MeasurementError(f"{self._name} ended too early: {self._last_error()}")

    async def stop(self) -> None:
        """End the program and all of its session: first by request, then by force."""
        await self._output.aclose()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
        # Whatever of the session is still there goes now, the leader with it.
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").replace(f"{ROOT}/", "").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


@asynccontextmanager
async def open_child(argv: Sequence[str], environment: Mapping[str, str], directory: Path = ROOT) -> AsyncGenerator[Child]:
    """Start a program; on leaving, end it and all that it started.

    Args:
        argv: The program, as an absolute path, and its arguments.
        environment: What is added to the driver's own environment.
        directory: Where it is started, and imports from.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors:
        try:
            # Not by Trio, which would start it in a passing thread: the leash is held by the thread that starts the child.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - see above; the commands are the harness's own
                leashed(list(argv)),
                stdin=subprocess.PIPE,
                stdout=writer,
                stderr=errors,
                cwd=directory,
                env=_base_environment() | dict(environment),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        name = " ".join(Path(word).name for word in argv[:3])
        child = Child(name, process, trio.lowlevel.FdStream(reader), errors)
        try:
            yield child
        finally:
            with trio.CancelScope(shield=True):  # bounded by STOP_SECONDS; a child must not outlive the driver
                await child.stop()


async def run_child(argv: Sequence[str], environment: Mapping[str, str], directory: Path = ROOT) -> dict[str, object]:
    """Run a program to its end and return the JSON object that is its last line.

    Raises:
        MeasurementError: It ended without one.
    """
    async with open_child(argv, environment, directory) as child:
        line = await child.line_starting("{")
    answer: dict[str, object] = msgspec.json.decode(line, type=dict[str, object])
    return answer


def _base_environment() -> dict[str, str]:
    """Return the driver's environment without settings of Gopher that would change what is measured."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "GOPHER_REDIS_SERVER" or not name.startswith(("GOPHER_", "REDIS_", "WORKER_", "SERVER_", "LOG_"))
    }


def python_module(module: str) -> tuple[str, ...]:
    """Return the command that runs a module with this interpreter."""
    return (sys.executable, "-m", module)


def find_program(name: str) -> str | None:
    """Find a program on the PATH, then beside this interpreter (where wheels put theirs)."""
    return which(name) or which(name, path=sysconfig.get_path("scripts"))


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time a process and its living descendants have used; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return None
    # After the name, fields 12 and 13 are utime and stime in clock ticks (proc(5), fields 14 and 15 of the whole line).
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) or 0.0 for child in children)
