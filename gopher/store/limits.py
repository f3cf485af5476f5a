"""The rules that hold a queue's jobs back: what operators set, and what handlers declare where operators set nothing.

The rules are one hash a queue, by type; `*` is the queue as a whole. `claim.lua` reads and keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gopher.limits import Limits, PriorityRatio, RateLimit
from gopher.store import keys
from gopher.store.scripts import Script
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Argument

WHOLE_QUEUE: Final = "*"
"""Stands for the queue as a whole where a type is named."""
_DECLARED: Final = "declared:"
_SLICE: Final = 500
"""Names of what holds jobs back, read at once; chosen: under per-key limits there are hundreds of thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """The limits of a type in a queue.

    Attributes:
        type: Of the jobs; `*` for the whole queue.
        set_limits: What an operator has set; it holds, whole, even if it limits nothing. None when none has.
        declared: What the handler declares; None when it declares nothing.
    """

    type: str
    set_limits: Limits | None
    declared: Limits | None

    @property
    def limits(self) -> Limits:
        """Those that hold."""
        return self.set_limits if self.set_limits is not None else self.declared or Limits()


class LimitRules:
    """Reads and writes the rules of queues."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._set_limits = Script.load("set_limits")
        self._set_ratio = Script.load("set_ratio")
        self._ask_again = Script.load("ask_again")

    async def rules(self, namespace: str, queue: str) -> list[LimitRule]:
        """Return the rules of a queue, by type.

        Raises:
            QueueNotFoundError: Nobody has used it.
        """
        await self._registry.require_queue(namespace, queue)
        texts = await self._link.call("HGETALL", keys.limits(namespace, queue))
        found = {name.decode(): read_limits(text.decode()) for name, text in texts.items()}
        types = sorted({name.removeprefix(_DECLARED) for name in found})
        return [LimitRule(type=t, set_limits=found.get(t), declared=found.get(_DECLARED + t)) for t in types]

    async def set_limits(self, namespace: str, queue: str, type: str, limits: Limits | None) -> None:  # noqa: A002 - its name
        """Set the limits of a type, or with `*` of the whole queue; a queue not yet used is created.

        Args:
            namespace: Of the queue.
            queue: Where they hold.
            type: Of the jobs.
            limits: Whole; what they leave out is not limited. None lets what the handler declares hold again.
        """
        await self._registry.name_queue(namespace, queue)
        await self._set(namespace, queue, [type, "" if limits is None else _text(limits)])

    async def declare(self, namespace: str, queue: str, declared: Mapping[str, Limits]) -> None:
        """Note what handlers declare; a type whose limits hold nothing back has no rule."""
        args: list[Argument] = []
        for job_type, limits in declared.items():
            args += (_DECLARED + job_type, _text(limits) if limits else "")
        await self._set(namespace, queue, args)

    async def set_ratio(self, namespace: str, queue: str, ratio: PriorityRatio) -> None:
        """Set how claims are shared among the priorities; a queue not yet used is created."""
        await self._registry.name_queue(namespace, queue)
        await self._set_ratio(self._link, [keys.settings(namespace, queue)], [ratio.cycle()])

    async def ask_again(self, namespace: str, queue: str, names: Sequence[str]) -> None:
        """Have claims ask what holds jobs back again, now.

        Args:
            namespace: Of the queue.
            queue: Where.
            names: As in `parked_by`; those that hold nothing back are passed over.
        """
        for start in range(0, len(names), BATCH):
            await self._ask_again(self._link, [keys.settings(namespace, queue)], names[start : start + BATCH])

    async def _set(self, namespace: str, queue: str, args: Sequence[Argument]) -> None:
        """Set rules, and have claims ask again for the types of those that have changed."""
        changed: set[str] = set()
        for start in range(0, len(args), 2 * BATCH):
            _, *names = await self._set_limits(self._link, [keys.settings(namespace, queue)], args[start : start + 2 * BATCH])
            changed.update(name.decode().removeprefix(_DECLARED) for name in names)
        cursor: Argument = 0
        while changed:
            cursor, flat = await self._link.call("ZSCAN", keys.parked(namespace, queue), cursor, "COUNT", _SLICE)
            held_back = [name.decode() for name in flat[::2]]
            await self.ask_again(namespace, queue, [name for name in held_back if name.split(":")[1] in changed])
            if int(cursor) == 0:
                return


def _text(limits: Limits) -> str:
    numbers: list[int] = []
    for rate in (limits.rate, limits.rate_per_key):
        numbers += (0, 0, 0) if rate is None else (rate.count, rate.period_ms, rate.burst)
    numbers += (limits.concurrency or 0, limits.concurrency_per_key or 0)
    return " ".join(map(str, numbers))


def read_limits(text: str) -> Limits:
    """Return the limits that a rule is."""
    count, period_ms, burst, key_count, key_period_ms, key_burst, concurrency, key_concurrency = map(int, text.split())
    return Limits(
        rate=RateLimit(count, period_ms, burst) if count else None,
        rate_per_key=RateLimit(key_count, key_period_ms, key_burst) if key_count else None,
        concurrency=concurrency or None,
        concurrency_per_key=key_concurrency or None,
    )
