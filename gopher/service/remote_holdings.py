"""What a worker on a stream holds: the attempts it was given or has brought along, their leases, and the cancels it was told of."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.service import remote_frames as frames
from gopher.wire import convert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gopher.job import Outcome
    from gopher.service.remote_line import FrameLine
    from gopher.store.assignments import Assignments
    from gopher.store.codec import ClaimedJob
    from gopher.store.leases import LeaseFinding

MOST_EARLY: Final = 1000
"""Cancels remembered of jobs that may be on their way here; chosen: one that is not comes with the next extend."""


class Meter(Protocol):
    """Counts what is measured of a queue; `gopher.runtime.meter` has it."""

    def count_claims(self, jobs: Iterable[ClaimedJob]) -> None:
        """Count jobs that have just been claimed, by how long they stood in line."""

    def count_attempt(self, job_type: str, outcome: Outcome, seconds: float) -> None:
        """Count one attempt whose outcome is written."""


@dataclass(slots=True)
class HeldAttempt:
    """An attempt in the hands of the worker.

    Attributes:
        queue: Of the job.
        type: Of the job; empty where it is not known.
        token: Of the lease.
        lease_until: When the lease ends unless it is extended, by `time.monotonic()`.
        began_at: When the worker was given it, by the same clock.
        plain_attempt: As of a `Settlement`; 0 where it is not known.
        is_cancel_told: Whether the worker was told to end it.
    """

    queue: str
    type: str
    token: int
    lease_until: float
    began_at: float
    plain_attempt: int = 0
    is_cancel_told: bool = False


class Holdings:
    """Keeps the table of what the worker holds.

    Args:
        assignments: Where the leases are.
        line: To the worker.
        namespace: Of the queues.
        lease_seconds: Lease.
    """

    def __init__(self, assignments: Assignments, line: FrameLine, *, namespace: str, lease_seconds: float) -> None:
        self._assignments = assignments
        self._line = line
        self._namespace = namespace
        self._lease_seconds = lease_seconds
        self._held: dict[str, HeldAttempt] = {}
        self._early: dict[str, tuple[int, float, str]] = {}

    def __len__(self) -> int:
        """Attempts held."""
        return len(self._held)

    def get(self, job_id: str, token: int) -> HeldAttempt | None:
        """Return an attempt that the worker holds under this token."""
        held = self._held.get(job_id)
        return held if held is not None and held.token == token else None

    def leases(self) -> dict[str, list[tuple[str, int]]]:
        """Return job id and token of all that is held, by queue."""
        by_queue: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for job_id, held in self._held.items():
            by_queue[held.queue].append((job_id, held.token))
        return by_queue

    def assign(self, job: ClaimedJob, queue: str) -> None:
        """Give the worker an attempt."""
        self._line.put_nowait(frames.assignment(job, queue))
        self._add(job.id, job.token, queue, job.type, job.attempt if job.is_plain else 0)

    def take_over(self, job_id: str, token: int, queue: str) -> None:
        """Note that the worker has brought an attempt along."""
        self._add(job_id, token, queue, "", 0)

    def _add(self, job_id: str, token: int, queue: str, job_type: str, plain_attempt: int) -> None:
        now = time.monotonic()
        self._held[job_id] = HeldAttempt(queue, job_type, token, now + self._lease_seconds, now, plain_attempt)
        early = self._early.pop(job_id, None)
        if early is not None:
            self.request_cancel(job_id, *early)

    def remove(self, job_id: str, token: int) -> None:
        """Note that the worker does not hold an attempt any more."""
        if self.get(job_id, token) is not None:
            del self._held[job_id]

    def begin_claim(self) -> None:
        """Forget cancels of jobs that are not here: from now on others may be on their way."""
        self._early.clear()

    def request_cancel(self, job_id: str, token: int, grace_seconds: float, reason: str) -> None:
        """Tell the worker to end an attempt, once; remember it for a moment where the attempt is not here."""
        held = self.get(job_id, token)
        if held is None:
            if len(self._early) < MOST_EARLY:
                self._early[job_id] = token, grace_seconds, reason
        elif not held.is_cancel_told:
            held.is_cancel_told = True
            lease = frames.lease_message(job_id, token)
            cancel = pb.Cancel(lease=lease, reason=reason, grace=convert.duration(round(grace_seconds * 1000)))
            # No wait for room: it is one an attempt.
            self._line.put_nowait(pb.ConnectResponse(cancel=cancel))

    async def extend(self, leases: Mapping[str, int]) -> None:
        """Extend leases, tell the worker which of them are lost, and that the others stand."""
        by_queue: dict[str, list[tuple[str, int]]] = defaultdict(list)
        unknown = []
        for job_id, token in leases.items():
            held = self.get(job_id, token)
            if held is None:
                unknown.append((job_id, token))
            else:
                by_queue[held.queue].append((job_id, token))
        await self._line.put(*frames.lease_lost(unknown))
        for queue, each in by_queue.items():
            until = time.monotonic() + self._lease_seconds
            findings = await self._assignments.extend(self._namespace, queue, each, round(self._lease_seconds * 1000))
            for job_id, token in each:
                held = self.get(job_id, token)
                if held is not None:
                    held.lease_until = until
            await self.take(findings)
        await self._line.put(pb.ConnectResponse(extended=pb.Extended()))

    async def take(self, findings: Iterable[LeaseFinding]) -> None:
        """Tell the worker what was found of its leases."""
        for finding in findings:
            if finding.is_lost:
                await self.lose(finding.job_id, finding.token)
            else:
                self.request_cancel(finding.job_id, finding.token, finding.grace_seconds, finding.reason)

    async def lose(self, job_id: str, token: int) -> None:
        """Tell the worker that a lease is lost."""
        self.remove(job_id, token)
        await self._line.put(*frames.lease_lost([(job_id, token)]))

    async def drop_expired(self) -> None:
        """Let go of attempts whose lease the worker has let run out: their jobs are or will be somebody else's."""
        now = time.monotonic()
        for job_id, held in list(self._held.items()):
            if held.lease_until < now:
                await self.lose(job_id, held.token)
