"""What the workers have measured: kept in Redis a queue, merged as it is written, read as histograms and counts.

A queue has a hash of figures for good, and one a minute that goes after a few; both have the same fields, which `redis-cli HGETALL`
shows as they are:

- `attempts:TYPE:OUTCOME` attempts that ended so
- `duration:TYPE:BUCKET`, `duration_us:TYPE` run times of attempts, and their sum
- `wait:PRIORITY:BUCKET`, `wait_ms:PRIORITY` how long jobs stood in line before they were claimed, and the sum of that
- `leases_lost` attempts whose lease ended with no outcome

A bucket is named as in `gopher.telemetry.histogram`. Types are those that some worker has a handler for, so there is an end to them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gopher.errors import StoreError
from gopher.job import Outcome, Priority
from gopher.store import keys
from gopher.store.scripts import Script
from gopher.telemetry.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gopher.store.link import Link
    from gopher.store.resp import Argument

MOST_FIELDS: Final = 500
"""Of one call of the script; chosen: some 2 ms of Redis."""
RECENT_MINUTES: Final = 5
"""How far the recent figures look back, besides the minute that is not over; chosen: a deploy or an incident shows, noise does not."""
_KEPT_SECONDS: Final = 900
"""Of the minutes' figures and of the numbers of calls. Chosen: twice what the recent figures look back, and longer than a reply is
usually missed; a worker that repeats a call later than that may count two seconds twice."""
_MINUTE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Measured:
    """What was measured in a stretch of time.

    Attributes:
        attempts: By type and outcome, how many ended.
        durations: By type, how long attempts ran.
        waits: By priority, how long jobs stood in line.
        leases_lost: Attempts whose lease ended with no outcome.
    """

    attempts: dict[tuple[str, Outcome], int] = field(default_factory=lambda: defaultdict(int))
    durations: dict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    waits: dict[Priority, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    leases_lost: int = 0

    def add(self, fields: Mapping[bytes, bytes]) -> None:
        """Take in what one of the hashes holds; a field that is not known is left out: another version's."""
        for name, value in fields.items():
            match name.decode().split(":"):
                case ["attempts", job_type, outcome] if outcome in set(Outcome):
                    self.attempts[job_type, Outcome(outcome)] += int(value)
                case ["duration", job_type, bucket]:
                    self.durations[job_type].add(bucket, int(value))
                case ["duration_us", job_type]:
                    self.durations[job_type].sum_seconds += int(value) / 1e6
                case ["wait", priority, bucket] if priority in set(Priority):
                    self.waits[Priority(priority)].add(bucket, int(value))
                case ["wait_ms", priority] if priority in set(Priority):
                    self.waits[Priority(priority)].sum_seconds += int(value) / 1e3
                case ["leases_lost"]:
                    self.leases_lost += int(value)
                case _:
                    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """The figures of a queue.

    Attributes:
        queue: Its name.
        total: Since the first job.
        recent: Of the last few minutes.
        per_second: By type and outcome, attempts that ended a second over the last minute.
    """

    queue: str
    total: Measured
    recent: Measured
    per_second: dict[tuple[str, Outcome], float]


class Figures:
    """Adds to the figures, and reads them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._count = Script.load("count")

    async def count(self, namespace: str, queue: str, *, worker: str, number: int, fields: Mapping[str, int]) -> None:
        """Add what a worker has measured.

        Args:
            namespace: Of the queue.
            queue: Where it was measured.
            worker: Id of the worker.
            number: Of this call; the same again adds nothing.
            fields: How much to add to each field, at most 500.

        Raises:
            StoreError: Redis failed; it may have been added: call again with the same number and fields.
        """
        flat: list[Argument] = [part for pair in fields.items() for part in pair]
        await self._count(self._link, [keys.settings(namespace, queue)], [worker, number, _KEPT_SECONDS, *flat])

    async def read(self, namespace: str, queues: Sequence[str]) -> list[QueueFigures]:
        """Return the figures of queues, in their order.

        Raises:
            StoreError: Redis failed.
        """
        seconds, _ = await self._link.call("TIME")
        minute, elapsed_seconds = divmod(int(seconds), int(_MINUTE_SECONDS))
        minutes = range(minute - RECENT_MINUTES, minute + 1)
        commands: list[tuple[Argument, ...]] = []
        for queue in queues:
            commands.append(("HGETALL", keys.figures(namespace, queue)))
            commands += [("HGETALL", keys.figures_of_minute(namespace, queue, each)) for each in minutes]
        replies = await self._link.call_many(commands)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        width = 1 + len(minutes)
        return [
            _figures(queue, replies[place * width : (place + 1) * width], elapsed_seconds) for place, queue in enumerate(queues)
        ]


def _figures(queue: str, hashes: Sequence[Mapping[bytes, bytes]], elapsed_seconds: int) -> QueueFigures:
    """Return the figures that the hashes hold: the one for good, then the minutes in order; the last is not over yet."""
    total, recent, before, now = Measured(), Measured(), Measured(), Measured()
    total.add(hashes[0])
    for each in hashes[1:]:
        recent.add(each)
    before.add(hashes[-2])
    now.add(hashes[-1])
    # Of the minute before, as much as the last sixty seconds reach into it.
    share = 1 - elapsed_seconds / _MINUTE_SECONDS
    per_second = {
        kind: (now.attempts.get(kind, 0) + before.attempts.get(kind, 0) * share) / _MINUTE_SECONDS for kind in total.attempts
    }
    return QueueFigures(queue=queue, total=total, recent=recent, per_second=per_second)
