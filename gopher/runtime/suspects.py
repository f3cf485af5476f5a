"""Keeps apart the jobs that may be what kills their workers: those whose next crash would be their last.

When a handler ends its process, every job leased to it has crashed. Those that were claimed together come back together, and would
be lost together again until all are buried for the fault of one. So a job that has only one crash left runs when this worker holds
no other such job, not even one whose outcome is still to be written. Of several the first waits for that, and the others are put
off, unspent.

Its handler begins once Redis has noted that it does: a last crash is charged only to one that may have begun.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import trio

from gopher.job import Move, Outcome
from gopher.store.lifecycle import Settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gopher.runtime.runner import Taken
    from gopher.runtime.scopes import RunningAttempt, Scopes
    from gopher.runtime.slots import Slots

_PUT_OFF_MS: Final = (500, 5_000)
"""Chosen: soon enough when there are few, and spread, so that they come back one by one, when there are many."""


class Suspects:
    """The suspects that a worker holds.

    Attributes:
        held: Those taken in and not yet known to have gone; the first is the one that runs, or waits to.
    """

    def __init__(self, scopes: Scopes, announce: Callable[[RunningAttempt], Awaitable[None]]) -> None:
        self.held: list[RunningAttempt] = []
        self._announce = announce
        self._scopes = scopes

    def take(self, taken: Sequence[Taken], slots: Slots) -> None:
        """Take in the suspects of one claim, at least one, which `Scopes` holds already."""
        self._forget()
        others = taken
        if not self.held:
            (first, outcomes), *others = taken
            first.may_begin = trio.Event()
            first.announce = self._announce
            slots.put_nowait(first, outcomes)
        self.held += [attempt for attempt, _ in taken]
        for attempt, outcomes in others:
            attempt.end()
            delay_ms = random.randint(*_PUT_OFF_MS)
            job = attempt.job
            outcomes.put_nowait(attempt, Settlement(job.id, job.token, Move.SNOOZE, Outcome.CANCELLED, delay_ms))
        self.review()

    def review(self) -> None:
        """Let the first begin if it is the only one now."""
        self._forget()
        if len(self.held) == 1 and self.held[0].may_begin is not None:
            self.held[0].may_begin.set()

    def _forget(self) -> None:
        # One that rests runs no code, and may wait for a child that is a suspect too.
        self.held = [attempt for attempt in self.held if self._scopes.holds(attempt) and not attempt.rests]
