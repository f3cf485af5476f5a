from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks.children import MeasurementError, cpu_seconds, open_child, run_child

if TYPE_CHECKING:
    from pathlib import Path

FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, getattr(signal, sys.argv[1]))
alive = os.open(sys.argv[2], os.O_WRONLY)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[alive])
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def alive(tmp_path: Path) -> Path:
    """A named pipe that a program and its own child hold open as long as either lives."""
    path = tmp_path / "alive"
    os.mkfifo(path)
    return path


async def wait_all_ended(reader: int) -> bool:
    """Return whether the pipe has come to its end, that is whether nobody holds it any more."""
    async with trio.lowlevel.FdStream(reader) as stream:
        with trio.fail_after(10):
            return await stream.receive_some() == b""


async def test_open_child_ends_all_that_the_child_started(monkeypatch: pytest.MonkeyPatch, alive: Path) -> None:
    """A child that ignores SIGTERM and its own child are both gone when the block has been left."""
    monkeypatch.setattr("benchmarks.children.STOP_SECONDS", 0.1)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)

    async with open_child([sys.executable, "-c", FAMILY, "SIG_IGN", str(alive)], {}) as child:
        await child.ready()

    assert await wait_all_ended(reader)


async def test_open_child_ends_the_child_when_cancelled(alive: Path) -> None:
    """A cancel inside the block, as a signal to the driver makes one, leaves nothing running."""
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)

    with trio.CancelScope() as scope:
        async with open_child([sys.executable, "-c", FAMILY, "SIG_DFL", str(alive)], {}) as child:
            await child.ready()
            scope.cancel()
            await trio.sleep_forever()

    assert await wait_all_ended(reader)


async def test_run_child_says_why_a_program_failed() -> None:
    """The error of a program that ends without an answer is its last line of standard error."""
    program = "import sys; sys.exit('first line\\nno such broker')"

    with pytest.raises(MeasurementError, match="ended too early: no such broker"):
        await run_child([sys.executable, "-c", program], {})


async def test_run_child_returns_the_answer() -> None:
    """Lines before the JSON object are skipped, and the environment reaches the program."""
    program = "import os; print('hello'); print('{\"url\": \"%s\"}' % os.environ['REDIS_URL'])"

    answer = await run_child([sys.executable, "-c", program], {"REDIS_URL": "unix:///x"})

    assert answer == {"url": "unix:///x"}


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_cpu_seconds_counts_this_process() -> None:
    """The processor time of a living process is known, and that of none is not."""
    used = cpu_seconds(os.getpid())

    assert used is not None
    assert used > 0
    assert cpu_seconds(2**30) is None
