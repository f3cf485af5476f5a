"""What a worker tells the watchers of a job about its attempt, beside what the handler says itself."""

from __future__ import annotations

from typing import Final, NamedTuple

CLEANUP_CUT: Final = "CLEANUP_CUT"
"""Cleanup has outlasted the grace and was ended."""
STUCK: Final = "STUCK"
"""The handler was to end, has outlasted the grace, and goes on."""
THREAD_AWAITED: Final = "THREAD_AWAITED"
"""The grace is over, and the attempt waits for its thread."""
THREAD_ABANDONED: Final = "THREAD_ABANDONED"
"""The grace is over, and the attempt ends without its thread, which goes on."""


class Notice(NamedTuple):
    """One of the above.

    Attributes:
        reason: For machines.
        message: For people.
    """

    reason: str
    message: str
