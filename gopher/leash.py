"""A child process that ends with its parent, however the parent ends.

`leashed(command)` puts this very file in front of a command. It then runs first, in the child, as a script that imports nothing
of Gopher's:

On Linux it asks the kernel for a SIGKILL at its parent's death (PR_SET_PDEATHSIG) and becomes the command by exec, so that pid,
streams and exit status are the command's own. Two traps lie here. The kernel watches the *thread* that spawned the child, so spawn
with `subprocess.Popen` in a thread that lives as long as the child is wanted: not through `trio.lowlevel.open_process`, whose
worker thread retires when it has been idle for ten seconds. And a parent that died before the request was made sends nothing:
hence the look at getppid after it.

Elsewhere it stays in between: it starts the command and reads its standard input, a pipe whose other end only the parent holds.
When that ends, so does the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Final, NoReturn

PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
CANNOT_EXECUTE: Final = 126  # the shell's exit status for a command that was found and did not start


def leashed(command: list[str], *, by_pipe: bool = sys.platform != "linux") -> list[str]:
    """Return the command line that runs `command` on a leash held by the calling process.

    Spawn it with `stdin=subprocess.PIPE`, never write to that pipe, and close it when the child has ended.

    Args:
        command: Program (an absolute path) and arguments.
        by_pipe: Watch a pipe instead of asking the kernel; the only way outside Linux.
    """
    way = "pipe" if by_pipe else "kernel"
    return [sys.executable, "-I", "-S", __file__, way, str(os.getpid()), *command]


def _become(parent: int, command: list[str]) -> NoReturn:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(f"cannot bind {command[0]} to its parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit(f"the parent of {command[0]} is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted, and the command is our caller's


def _hold(command: list[str]) -> int:
    asked_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: asked_to_end.set())
    # With what the caller has let it inherit, as after an exec.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)  # noqa: S603 - the command is our caller's
    signal.signal(signal.SIGTERM, lambda _number, _frame: child.terminate())
    if asked_to_end.is_set():
        child.terminate()
    threading.Thread(target=_kill_at_end_of_input, args=(child,), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _kill_at_end_of_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    child.kill()


def _main(way: str, parent: str, *command: str) -> None:
    try:
        if way == "pipe":
            sys.exit(_hold(list(command)))
        _become(int(parent), list(command))
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    _main(*sys.argv[1:])
