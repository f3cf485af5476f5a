"""Claims jobs for the free slots, many in one call, and starts a runner for each.

One claim is on its way at a time. It takes at most half of the slots, so that Redis prepares the next jobs while the worker runs
the last ones (measured: 43,000 jobs/s against 35,000 when it takes all). A queue that gave less than was asked for is left alone
until Redis says that something was enqueued; a slow poll is the safety net.
"""

from __future__ import annotations

import random
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher import rotation
from gopher.errors import StoreError
from gopher.retry import RetryPolicy
from gopher.rotation import Source
from gopher.runtime.meter import QueueMeter
from gopher.runtime.rests import Rests
from gopher.runtime.scopes import CancelReason, RunningAttempt
from gopher.runtime.suspects import Suspects
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.runtime.gates import Gates
    from gopher.runtime.runner import Taken
    from gopher.runtime.scopes import Scopes
    from gopher.runtime.settler import Settler
    from gopher.runtime.slots import Slots
    from gopher.store.events import Control
    from gopher.store.lifecycle import Lifecycle
    from gopher.store.type_set import TypeSet

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Chosen: claims go on within 2 s of Redis being back."""
_LAST_REPLY_SECONDS: Final = 1.0
"""Chosen: what a drain waits for the reply to a claim; without it the jobs are stuck until their leases end."""


class QueueSource(Source):
    """One of the queues that a worker takes from.

    Attributes:
        settler: Writes the outcomes of its attempts.
        meter: Counts the claims.
        lease_until: When the leases of the claim that is on its way end at the earliest, by `time.monotonic()`.
    """

    def __init__(self, name: str, weight: int, settler: Settler, meter: QueueMeter | None = None) -> None:
        super().__init__(name, weight)
        self.settler = settler
        self.meter = QueueMeter() if meter is None else meter
        self.lease_until = 0.0


class Claimer:
    """Keeps the slots of a worker busy.

    Args:
        lifecycle: Where to claim.
        scopes: Takes in the claimed attempts.
        gates: What claims have to pass.
        types: What there are handlers for.
        namespace: Of the queues.
        worker: Id of this worker.
        slots: Attempts that run at most at once.
        lease_seconds: Lease of a claim.
        poll_seconds: The safety net.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        scopes: Scopes,
        gates: Gates,
        *,
        types: TypeSet,
        namespace: str,
        worker: str,
        slots: int,
        lease_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._scopes = scopes
        self._gates = gates
        self._types = types
        self._namespace = namespace
        self._worker = worker
        self._slots = slots
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._batch = _batch(slots)
        self._sources: list[QueueSource] = []
        self._has_news = trio.Event()
        self._suspects = Suspects(scopes, self._announce)
        self._unanswered: QueueSource | None = None
        self._claiming = trio.CancelScope(shield=True)  # replaced by each claim's own, see `tick`
        self._is_stopping = False
        self._asked = 0
        self.rests = Rests(self.note_room)
        """The attempts that have given up their slot for a while."""

    @property
    def slots(self) -> int:
        """Attempts that run at most at once."""
        return self._slots

    @property
    def jobs_wait(self) -> bool:
        """Whether a queue has given all that was asked for at its last claim, so that more may wait there."""
        return any(not source.is_drained for source in self._sources)

    @property
    def under_way(self) -> tuple[str, str] | None:
        """Queue and id of the claim that is on its way, or whose reply was lost; None when there is none. Safe in any thread."""
        source = self._unanswered
        claim_id = None if source is None else source.claim_id
        return None if source is None or claim_id is None else (source.name, claim_id)

    def resize(self, slots: int) -> None:
        """Have more slots or fewer from now on; attempts beyond them run to their end."""
        has_grown = slots > self._slots
        self._slots = slots
        self._batch = _batch(slots)
        if has_grown:
            self.note_room()

    def add_source(self, source: QueueSource) -> None:
        """Take from one more queue."""
        self._sources.append(source)

    def wake(self, queue: str, rung_for: str | None = None) -> None:
        """Note that a queue may have jobs again; and for which type this worker alone was rung, where it was."""
        rotation.wake(self._sources, queue, rung_for)
        self._has_news.set()

    def note_room(self) -> None:
        """Note that attempts have ended, or outcomes were written."""
        if self._suspects.held:
            self._suspects.review()
        if self.rests.are_returning:
            self.rests.admit(self._free() - self._asked)
        self._has_news.set()

    def stop(self) -> None:
        """Claim no more; a claim under way is given a moment."""
        self._is_stopping = True
        self._claiming.deadline = trio.current_time() + _LAST_REPLY_SECONDS
        self._has_news.set()

    async def run(self, slots: Slots, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Claim until stopped, or cancelled.

        Args:
            slots: Where the attempts run; they outlive this task, so that attempts can end in peace once claiming has stopped.
            task_status: Started at once.

        Cancellation:
            Nothing is left between a claim and its runners: the reply of a claim under way is still taken in, bounded.
        """
        task_status.started()
        failures = 0
        while not self._is_stopping:
            try:
                is_idle = await self.tick(slots)
                failures = 0
            except StoreError as error:
                failures += 1
                _log.warning("claim.delayed", error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))
                continue
            if is_idle:
                await self._wait_for_news()

    async def tick(self, slots: Slots) -> bool:
        """Claim once.

        Returns:
            Whether there is nothing to do until something changes.
        """
        free = self._free()
        # A claim whose reply was lost comes first: what it took has its slots, which no other queue may fill.
        source = self._unanswered or (rotation.next_source(self._sources) if free > 0 else None)
        if source is None:
            await self._pass_rings()
            return True
        count = min(free, self._batch)
        source.begin_claim()
        if source.claim_id is None:
            source.claim_id = uuid.uuid4().hex
        source.lease_until = time.monotonic() + self._lease_seconds
        self._unanswered = source
        claim = None
        # Shielded, since a claim whose reply nobody awaits would hold its jobs until the lease ends; the link bounds the wait.
        self._claiming = trio.CancelScope(shield=True)
        self._asked = count
        with self._claiming:
            claim = await self._lifecycle.claim(
                self._namespace,
                source.name,
                worker=self._worker,
                count=count,
                lease_ms=round(self._lease_seconds * 1000),
                claim_id=source.claim_id,
                types=self._types,
                bounds=self._gates.bounds(),
            )
        self._unanswered = None
        self._asked = 0
        source.end_claim(may_hold_more=claim is not None and claim.may_leave_more(count))
        jobs = () if claim is None else claim.jobs
        suspects: list[Taken] = []
        gates = self._gates
        source.meter.count_claims(jobs)
        for job in jobs:
            attempt = RunningAttempt(job, source.name, source.lease_until)
            self._scopes.add(attempt)
            outcomes = gates.take(attempt, source.settler) if gates.are_any else source.settler
            if job.is_suspect:
                suspects.append((attempt, outcomes))
            else:
                slots.put_nowait(attempt, outcomes)
        if suspects:
            self._suspects.take(suspects, slots)
        slots.start_nowait()
        if claim is not None and gates.are_any and await gates.ask(claim.refused):
            source.is_drained = False
        if self.rests.are_returning:
            self.rests.admit(self._free())
        return False

    @asynccontextmanager
    async def hear_rings(self, control: Control) -> AsyncIterator[None]:
        """Be rung when there is a job for this worker, while the block lasts; from then on others are."""
        async with AsyncExitStack() as stack:
            for source in self._sources:
                ring = partial(self.wake, source.name)
                await stack.enter_async_context(control.hear_rings(self._namespace, source.name, self._worker, ring))
            yield
        try:
            await self._pass_rings()
        except StoreError as error:
            # The poll of another worker finds the jobs.
            _log.warning("ring.lost", worker=self._worker, error=str(error))

    async def _pass_rings(self) -> None:
        """Have others rung for the jobs that this worker was rung for and has no room for."""
        for queue, types in rotation.take_rings(self._sources):
            await self._lifecycle.pass_ring(self._namespace, queue, types)

    def _free(self) -> int:
        """Slots in which no handler runs; none while too many outcomes wait to be written."""
        unwritten = sum(len(source.settler) for source in self._sources)
        return self._slots - (len(self._scopes) - unwritten - self.rests.count) if unwritten < self._slots else 0

    async def _announce(self, attempt: RunningAttempt) -> None:
        """Have Redis note that a suspect begins; where that cannot be, it does not."""
        job = attempt.job
        try:
            if not await self._lifecycle.begin(self._namespace, attempt.queue, job.id, job.token):
                attempt.cancel(CancelReason.LEASE_LOST)
        except StoreError as error:
            _log.warning("suspect.not_begun", job_id=job.id, queue=attempt.queue, error=str(error))
            attempt.cancel(CancelReason.GIVEN_BACK)

    async def _wait_for_news(self) -> None:
        # Spread, so that the polls of many workers do not meet.
        with trio.move_on_after(self._poll_seconds * random.uniform(0.8, 1.2)) as scope:
            await self._has_news.wait()
        self._has_news = trio.Event()
        if scope.cancelled_caught:
            for source in self._sources:
                source.is_drained = False


def _batch(slots: int) -> int:
    """Half of the slots, see above."""
    return min(BATCH, max(1, slots // 2))
