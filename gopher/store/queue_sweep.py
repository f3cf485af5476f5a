"""Queues that no worker looks after, and those that hold nothing any more: found namespace by namespace, some queues a call.

A queue is freed in two steps, of which the first decides: once its settings are gone, a job that is submitted names the queue again. Its
number is kept for its name for a week. Until then ids of its jobs are found to be of this queue, and the name gets the number back; so a
number stands for one name at a time, and is given to another name only when nothing is left of the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gopher.store import keys
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Argument

_SLICE: Final = 200
"""Fields read at once, two a queue; chosen."""
OVERDUE_MS: Final = 15_000
"""Chosen: twice as long as a worker of the queue takes at the most."""
IDLE_MS: Final = 24 * 3600 * 1000
"""How long a queue holds nothing before it is freed; chosen: what a nightly job makes use of stays."""
KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""How long the number of a freed queue is kept for its name; chosen: long after any process remembers the number."""


class SweepStep(NamedTuple):
    """Some queues of a namespace.

    Attributes:
        cursor: Where the walk goes on; 0 when it is over.
        queues: Their names.
        freed: Numbers that are kept for queues which were freed.
    """

    cursor: int
    queues: list[str]
    freed: list[int]


class Inspection(NamedTuple):
    """What a queue is found to be.

    Attributes:
        is_overdue: Whether something should have been done long ago.
        holds_anything: Whether there are jobs, schedules or what operators have set.
    """

    is_overdue: bool
    holds_anything: bool


class QueueSweep:
    """Looks at queues, and frees them."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._inspect = Script.load("inspect_queue")
        self._release = Script.load("release_queue")
        self._free_numbers = Script.load("free_numbers")

    async def namespaces(self) -> list[str]:
        """Return the namespaces in which queues were ever named; some may have none any more."""
        found: set[str] = set()
        cursor: Argument = 0
        while True:
            cursor, names = await self._link.call("SSCAN", keys.namespaces(), cursor, "COUNT", _SLICE)
            found.update(name.decode() for name in names)
            if int(cursor) == 0:
                return sorted(found)

    async def step(self, namespace: str, cursor: int) -> SweepStep:
        """Return some queues of a namespace; cursor 0 begins the walk."""
        following, flat = await self._link.call("HSCAN", keys.queues(namespace), cursor, "COUNT", _SLICE)
        fields = [field.decode() for field in flat[::2]]
        queues = [field for field in fields if field[0] not in "#~"]
        return SweepStep(int(following), queues, [int(field[1:]) for field in fields if field[0] == "~"])

    async def inspect(self, namespace: str, queue: str) -> Inspection:
        """Look at a queue."""
        _, is_overdue, holds = await self._inspect(self._link, [keys.settings(namespace, queue)], [OVERDUE_MS])
        return Inspection(bool(is_overdue), bool(holds))

    async def free(self, namespace: str, queue: str, *, idle_ms: int = IDLE_MS) -> bool:
        """Free a queue that has held nothing for a while; no worker may serve it.

        Returns:
            Whether it was freed.

        Cancellation:
            It may be released and still named; another call goes on.
        """
        number = await self._link.call("HGET", keys.queues(namespace), queue)
        (word,) = await self._release(self._link, [keys.settings(namespace, queue)], [idle_ms])
        if word != b"RELEASED" or number is None:
            return False
        await self._free_numbers(self._link, [keys.queues(namespace)], [KEPT_MS, queue])
        await self.settle_freed(namespace, int(number))
        return True

    async def settle_freed(self, namespace: str, number: int, *, kept_ms: int = KEPT_MS) -> None:
        """Give a freed queue its name back if a job has come meanwhile; else free its number for others once it was kept long enough."""
        name = await self._link.call("HGET", keys.queues(namespace), f"#{number}")
        queue = "" if name is None else name.decode()
        if name is not None and await self._link.call("HEXISTS", keys.settings(namespace, queue), "number"):
            await self._registry.name_queue(namespace, queue, number=number)
        else:
            await self._free_numbers(self._link, [keys.queues(namespace)], [kept_ms, f"~{number}"])

    async def forget_namespace(self, namespace: str) -> None:
        """Forget a namespace that has no queues and no types."""
        commands = [("HLEN", keys.queues(namespace)), ("SCARD", keys.types(namespace))]
        if not any(await self._link.call_all(commands)):
            await self._link.call("SREM", keys.namespaces(), namespace)
            # One may have been named since.
            if await self._link.call("HLEN", keys.queues(namespace)):
                await self._registry.add_namespace(namespace)
