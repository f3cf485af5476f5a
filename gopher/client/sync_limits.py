"""The methods of the client for programs that block about limits, priority ratios and breakers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from gopher.client import dialogues
from gopher.client import limits as rpcs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.client import values
    from gopher.limits import Limits, PriorityRatio

T = TypeVar("T")


class LimitMethods(ABC):
    """What the client for programs that block can do about what holds jobs back."""

    namespace: str

    @abstractmethod
    def _run(self, dialogue: dialogues.Dialogue[T]) -> T: ...

    def set_limits(self, job_type: str, limits: Limits | None, *, queue: str | None = None) -> values.LimitRule:
        """Set the limits of a type in a queue, whole; with None those that its handler declares hold again."""
        return self._run(dialogues.ask(rpcs.set_limits(self.namespace, queue, job_type, limits)))

    def limits(self, *, queue: str | None = None) -> values.QueueLimits:
        """Return what is limited in a queue."""
        return self._run(dialogues.ask(rpcs.limits(self.namespace, queue)))

    def update_queue(
        self, queue: str, *, priority_ratio: PriorityRatio | None = None, limits: Limits | None = None
    ) -> values.Queue:
        """Set how a queue's claims are shared among the priorities, or its limits as a whole, or both; None: as it is.

        Args:
            queue: Which; one not yet used is created.
            priority_ratio: Of high + normal + low claims.
            limits: Whole; `Limits()` for none. A whole queue has no limits per key.
        """
        return self._run(dialogues.ask(rpcs.update_queue(self.namespace, queue, priority_ratio, limits)))

    def breakers(self) -> Sequence[values.Breaker]:
        """Return the breakers that handlers have declared, by name."""
        return self._run(dialogues.ask(rpcs.breakers(self.namespace)))

    def update_breaker(self, name: str, control: str) -> values.Breaker:
        """Hold a breaker `open` or `closed` whatever attempts say, or let them decide again: `automatic`."""
        return self._run(dialogues.ask(rpcs.update_breaker(self.namespace, name, control)))
