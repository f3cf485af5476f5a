"""Bulkheads: how many attempts of a type this worker runs at once, so that one type cannot take every slot.

Pure bookkeeping of one worker: a claim is told how much room is left, and parks what does not fit for whoever has room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher.store.lifecycle import Bound

if TYPE_CHECKING:
    from gopher.handlers import Registry


class Bulkheads:
    """The bulkheads of a worker, by type.

    Args:
        registry: Whose handlers declare them.
    """

    def __init__(self, registry: Registry) -> None:
        self._room = {spec.type: spec.bulkhead for spec in registry.specs if spec.bulkhead is not None}

    def __contains__(self, job_type: str) -> bool:
        """Tell whether a type has a bulkhead."""
        return job_type in self._room

    def bounds(self) -> list[Bound]:
        """Return how many more jobs of each type fit; those that do not are offered to other workers at once."""
        return [Bound(job_type, f"bulkhead:{job_type}", max(0, room), 0) for job_type, room in self._room.items()]

    def take(self, job_type: str) -> None:
        """Note that an attempt has come in."""
        self._room[job_type] -= 1

    def give_back(self, job_type: str) -> None:
        """Note that its handler has ended."""
        self._room[job_type] += 1
