"""The indexes of a queue that jobs in some states stand in, one after another.

Those of the states come first. The lines of what holds jobs back follow, of which there may be hundreds of thousands under per-key limits:
their names are read in slices, by Redis's own cursor (ZSCAN), and lines that are empty are left out. A name that is there all the while
is met; one may be met twice while names come and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gopher.job import JobState, Priority
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from gopher.store.link import Link
    from gopher.store.resp import Argument

_SLICE: Final = 100
"""Names read at once, about; chosen: three lines each make some 300 commands in one write."""
STATES: Final = {key.removeprefix(keys.queue("", "")): state for state, _, key in keys.indexes("", "")}
"""Name of each index -> state of the jobs in it, in the order in which they are walked."""


class IndexPlace(NamedTuple):
    """An index, and where a walk stands with it.

    Attributes:
        name: Of the index.
        slice: Of a line of held-back jobs: the cursor that its slice of names was read with; else empty.
    """

    name: str
    slice: str = ""


class IndexWalk:
    """Walks the indexes of a queue; it may be gone on with from any place, also one of another walk.

    Args:
        link: The way to Redis.
        namespace: Of the queue.
        queue: Whose indexes.
        states: Of the jobs; None for all.
    """

    def __init__(self, link: Link, namespace: str, queue: str, states: Collection[JobState] | None) -> None:
        self._link = link
        self._namespace = namespace
        self._queue = queue
        self._names = fixed_names(states)
        self._has_parked = states is None or JobState.ENQUEUED in states
        self._slice = ""
        self._next_slice = ""
        self._lines: list[str] = []

    async def following(self, place: IndexPlace | None) -> IndexPlace | None:
        """Return the index after a place, the first for None; None after the last."""
        name, where = place or IndexPlace("")
        if not where:
            behind = self._names[self._names.index(name) + 1 :] if name in self._names else self._names
            if behind:
                return IndexPlace(behind[0])
            name, where = "", "0"
        while self._has_parked:
            await self._read(where)
            line = next((line for line in self._lines if line > name), None)
            if line is not None:
                return IndexPlace(line, where)
            if self._next_slice == "0":
                break
            name, where = "", self._next_slice
        return None

    async def _read(self, where: str) -> None:
        if self._slice == where:
            return
        cursor, flat = await self._link.call("ZSCAN", keys.parked(self._namespace, self._queue), where, "COUNT", _SLICE)
        lines = sorted({keys.parked_line(by.decode(), priority) for by in flat[::2] for priority in Priority})
        prefix = keys.queue(self._namespace, self._queue)
        commands: list[tuple[Argument, ...]] = [("EXISTS", prefix + line) for line in lines]
        found = await self._link.call_all(commands)
        self._lines = [line for line, exists in zip(lines, found, strict=True) if exists]
        self._slice, self._next_slice = where, cursor.decode()


def fixed_names(states: Collection[JobState] | None) -> list[str]:
    """Return the names of the indexes of states, None for all, without the lines of what holds jobs back."""
    return [name for name, state in STATES.items() if states is None or state in states]


def state_of(index_name: str) -> JobState:
    """Return the state of the jobs of an index; that of the parked lines, of which there are any number, is enqueued."""
    return STATES.get(index_name, JobState.ENQUEUED)
