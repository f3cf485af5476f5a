"""The leash: a child ends with its parent, and is otherwise the command itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from gopher import leash
from gopher.leash import CANNOT_EXECUTE, leashed

BY_PIPE = [pytest.param(True, id="pipe")]
if sys.platform == "linux":
    BY_PIPE.append(pytest.param(False, id="kernel"))

# A parent whose child inherits its output, so that the end of the output is the end of both.
PARENT = textwrap.dedent("""
    import subprocess, sys
    from gopher.leash import leashed

    command = [sys.executable, "-c", "import time; print('child', flush=True); time.sleep(60)"]
    subprocess.Popen(leashed(command, by_pipe=sys.argv[1] == "True"), stdin=subprocess.PIPE).wait()
""")


both_ways = pytest.mark.parametrize("by_pipe", BY_PIPE)


def spawn(script: str, *, by_pipe: bool) -> subprocess.Popen[str]:
    command = leashed([sys.executable, "-c", script], by_pipe=by_pipe)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


@both_ways
def test_leash_ends_the_child_with_a_parent_that_is_killed(by_pipe: bool) -> None:
    """After kill -9 of the parent the child ends within 2 s."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(by_pipe)], stdout=subprocess.PIPE, text=True) as parent:
        assert read_line(parent) == "child\n"

        parent.kill()
        rest, _ = parent.communicate(timeout=2)

    assert rest == ""


@both_ways
def test_leash_passes_streams_and_exit_status_on(by_pipe: bool) -> None:
    """What the command writes and how it exits is what the parent sees."""
    with spawn("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)", by_pipe=by_pipe) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        out, err = child.stdout.read(), child.stderr.read()

    assert (out, err, child.returncode) == ("out\n", "err\n", 7)


@both_ways
def test_leash_passes_terminate_on(by_pipe: bool) -> None:
    """SIGTERM reaches the command, which may end in its own way."""
    script = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('up', flush=True)\nsignal.pause()"
    )
    with spawn(script, by_pipe=by_pipe) as child:
        assert read_line(child) == "up\n"

        child.terminate()
        child.wait(30)

    assert child.returncode == 5


@both_ways
def test_leash_tells_of_a_command_that_cannot_run(by_pipe: bool) -> None:
    """A command that is not there is one line and an exit status, not a traceback."""
    command = leashed(["/nowhere/program"], by_pipe=by_pipe)
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)

    assert (done.stderr, done.returncode) == ("cannot run /nowhere/program: No such file or directory\n", CANNOT_EXECUTE)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux watches by the kernel")
def test_leash_does_not_start_the_command_of_a_parent_that_is_gone() -> None:
    """A parent that died before the kernel was asked is noticed."""
    command = [sys.executable, leash.__file__, "kernel", str(os.getpid() + 1), sys.executable, "-c", "print('ran')"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout, done.stderr) == ("", f"the parent of {sys.executable} is gone\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux watches by the kernel")
def test_leash_is_held_by_the_thread_that_spawned() -> None:
    """The trap that keeps us from Trio's `open_process`: the child ends with the thread that spawned it."""
    children = []

    def spawn_and_retire() -> None:
        child = spawn("import time; print('up', flush=True); time.sleep(60)", by_pipe=False)
        assert read_line(child) == "up\n"
        children.append(child)

    thread = threading.Thread(target=spawn_and_retire)
    thread.start()
    thread.join()
    with children[0] as child:
        child.wait(30)

    assert child.returncode == -signal.SIGKILL
