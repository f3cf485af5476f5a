"""SIGTERM and SIGINT: the first drains, the second aborts."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


async def watch_signals(
    *, drain: Callable[[], None], abort: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `drain` on the first signal and `abort` on each further one, until cancelled."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        asked = False
        async for _ in signals:
            if asked:
                abort()
            else:
                drain()
            asked = True
