"""Job ids: UUIDv7 whose last 16 bits carry the queue's number, so that an id alone finds its queue.

Layout (RFC 9562, section 5.7): 48 bits ms since the epoch | 4 version | 12 counter, high | 2 variant | 14 counter, low |
32 random | 16 queue number. The counter makes the ids of one process sort in the order in which they were made; it starts each
ms at a random value of 25 bits, which leaves room for 33 million ids a ms.
"""

from __future__ import annotations

import random
import re
import time

from gopher.errors import invalid

_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_random = random.SystemRandom()


class IdSource:
    """Makes job ids, each greater than the one before."""

    def __init__(self) -> None:
        self._ms = 0
        self._counter = 0
        self._head = ""
        self._tail = ""

    def new(self, queue_number: int) -> str:
        """Return an id for a queue.

        Args:
            queue_number: 0 to 65,535.
        """
        now = time.time_ns() // 1_000_000
        if now > self._ms:
            self._begin(now)
        else:
            # The clock of this ms has been used up, or was set back: go on as if it were later. Source: RFC 9562, section 6.2.
            self._counter += 1
            if self._counter >> 26:
                self._begin(self._ms + 1)
        counter = self._counter
        return f"{self._head}{0x7000 | counter >> 14:04x}-{0x8000 | counter & 0x3FFF:04x}-{self._tail}{queue_number:04x}"

    def _begin(self, ms: int) -> None:
        """Draw anew what tells the ids of this ms from those of other processes: 57 bits; the counter tells them from each other."""
        self._ms = ms
        self._counter = _random.getrandbits(25)
        self._head = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-"
        self._tail = f"{_random.getrandbits(32):08x}"


def number_text(queue_number: int) -> str:
    """Return the number of a queue as its ids end in it."""
    return f"{queue_number:04x}"


def is_job_id(text: str) -> bool:
    """Tell whether a text has the shape of a job id."""
    return _SHAPE.fullmatch(text) is not None


def queue_number(job_id: str) -> int:
    """Return the number of the queue that a job id carries.

    Raises:
        InvalidRequestError: BAD_ID, the text is no job id.
    """
    if not is_job_id(job_id):
        raise invalid("job_id", "BAD_ID", f"{job_id[:64]!r} is no job id: it must be a UUIDv7 in lower case")
    return int(job_id[-4:], 16)
