"""The scripts against a model of them: whatever is done in whatever order, both agree, and the audit finds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from gopher.errors import (
    GopherError,
    JobAlreadyFinalError,
    JobNotFoundError,
    JobStateError,
    RequestIdConflictError,
    UniqueKeyHeldError,
)
from gopher.job import JobState, Move, Priority
from gopher.store import keys
from gopher.store.audit import FindingKind
from gopher.store.lifecycle import Bound
from gopher.store.submission import SubmitReceipt
from gopher.store.type_set import TypeSet
from tests.store.model import AFTER, DEFAULT_RETENTION_MS, ModelJob, ModelQueue
from tests.store.rig import BREAKER, LEASE_MS, START_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.store.rig import Rig

T = TypeVar("T")
REFUSALS = {
    JobNotFoundError: "NOT_FOUND",
    JobAlreadyFinalError: "TERMINAL",
    JobStateError: "STATE",
    UniqueKeyHeldError: "UNIQUE_HELD",
    RequestIdConflictError: "CONFLICT",
}
FEW_MS = 1000
picks = st.integers(0, 30)
workers = st.sampled_from(["w1", "w2"])
MAILER: Final = TypeSet(["email"])
TYPES: Final = {"w1": TypeSet(["email", "resize"]), "w2": MAILER}
"""A worker's."""
moves = st.sampled_from(sorted(AFTER))


class Machine(RuleBasedStateMachine):
    """Does each thing to the scripts and to the model, and compares the answers.

    Hypothesis runs it in a thread of its own; `on_trio` brings each call to the Trio thread, where the store lives.
    """

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig
        self.model = ModelQueue(START_MS)
        self.known: list[str] = []
        self.leases: list[tuple[str, int]] = []
        self.last_claim: tuple[str, str, int] | None = None
        self.on_trio(rig.set_clock)

    def on_trio(self, step: Callable[..., Awaitable[T]], *args: object) -> T:
        return trio.from_thread.run(step, *args)

    def word(self, step: Callable[..., Awaitable[object]], *args: object) -> str:
        """Return the state that a move answers with, OK for none, or the word of its refusal."""
        try:
            answer = self.on_trio(step, *args)
        except GopherError as error:
            return REFUSALS[type(error)]
        return answer.value if isinstance(answer, JobState) else "OK"

    def pick(self, at: int) -> str:
        """Return the id of a job, now and then of one that is gone."""
        ids = [*self.model.jobs, *(job_id for job_id in self.known[-1:] if job_id not in self.model.jobs)]
        return (ids or self.known)[at % len(ids or self.known)]

    @initialize(priorities=st.lists(st.sampled_from(Priority), min_size=3, max_size=8))
    def begin_with_a_backlog(self, priorities: list[Priority]) -> None:
        for priority in priorities:
            self.submit(priority, None, None, None, None, None)

    @rule(
        priority=st.sampled_from(Priority),
        delay_ms=st.sampled_from([None, None, FEW_MS]),
        deadline_in_ms=st.sampled_from([None, None, 0, FEW_MS, 3 * LEASE_MS]),
        unique_key=st.sampled_from([None, None, "u", "v"]),
        request_id=st.sampled_from([None, None, None, "r1", "r2"]),
        retention_ms=st.sampled_from([None, FEW_MS]),
        job_type=st.sampled_from(["email", "email", "resize"]),
    )
    def submit(
        self,
        priority: Priority,
        delay_ms: int | None,
        deadline_in_ms: int | None,
        unique_key: str | None,
        request_id: str | None,
        retention_ms: int | None,
        job_type: str = "email",
    ) -> None:
        now = self.model.now_ms
        deadline_ms = None if deadline_in_ms is None else now + deadline_in_ms
        said = {
            "priority": priority,
            "delay_ms": delay_ms,
            "deadline_ms": deadline_ms,
            "unique_key": unique_key,
            "retention_ms": retention_ms,
            "type": job_type,
        }

        async def try_submit() -> SubmitReceipt | GopherError:
            return await self.rig.try_submit(request_id=request_id, **said)

        answer = self.on_trio(try_submit)

        state, due = (JobState.SCHEDULED, now + delay_ms) if delay_ms else (JobState.ENQUEUED, now)
        job_id = answer.job_id if isinstance(answer, SubmitReceipt) else ""
        job = ModelJob(job_id, priority, state, due, now, deadline_ms, unique_key, retention_ms, type=job_type)
        word, against = self.model.submit(job, request_id, said)
        if isinstance(answer, SubmitReceipt):
            assert (word, against) == ("DUPLICATE" if answer.is_duplicate else "OK", job_id)
            if not answer.is_duplicate:
                self.known.append(job_id)
        else:
            assert (word, against) == (REFUSALS[type(answer)], answer.metadata["job_id"])

    @rule(worker=workers, count=st.sampled_from([1, 3, 7]))
    def claim(self, worker: str, count: int) -> None:
        claim_id = f"claim-{len(self.leases)}-{self.model.now_ms}-{self.model.last_token}"
        self.last_claim = (worker, claim_id, count)
        self.claim_again()

    @precondition(lambda self: self.last_claim is not None)
    @rule()
    def claim_again(self) -> None:
        """The reply was lost: the same claim id once more."""
        assert self.last_claim is not None
        worker, claim_id, count = self.last_claim
        types = TYPES[worker]
        expected = self.model.claim(worker, claim_id, count, LEASE_MS, types.names)

        async def try_claim() -> list[tuple[str, int, int]] | None:
            claim = await self.rig.store.lifecycle.claim(
                self.rig.namespace,
                self.rig.queue,
                worker=worker,
                count=count,
                lease_ms=LEASE_MS,
                claim_id=claim_id,
                types=types,
            )
            for job in () if claim is None else claim.jobs:
                await self.rig.begin(job)
            return None if claim is None else [(job.id, job.token, job.attempt) for job in claim.jobs]

        assert self.on_trio(try_claim) == expected
        self.leases += [(job_id, token) for job_id, token, _ in expected or ()]

    @precondition(lambda self: not any(self.model.is_late(job) for job in self.model.in_state(JobState.ENQUEUED)))
    @rule(count=st.sampled_from([1, 3]), open_ms=st.sampled_from([1, FEW_MS]))
    def claim_under_an_open_breaker(self, count: int, open_ms: int) -> None:
        """Nothing is given, and what waits is parked, no attempt spent."""
        until_ms = self.model.now_ms + open_ms
        bounds = [Bound("email", BREAKER, 0, until_ms)]

        async def try_claim() -> int:
            return len((await self.rig.try_claim(count, types=MAILER, bounds=bounds)).jobs)

        assert self.on_trio(try_claim) == 0
        self.model.park(until_ms, BREAKER, MAILER.names)

    @precondition(lambda self: self.leases)
    @rule(at=picks, move=moves, delay_ms=st.sampled_from([0, FEW_MS]))
    def settle(self, at: int, move: Move, delay_ms: int) -> None:
        """With a token that was given some time: the present one, one that is settled, or one of a lost lease."""
        job_id, token = self.leases[-1 - at % len(self.leases)]
        self.settle_as(job_id, token, move, delay_ms)

    @precondition(lambda self: self.model.in_state(JobState.PROCESSING))
    @rule(at=picks, move=moves, delay_ms=st.sampled_from([0, FEW_MS]))
    def settle_with_the_present_token(self, at: int, move: Move, delay_ms: int) -> None:
        running = self.model.in_state(JobState.PROCESSING)
        job = running[at % len(running)]
        self.settle_as(job.id, job.token, move, delay_ms)

    @precondition(lambda self: self.known)
    @rule(at=picks, token=st.integers(0, 40), move=moves)
    def settle_with_garbage(self, at: int, token: int, move: Move) -> None:
        job_id = self.pick(at)
        job = self.model.jobs.get(job_id)
        if job is None or job.token != token:
            self.settle_as(job_id, token, move, 0)

    def settle_as(self, job_id: str, token: int, move: Move, delay_ms: int) -> None:
        async def settle() -> str:
            return await self.rig.settle(job_id, token, move, delay_ms=delay_ms)

        assert self.on_trio(settle) == self.model.settle(job_id, token, move, delay_ms)

    @precondition(lambda self: self.leases)
    @rule(at=picks)
    def extend(self, at: int) -> None:
        leases = self.leases[at % len(self.leases) :][:5]
        replies = self.on_trio(self.rig.extend, leases)

        expected = {}
        for job_id, token in leases:
            job = self.model.jobs.get(job_id)
            if job is None or job.token != token or job.state is not JobState.PROCESSING:
                expected[job_id] = b"LOST"
            else:
                job.score = self.model.now_ms + LEASE_MS
                if job.is_cancel_wanted:
                    expected[job_id] = b"CANCEL"
        if len({job_id for job_id, _ in leases}) == len(leases):
            assert {reply[1].decode(): reply[0] for reply in replies} == expected

    @rule(ms=st.sampled_from([1, FEW_MS, FEW_MS, LEASE_MS, DEFAULT_RETENTION_MS]))
    def advance(self, ms: int) -> None:
        self.on_trio(self.rig.advance, ms)
        self.model.now_ms += ms

    @rule()
    def promote(self) -> None:
        self.on_trio(self.rig.promote)
        self.model.promote()

    @rule()
    def reap(self) -> None:
        assert list(self.on_trio(self.rig.reap)) == self.model.reap()

    @precondition(lambda self: self.model.in_state(JobState.PROCESSING))
    @rule()
    def lose_all_leases(self) -> None:
        """Every worker dies, and what they had is claimed anew."""
        self.advance(LEASE_MS + 1)
        self.reap()
        self.claim("w2", 7)

    @precondition(lambda self: self.known)
    @rule(at=picks)
    def cancel(self, at: int) -> None:
        assert self.word(self.rig.cancel, self.pick(at)) == self.model.cancel(self.pick(at))

    @precondition(lambda self: self.known)
    @rule(at=picks)
    def requeue(self, at: int) -> None:
        assert self.word(self.rig.requeue, self.pick(at)) == self.model.requeue(self.pick(at))

    @precondition(lambda self: len(self.model.jobs) > 5)
    @rule(at=picks)
    def delete(self, at: int) -> None:
        step = self.rig.store.lifecycle.delete
        assert self.word(step, self.rig.namespace, self.pick(at)) == self.model.delete(self.pick(at))

    @precondition(lambda self: len(self.model.jobs) > 9)
    @rule()
    def purge(self) -> None:
        assert self.on_trio(self.rig.store.lifecycle.purge, self.rig.namespace, self.rig.queue) == self.model.purge()

    @rule(worker=workers)
    def claim_while_paused(self, worker: str) -> None:
        lifecycle = self.rig.store.lifecycle
        self.on_trio(lifecycle.pause, self.rig.namespace, self.rig.queue)
        self.model.is_paused = True
        self.claim(worker, 2)
        self.on_trio(lifecycle.resume, self.rig.namespace, self.rig.queue)
        self.model.is_paused = False

    @rule()
    def flush_scripts(self) -> None:
        """Redis forgets the scripts, as a restarted one has."""
        self.on_trio(self.rig.store.link.call, "SCRIPT", "FLUSH")

    @invariant()
    def audit_finds_nothing(self) -> None:
        # Time goes by an hour at once here, before anybody can take a lease back.
        assert [each for each in self.on_trio(self.rig.audit) if each.kind is not FindingKind.LEASE_OVERDUE] == []

    @invariant()
    def jobs_are_as_in_the_model(self) -> None:
        assert self.on_trio(self.read_jobs) == {
            job.id: (
                job.state,
                job.score,
                job.parked_by,
                job.attempt,
                job.token,
                job.crashes,
                job.generation,
                job.is_cancel_wanted,
            )
            for job in self.model.jobs.values()
        }

    async def read_jobs(self) -> dict[str, tuple[object, ...]]:
        """Return each job as its record and the index of its state tell it."""
        found: dict[str, tuple[object, ...]] = {}
        prefix = keys.queue(self.rig.namespace, self.rig.queue)
        indexes: list[tuple[JobState, str, str | None]] = [
            (state, key, None) for state, _, key in keys.indexes(self.rig.namespace, self.rig.queue)
        ]
        for by in (BREAKER, "type:resize"):
            indexes += [(JobState.ENQUEUED, prefix + keys.parked_line(by, priority), by) for priority in Priority]
        for state, key, parked_by in indexes:
            for job_id, score in await self.rig.store.link.call("ZRANGE", key, 0, -1, "WITHSCORES"):
                job = await self.rig.get(job_id.decode())
                is_cancel_wanted = job.cancel_reason is not None
                assert (job.state, job.parked_by) == (state, parked_by)
                found[job.id] = (
                    state,
                    score,
                    job.parked_by,
                    job.attempt,
                    job.token,
                    job.crashes,
                    job.generation,
                    is_cancel_wanted,
                )
        return found

    @invariant()
    def totals_are_as_in_the_model(self) -> None:
        if self.known:
            stats = self.on_trio(self.rig.store.query.queue_stats, self.rig.namespace, self.rig.queue)
            names = ("submitted_total", "completed_total", "failed_total", "cancelled_total", "retried_total")
            assert {name: getattr(stats, name) for name in names} == {name: self.model.totals.get(name, 0) for name in names}

    def teardown(self) -> None:
        self.on_trio(self.rig.clear)


async def test_scripts_agree_with_the_model(rig: Rig) -> None:
    """Any sequence of submits, claims, outcomes, stale outcomes, lost replies, sweeps and orders: the scripts do as the model."""
    configuration = settings(
        max_examples=40,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    def explore() -> None:
        run_state_machine_as_test(lambda: Machine(rig), settings=configuration)  # type: ignore[arg-type] # any factory will do

    await trio.to_thread.run_sync(explore)
