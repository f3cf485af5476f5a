"""Writes the outcomes of attempts, many in one call.

Group commit: a flush takes all that has come meanwhile and leaves as soon as the one before has returned, so that an idle worker
waits for nothing and a busy one needs one call for many jobs. What cannot be written is tried again, under the same lease tokens,
for as long as the worker lives: writing twice changes nothing. An outcome that Redis cannot write, as that of a job whose record is
damaged, is given up alone, and its job left to the reaper.
"""

from __future__ import annotations

import random
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from gopher.errors import ScriptReplyError, StoreError
from gopher.job import JobState
from gopher.retry import RetryPolicy
from gopher.runtime.meter import QueueMeter
from gopher.store import settlements
from gopher.store.outbox import parted
from gopher.store.submission import BATCH, BATCH_BYTES
from gopher.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.runtime.relay import Relay
    from gopher.runtime.scopes import RunningAttempt, Scopes
    from gopher.store.lifecycle import Lifecycle, Settlement

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Chosen: outcomes are written within 2 s of Redis being back."""
_GIVEN_UP: Final = "GIVEN_UP"
_REFUSED: Final = frozenset({"STALE_LEASE", "NOT_FOUND"})


class Outcomes(Protocol):
    """Takes the outcomes of attempts; `Settler` does, and what stands before it."""

    def put_nowait(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        """Take the outcome of an attempt whose handler has ended."""


class Settler:
    """Writes the outcomes of one queue's attempts.

    No bound of its own: the claimer claims no more while as many outcomes wait as there are slots.

    Args:
        lifecycle: Where to.
        scopes: Lets go of the attempts whose outcome is written.
        namespace: Of the queue.
        queue: Whose attempts.
        relay: Takes the children that are not of this queue, once their parents have completed.
        on_change: Called when an attempt has ended, and when outcomes are written: there may be room for a claim.
        meter: Counts the attempts.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        scopes: Scopes,
        *,
        namespace: str,
        queue: str,
        relay: Relay,
        on_change: Callable[[], None],
        meter: QueueMeter | None = None,
    ) -> None:
        self._meter = QueueMeter() if meter is None else meter
        self._lifecycle = lifecycle
        self._scopes = scopes
        self._namespace = namespace
        self._queue = queue
        self._relay = relay
        self._on_change = on_change
        self._waiting: deque[tuple[RunningAttempt, Settlement]] = deque()
        self._has_work = trio.Event()
        self._cut_off: list[Settlement] = []

    def __len__(self) -> int:
        """Outcomes that are not written yet."""
        return len(self._waiting)

    def put_nowait(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        """Have an outcome written soon, behind all that the attempt has said."""
        speech = attempt.speech
        if speech is not None and speech.unwritten:
            speech.when_written = partial(self.put_nowait, attempt, settlement)
            return
        self._waiting.append((attempt, settlement))
        if len(self._waiting) == 1:
            self._has_work.set()
        self._on_change()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write outcomes until cancelled."""
        task_status.started()
        while True:
            await self._has_work.wait()
            self._has_work = trio.Event()
            while self._waiting:
                await self.tick()

    async def tick(self) -> None:
        """Write what waits, at most 100 outcomes; fewer where attempts have submitted jobs.

        Cancellation:
            The outcomes may have been written; they stay in the line.
        """
        batch = list(islice(self._waiting, BATCH))
        if any(settlement.children for _, settlement in batch):
            batch = batch[: _room([settlement for _, settlement in batch])]
        words = await self._write([settlement for _, settlement in batch])
        if JobState.FAILED in words or log.is_debug():
            self._report(batch, words)
        self._meter.count_attempts(batch, words)
        for (attempt, settlement), word in zip(batch, words, strict=True):
            self._waiting.popleft()
            self._scopes.remove(attempt)
            if word in _REFUSED and attempt.is_given_back:
                pass  # it has never begun, and may run elsewhere by now
            elif word in _REFUSED:
                if attempt.is_cut_off:
                    self._cut_off.append(settlements.outlived(attempt.job))
                _log.warning("lease.lost", job_id=settlement.job_id, token=settlement.token, answer=word)
            elif settlement.children and word != _GIVEN_UP:
                # Also when it was ALREADY written, by a call whose reply was lost.
                self._relay.put_nowait(parted(settlement.children, self._queue)[1])
        self._on_change()
        if self._cut_off:
            await self._write(self._cut_off[:BATCH])
            del self._cut_off[:BATCH]

    def _report(self, batch: list[tuple[RunningAttempt, Settlement]], words: list[str]) -> None:
        for (attempt, settlement), word in zip(batch, words, strict=True):
            job = attempt.job
            if word == JobState.FAILED:
                settlements.log_dead_letter(settlement, self._queue, job.type)
            elif word == JobState.COMPLETED:
                _log.debug("attempt.succeeded", job_id=job.id, type=job.type, queue=self._queue, attempt=job.attempt)

    async def _write(self, settlements: list[Settlement]) -> list[str]:
        failures = 0
        while True:
            try:
                return await self._lifecycle.settle(self._namespace, self._queue, settlements)
            except ScriptReplyError as error:
                if len(settlements) == 1:
                    _log.error("settle.refused", job_id=settlements[0].job_id, queue=self._queue, error=str(error))
                    return [_GIVEN_UP]
                return [word for settlement in settlements for word in await self._write([settlement])]
            except StoreError as error:
                failures += 1
                _log.warning("settle.delayed", queue=self._queue, outcomes=len(settlements), error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))


def _room(settlements: list[Settlement]) -> int:
    """Return how many outcomes a call takes, so that it writes no more than 100 jobs and 1 MiB of children; at least the first."""
    jobs = size = 0
    for place, settlement in enumerate(settlements):
        jobs += 1 + len(settlement.children)
        size += sum(len(child.entry) for child in settlement.children)
        if place and (jobs > BATCH or size > BATCH_BYTES):
            return place
    return len(settlements)
