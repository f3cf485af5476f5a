"""The moves of a job: one method a script.

Each script is one atomic step, and each is safe to repeat: a submit by the job's id or its request id, a claim by the claim's id,
the writes of an attempt by its lease token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from gopher.errors import (
    GopherError,
    JobAlreadyFinalError,
    JobNotFoundError,
    JobStateError,
    StoreError,
    TooManyQueuesError,
)
from gopher.job import MAX_CRASHES, JobState, Move, NewJob, Outcome
from gopher.limits import PriorityRatio
from gopher.store import codec, keys
from gopher.store.claims import read_claim
from gopher.store.ids import IdSource
from gopher.store.outbox import Child, add_children, log_dropped
from gopher.store.scripts import Script
from gopher.store.submission import BATCH, REQUEST_TTL_MS, add_submission, batched, read_answer, read_requeue_answer
from gopher.store.type_set import ANY_TYPE
from gopher.store.upkeep_results import Promotion, Reaping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.claims import Claim
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Reply
    from gopher.store.submission import Answers, Batch, SubmitReceipt
    from gopher.store.type_set import TypeSet

_BATCHES_UNDER_WAY: Final = 4
"""Of one submit call; chosen: enough to keep Redis busy, few enough to leave it to others."""
PRIORITY_CYCLE: Final = PriorityRatio().cycle()


class Bound(NamedTuple):
    """What a worker sets to the jobs of a type that it claims: the arguments of `claim.lua`.

    Attributes:
        type: Of the jobs.
        by: `breaker:NAME` or `bulkhead:TYPE`; several types may share one.
        room: How many more it takes, >= 0.
        ask_again_ms: From when those that do not fit are to be offered to claims again, ms since the epoch by the clock of Redis.
    """

    type: str
    by: str
    room: int
    ask_again_ms: int


class Settlement(NamedTuple):
    """How an attempt ended, and what becomes of the job: the arguments of `settle.lua`.

    Attributes:
        job_id: Of the job.
        token: Lease token of the attempt.
        move: complete, retry, bury, snooze, release or acknowledge_cancel.
        outcome: How the attempt ended.
        delay_ms: Of retry and snooze; else 0.
        result: JSON, of complete; of retry and bury, the traceback of the attempt, or empty.
        failure: From `codec.encode_failure`; empty where nothing failed.
        plain_attempt: Of complete, the number of the attempt when the job `is_plain`: then the script reads nothing more. Else 0.
        children: Of complete, the jobs that the attempt has submitted.
    """

    job_id: str
    token: int
    move: Move
    outcome: Outcome
    delay_ms: int = 0
    result: bytes = b""
    failure: bytes = b""
    plain_attempt: int = 0
    children: tuple[Child, ...] = ()


class Lifecycle:
    """Carries out moves, of any queue of any namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._ids = IdSource()
        self._submit = Script.load("submit")
        self._claim = Script.load("claim")
        self._declare_types = Script.load("declare_types")
        self._pass_ring = Script.load("pass_ring")
        self._begin = Script.load("begin")
        self._settle = Script.load("settle")
        self._cancel = Script.load("cancel")
        self._promote = Script.load("promote")
        self._reap = Script.load("reap")
        self._requeue = Script.load("requeue")
        self._delete = Script.load("delete")
        self._purge = Script.load("purge")
        self._pause = Script.load("pause")
        self._resume = Script.load("resume")

    async def submit(self, namespace: str, jobs: Sequence[NewJob]) -> list[SubmitReceipt | GopherError]:
        """Store jobs; each is accepted or refused by itself.

        Args:
            namespace: Where the queues are.
            jobs: One or more, of any queues; already validated.

        Returns:
            An entry a job, in order: the receipt, or the error that refuses it. Where Redis failed that is a StoreError, which stands at
            the jobs of that script call alone, and at those of the same queue that were not sent after it.

        Cancellation:
            Some may have been stored.
        """
        answers: Answers = {}
        by_queue: dict[str, list[int]] = {}
        for place, job in enumerate(jobs):
            by_queue.setdefault(job.queue, []).append(place)
        if len(by_queue) == 1:
            await self._submit_to_queue(namespace, jobs, list(range(len(jobs))), answers)
        else:
            # While the queues store their jobs: one that fails, or takes its time to, holds up no other.
            async with trio.open_nursery() as nursery:
                for places in by_queue.values():
                    nursery.start_soon(self._submit_to_queue, namespace, jobs, places, answers)
        return [answers[place] for place in range(len(jobs))]

    async def _submit_to_queue(self, namespace: str, jobs: Sequence[NewJob], places: list[int], answers: Answers) -> None:
        queue = jobs[places[0]].queue
        try:
            # Before the batches: one that had to wait for it would be overtaken.
            await self._registry.queue_number(namespace, queue)
            batches = list(batched(jobs, places))
            if len(batches) == 1:
                await self._submit_batch(namespace, queue, batches[0], answers)
            else:
                await self._submit_batches(namespace, queue, batches, answers)
        except (TooManyQueuesError, StoreError) as error:
            answers.update((place, error) for place in places if place not in answers)

    async def _submit_batches(self, namespace: str, queue: str, batches: list[Batch], answers: Answers) -> None:
        """Send batches in order, the next while Redis works on the last.

        Raises:
            TooManyQueuesError: The queue has lost its number, and gets none; the jobs without an answer are those that were not sent.
            StoreError: Redis failed; the same.
        """
        failures: list[TooManyQueuesError | StoreError] = []
        room = trio.Semaphore(_BATCHES_UNDER_WAY)

        async def submit(batch: Batch) -> None:
            try:
                await self._submit_batch(namespace, queue, batch, answers)
            except (TooManyQueuesError, StoreError) as error:
                failures.append(error)
                answers.update((place, error) for place, _ in batch)
            finally:
                room.release()

        # While the batches of this call are under way.
        async with trio.open_nursery() as nursery:
            for batch in batches:
                await room.acquire()
                if failures:
                    break
                nursery.start_soon(submit, batch)
                # The batch leaves in this tick of the scheduler, so before the next one is even started.
                await trio.lowlevel.checkpoint()
        if failures:
            raise failures[0]

    async def _submit_batch(self, namespace: str, queue: str, batch: Batch, answers: Answers) -> None:
        ids: list[str] = []

        async def store(number: int) -> Reply:
            args: list[codec.Field] = [REQUEST_TTL_MS]
            ids[:] = [self._ids.new(number) for _ in batch]
            for job_id, (_, job) in zip(ids, batch, strict=True):
                add_submission(args, job_id, job)
            return await self._submit(self._link, [keys.settings(namespace, queue)], args)

        replies = await self._registry.numbered(namespace, queue, store)
        for job_id, (place, job), reply in zip(ids, batch, replies, strict=True):
            answers[place] = read_answer(job_id, job, reply)

    async def claim(
        self,
        namespace: str,
        queue: str,
        *,
        worker: str,
        count: int,
        lease_ms: int,
        claim_id: str,
        types: TypeSet = ANY_TYPE,
        bounds: Sequence[Bound] = (),
    ) -> Claim | None:
        """Take the next jobs, each with a lease.

        Args:
            namespace: Of the queue.
            queue: To take from.
            worker: Id of the worker.
            count: 1 to 100.
            lease_ms: How long the leases stand unless extended.
            claim_id: The same id again gives the same jobs: for a call whose reply was lost. Of a worker on a stream `@SESSION.N`.
            types: What this worker has handlers for; jobs of other types are left to other workers.
            bounds: What this worker takes fewer jobs of.

        Returns:
            At most `count` jobs; None when the queue is paused; REPLACED when the claim's id names a session, and a later one claims for
            the worker.

        Cancellation:
            The jobs may have been claimed; the next claim under the same id gives them.
        """
        args: list[codec.Field] = [worker, count, lease_ms, claim_id, PRIORITY_CYCLE, types.digest]
        for bound in bounds:
            args += bound
        settings = [keys.settings(namespace, queue)]
        reply = await self._claim(self._link, settings, args)
        if reply[0] == b"UNKNOWN_TYPES":  # the first claim of such a worker, or Redis has lost it
            await self._declare_types(self._link, settings, [types.digest, *types.names])
            reply = await self._claim(self._link, settings, args)
        claim, damaged = read_claim(queue, reply)
        if damaged:
            # Where this fails, the claim is repeated, and gives them again.
            burials = [Settlement(each.job_id, each.token, Move.BURY, Outcome.LOST, failure=each.failure) for each in damaged]
            await self.settle(namespace, queue, burials)
        return claim

    async def pass_ring(self, namespace: str, queue: str, types: Sequence[str]) -> None:
        """Have other idle workers rung for jobs of these types: this one was, and has no room."""
        await self._pass_ring(self._link, [keys.settings(namespace, queue)], types)

    async def begin(self, namespace: str, queue: str, job_id: str, token: int) -> bool:
        """Note that a handler is about to begin whose next crash would be the last of its job; False when its lease is lost."""
        (word,) = await self._begin(self._link, [keys.settings(namespace, queue)], [job_id, token])
        return bool(word == b"OK")

    async def settle(self, namespace: str, queue: str, settlements: Sequence[Settlement]) -> list[str]:
        """Write the outcomes of at most 100 attempts, and with each of those that completed their job all its children.

        Those children that `outbox.parted` leaves are only kept: `Outbox.deliver` hands them to their queues.

        Returns:
            An entry a settlement, in order: the new state, or `ALREADY`, `STALE_LEASE` or `NOT_FOUND`, which changed nothing.
        """
        args: list[codec.Field] = []
        for settlement in settlements:
            if settlement.plain_attempt and not settlement.children:
                args += (settlement.job_id, settlement.token, settlement.plain_attempt, settlement.result)
            else:
                args += settlement[:7]
                add_children(args, settlement.children, queue)
        replies = await self._settle(self._link, [keys.settings(namespace, queue)], args)
        for refusal in replies[len(settlements) :]:
            log_dropped(queue, *refusal)
        return [reply.decode() for reply in replies[: len(settlements)]]

    async def cancel(self, namespace: str, job_id: str, *, reason: str, grace_ms: int, actor: str = "") -> JobState:
        """End a waiting job, or ask the worker of a processing one to end it.

        Where it was asked already, reason and actor stay as they are, and the grace can only become shorter.

        Returns:
            The state after: `cancelled`, or `processing` with the mark set.

        Raises:
            JobNotFoundError: There is no such job.
            JobAlreadyFinalError: It is completed or failed.
        """
        settings = await self._settings_of(namespace, job_id)
        reply = await self._cancel(self._link, [settings], [job_id, reason, grace_ms, actor])
        match reply[0]:
            case b"OK":
                return JobState(reply[1].decode())
            case b"TERMINAL":
                raise JobAlreadyFinalError(job_id, reply[1].decode())
            case _:
                raise JobNotFoundError(job_id)

    async def requeue(self, namespace: str, job_ids: Sequence[str]) -> list[GopherError | None]:
        """Give failed or cancelled jobs new attempts, and start scheduled or retrying ones now.

        Args:
            namespace: Of the jobs.
            job_ids: Any number.

        Returns:
            An entry a job, in order: None, or the error that refuses it (JobNotFoundError, JobStateError, UniqueKeyHeldError).
        """
        answers: dict[str, GopherError | None] = {}
        by_settings: dict[str, list[str]] = {}
        for job_id in dict.fromkeys(job_ids):
            try:
                by_settings.setdefault(await self._settings_of(namespace, job_id), []).append(job_id)
            except JobNotFoundError as error:
                answers[job_id] = error
        for settings, ids in by_settings.items():
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                replies = await self._requeue(self._link, [settings], batch)
                for job_id, reply in zip(batch, replies, strict=True):
                    answers[job_id] = read_requeue_answer(job_id, reply)
        return [answers[job_id] for job_id in job_ids]

    async def delete(self, namespace: str, job_id: str) -> None:
        """Remove a job for good.

        Raises:
            JobNotFoundError: There is no such job.
            JobStateError: It is processing.
        """
        settings = await self._settings_of(namespace, job_id)
        reply = await self._delete(self._link, [settings], [job_id])
        if reply[0] == b"NOT_FOUND":
            raise JobNotFoundError(job_id)
        if reply[0] == b"STATE":
            raise JobStateError(job_id, reply[1].decode(), "cancel it first")

    async def purge(self, namespace: str, queue: str) -> int:
        """Remove every waiting job of a queue for good.

        Returns:
            How many were removed.

        Cancellation:
            Some may have been removed.
        """
        total = 0
        removed: int
        while True:
            _, removed, has_more = await self._purge(self._link, [keys.settings(namespace, queue)], [BATCH])
            total += removed
            if not has_more:
                return total

    async def pause(self, namespace: str, queue: str) -> None:
        """Stop claims from a queue; one not yet used is created."""
        await self._registry.name_queue(namespace, queue)
        await self._pause(self._link, [keys.settings(namespace, queue)], [])

    async def resume(self, namespace: str, queue: str) -> None:
        """Let claims from a queue go on."""
        await self._resume(self._link, [keys.settings(namespace, queue)], [])

    async def promote(self, namespace: str, queue: str) -> Promotion:
        """Enqueue the jobs that are due, at most 100 of a kind, and fail those whose deadline has passed."""
        _, moved, next_ms, _, *failed = await self._promote(self._link, [keys.settings(namespace, queue)], [BATCH])
        return Promotion(moved, None if next_ms < 0 else next_ms / 1000, _texts(failed))

    async def reap(self, namespace: str, queue: str) -> Reaping:
        """Take jobs from workers whose lease has ended and remove jobs whose retention has, at most 100 of a kind."""
        reply = await self._reap(self._link, [keys.settings(namespace, queue)], [BATCH, MAX_CRASHES])
        _, leases, removed, failed, *ids = reply
        return Reaping(leases, removed, _texts(ids), _texts(failed))

    async def _settings_of(self, namespace: str, job_id: str) -> str:
        return keys.settings(namespace, await self._registry.queue_of(namespace, job_id))


def _texts(ids: list[bytes]) -> tuple[str, ...]:
    return tuple(job_id.decode() for job_id in ids)
