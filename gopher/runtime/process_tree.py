"""Ends a process with all that it has started, also what has left its process group.

Who starts a session of its own (`setsid`, a daemon's double fork) is out of reach of its former group's signals. It is found by its
parents, as long as there is one: the processes that Gopher starts take in the orphans among their descendants (`adopt_orphans`), so
that every one of these has a line of living parents up to them. Linux tells; elsewhere there is the group alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36  # <linux/prctl.h>
_MOST_PASSES: Final = 5
"""Chosen: how often to look again for what was started meanwhile; who forks faster than that is not waited for."""


def adopt_orphans() -> None:
    """Become the parent of those descendants whose own parent ends; where the system cannot, they go to its first process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Return the pids of all that a process has started and that runs, parents before their children; empty where nobody tells."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for each, parent in _parents():
        children[parent].append(each)
    found = list(children[pid])
    for each in found:
        found.extend(children[each])
    return found


def kill_descendants(pid: int) -> None:
    """End all that a process has started, at once; the process itself goes on, and takes in whoever is orphaned by that."""
    for _ in range(_MOST_PASSES):
        found = descendants(pid)
        if not found:
            return
        for each in found:
            _kill(each)


def kill_tree(pid: int) -> None:
    """End a process, its group if it leads one, and all that it has started, at once; whose child it is has still to wait for it."""
    # Stopped first, so that it starts nothing more and stays to take orphans in until its descendants are gone.
    _signal(pid, signal.SIGSTOP)
    kill_descendants(pid)
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
    _kill(pid)


def _kill(pid: int) -> None:
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it is gone, or has become another user's
        os.kill(pid, number)


def _parents() -> list[tuple[int, int]]:
    """Return each running process and its parent."""
    if sys.platform != "linux":
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                # The name, in brackets, may hold anything.
                state, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if state not in "ZX":
                    found.append((int(entry.name), int(parent)))
    return found
