"""The nurseries that handlers open: what may be started in them, and how their blocks end.

Nothing of a nursery lives in a Trio task of its own, so that handlers in threads and on asyncio have the same as those on Trio.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from gopher.errors import (
    GopherError,
    JobAlreadyFinalError,
    JobNotFoundError,
    NurseryTooDeepError,
    StoreError,
    StoreUnavailableError,
)
from gopher.kin.kin import Kin, Sibling
from gopher.nursery import MAX_DEPTH, NurseryPolicy, OnCancel, OnCrash, choice
from gopher.retry import RetryPolicy
from gopher.runtime.children import descended, new_child
from gopher.runtime.scopes import CancelReason
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from typing import NoReturn, Unpack

    from gopher.kin.carrier import Carrier
    from gopher.runtime.rests import Rests
    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.families import Member
    from gopher.store.store import Store
    from gopher.submission import JobOptions, Payload

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LEAVE: Final = 1_000
"""Places a script call takes out of a family at most; chosen: some 0.3 ms."""
_GRACE_MS: Final = 5_000
"""Chosen: as a cancel that says nothing of it."""
_CHILDREN_SECONDS: Final = 0.5
"""Chosen: less than what is left, when the cleanup of a drain is over, before the worker goes."""
_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Chosen: a block ends within 2 s of Redis being back."""
_GIVEN_BACK: Final = frozenset({CancelReason.SHUTDOWN, CancelReason.LEASE_LOST})
"""Why an attempt is cancelled whose job is run again."""


class AttemptParent:
    """An attempt, as the children of its nurseries see it.

    Args:
        attempt: Which.
        namespace: Of its job.
    """

    def __init__(self, attempt: RunningAttempt, namespace: str) -> None:
        self._attempt = attempt
        self.id = attempt.job.id
        self.token = attempt.job.token
        self.namespace = namespace
        self.queue = attempt.queue

    @property
    def is_over(self) -> bool:
        """Whether the handler has ended."""
        return self._attempt.is_over

    @property
    def grace_seconds(self) -> float:
        """As the attempt's own."""
        return self._attempt.grace_seconds


class AttemptKin(Kin):
    """The children of one nursery of an attempt.

    Attributes:
        attempt: Whose.
    """

    attempt: RunningAttempt


class Nurseries:
    """Opens nurseries and ends them.

    Args:
        store: Where children go.
        carrier: Brings them there.
        namespace: Of the attempts, and of their children.
        rests: Where attempts wait without a slot.
        on_lost: Told of an attempt whose lease is lost.
        on_change: Told of an attempt's child that was stored, or has ended; must neither block nor raise.
    """

    def __init__(
        self,
        store: Store,
        carrier: Carrier,
        *,
        namespace: str,
        rests: Rests,
        on_lost: Callable[[RunningAttempt], None],
        on_change: Callable[[RunningAttempt, Sibling], None],
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._namespace = namespace
        self._rests = rests
        self._on_lost = on_lost
        self._on_change = on_change

    async def open(self, attempt: RunningAttempt, policy: str, on_crash: str) -> AttemptKin:
        """Open a nursery of an attempt.

        Raises:
            InvalidRequestError: There is no such policy.
            StoreError: What an earlier attempt has left cannot be read.
        """
        kind = choice("policy", policy, NurseryPolicy)
        crash = choice("on_crash", on_crash, OnCrash)
        await trio.lowlevel.checkpoint()
        attempt.nurseries += 1
        number = attempt.nurseries
        earlier: dict[int, Member] = {}
        if crash is OnCrash.ADOPT and attempt.job.number(b"family") is not None:
            earlier = await self._left_behind(attempt, number)
        parent = AttemptParent(attempt, self._namespace)
        kin = AttemptKin(self._carrier, parent, number, policy=kind, on_crash=crash, earlier=earlier)
        kin.attempt = attempt
        kin.on_lost = partial(self._on_lost, attempt)
        kin.on_stored = kin.on_end = partial(self._on_change, attempt)
        self._carrier.take(kin)
        return kin

    def add(self, kin: AttemptKin, job_type: str, payload: Payload, on_cancel: str, options: JobOptions) -> Sibling:
        """Take in a child as a handler describes it; see `JobNursery.start_soon`."""
        policy = choice("on_cancel", on_cancel, OnCancel)
        parent = kin.attempt.job
        depth = (parent.number(b"depth") or 0) + 1
        if depth > MAX_DEPTH:
            raise NurseryTooDeepError(MAX_DEPTH)
        inherited: JobOptions = {"queue": kin.attempt.queue, "priority": parent.priority.decode()}
        told: JobOptions = {name: value for name, value in options.items() if value is not None}  # type: ignore[assignment]  # the same keys
        job = msgspec.structs.replace(descended(parent, new_child(job_type, payload, {**inherited, **told})), depth=depth)
        return kin.add(job, policy)

    async def start(self, kin: AttemptKin, job_type: str, payload: Payload, on_cancel: str, options: JobOptions) -> Sibling:
        """Take in a child and return once it is stored; see `JobNursery.start`."""
        child = self.add(kin, job_type, payload, on_cancel, options)
        await child.wait_stored()
        return child

    async def join(self, kin: AttemptKin) -> None:
        """End a nursery once all its children have ended; meanwhile the attempt has no slot.

        Raises:
            ExceptionGroup: What the block raises for its children.

        Cancellation:
            The children are cancelled, and have ended when this returns; but for a lease that is lost.
        """
        try:
            # With its slot: it is the children that are to have it, not whoever stands behind them.
            await kin.wait_room(0, 0)
            async with self._rests.resting(kin.attempt):
                await kin.wait_ended()
        except trio.Cancelled:
            await self.abandon(kin)  # noqa: ASYNC102 - it shields itself, and the attempt's grace bounds it
            raise
        errors = await self._close(kin)
        if errors:
            raise ExceptionGroup("children of a nursery did not complete", errors)

    async def fail(self, kin: AttemptKin, error: BaseException) -> NoReturn:
        """End a nursery whose block was left by an error: the children are cancelled first.

        Raises:
            ExceptionGroup: The error and those of the children; only a cancel, of whichever kind, goes on as it is.
        """
        errors = await self.abandon(kin)
        if isinstance(error, Exception):
            raise ExceptionGroup("a nursery of jobs has failed", [error, *errors])
        raise error

    async def abandon(self, kin: AttemptKin) -> list[GopherError]:
        """Cancel the children of a nursery and wait for their end; return their errors."""
        kin.is_closed = True
        reason = kin.attempt.cancel_reason
        if reason in _GIVEN_BACK and kin.on_crash is OnCrash.ADOPT:
            self._carrier.let_go(kin)
            return []
        kin.cancel()
        errors: list[GopherError] = []
        if kin.attempt.is_lost:
            # The attempt must not outlast its lease: whoever takes the job back ends the children too.
            self._carrier.let_go(kin)
        else:
            # The children have the same grace, and their end has to come here.
            kin.attempt.wait_longer(_CHILDREN_SECONDS)
            # Shielded: as in any nursery, no child outlasts the block. The grace of the attempt bounds it, and so does its lease.
            with trio.CancelScope(shield=True) as shield, _bounded(kin.attempt, shield):
                try:
                    await kin.wait_ended()
                    errors += await self._close(kin)
                finally:
                    self._carrier.let_go(kin)
        return errors

    async def _close(self, kin: AttemptKin) -> list[GopherError]:
        kin.is_closed = True
        try:
            errors = await self._errors(kin)
        finally:
            self._carrier.let_go(kin)
        await self._leave(kin, list(kin.earlier.values()))
        return errors

    async def _errors(self, kin: AttemptKin) -> list[GopherError]:
        failures = 0
        while True:
            try:
                return await kin.errors()
            except StoreUnavailableError as error:
                if kin.is_cut_off:
                    return []
                # To raise this would run the whole tree again for want of a few words.
                failures += 1
                _log.warning("nursery.delayed", job_id=kin.attempt.job.id, error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))

    async def _left_behind(self, attempt: RunningAttempt, number: int) -> dict[int, Member]:
        """Return what earlier attempts have left of a nursery, by number, as far as it is still kept."""
        members = await self._store.families.members(self._namespace, attempt.queue, attempt.job.id)
        # Of two in one place the later attempt's counts; the other is found among the orphans.
        found = sorted(
            (each for each in members if each.nursery == number and each.may_be_adopted), key=lambda each: each.token
        )
        kept: dict[int, Member] = {}
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
            states = await self._store.families.states(self._namespace, [member.id for member in batch])
            kept.update((member.number, member) for member, state in zip(batch, states, strict=True) if state is not None)
        return kept

    async def _leave(self, kin: AttemptKin, members: Sequence[Member]) -> None:
        """Take ended children out of the family, and cancel those that an earlier attempt has left and this one did not want.

        Detached ones of those go on alone.
        """
        attempt = kin.attempt
        try:
            for member in members:
                if member.is_detached:
                    continue
                with suppress(JobNotFoundError, JobAlreadyFinalError):
                    reason = f"its parent {attempt.job.id} runs again without it"
                    await self._store.lifecycle.cancel(
                        self._namespace, member.id, reason=reason, grace_ms=_GRACE_MS, actor=f"parent {attempt.job.id}"
                    )
            places = [kin.place(child) for child in kin.children if child.id is not None] + [each.place for each in members]
            for start in range(0, len(places), _LEAVE):
                batch = places[start : start + _LEAVE]
                await self._store.families.leave(self._namespace, attempt.queue, attempt.job.id, batch)
        except StoreError as error:
            # Then they are found among the orphans, when the parent is settled.
            _log.warning("nursery.not_left", job_id=attempt.job.id, error=str(error))


class Nursery:
    """A nursery, inside the block of a coroutine handler; see `gopher.nursery.JobNursery`."""

    def __init__(self, nurseries: Nurseries, kin: AttemptKin) -> None:
        self._nurseries = nurseries
        self._kin = kin

    def start_soon(
        self,
        type: str,  # noqa: A002 - the field's name wherever a job is spoken of
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> Sibling:
        """See `JobNursery.start_soon`."""
        return self._nurseries.add(self._kin, type, payload, on_cancel, options)

    async def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> Sibling:
        """See `JobNursery.start`."""
        return await self._nurseries.start(self._kin, type, payload, on_cancel, options)

    def cancel(self) -> None:
        """See `JobNursery.cancel`."""
        self._kin.cancel()


@asynccontextmanager
async def trio_block(nurseries: Nurseries, attempt: RunningAttempt, policy: str, on_crash: str) -> AsyncIterator[Nursery]:
    """Open a nursery of jobs while a block in a Trio handler lasts; a child's end that decides it cancels the block.

    Raises:
        ExceptionGroup: The block's own error, and those of the children.
    """
    kin = await nurseries.open(attempt, policy, on_crash)
    scope = trio.CancelScope()
    kin.on_decided = scope.cancel
    try:
        with scope:
            yield Nursery(nurseries, kin)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - whatever ends the block ends its children; `fail` raises it again
        await nurseries.fail(kin, error)  # noqa: ASYNC102 - it shields itself
    await nurseries.join(kin)


@contextmanager
def _bounded(attempt: RunningAttempt, shield: trio.CancelScope) -> Iterator[None]:
    """Have what a shield covers end when the attempt's lease is lost."""
    shields = attempt.shields = attempt.shields or set()
    shields.add(shield)
    try:
        yield
    finally:
        shields.discard(shield)
