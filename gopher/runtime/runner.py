"""Runs attempts: each alone in a cancel scope, with one lease and one outcome.

The outcome is read from which scope caught, not from the exception: a handler that returns normally has succeeded, even after a
cancel. If the worker itself is being torn down, the scopes around this one are cancelled; then the job is given back.

Whatever a handler raises or returns is its attempt's outcome, and never the end of the worker. That includes `KeyboardInterrupt`:
while handlers run, SIGINT is a worker's order to drain (`signals`), and elsewhere, as in a test, Trio delivers it to the main task,
since handlers are protected from it. A `trio.Cancelled` whose scope is over is the handler's error like any other.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import structlog
import trio

from gopher.contexts import AttemptCancelled, JobContext
from gopher.errors import PayloadMismatchError, ResultInvalidError
from gopher.handlers import Discard, Retry, Snooze
from gopher.job import Failure, Move, Outcome
from gopher.runtime.failures import cut, describe, holds, is_retryable, message_of, sole, too_large
from gopher.runtime.forks import ForkGuard
from gopher.runtime.nurseries import trio_block
from gopher.runtime.scope_tree import abandon_nurseries, is_innermost
from gopher.runtime.scopes import CancelReason
from gopher.runtime.tracebacks import traceback_of
from gopher.store import settlements
from gopher.store.codec import encode_failure
from gopher.store.lifecycle import Settlement
from gopher.submission import encode_json
from gopher.telemetry import log, tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.event import EventKind
    from gopher.handlers import HandlerSpec, Registry
    from gopher.runtime.children import Children
    from gopher.runtime.executors import Executors
    from gopher.runtime.nurseries import Nurseries
    from gopher.runtime.scopes import RunningAttempt
    from gopher.runtime.settler import Outcomes
    from gopher.store.codec import ClaimedJob
    from gopher.submission import JobOptions, Payload

Taken: TypeAlias = "tuple[RunningAttempt, Outcomes]"
"""An attempt, and who writes its outcome."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

# Numbers of gRPC status codes (google/rpc/code.proto), for a job's failure.
_CODE_UNKNOWN: Final = 2
_CODE_INVALID_ARGUMENT: Final = 3
_CODE_DEADLINE_EXCEEDED: Final = 4
_CODE_ABORTED: Final = 10


class Say(Protocol):
    """Keeps what a running attempt says; `Supervisor` and the test kit implement it."""

    async def __call__(self, attempt: RunningAttempt, kind: EventKind, progress: float | str, detail: bytes) -> None:
        """Keep it, as `gopher.store.history.Saying` has it."""


class Runner:
    """Runs attempts, any number at once.

    Args:
        registry: The handlers.
        executors: Where they run.
        namespace: Of the jobs.
        max_result_bytes: A larger result fails the job.
        say: Keeps what handlers say to the watchers of their jobs.
        children: Takes in what handlers submit.
        nurseries: Opens those of handlers.
        is_draining: Tells handlers whether the worker drains.
        max_attempts: Of jobs for which neither submitter nor handler says.
        keep_tracebacks: Whether a failed attempt keeps its traceback.
    """

    def __init__(
        self,
        registry: Registry,
        executors: Executors,
        *,
        namespace: str,
        max_result_bytes: int,
        say: Say,
        children: Children,
        nurseries: Nurseries,
        is_draining: Callable[[], bool],
        max_attempts: int,
        keep_tracebacks: bool,
    ) -> None:
        self._keep_tracebacks = keep_tracebacks
        self._max_attempts = max_attempts
        self._registry = registry
        self._executors = executors
        self._namespace = namespace
        self._max_result_bytes = max_result_bytes
        self._say = say
        self._children = children
        self._nurseries = nurseries
        self._is_draining = is_draining
        self._fork_guard = ForkGuard()

    @trio.lowlevel.enable_ki_protection
    async def run(self, take: Callable[[], Taken | None]) -> bool:
        """Run attempts to their end, one after another, and hand their outcomes over.

        Each is alone in the cancel scope; the scope serves the next one as long as nothing was raised in it and nothing has
        cancelled it, because to open one costs as much as all else here.

        Args:
            take: Gives the next attempt; None ends this.

        Returns:
            Whether every handler simply returned. If not, this Trio task may hold traces of one.

        Cancellation:
            The handler is ended and its job is given back unspent.
        """
        scope = trio.CancelScope()
        slot = log.current_slot()
        attempt: RunningAttempt | None = None
        outcomes: Outcomes | None = None
        error: BaseException | None = None
        is_clean = True
        nurseries = len(trio.lowlevel.current_task().child_nurseries)
        try:
            with scope:
                while is_clean and not scope.cancel_called and (taken := take()) is not None:
                    attempt, outcomes = taken
                    slot.attempt = attempt
                    attempt.begin(scope)
                    settlement = self._refusal(attempt) or await self._complete(attempt, scope)
                    self._fork_guard.check()
                    attempt.end()
                    outcomes.put_nowait(attempt, settlement)
                    attempt = None
                    is_clean = is_innermost(scope)
        except BaseException as raised:  # noqa: BLE001, ASYNC103 - whatever a handler raises ends its attempt alone
            # A plain `except`: `except*` splits groups, and one that is nested deep enough ends that with a RecursionError.
            error, is_clean = raised, False
        if not is_clean:
            self._fork_guard.check()
            abandon_nurseries(nurseries)
        if attempt is None or outcomes is None:
            slot.attempt = None
            return is_clean
        attempt.end()
        is_torn_down = error is not None and trio.current_effective_deadline() == -math.inf and holds(error, trio.Cancelled)
        outcomes.put_nowait(attempt, settlements.release(attempt.job) if is_torn_down else self._failure(attempt, error, scope))
        # Only now: what is logged of a failure names the attempt as the handler's own lines do.
        slot.attempt = None
        # Where the worker ends this raises, and the slot with it.
        await trio.lowlevel.checkpoint_if_cancelled()
        return False

    def _refusal(self, attempt: RunningAttempt) -> Settlement | None:
        """Return what becomes of an attempt that does not begin; None for one that does."""
        if attempt.cancel_reason is not None or attempt.is_given_back:
            # A cancel that came between the claim and this moment: nothing has begun that would have to be ended.
            return _ended_by_us(attempt, None)
        return _unhandled(attempt.job) if self._registry.get(attempt.job.type) is None else None

    async def _complete(self, attempt: RunningAttempt, scope: trio.CancelScope) -> Settlement:
        """Run the handler; whatever ends it but its return is raised, or caught by the scope."""
        spec = self._spec(attempt.job)
        room = self._executors.room_for(spec)
        if room is None and attempt.may_begin is None:
            result = await self._run_handler(attempt, spec, scope)
        else:
            result = await self._run_in_turn(attempt, spec, scope, room)
        job = attempt.job
        children = () if attempt.brood is None else tuple(attempt.brood.children)
        plain_attempt = job.attempt if job.is_plain and not children and not attempt.nurseries else 0
        return Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, 0, result, b"", plain_attempt, children)

    async def _run_in_turn(
        self, attempt: RunningAttempt, spec: HandlerSpec, scope: trio.CancelScope, room: trio.CapacityLimiter | None
    ) -> bytes:
        """Run the handler once it may begin; the wait is none of its time."""
        attempt.is_waiting = True
        if self._is_draining():
            attempt.cancel(CancelReason.SHUTDOWN)
        since = trio.current_time()
        scope.deadline = since + _left_seconds(attempt)
        if attempt.may_begin is not None:
            await attempt.may_begin.wait()
        async with room or nullcontext():
            attempt.is_waiting = False
            if attempt.is_given_back:
                attempt.cancel(CancelReason.GIVEN_BACK)
                await trio.lowlevel.checkpoint_if_cancelled()
            if attempt.announce is not None:
                await attempt.announce(attempt)
                await trio.lowlevel.checkpoint_if_cancelled()
            attempt.waited_seconds = trio.current_time() - since
            scope.deadline = math.inf
            return await self._run_handler(attempt, spec, scope)

    async def _run_handler(self, attempt: RunningAttempt, spec: HandlerSpec, scope: trio.CancelScope) -> bytes:
        attempt.began_at = time.perf_counter()
        limit_seconds, _ = _limit(attempt, spec)
        if limit_seconds is not None:
            scope.deadline = trio.current_time() + limit_seconds
            attempt.is_late_at = time.monotonic() + limit_seconds + attempt.grace_seconds
        job = attempt.job
        with tracing.attempt_span(job.type, attempt.queue, job.id, job.attempt, job.trace):
            value = await self._executors.execute(spec, self._context(attempt), attempt)
        result = self._read_result(value)
        if limit_seconds is not None and not scope.cancel_called:
            scope.deadline = math.inf
        return result

    def _failure(self, attempt: RunningAttempt, error: BaseException | None, scope: trio.CancelScope) -> Settlement:
        """Return what becomes of an attempt whose handler did not return; without an error, its scope has caught."""
        try:
            return self._judge(attempt, error, scope)
        except BaseException as fault:  # noqa: BLE001, ASYNC103 - an error's attributes, and its class, are its author's code
            job = attempt.job
            told = f"{type(error).__name__}, and it cannot be read: {type(fault).__name__}: {message_of(fault)}"
            _log.warning("attempt.raised", job_id=job.id, type=job.type, attempt=job.attempt, exception=told)
            failure = Failure(reason="HANDLER_RAISED", message=cut(told), code=_CODE_UNKNOWN)
            return self._retry_or_bury(job, self._spec(job), Outcome.RAISED, failure)  # noqa: ASYNC104 - nothing here awaits

    def _judge(self, attempt: RunningAttempt, error: BaseException | None, scope: trio.CancelScope) -> Settlement:
        job, spec = attempt.job, self._spec(attempt.job)
        if attempt.cancel_reason is not None:
            return _ended_by_us(attempt, error)
        limit_seconds, is_job_deadline = _limit(attempt, spec)
        if error is not None and not scope.cancel_called:
            return self._raised(job, spec, sole(error))
        _log.warning("attempt.timed_out", job_id=job.id, type=job.type, attempt=job.attempt, limit_seconds=limit_seconds)
        return self._timed_out(job, spec, limit_seconds or 0.0, is_job_deadline=is_job_deadline)

    def _spec(self, job: ClaimedJob) -> HandlerSpec:
        spec = self._registry.get(job.type)
        assert spec is not None  # noqa: S101 - without one the attempt was refused
        return spec

    def _context(self, attempt: RunningAttempt) -> JobContext:
        job = attempt.job

        async def say(kind: EventKind, progress: float | str, detail: bytes) -> None:
            await self._say(attempt, kind, progress, detail)

        async def enlist(job_type: str, payload: Payload, options: JobOptions) -> str:
            return await self._children.submit(attempt, job_type, payload, options)

        context = JobContext(
            id=job.id,
            type=job.type,
            queue=attempt.queue,
            namespace=self._namespace,
            attempt=job.attempt,
            token=job.token,
            labels=job.labels,
            deadline_ms=None if job.is_plain else job.number(b"deadline_ms"),
            is_draining=self._is_draining,
        )
        context.ending = attempt
        context.say = say
        context.enlist = enlist
        context.nurse = partial(trio_block, self._nurseries, attempt)
        return context

    def _read_result(self, value: object) -> bytes:
        try:
            result = encode_json(value)
        except ValueError as error:
            raise ResultInvalidError(f"what the handler returned is not JSON: {error}") from error
        if len(result) > self._max_result_bytes:
            raise ResultInvalidError(too_large(len(result), self._max_result_bytes))
        return result

    def _timed_out(self, job: ClaimedJob, spec: HandlerSpec, limit_seconds: float, *, is_job_deadline: bool) -> Settlement:
        if is_job_deadline:
            failure = Failure(
                reason="EXPIRED", message="the job's deadline passed before the attempt had ended", code=_CODE_DEADLINE_EXCEEDED
            )
            return settlements.bury(job, Outcome.TIMED_OUT, failure)
        failure = Failure(
            reason="TIMED_OUT", message=f"the attempt was ended after {limit_seconds:g} s", code=_CODE_DEADLINE_EXCEEDED
        )
        return self._retry_or_bury(job, spec, Outcome.TIMED_OUT, failure)

    def _raised(self, job: ClaimedJob, spec: HandlerSpec, error: BaseException) -> Settlement:
        if isinstance(error, Snooze):
            return settlements.snooze(job, error.seconds)
        if isinstance(error, PayloadMismatchError | ResultInvalidError):
            # Gopher has raised it, so its traceback holds nothing of the handler; its message may hold a part of the payload.
            _log.warning("attempt.refused", job_id=job.id, type=job.type, attempt=job.attempt, reason=error.reason)
            failure = Failure(reason=error.reason, message=cut(error.message), code=_CODE_INVALID_ARGUMENT)
            return settlements.bury(job, Outcome.RAISED, failure)
        shown = traceback_of(error)
        match error:
            case Discard():
                failure = Failure(reason="DISCARDED", message=message_of(error), code=_CODE_ABORTED)
                settlement = settlements.bury(job, Outcome.RAISED, failure)
            case Retry():
                failure = Failure(reason="RETRY_ASKED", message=message_of(error))
                settlement = self._retry_or_bury(job, spec, Outcome.RAISED, failure, after_seconds=error.after)
            case _:
                _log.warning("attempt.raised", job_id=job.id, type=job.type, attempt=job.attempt, exception=shown)
                settlement = self._failed(job, spec, error)
        return settlement._replace(result=shown.encode()) if self._keep_tracebacks else settlement

    def _failed(self, job: ClaimedJob, spec: HandlerSpec, error: BaseException) -> Settlement:
        failure = describe(error)
        if not is_retryable(error, spec.non_retryable):
            return settlements.bury(job, Outcome.RAISED, failure)
        advised_ms = failure.retry_after_ms
        after_seconds = None if advised_ms is None else advised_ms / 1000
        return self._retry_or_bury(job, spec, Outcome.RAISED, failure, after_seconds=after_seconds)

    def _retry_or_bury(
        self, job: ClaimedJob, spec: HandlerSpec, outcome: Outcome, failure: Failure, *, after_seconds: float | None = None
    ) -> Settlement:
        declared = replace(spec.retry_policy, max_attempts=spec.max_attempts or self._max_attempts)
        return settlements.retry_or_bury(job, declared, outcome, failure, after_seconds=after_seconds)


def _limit(attempt: RunningAttempt, spec: HandlerSpec) -> tuple[float | None, bool]:
    """Return how long the attempt may run, in seconds, and whether that is due to the job's deadline."""
    timeout_ms = attempt.job.number(b"timeout_ms")
    limit_seconds = spec.timeout_seconds if timeout_ms is None else timeout_ms / 1000
    if attempt.job.is_plain:
        return limit_seconds, False
    left_seconds = _left_seconds(attempt)
    if left_seconds < (math.inf if limit_seconds is None else limit_seconds) or (
        attempt.is_waiting and left_seconds < math.inf
    ):
        return left_seconds, True
    return limit_seconds, False


def _left_seconds(attempt: RunningAttempt) -> float:
    """Return the seconds until the job's deadline from when the handler may begin; infinity where it has none."""
    deadline_ms = None if attempt.job.is_plain else attempt.job.number(b"deadline_ms")
    return math.inf if deadline_ms is None else (deadline_ms - attempt.job.claimed_ms) / 1000 - attempt.waited_seconds


def _unhandled(job: ClaimedJob) -> Settlement:
    _log.warning("attempt.unhandled", job_id=job.id, type=job.type)
    return settlements.unhandled(job)


def _ended_by_us(attempt: RunningAttempt, error: BaseException | None) -> Settlement:
    job = attempt.job
    if attempt.cancel_reason is CancelReason.REQUESTED:
        # Who was told in a thread that it was to end has not failed.
        failure = b"" if error is None or isinstance(error, AttemptCancelled) else encode_failure(describe(error))
        return Settlement(job.id, job.token, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED, 0, b"", failure)
    # With the lease lost the release is refused, which is right: the job is somebody else's.
    return settlements.release(job)
