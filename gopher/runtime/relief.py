"""Gives back, from the keeper's thread, what a worker whose loop is blocked has claimed and not begun, so that others run it.

That is what waits for a slot or for leave to begin, and what a claim took whose reply lies unread. Each job is given back under its
lease token, and its attempt is marked first, so that it does not begin here once the loop goes on: whoever comes second, this
thread or the Trio thread, finds what the first has done.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import structlog

from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.runtime.scopes import RunningAttempt, Scopes
    from gopher.store.leases import Leases

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Relief:
    """Relieves one worker.

    Args:
        leases: The keeper's way to Redis.
        scopes: What the worker has claimed.
        worker: Its id.
        under_way: Returns queue and id of the claim that is on its way, if any.
    """

    def __init__(self, leases: Leases, scopes: Scopes, *, worker: str, under_way: Callable[[], tuple[str, str] | None]) -> None:
        self._leases = leases
        self._scopes = scopes
        self._worker = worker
        self._under_way = under_way
        self._relieved_claim: str | None = None
        self._owed: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)

    def tick(self, end: Callable[[RunningAttempt], None]) -> None:
        """Give back what there is; blocks.

        Args:
            end: Has the Trio thread end an attempt that does not begin.

        Raises:
            StoreError: Redis failed. What it may not have heard of is given back by the next call, or by the Trio thread.
        """
        claim = self._under_way()
        if claim is not None and claim[1] != self._relieved_claim:
            queue, claim_id = claim
            taken = self._leases.claimed(queue, self._worker, claim_id)
            self._owed[queue] += [lease for lease in taken if self._scopes.give_back_unseen(*lease)]
            self._relieved_claim = claim_id if taken else None
        for attempt in self._scopes.snapshot():
            if not attempt.is_given_back and attempt.give_back():
                self._owed[attempt.queue].append((attempt.job.id, attempt.job.token))
                end(attempt)
        for queue, owed in self._owed.items():
            while owed:
                batch = owed[:BATCH]
                self._leases.release(queue, batch)
                _log.warning("loop.relieved", worker=self._worker, queue=queue, jobs=len(batch))
                del owed[: len(batch)]
