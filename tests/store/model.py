"""A queue in plain Python: what the scripts are to do, told a second time and without Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gopher.job import FINAL_STATES, MAX_CRASHES, JobState, Move, Priority
from gopher.store.lifecycle import PRIORITY_CYCLE

if TYPE_CHECKING:
    from collections.abc import Collection

FAILED_RETENTION_MS = 30 * 24 * 3600 * 1000
DEFAULT_RETENTION_MS = 3600 * 1000
LETTERS = {"h": Priority.HIGH, "n": Priority.NORMAL, "l": Priority.LOW}
WAITING = {JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING}
AFTER = {
    Move.COMPLETE: JobState.COMPLETED,
    Move.RETRY: JobState.RETRYING,
    Move.BURY: JobState.FAILED,
    Move.SNOOZE: JobState.SCHEDULED,
    Move.RELEASE: JobState.ENQUEUED,
    Move.ACKNOWLEDGE_CANCEL: JobState.CANCELLED,
}


@dataclass
class ModelJob:
    """A job; `score` is that in the index of its state."""

    id: str
    priority: Priority
    state: JobState
    score: int
    enqueued_ms: int
    deadline_ms: int | None = None
    unique_key: str | None = None
    retention_ms: int | None = None
    attempt: int = 0
    token: int = 0
    crashes: int = 0
    generation: int = 0
    is_cancel_wanted: bool = False
    type: str = "email"
    parked_by: str | None = None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass
class ModelQueue:
    """A queue, its clock and what it remembers.

    Attributes:
        jobs: By id.
        requests: Request id -> id of its job and body.
        claims: Worker -> id of its last claim that gave jobs, and those jobs with their tokens.
        totals: Counters, by the name that QueueStats gives them.
        ask_breaker_ms: From when claims take the jobs that the breaker has parked.
    """

    now_ms: int
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    requests: dict[str, tuple[str, object]] = field(default_factory=dict)
    claims: dict[str, tuple[str, list[tuple[str, int]]]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    last_token: int = 0
    cursor: int = 0
    is_paused: bool = False
    ask_breaker_ms: int = 0

    def count(self, name: str) -> None:
        self.totals[name] = self.totals.get(name, 0) + 1

    def in_state(self, *states: JobState) -> list[ModelJob]:
        """Return jobs in the order of their index."""
        return sorted((j for j in self.jobs.values() if j.state in states), key=lambda job: (job.score, job.id))

    def holder(self, unique_key: str | None) -> str | None:
        return next((j.id for j in self.jobs.values() if unique_key and j.unique_key == unique_key and not j.is_final), None)

    def finish(self, job: ModelJob, state: JobState) -> None:
        kept_ms = DEFAULT_RETENTION_MS if job.retention_ms is None else job.retention_ms
        job.score = self.now_ms + (FAILED_RETENTION_MS if state is JobState.FAILED else kept_ms)
        job.state = state
        job.parked_by = None
        self.count(f"{state}_total")

    def enqueue(self, job: ModelJob) -> None:
        job.state = JobState.ENQUEUED
        job.score = job.enqueued_ms = self.now_ms

    def is_late(self, job: ModelJob) -> bool:
        return job.deadline_ms is not None and job.deadline_ms <= self.now_ms

    def submit(self, job: ModelJob, request_id: str | None, body: object) -> tuple[str, str]:
        """Take a job in, or return the word that refuses it and the id of the job that stands against it."""
        if request_id in self.requests:
            first, known = self.requests[request_id]
            return ("DUPLICATE" if known == body else "CONFLICT"), first
        if holder := self.holder(job.unique_key):
            return "UNIQUE_HELD", holder
        self.jobs[job.id] = job
        if request_id is not None:
            self.requests[request_id] = (job.id, body)
        self.count("submitted_total")
        return "OK", job.id

    def claim(
        self, worker: str, claim_id: str, count: int, lease_ms: int, types: Collection[str]
    ) -> list[tuple[str, int, int]] | None:
        """Return id, token and attempt of each job claimed."""
        last_id, last = self.claims.get(worker, ("", []))
        if last_id == claim_id:
            mine = [self.jobs[i] for i, t in last if i in self.jobs and self.jobs[i].token == t]
            held = [job for job in mine if job.state is JobState.PROCESSING]
            for job in held:
                job.score = self.now_ms + lease_ms
            return [(job.id, job.token, job.attempt) for job in held]
        if self.is_paused:
            return None
        taken = []
        for job in self._next(count, types):
            if self.is_late(job):
                self.finish(job, JobState.FAILED)
                continue
            self.last_token = max(self.last_token, self.now_ms * 1024) + 1
            job.state, job.score, job.parked_by = JobState.PROCESSING, self.now_ms + lease_ms, None
            job.token, job.attempt = self.last_token, job.attempt + 1
            taken.append((job.id, job.token, job.attempt))
        if taken:
            self.claims[worker] = (claim_id, [(job_id, token) for job_id, token, _ in taken])
        return taken

    def park(self, until_ms: int, breaker: str, types: Collection[str]) -> None:
        """Do as a claim of these types that meets an open breaker; no deadline may have passed."""
        due, ready = self._parked_due(), self._ready(types)
        letters = {letter for letter, priority in LETTERS.items() if any(job.priority is priority for job in ready)}
        if len(letters) > 1:
            # The cursor stops at the line that was looked at last.
            while letters:
                while PRIORITY_CYCLE[self.cursor] not in letters:
                    self.cursor = (self.cursor + 1) % len(PRIORITY_CYCLE)
                letters.remove(PRIORITY_CYCLE[self.cursor])
        if due or any(job.type in types for job in ready) or self.ask_breaker_ms <= self.now_ms:
            self.ask_breaker_ms = until_ms
        for job in ready:
            job.parked_by = breaker if job.type in types else f"type:{job.type}"

    def _parked_due(self) -> list[ModelJob]:
        waiting = self.in_state(JobState.ENQUEUED)
        is_due = self.ask_breaker_ms <= self.now_ms
        return [job for job in waiting if is_due and job.parked_by and job.parked_by != f"type:{job.type}"]

    def _ready(self, types: Collection[str]) -> list[ModelJob]:
        """Return what stands in the lines, with what others have left to workers with these types."""
        waiting = self.in_state(JobState.ENQUEUED)
        ready = [j for j in waiting if not j.parked_by or (j.parked_by == f"type:{j.type}" and j.type in types)]
        return sorted(ready, key=lambda job: (job.score, not job.parked_by, job.id))

    def _next(self, count: int, types: Collection[str]) -> list[ModelJob]:
        ready = self._parked_due() + self._ready(types)
        lines = {letter: [j for j in ready if j.priority is p] for letter, p in LETTERS.items()}
        is_mixed = sum(bool(line) for line in lines.values()) > 1
        found: list[ModelJob] = []
        at = self.cursor
        while len(found) < count and any(lines.values()):
            line = lines[PRIORITY_CYCLE[at]]
            if line and line[0].type not in types and not self.is_late(line[0]):
                foreign = line.pop(0)
                foreign.parked_by = f"type:{foreign.type}"
                continue
            at = (at + 1) % len(PRIORITY_CYCLE)
            if line:
                found.append(line.pop(0))
        if is_mixed:
            self.cursor = at
        return found

    def settle(self, job_id: str, token: int, move: Move, delay_ms: int) -> str:
        job = self.jobs.get(job_id)
        if job is None:
            return "NOT_FOUND"
        if job.token != token or token == 0:
            return "STALE_LEASE"
        if job.state is not JobState.PROCESSING:
            return "ALREADY"
        after = AFTER[move]
        if job.is_cancel_wanted and after in WAITING:
            after = JobState.CANCELLED
        if after in FINAL_STATES:
            self.finish(job, after)
            return after.value
        job.state = after
        job.score = job.enqueued_ms if move is Move.RELEASE else self.now_ms + delay_ms
        if move is Move.RETRY:
            self.count("retried_total")
        else:
            job.attempt -= 1
        return after.value

    def promote(self) -> None:
        for job in self.in_state(*WAITING):
            if self.is_late(job):
                self.finish(job, JobState.FAILED)
        for job in self.in_state(JobState.SCHEDULED, JobState.RETRYING):
            if job.score <= self.now_ms:
                self.enqueue(job)

    def reap(self) -> list[str]:
        lost = [job for job in self.in_state(JobState.PROCESSING) if job.score < self.now_ms]
        for job in lost:
            self.last_token = max(self.last_token, self.now_ms * 1024) + 1
            job.token, job.crashes = self.last_token, job.crashes + 1
            if job.is_cancel_wanted:
                self.finish(job, JobState.CANCELLED)
            elif job.crashes >= MAX_CRASHES:
                self.finish(job, JobState.FAILED)
            else:
                job.state, job.score = JobState.ENQUEUED, job.enqueued_ms
        for job in self.in_state(*FINAL_STATES):
            if job.score <= self.now_ms:
                del self.jobs[job.id]
        return [job.id for job in lost]

    def cancel(self, job_id: str) -> str:
        job = self.jobs.get(job_id)
        if job is None:
            return "NOT_FOUND"
        if job.state in {JobState.COMPLETED, JobState.FAILED}:
            return "TERMINAL"
        if job.state is JobState.PROCESSING:
            job.is_cancel_wanted = True
        elif job.state in WAITING:
            self.finish(job, JobState.CANCELLED)
            job.is_cancel_wanted = True
        return job.state.value

    def requeue(self, job_id: str) -> str:
        job = self.jobs.get(job_id)
        if job is None:
            return "NOT_FOUND"
        if job.state in {JobState.FAILED, JobState.CANCELLED}:
            if self.holder(job.unique_key):
                return "UNIQUE_HELD"
            job.crashes, job.is_cancel_wanted, job.deadline_ms = 0, False, None
            job.generation += 1
        elif job.state not in {JobState.SCHEDULED, JobState.RETRYING}:
            return "STATE"
        self.enqueue(job)
        return "OK"

    def delete(self, job_id: str) -> str:
        job = self.jobs.get(job_id)
        if job is None:
            return "NOT_FOUND"
        if job.state is JobState.PROCESSING:
            return "STATE"
        del self.jobs[job_id]
        return "OK"

    def purge(self) -> int:
        waiting = self.in_state(*WAITING)
        for job in waiting:
            del self.jobs[job.id]
        return len(waiting)
