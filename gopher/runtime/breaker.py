"""What this worker does about the breakers of its handlers.

Redis keeps a breaker; the worker holds a copy that is pushed to it. While the copy says that jobs are free to start, a breaker costs
nothing but its failures, which are reported before their outcome is written: the slot takes no other job before the breaker has
counted them. Otherwise a claim carries the number of jobs that the worker has permits for, and parks the others before their
attempt begins; permits are asked for only once a claim has found jobs that need them.

An attempt whose handler has run is spent, whatever its breaker says, and its job waits for its own backoff. A retry joins the end of
the line, so that each probe of a long outage is another job.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.breaker import BreakerState
from gopher.errors import ScriptReplyError, StoreError
from gopher.job import Move, Outcome
from gopher.retry import RetryPolicy
from gopher.store.breakers import BreakerEnding
from gopher.store.codec import decode_failure
from gopher.store.lifecycle import Bound
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.breaker import Breaker
    from gopher.runtime.scopes import RunningAttempt
    from gopher.runtime.settler import Outcomes
    from gopher.store.breakers import Breakers, BreakerView
    from gopher.store.lifecycle import Settlement

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
_RENEWALS: Final = 3
"""Chosen: how often a permit is renewed while it would stand, as a lease is."""
_ORDERED_SECONDS: Final = 365 * 24 * 3600.0
_NEVER_MS: Final = 4_102_444_800_000
"""While an operator holds it open; when that ends, every worker has its jobs asked for again. The year 2100."""
_MARGIN_MS: Final = 20
"""Chosen: how much later than a breaker may probe its jobs are offered again. A copy of it lags behind by the way from Redis, and a
worker that is woken while its own still says open would not ask again before the next poll."""
_SPEAKS_OF_JOB: Final = frozenset({"DISCARDED", "PAYLOAD_MISMATCH", "RESULT_INVALID", "EXPIRED", "CANCELLED"})
"""Reasons of failures that say nothing of the dependency."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """What is still to be reported to a breaker, and the outcome, if any, that waits for the report."""

    ending: BreakerEnding
    attempt: RunningAttempt | None = None
    settlement: Settlement | None = None
    outcomes: Outcomes | None = None


class Guard:
    """This worker's copy of one breaker.

    Attributes:
        name: Of the breaker.
        breaker: As declared.
        types: That it guards.
        permits: Not yet used.
        held: Those that attempts run under.
        is_free: Whether jobs need no permit.
        has_tripped: Whether it was open, and has not closed since.
    """

    def __init__(self, name: str, breaker: Breaker, types: Sequence[str]) -> None:
        self.name = name
        self.breaker = breaker
        self.types = list(types)
        self.permits: list[str] = []
        self.held: set[str] = set()
        self.ended: list[_Ended] = []
        self.is_free = False
        self.has_tripped = False
        self._open_until_ms = 0
        self._open_until = 0.0

    @property
    def by(self) -> str:
        """As in a job's `parked_by`."""
        return f"breaker:{self.name}"

    @property
    def is_open(self) -> bool:
        """Whether it is not even to be asked for permits."""
        return time.monotonic() < self._open_until

    def see(self, view: BreakerView) -> bool:
        """Take in how the breaker stands; return whether claims are to try again: more jobs may start, or it has just opened.

        Only a claim that meets an open breaker gives its parked jobs the moment from which they are offered again.
        """
        was_shut, before_ms = not self.is_free, self._open_until_ms
        self.is_free = view.is_free
        if view.state is BreakerState.OPEN:
            self._open_until_ms = view.open_until_ms or _NEVER_MS
            self._open_until = time.monotonic() + (_ORDERED_SECONDS if view.open_seconds is None else view.open_seconds)
            return self._open_until_ms != before_ms
        self._open_until_ms, self._open_until = 0, 0.0
        return was_shut

    def bounds(self) -> list[Bound]:
        """Return what a claim may take of the types it guards; nothing while they are free."""
        if self.is_free:
            return []
        return [
            Bound(job_type, self.by, len(self.permits), self._open_until_ms + _MARGIN_MS if self.is_open else 0)
            for job_type in self.types
        ]

    def return_permits(self) -> None:
        """Give back the permits that no job was found for."""
        self.ended += [_Ended(BreakerEnding("n", permit)) for permit in self.permits]
        self.permits.clear()


class GuardedOutcomes:
    """Takes the outcome of one attempt to its breaker first."""

    __slots__ = ("_guard", "_guards", "_outcomes", "_permit")

    def __init__(self, guards: Guards, guard: Guard, permit: str, outcomes: Outcomes) -> None:
        self._guards = guards
        self._guard = guard
        self._permit = permit
        self._outcomes = outcomes

    def put_nowait(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        """As `Settler.put_nowait`; a failure is reported first."""
        self._guard.held.discard(self._permit)
        ending = BreakerEnding(_ending(settlement), self._permit)
        if ending.ending == "f":
            self._guard.ended.append(_Ended(ending, attempt, settlement, self._outcomes))
            self._guards.note_news()
            return
        self._outcomes.put_nowait(attempt, settlement)
        if self._permit or (ending.ending == "s" and not self._guard.is_free):
            self._guard.ended.append(_Ended(ending))
            self._guards.note_news()


class Guards:
    """The breakers of a worker's handlers.

    Args:
        breakers: Where they are kept.
        guards: Which they are.
        namespace: Of the queues.
        worker: Id of this worker.
        permit_seconds: How long a permit stands that is not renewed: so long others cannot probe once this worker is lost with it.
    """

    def __init__(
        self, breakers: Breakers, guards: Sequence[Guard], *, namespace: str, worker: str, permit_seconds: float
    ) -> None:
        self._breakers = breakers
        self._guards = {guard.by: guard for guard in guards}
        self._by_type = {job_type: guard for guard in guards for job_type in guard.types}
        self._namespace = namespace
        self._worker = worker
        self._permit_seconds = permit_seconds
        self._has_news = trio.Event()
        self._changed: set[str] = set()
        self._is_stale = False

    async def start(self) -> None:
        """Declare the breakers and hear of their changes from now on."""
        for guard in self._guards.values():

            def receive(view: BreakerView, guard: Guard = guard) -> None:
                self._see(guard, view)

            await self._breakers.listen(self._namespace, guard.name, receive)
        await self.reread()

    async def reread(self) -> None:
        """Look at every breaker: what was pushed while the connection was down is gone."""
        for guard in self._guards.values():
            self._see(guard, await self._breakers.declare(self._namespace, guard.name, guard.breaker, guard.types))

    def bounds(self) -> list[Bound]:
        """Return what a claim may take of the guarded types."""
        return [bound for guard in self._guards.values() for bound in guard.bounds()]

    def take(self, attempt: RunningAttempt, outcomes: Outcomes) -> Outcomes:
        """Take in a claimed attempt; return where its outcome goes."""
        guard = self._by_type.get(attempt.job.type)
        if guard is None:
            return outcomes
        permit = guard.permits.pop() if guard.permits and not guard.is_free else ""
        if permit:
            guard.held.add(permit)
        return GuardedOutcomes(self, guard, permit, outcomes)

    async def ask(self, refused: Sequence[str]) -> bool:
        """Ask for permits, once a claim has found jobs that need them; permits left over from that claim are given back.

        Returns:
            Whether another claim would fare otherwise.
        """
        found_more = False
        for guard in self._guards.values():
            if guard.permits:
                guard.return_permits()
                self.note_news()
            if guard.by in refused and not guard.is_open and not guard.is_free:
                found_more = await self._admit(guard) or found_more
        return found_more

    async def _admit(self, guard: Guard) -> bool:
        admission = await self._breakers.admit(self._namespace, guard.name, count=BATCH, permit_seconds=self._permit_seconds)
        has_changed = guard.see(admission.view)
        guard.permits += admission.permits
        return bool(guard.permits) or guard.is_free or (guard.is_open and has_changed)

    def note_stale(self) -> None:
        """Note that the copies may be out of date: `wait_news` returns."""
        self._is_stale = True
        self._has_news.set()

    def note_news(self) -> None:
        """Note that there is something to report, or to ask again for."""
        self._has_news.set()

    async def wait_news(self) -> list[str]:
        """Report what has ended, until claims are to try again what breakers hold back; return the names of those breakers."""
        while True:
            self._has_news = trio.Event()
            for guard in self._guards.values():
                while guard.ended:
                    await self._report(guard)
            if self._changed or self._is_stale:
                self._is_stale = False
                names = sorted(self._changed)
                self._changed.clear()
                return names
            await self._has_news.wait()

    async def keep_permits(self) -> None:
        """Renew the permits that attempts run under, until cancelled."""
        while True:
            await trio.sleep(self._permit_seconds / _RENEWALS)
            for guard in self._guards.values():
                if guard.held:
                    try:
                        await self._breakers.renew(self._namespace, guard.name, sorted(guard.held), self._permit_seconds)
                    except StoreError as error:
                        _log.warning("breaker.renewal_delayed", breaker=guard.name, error=str(error))

    async def _report(self, guard: Guard) -> None:
        batch = guard.ended[:BATCH]
        try:
            self._see(guard, await self._tell(guard, [each.ending for each in batch]))
        except ScriptReplyError as error:
            # A damaged breaker keeps no outcome from being written, nor another breaker from its reports.
            _log.error("breaker.report_refused", breaker=guard.name, error=str(error))
        del guard.ended[: len(batch)]
        for each in batch:
            if each.attempt is not None and each.settlement is not None and each.outcomes is not None:
                each.outcomes.put_nowait(each.attempt, each.settlement)

    async def _tell(self, guard: Guard, endings: list[BreakerEnding]) -> BreakerView:
        report_id = uuid.uuid4().hex
        failures = 0
        while True:
            try:
                return await self._breakers.report(
                    self._namespace, guard.name, worker=self._worker, report_id=report_id, endings=endings
                )
            except ScriptReplyError:
                raise
            except StoreError as error:
                failures += 1
                _log.warning("breaker.report_delayed", breaker=guard.name, error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))

    def _see(self, guard: Guard, view: BreakerView) -> None:
        if guard.see(view):
            self._changed.add(guard.by)
            self._has_news.set()
        if guard.is_open and not guard.has_tripped:
            guard.has_tripped = True
            _log.warning("breaker.opened", breaker=guard.name, seconds=view.open_seconds)
        elif guard.is_free and guard.has_tripped:
            guard.has_tripped = False
            _log.info("breaker.closed", breaker=guard.name)


def _ending(settlement: Settlement) -> str:
    if settlement.move is Move.COMPLETE:
        return "s"
    if settlement.outcome in {Outcome.RAISED, Outcome.TIMED_OUT} and settlement.failure:
        return "n" if decode_failure(settlement.failure).reason in _SPEAKS_OF_JOB else "f"
    return "n"
