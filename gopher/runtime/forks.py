"""Ends a child process that a handler has forked and that comes back into the worker.

A forked child has the worker's whole memory and its open connections. If the child returned from the handler, or let the Trio loop go
on, two processes would read from one socket and run the same attempts. A child that only does its work and exits, as one of
`multiprocessing` does, is left alone.
"""

from __future__ import annotations

import os
from typing import Final, NoReturn

import trio

_EXIT_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h
_MESSAGE: Final = b"gopher: a handler has forked, and the child came back into the worker: the child was ended\n"
_STANDARD_ERROR: Final = 2


class _State:
    """One a process, as forks are."""

    pid = os.getpid()
    is_registered = False


class ForkGuard:
    """Tells the process that made it from those that are forked from it."""

    def __init__(self) -> None:
        if not _State.is_registered:
            _State.is_registered = True
            os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
        self._pid = _State.pid

    def check(self) -> None:
        """End this process at once if it is a forked one; call it where a handler has given control back."""
        if _State.pid != self._pid:
            _end()


class _EndOfStep(trio.abc.Instrument):
    """Ends a forked child at its first step that awaits something."""

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        _end()


_END_OF_STEP: Final = _EndOfStep()
"""Added before a fork and removed in the parent, so that only a child ever has it, and the worker pays for it only when it forks."""


def _before_fork() -> None:
    # Not in the child: by then a hook of trio-asyncio may have taken away what tells that Trio runs.
    if trio.lowlevel.in_trio_run():
        trio.lowlevel.add_instrument(_END_OF_STEP)


def _after_fork_in_parent() -> None:
    if trio.lowlevel.in_trio_run():
        trio.lowlevel.remove_instrument(_END_OF_STEP)


def _after_fork_in_child() -> None:
    _State.pid = os.getpid()


def _end() -> NoReturn:
    # Not through the log: one of the worker's threads may have held its lock when the child was forked.
    os.write(_STANDARD_ERROR, _MESSAGE)
    os._exit(_EXIT_STATUS)
