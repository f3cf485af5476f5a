"""The queues that a worker takes from, in turn: whose turn it is to be claimed from next."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


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


SourceT = TypeVar("SourceT", bound=Source)


def wake(sources: Sequence[Source], queue: str, rung_for: str | None = None) -> None:
    """Note that a queue may have jobs again; and for which type this worker alone was rung, where it was."""
    for source in sources:
        if source.name == queue:
            source.is_drained = False
            source.wakes += 1
            if rung_for is not None:
                source.rung_for.append(rung_for)


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
