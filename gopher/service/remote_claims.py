"""Claims jobs for a worker on a stream, never more than it has given credit for, and assigns them.

One claim is on its way at a time, under an id that names the session: once a later session has begun, nothing is claimed any more.
What was claimed and has not left for the worker when the session ends is given back, unspent.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher import rotation
from gopher.errors import StoreError, invalid
from gopher.job import Move, Outcome
from gopher.retry import RetryPolicy
from gopher.rotation import Source
from gopher.service import remote_frames as frames
from gopher.store import settlements
from gopher.store.claims import REPLACED
from gopher.store.lifecycle import Settlement
from gopher.store.submission import BATCH
from gopher.store.type_set import TypeSet
from gopher.wire.worker_errors import WorkerReplacedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gopher.service.remote_frames import Greeting
    from gopher.service.remote_holdings import Holdings, Meter
    from gopher.service.remote_line import FrameLine
    from gopher.store.codec import ClaimedJob
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Chosen: claims go on within 2 s of Redis being back."""


class Claims:
    """Keeps a worker busy.

    Args:
        store: Where to claim.
        greeting: What the worker takes.
        holdings: Of the worker.
        line: To the worker.
        meters: By queue.
        worker: Its id.
        lease_seconds: Lease of a claim.
        poll_seconds: The safety net.
        is_quiet: Tells whether the worker has not been heard of for so long that it may have gone.
    """

    def __init__(
        self,
        store: Store,
        greeting: Greeting,
        holdings: Holdings,
        line: FrameLine,
        meters: Mapping[str, Meter],
        *,
        worker: str,
        lease_seconds: float,
        poll_seconds: float,
        is_quiet: Callable[[], bool],
    ) -> None:
        self._store = store
        self._namespace = greeting.namespace
        self._types = TypeSet(greeting.types)
        self._holdings = holdings
        self._line = line
        self._meters = meters
        self._worker = worker
        self._stream = greeting.stream
        self._lease_ms = round(lease_seconds * 1000)
        self._poll_seconds = poll_seconds
        self._sources = [Source(name, weight) for name, weight in greeting.queues.items()]
        self._credit = 0
        self._claims = 0
        self._unanswered: Source | None = None
        self._claimed: deque[tuple[str, ClaimedJob]] = deque()
        self._again: deque[tuple[str, str, int]] = deque()
        self._has_news = trio.Event()
        self._is_stopped = False
        self._is_quiet = is_quiet
        self._is_held_up = False

    def add_credit(self, jobs: int) -> None:
        """Let the worker have so many jobs more.

        Raises:
            InvalidRequestError: OUT_OF_RANGE.
        """
        room = frames.MOST_JOBS - self._credit - len(self._holdings)
        if not 1 <= jobs <= room:
            raise invalid(
                "credit.jobs",
                "OUT_OF_RANGE",
                f"must be 1 to {max(1, room)}, so that with what it holds ({len(self._holdings)}) and has given ({self._credit}) it is at "
                f"most {frames.MOST_JOBS}; got {jobs}",
            )
        self._credit += jobs
        self._has_news.set()

    def assign_again(self, queue: str, leases: Iterable[tuple[str, int]]) -> None:
        """Assign jobs that were claimed in an earlier session and have not reached the worker, as it gives credit."""
        self._again.extend((queue, job_id, token) for job_id, token in leases)

    def wake(self, queue: str, rung_for: str | None = None) -> None:
        """Note that a queue may have jobs again; and for which type this worker alone was rung, where it was."""
        rotation.wake(self._sources, queue, rung_for)
        self._has_news.set()

    def wake_all(self) -> None:
        """Note that news may have been missed."""
        for source in self._sources:
            self.wake(source.name)

    def note_heard(self) -> None:
        """Note that the worker was heard of."""
        if self._is_held_up:
            self._has_news.set()

    async def stop(self) -> None:
        """Claim no more; what has not left is given back."""
        self._is_stopped = True
        await self.give_back()

    async def run(self) -> None:
        """Claim until cancelled."""
        failures = 0
        while True:
            try:
                is_idle = await self.tick()
                failures = 0
            except StoreError as error:
                failures += 1
                _log.warning("claim.delayed", worker=self._worker, error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))
                continue
            if is_idle:
                await self._wait_for_news()

    async def tick(self) -> bool:
        """Assign what there is, at most one claim's jobs.

        Returns:
            Whether there is nothing to do until something changes.

        Raises:
            WorkerReplacedError: A later session claims for the worker.
        """
        self._is_held_up = self._is_quiet()
        if self._is_stopped or self._credit == 0 or self._is_held_up:
            await self._pass_rings()
            return True
        if not self._claimed:
            if self._again:
                await self._assign_oldest()
                return False
            source = self._unanswered or rotation.next_source(self._sources)
            if source is None:
                return True
            await self._claim(source)
        while self._claimed and not self._is_stopped:
            await self._line.wait_room()
            if self._claimed and await self._may_begin(*self._claimed[0]) and self._claimed:
                self._assign(*self._claimed.popleft())
        if self._is_stopped:
            await self.give_back()
        return False

    async def _claim(self, source: Source) -> None:
        count = min(self._credit, BATCH)
        source.begin_claim()
        if source.claim_id is None:
            self._claims += 1
            source.claim_id = f"@{self._stream}.{self._claims}"
        self._unanswered = source
        self._holdings.begin_claim()
        # Shielded, since a claim whose reply nobody awaits would hold its jobs until the lease ends; the link bounds the wait.
        with trio.CancelScope(shield=True):
            claim = await self._store.lifecycle.claim(
                self._namespace,
                source.name,
                worker=self._worker,
                count=count,
                lease_ms=self._lease_ms,
                claim_id=source.claim_id,
                types=self._types,
            )
        if claim is REPLACED:
            raise WorkerReplacedError(self._worker)
        self._unanswered = None
        source.end_claim(may_hold_more=claim is not None and claim.may_leave_more(count))
        jobs = () if claim is None else claim.jobs
        self._meters[source.name].count_claims(jobs)
        self._claimed.extend((source.name, job) for job in jobs)

    async def _may_begin(self, queue: str, job: ClaimedJob) -> bool:
        """Have Redis note that a job begins whose next crash would be its last; drop it, and return False, where its lease is lost."""
        if not job.is_suspect:
            return True
        stands = await self._store.lifecycle.begin(self._namespace, queue, job.id, job.token)
        if not stands and self._claimed and self._claimed[0][1] is job:
            self._claimed.popleft()
        return stands

    def _assign(self, queue: str, job: ClaimedJob) -> None:
        self._credit -= 1
        self._holdings.assign(job, queue)

    async def _assign_oldest(self) -> None:
        """Assign a job of an earlier session, if it is still the worker's."""
        queue, job_id, token = self._again[0]
        record = await self._store.assignments.record(self._namespace, queue, job_id)
        await self._line.wait_room()
        if not self._again or self._again[0] != (queue, job_id, token):
            return
        if record is None or record.job.token != token or not record.is_processing:
            self._again.popleft()
        elif record.is_cancelled:
            acknowledged = Settlement(job_id, token, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)
            await self._store.lifecycle.settle(self._namespace, queue, [acknowledged])
            self._again.popleft()
        else:
            may_begin = await self._may_begin(queue, record.job)
            if self._again and self._again[0] == (queue, job_id, token):
                self._again.popleft()
                if may_begin:
                    self._assign(queue, record.job)

    async def _pass_rings(self) -> None:
        """Have others rung for the jobs that the worker was rung for and may not have."""
        for queue, types in rotation.take_rings(self._sources):
            await self._store.lifecycle.pass_ring(self._namespace, queue, types)

    async def keep_waiting(self) -> None:
        """Extend the leases of what waits here for credit."""
        by_queue: dict[str, list[tuple[str, int]]] = {}
        for queue, job_id, token in self._again:
            by_queue.setdefault(queue, []).append((job_id, token))
        for queue, leases in by_queue.items():
            await self._store.assignments.extend(self._namespace, queue, leases, self._lease_ms)

    async def give_back(self) -> None:
        """Release what was claimed and has not left; where a later session has it, that is refused."""
        released: dict[str, list[Settlement]] = {}
        while self._claimed:
            queue, job = self._claimed.popleft()
            released.setdefault(queue, []).append(settlements.release(job))
        while self._again:
            queue, job_id, token = self._again.popleft()
            released.setdefault(queue, []).append(Settlement(job_id, token, Move.RELEASE, Outcome.CANCELLED))
        for queue, each in released.items():
            for start in range(0, len(each), BATCH):
                await self._store.lifecycle.settle(self._namespace, queue, each[start : start + BATCH])

    async def _wait_for_news(self) -> None:
        # Spread, so that the polls of many workers do not meet.
        with trio.move_on_after(self._poll_seconds * random.uniform(0.8, 1.2)) as scope:
            await self._has_news.wait()
        self._has_news = trio.Event()
        if scope.cancelled_caught:
            for source in self._sources:
                source.is_drained = False
