"""Reads why a job waits: what it stands behind, who could run it, and what holds it back. Nothing here changes anything.

The facts are read on demand; other jobs cost nothing. A question costs a job's place in its line, O(log n), and a few
fields; the register of workers is read at most once a second however many ask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from gopher.errors import StoreError
from gopher.job import JobState
from gopher.store import keys
from gopher.waiting import Facts, WaitingKind, WaitingReason, explain, wait_until

if TYPE_CHECKING:
    from gopher.job import Job
    from gopher.store.link import Link
    from gopher.store.registry import Registry, WorkerInfo

REGISTER_SECONDS: Final = 1.0
"""Chosen: what workers say of themselves is older than that on average, and thousands of them take tens of ms to read."""
_OF_TYPE: Final = "type:"
"""Of the line of a type that no worker of the queue has had."""
_QUEUE_LIMITS: Final = ("rate:*", "concurrency:*")
_WAITS: Final = {JobState.SCHEDULED: WaitingKind.SCHEDULED, JobState.RETRYING: WaitingKind.BACKING_OFF}


class _Crew(NamedTuple):
    """Who may run the jobs of a type in a queue.

    Attributes:
        claiming: Workers that claim from the queue.
        serving: Those of them that have a handler for the type.
        busy_slots: Of these, as of their last beats.
        slots: Of these.
    """

    claiming: int
    serving: int
    busy_slots: int
    slots: int


class _Register:
    """The workers of a namespace, as they were at a moment of Trio's clock."""

    def __init__(self, read_at: float, workers: list[WorkerInfo]) -> None:
        self.read_at = read_at
        self._workers = [worker.description for worker in workers if not worker.description.draining]
        self._crews: dict[tuple[str, str], _Crew] = {}

    def crew(self, queue: str, job_type: str) -> _Crew:
        """Return who may run the jobs of a type in a queue: counted once, however many ask."""
        crew = self._crews.get((queue, job_type))
        if crew is None:
            claiming = [each for each in self._workers if queue in each.queues]
            serving = [each for each in claiming if job_type in each.types]
            busy_slots, slots = sum(each.busy for each in serving), sum(each.slots for each in serving)
            crew = self._crews[queue, job_type] = _Crew(len(claiming), len(serving), busy_slots, slots)
        return crew


class Waiting:
    """Explains the waits of jobs, of any queue of any namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._registers: dict[str, _Register] = {}
        self._reading = trio.Lock()

    async def explain(self, job: Job) -> WaitingReason | None:
        """Return why a job waits; None if it does not.

        Args:
            job: As it was just read.

        Raises:
            StoreError: Redis failed.
        """
        kind = _WAITS.get(job.state)
        if kind is None and job.state is not JobState.ENQUEUED:
            return None
        base = keys.queue(job.namespace, job.queue)
        line = keys.enqueued(job.namespace, job.queue, job.priority)
        if job.parked_by is not None:
            line = base + keys.parked_line(job.parked_by, job.priority)
        holders = [job.parked_by] if job.parked_by is not None else _QUEUE_LIMITS
        replies = await self._link.call_many(
            [
                ("TIME",),
                ("HGET", keys.settings(job.namespace, job.queue), "paused"),
                ("ZRANK", line, job.id),
                ("ZCARD", keys.index(job.namespace, job.queue, JobState.PROCESSING)),
                *(("ZSCORE", keys.parked(job.namespace, job.queue), by) for by in holders),
            ]
        )
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        (seconds, micros), paused, rank, processing, *scores = replies
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        if kind is not None and job.run_ms is not None and job.run_ms > now_ms:
            return wait_until(kind, job.queue, job.type, job.run_ms)
        claiming, serving, busy_slots, slots = (await self._register(job.namespace)).crew(job.queue, job.type)
        if serving == claiming:
            # Beats are seconds old. Where every worker of the queue could run the job, what the queue runs now tells more.
            busy_slots = max(busy_slots, processing)
        is_full = 0 < slots <= busy_slots
        held_by, until_ms = _holder(job.parked_by, dict(zip(holders, scores, strict=True)), now_ms, is_full=is_full)
        return explain(
            job.queue,
            job.type,
            Facts(
                is_paused=paused is not None,
                claiming=claiming,
                serving=serving,
                busy_slots=min(busy_slots, slots),
                slots=slots,
                held_by=held_by,
                until_ms=until_ms,
                jobs_ahead=rank or 0,
            ),
        )

    async def _register(self, namespace: str) -> _Register:
        if (register := self._fresh(namespace)) is not None:
            return register
        # One reads for all that wait.
        async with self._reading:
            if (register := self._fresh(namespace)) is None:
                now = trio.current_time()
                register = self._registers[namespace] = _Register(now, await self._registry.workers(namespace))
            return register

    def _fresh(self, namespace: str) -> _Register | None:
        register = self._registers.get(namespace)
        return register if register is not None and trio.current_time() - register.read_at < REGISTER_SECONDS else None


def _holder(
    parked_by: str | None, scores: dict[str, bytes | None], now_ms: int, *, is_full: bool
) -> tuple[str | None, int | None]:
    """Return what holds a job back, and until when, ms since the epoch; None for what is not known or does not.

    Args:
        parked_by: In whose line it stands; None for that of its priority.
        scores: By name, from when claims ask again what may hold it back; None of what holds nothing.
        now_ms: The moment.
        is_full: Whether no worker that could run it has a slot, and so none will ask.
    """
    for by, score in scores.items():
        due_ms = 0.0 if score is None else float(score)
        if by.startswith(_OF_TYPE):
            continue
        if due_ms > now_ms:
            return by, None if math.isinf(due_ms) else int(due_ms)
        if by == parked_by and not is_full:
            return by, None
    return None, None
