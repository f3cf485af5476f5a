"""The queues that a worker takes from, in turn: whose turn it is to be claimed from next."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Source:
    """One of the queues that a worker takes from.

    Attributes:
        name: Of the queue.
        weight: Its share of the claims while all queues have jobs, >= 1.
        current: Where the weighted round robin stands.
        is_drained: Whether the last claim found less than it asked for.
        wakes: How often Redis has said that something was enqueued.
        claim_id: Of the claim that is on its way, or whose reply was lost; else None.
        rung_for: The types of jobs that wait for this worker, as Redis has said since its last claim; '' for any.
    """

    def __init__(self, name: str, weight: int) -> None:
        self.name = name
        self.weight = weight
        self.current = 0
        self.is_drained = False
        self.wakes = 0
        self.claim_id: str | None = None
        self.rung_for: list[str] = []
        self._wakes_before = 0
        self._is_repeat = False

    def begin_claim(self) -> None:
        """Note that a claim leaves, before it is given an id; it answers all that was heard so far."""
        self._is_repeat = self.claim_id is not None
        self._wakes_before = self.wakes
        self.rung_for = []

    def end_claim(self, *, may_hold_more: bool) -> None:
        """Take in a reply.

        A wake-up that overtook it in this process must not be lost; and what is answered again describes an earlier moment.
        """
        self.claim_id = None
        self.is_drained = not (may_hold_more or self._is_repeat or self.wakes != self._wakes_before)


SourceT = TypeVar("SourceT", bound=Source)


def wake(sources: Sequence[Source], queue: str, rung_for: str | None = None) -> None:
    """Note that a queue may have jobs again; and for which type this worker alone was rung, where it was."""
    for source in sources:
        if source.name == queue:
            source.is_drained = False
            source.wakes += 1
            if rung_for is not None:
                source.rung_for.append(rung_for)


def take_rings(sources: Sequence[Source]) -> Iterator[tuple[str, list[str]]]:
    """Yield each queue whose rings were not answered by a claim, with the types of those rings, and forget these."""
    for source in sources:
        if source.rung_for:
            types, source.rung_for = source.rung_for, []
            yield source.name, types


def next_source(sources: Sequence[SourceT]) -> SourceT | None:
    """Pick by smooth weighted round robin among the queues that may have jobs. Source: nginx, upstream round robin."""
    ready = [source for source in sources if not source.is_drained]
    if len(ready) < 2:
        return ready[0] if ready else None
    for source in ready:
        source.current += source.weight
    picked = max(ready, key=lambda source: source.current)
    picked.current -= sum(source.weight for source in ready)
    return picked
