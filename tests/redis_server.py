"""A redis-server that a test may kill, stop and start again under the same URL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Final

from gopher.store.embedded import READY, redis_command, socket_url, spawn_redis

if TYPE_CHECKING:
    from pathlib import Path


_APPEND_ONLY: Final = "appendonlydir"


class RedisServer:
    """One redis-server with the settings and the leash of the embedded one.

    Its methods block for some milliseconds. Call them directly, also from a Trio test: in a worker thread the server would end
    with the thread.
    """

    def __init__(self, program: str, socket_path: Path, directory: Path, *, persistent: bool) -> None:
        self.url = socket_url(socket_path)
        self.socket_path = socket_path
        self.directory = directory
        self._command = redis_command(program, socket_path, persistent=persistent)
        if persistent:
            # With the embedded everysec, a write may wait in memory for up to 2 s while the disk is busy: a kill then loses it.
            self._command += ["--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Start the server; returns when it serves."""
        reader, writer = os.pipe()
        self._process = spawn_redis(self._command, self.directory, writer)
        os.close(writer)
        log = os.fdopen(reader)
        lines = []
        for line in log:
            lines.append(line)
            if READY in line.lower():
                break
        else:
            raise RuntimeError(f"redis-server did not start: {''.join(lines)}")
        self._drain = threading.Thread(target=_read_to_end, args=(log,), daemon=True)
        self._drain.start()

    def keep_file(self) -> Path:
        """Keep the append-only file as it is now; return where."""
        kept = self.directory / "kept"
        shutil.copytree(self.directory / _APPEND_ONLY, kept)
        return kept

    def restore_file(self, kept: Path) -> None:
        """Have the server come back without what it was told since, as a failover may; it must have ended."""
        shutil.rmtree(self.directory / _APPEND_ONLY)
        shutil.move(kept, self.directory / _APPEND_ONLY)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._end_with(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order, if it runs."""
        self._end_with(signal.SIGTERM)

    def _end_with(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with self._process as process:
            process.send_signal(number)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()  # a test has left it stopped
        assert self._drain is not None
        self._drain.join()
        self._process = self._drain = None


def _read_to_end(log: IO[str]) -> None:
    with log:
        for _ in log:
            pass
