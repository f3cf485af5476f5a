"""The sign of life that a worker process gives to its parent: a byte a second through a pipe, from a thread of its own.

From a thread, so that a handler that blocks the loop is no silence: its worker keeps its leases, and the loop's watchdog names it. A
process that is stopped, or whose interpreter is held by C code, is silent; it keeps no lease either.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLE: Final = "GOPHER_HEARTBEAT_FD"
"""Tells a worker process where to write."""
_BEAT_SECONDS: Final = 1.0
_SHORTEST_SILENCE_SECONDS: Final = 5.0
"""Chosen: far more than a busy machine keeps a thread waiting, however short the lease."""


def start_beating(environ: MutableMapping[str, str]) -> None:
    """Beat until the process ends, if it has a parent that listens; the programs that it starts do not see of it."""
    fd = environ.pop(VARIABLE, None)
    if fd is not None:
        os.set_inheritable(int(fd), False)
        threading.Thread(target=_beat, args=(int(fd),), name="gopher-heartbeat", daemon=True).start()


def _beat(fd: int) -> None:
    never = threading.Event()
    try:
        while True:
            os.write(fd, b".")
            never.wait(_BEAT_SECONDS)
    except OSError:  # the parent has gone, and takes this process along
        return


async def wait_silent(beats: trio.lowlevel.FdStream, lease_seconds: float) -> float:
    """Wait until a process that has begun to beat is silent for a lease, and return for how many seconds it was.

    Without a heartbeat for that long its leases have ended, and its jobs run elsewhere. Silence is counted in waits of this process's
    own, so that one that was stopped itself, with its whole machine perhaps, gives the other a chance to beat again.
    """
    await beats.receive_some()
    most = round(max(lease_seconds, _SHORTEST_SILENCE_SECONDS) / _BEAT_SECONDS)
    missed = 0
    while missed < most:
        with trio.move_on_after(_BEAT_SECONDS) as wait:
            if not await beats.receive_some():
                await trio.sleep_forever()  # the process has ended, which is seen otherwise
        missed = missed + 1 if wait.cancelled_caught else 0
    return missed * _BEAT_SECONDS
