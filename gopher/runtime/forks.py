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
            os.register_at_fork(after_in_child=_note_fork)
        self._pid = _State.pid

    def check(self) -> None:
        """End this process at once if it is a forked one; call it where a handler has given control back."""
        if _State.pid != self._pid:
            _end()


class _EndOfStep(trio.abc.Instrument):
    """Added in the child alone, so that the worker pays nothing for it."""

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        _end()


def _note_fork() -> None:
    _State.pid = os.getpid()
    if trio.lowlevel.in_trio_run():
        trio.lowlevel.add_instrument(_EndOfStep())


def _end() -> NoReturn:
    # Not through the log: one of the worker's threads may have held its lock when the child was forked.
    os.write(_STANDARD_ERROR, _MESSAGE)
    os._exit(_EXIT_STATUS)
