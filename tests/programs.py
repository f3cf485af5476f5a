"""The programs as a stranger runs them: child processes that say `ready`, and commands that end."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

ROOT: Final = Path(__file__).resolve().parent.parent
START_SECONDS: Final = 60.0  # under the load of the whole test run
STOP_SECONDS: Final = 60.0


class Program:
    """One program, from its start to its end; it is killed when the block is left and it still runs.

    Args:
        module: As in `python -m`.
        arguments: Its command line.
        environ: Its whole environment.
        directory: Where it is started.
    """

    def __init__(self, module: str, *arguments: str, environ: Mapping[str, str], directory: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environ),
            cwd=directory,
        )
        self.errors: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self._note), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.wait()

    def wait_ready(self) -> dict[str, str]:
        """Return what the ready line says: `{"grpc": "127.0.0.1:50051"}`."""
        line = self.next_line()
        while line is not None and not line.startswith("ready"):
            line = self.next_line()
        assert line is not None, f"the program ended before it was ready:\n{''.join(self.errors)}"
        return dict(word.split("=", 1) for word in line.split()[1:])

    def next_line(self) -> str | None:
        """Return the next line of its output; None when it has ended."""
        return self._lines.get(timeout=START_SECONDS)

    def stop(self) -> int:
        """Ask it to end, as `kill` does, and return its exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        code = self.process.wait(STOP_SECONDS)
        for reader in self._readers:
            reader.join(STOP_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def _note(self, line: str | None) -> None:
        if line is not None:
            self.errors.append(line)

    @staticmethod
    def _read(stream: IO[str] | None, take: Callable[[str | None], None]) -> None:
        assert stream is not None
        for line in stream:
            take(line)
        take(None)


def run(module: str, *arguments: str, environ: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        env=dict(environ),
        cwd=ROOT,
        timeout=STOP_SECONDS,
        check=False,
    )


@pytest.fixture(scope="session")
def dev_address(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a `gopher dev` with the handlers of `tests.client.app`, which all tests of the session share."""
    data_dir = str(tmp_path_factory.mktemp("data"))
    arguments = ["--app", "tests.client.app:registry", "--grpc", "127.0.0.1:0", "--http", "none", "--data-dir", data_dir]
    with Program("gopher.cli.main", "dev", *arguments, environ=os.environ) as program:
        yield program.wait_ready()["grpc"]
        assert program.stop() == 0, "".join(program.errors)
