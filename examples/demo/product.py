"""The program that the demo shows: `gopher dev` as a child process, from its ready line to its end.

The child is told to stop by SIGTERM, waited for and, if it does not end in time, killed; what it started dies with it. Its log goes
to a file that is named when something goes wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).parents[2]  # the working directory of gopher dev, from which it imports the app
READY_SECONDS: Final = 30.0  # it takes one or two; the rest is for a machine under load
STOP_SECONDS: Final = 8.0  # with no job running it is gone in less than one
READY_LINE: Final = re.compile(rb"^ready grpc=(\S+) http=(\S+)(?: .*)?\n", re.MULTILINE)
LONGEST_LINE_BYTES: Final = 1_024  # what is kept of the output while the ready line is looked for

FOREIGN_SETTINGS: Final = ("GOPHER_", "LOG_", "REDIS_", "SERVER_", "SMTP_", "WORKER_")
"""What the user has set for a Gopher of their own, REDIS_URL before all, must not change what the demo shows."""
KEPT_SETTINGS: Final = frozenset({"GOPHER_REDIS_SERVER"})  # where to find redis-server


class DemoError(Exception):
    """The demo cannot go on, or what it shows is not true; the message is one line."""


@dataclass(frozen=True)
class Product:
    """A running `gopher dev`.

    Attributes:
        grpc: Where it serves gRPC, as host:port.
        http: Where it serves HTTP, as host:port.
        process: The child; its `returncode` is set once it has ended.
    """

    grpc: str
    http: str
    process: trio.Process


def product_command(app: str, data_dir: Path) -> list[str]:
    """Return the command that starts the whole of Gopher on free ports, with its Redis's files under `data_dir`.

    Raises:
        DemoError: The `gopher` program is not installed.
    """
    beside_python = Path(sys.executable).parent  # where a virtual environment keeps its programs, activated or not
    program = shutil.which("gopher", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        raise DemoError("the gopher program is not installed: run `make setup`, then `make demo`")
    return [program, "dev", "--app", app, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", str(data_dir)]


def product_environment(environ: Mapping[str, str], smtp_port: int) -> dict[str, str]:
    """Return the child's environment: the user's without Gopher's settings, and with the address of the mail server."""
    kept = {name: value for name, value in environ.items() if name in KEPT_SETTINGS or not name.startswith(FOREIGN_SETTINGS)}
    return {**kept, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(smtp_port)}


async def run_product(
    command: Sequence[str], environ: Mapping[str, str], log: Path, *, task_status: trio.TaskStatus[Product]
) -> None:
    """Run the program until cancelled; reports itself started with the ready line.

    Args:
        command: What to start.
        environ: Its whole environment.
        log: The file that takes its standard error.
        task_status: Gets the `Product`.

    Raises:
        DemoError: It did not get ready in time, or ended by itself.

    Cancellation: The child has ended when this returns.
    """
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=environ, cwd=ROOT
        )
    assert process.stdout is not None  # noqa: S101  # opened as a pipe above
    try:
        task_status.started(await _until_ready(process, process.stdout, log))
        async for _ in process.stdout:
            pass  # read on, lest it ever block on a full pipe
        await process.wait()
        raise DemoError(_ended(process, log))
    finally:
        # Shielded, because a child that is not waited for is orphaned; `_end` is bounded.
        with trio.CancelScope(shield=True):
            await _end(process)
            await process.stdout.aclose()


async def _until_ready(process: trio.Process, stdout: trio.abc.ReceiveStream, log: Path) -> Product:
    output = b""
    with trio.move_on_after(READY_SECONDS):
        async for chunk in stdout:
            output = (output + chunk)[-LONGEST_LINE_BYTES:]
            if (ready := READY_LINE.search(output)) is not None:
                return Product(ready[1].decode(), ready[2].decode(), process)
        await process.wait()
        raise DemoError(_ended(process, log))
    raise DemoError(f"gopher dev was not ready after {READY_SECONDS:.0f} s; its log: {log}")


def _ended(process: trio.Process, log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"gopher dev ended by itself with exit code {process.returncode}{last} (its log: {log})"


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        process.terminate()
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()
