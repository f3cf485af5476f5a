"""The attempts that run in this worker: job id -> lease and cancel scope.

Changed by the Trio thread alone. The keeper's thread only takes snapshots, and leaves what it found to the Trio thread.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType

    from gopher.runtime.children import Brood
    from gopher.runtime.notices import Notice
    from gopher.store.codec import ClaimedJob

_EARLY_CANCELS: Final = 1_000
"""Cancels kept for jobs whose claim is still on its way; chosen: ten times what one claim can bring."""

_GRACE_SECONDS: Final = 5.0
"""Chosen: where nobody says how long cleanup may take."""


class CancelReason(Enum):
    """Why an attempt's scope was cancelled by us; a time-out needs no mark, the scope's own deadline tells."""

    REQUESTED = "requested"
    LEASE_LOST = "lease_lost"
    SHUTDOWN = "shutdown"
    GIVEN_BACK = "given_back"


class Host(Protocol):
    """What runs a handler elsewhere than in Trio tasks of the attempt's scope, where that alone ends it; asked in the Trio thread."""

    def cut(self) -> Notice | None:
        """End what has outlasted the grace, as far as it can be ended; called again and again until the attempt is over."""

    def frames(self) -> Sequence[FrameType]:
        """Return the stack of the handler, the innermost frame last; empty where it cannot be seen."""


class Speech:
    """What an attempt has said so far.

    Attributes:
        said: How many sayings.
        unwritten: How many of them are not in the job's history yet.
        when_written: Called once all are; None when nobody waits for that.
    """

    __slots__ = ("said", "unwritten", "when_written")

    def __init__(self) -> None:
        self.said = 0
        self.unwritten = 0
        self.when_written: Callable[[], None] | None = None


class RunningAttempt:
    """One attempt from its claim until its outcome is written.

    Attributes:
        job: As claimed.
        queue: Of the job.
        lease_until: When the lease ends unless extended, by `time.monotonic()`. Written by the keeper.
        cancel_reason: Why the scope was cancelled; None when it was not.
        grace_seconds: How long cleanup may take once cancelled or timed out before the job counts as stuck.
        may_begin: What the handler has to wait for, in its scope; None for nearly every one.
        announce: What is called with the attempt right before the handler begins; None for nearly every one.
        is_waiting: Whether the handler waits in its scope for leave to begin.
        is_given_back: Whether it must not begin, since the keeper's thread has given its job back.
        waited_seconds: How long it has waited, which its time limit does not count.
        brood: What the handler has submitted; None when it has submitted nothing.
        nurseries: How many nurseries of jobs the handler has opened.
        rests: For how many of them it waits; then it has no slot.
        is_lost: Whether its lease is lost, also when it was being ended for another reason.
        is_cut_off: Whether it was lost because Redis was out of reach, while this worker lived. Written by the keeper.
        shields: What it waits in for the end of its children, and no longer than its lease; None for most.
        is_late_at: When the grace of a cancel or a time-out is over, and the job counts as stuck, by `time.monotonic()`.
        host: What runs the handler at present; None for Trio.
        hangs_at: Where the handler was last seen after its grace: `file:line in function`; '' where that is not known.
        is_over: Whether the handler has ended, and only its outcome is still to be written.
        speech: What it has said to the job's watchers; None when it has said nothing.
        began_at: When the handler began, by `time.perf_counter()`; None until then.
        ended_at: When it ended, likewise; 0 until then.
    """

    __slots__ = (
        "_scope",
        "announce",
        "began_at",
        "brood",
        "cancel_reason",
        "ended_at",
        "grace_seconds",
        "hangs_at",
        "host",
        "is_cut_off",
        "is_given_back",
        "is_late_at",
        "is_lost",
        "is_over",
        "is_waiting",
        "job",
        "lease_until",
        "may_begin",
        "nurseries",
        "queue",
        "rests",
        "shields",
        "speech",
        "waited_seconds",
    )

    def __init__(self, job: ClaimedJob, queue: str, lease_until: float) -> None:
        self.job = job
        self.queue = queue
        self._scope: trio.CancelScope | None = None
        self.lease_until = lease_until
        self.may_begin: trio.Event | None = None
        self.announce: Callable[[RunningAttempt], Awaitable[None]] | None = None
        self.is_waiting = False
        self.is_given_back = False
        self.waited_seconds = 0.0
        self.cancel_reason: CancelReason | None = None
        self.grace_seconds = _GRACE_SECONDS
        self.brood: Brood | None = None
        self.nurseries = 0
        self.rests = 0
        self.is_lost = False
        self.is_cut_off = False
        self.shields: set[trio.CancelScope] | None = None
        self.is_late_at = math.inf
        self.host: Host | None = None
        self.hangs_at = ""
        self.is_over = False
        self.speech: Speech | None = None
        self.began_at: float | None = None
        self.ended_at = 0.0

    @property
    def run_seconds(self) -> float | None:
        """How long the handler has run, or ran; None when it did not begin. Safe in any thread."""
        began_at = self.began_at
        return None if began_at is None else (self.ended_at or time.perf_counter()) - began_at

    @property
    def scope(self) -> trio.CancelScope | None:
        """Where the handler runs; None while it does not."""
        return self._scope

    def must_end(self) -> bool:
        """Tell whether the handler is to end: cancelled, out of time, or over already. Safe in any thread."""
        return self.cancel_reason is not None or self.is_over or time.monotonic() >= self.is_late_at - self.grace_seconds

    @property
    def has_begun(self) -> bool:
        """Whether the handler runs, or has run. Safe in any thread."""
        # In this order: `end` says that it is over before it lets go of the scope.
        return (self._scope is not None and not self.is_waiting) or self.is_over

    def begin(self, scope: trio.CancelScope) -> None:
        """Note that the handler runs in a scope, which ends its whole task tree; from now on look at `is_given_back`."""
        self._scope = scope

    def give_back(self) -> bool:
        """Let the handler not begin, in the keeper's thread; tell whether its job may be given back by that.

        Each thread first says what it is about to do, then looks at what the other has said. So where they meet, the handler does
        not begin, and the Trio thread gives the job back.
        """
        self.is_given_back = True
        if self.has_begun:
            self.is_given_back = False
        return self.is_given_back

    def end(self) -> None:
        """Note that the handler has ended, and that the scope is somebody else's from now on."""
        self.ended_at = time.perf_counter()
        self.is_over = True
        self._scope = None

    @property
    def is_heard(self) -> bool:
        """Whether the job has a history: somebody has watched it, or it has said something."""
        return self.speech is not None or self.job.number(b"history") is not None

    def note_said(self) -> None:
        """Note that a saying is written; whoever waits for the last one is told."""
        speech = self.speech
        if speech is not None:
            speech.unwritten -= 1
            if not speech.unwritten and speech.when_written is not None:
                tell, speech.when_written = speech.when_written, None
                tell()

    def cancel(self, reason: CancelReason, grace_seconds: float = _GRACE_SECONDS) -> None:
        """End the handler, or let it not begin; the first reason stands, and of all graces the end that comes first."""
        is_late_at = time.monotonic() + grace_seconds
        if is_late_at < self.is_late_at:
            self.is_late_at = is_late_at
            self.grace_seconds = grace_seconds
        if self.cancel_reason is None:
            self.cancel_reason = reason
            if self._scope is not None:
                self._scope.cancel(reason=reason.value)
        if reason is CancelReason.LEASE_LOST:
            self.is_lost = True
            for shield in self.shields or ():
                shield.cancel(reason=reason.value)

    def wait_longer(self, seconds: float) -> None:
        """Let the handler have more than its grace, for what its end needs of others."""
        self.is_late_at += seconds

    def is_stuck(self, now: float) -> bool:
        """Tell whether the handler has outlasted its cancel, or its time limit, and the grace."""
        return now > self.is_late_at and not self.is_over


class Scopes:
    """The running attempts of this worker, by job id.

    A job may be here twice, when this worker has lost its lease and claimed it again: the displaced attempt is being ended, and
    keeps its slot until it has.

    Attributes:
        removed: How many attempts have been let go of so far.
    """

    def __init__(self) -> None:
        self._running: dict[str, RunningAttempt] = {}
        self._displaced: list[RunningAttempt] = []
        self._early: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._given_back: set[tuple[str, int]] = set()
        self._emptied = trio.Event()
        self._filled: trio.Event | None = None
        self.removed = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._displaced)

    def add(self, attempt: RunningAttempt) -> None:
        """Take in a claimed attempt; one whose cancel has overtaken its claim is cancelled at once."""
        job = attempt.job
        displaced = self._running.get(job.id)
        if displaced is not None:
            # Marked before the new one is to be seen: the keeper's thread must not take the one's lease for the other's.
            displaced.cancel(CancelReason.LEASE_LOST)
            self._displaced.append(displaced)
        self._running[job.id] = attempt
        if self._filled is not None:
            self._filled.set()
            self._filled = None
        if self._given_back and (job.id, job.token) in self._given_back:
            self._given_back.discard((job.id, job.token))
            attempt.is_given_back = True
        if self._early:
            grace_seconds = self._early.pop((job.id, job.token), None)
            if grace_seconds is not None:
                attempt.cancel(CancelReason.REQUESTED, grace_seconds)

    def remove(self, attempt: RunningAttempt) -> None:
        """Let go of an attempt whose outcome is written, or whose lease is lost."""
        if self._running.get(attempt.job.id) is attempt:
            del self._running[attempt.job.id]
        elif attempt in self._displaced:
            self._displaced.remove(attempt)
        else:
            return
        self.removed += 1
        if not self._running and not self._displaced:
            self._emptied.set()
            self._emptied = trio.Event()

    def holds(self, attempt: RunningAttempt) -> bool:
        """Tell whether the outcome of an attempt is still to be written."""
        return self._running.get(attempt.job.id) is attempt or attempt in self._displaced

    def find(self, job_id: str, token: int) -> RunningAttempt | None:
        """Return the attempt that has a lease token; None where it is not here."""
        return next((each for each in self.snapshot() if each.job.token == token and each.job.id == job_id), None)

    def snapshot(self) -> list[RunningAttempt]:
        """Return the running attempts. Safe in any thread: each copy is one step under the interpreter's lock."""
        return [*self._running.values(), *self._displaced]

    def request_cancel(self, job_id: str, token: int, grace_seconds: float) -> None:
        """Cancel a job if it runs here; if its claim may be on its way, remember the cancel for a while."""
        attempt = self._running.get(job_id)
        if attempt is not None and attempt.job.token == token:
            attempt.cancel(CancelReason.REQUESTED, grace_seconds)
        else:
            self._early[job_id, token] = min(grace_seconds, self._early.get((job_id, token), math.inf))
            if len(self._early) > _EARLY_CANCELS:
                self._early.popitem(last=False)

    def note_watched(self, job_id: str) -> None:
        """Note that somebody watches a job, if it runs here."""
        attempt = self._running.get(job_id)
        if attempt is not None:
            attempt.speech = attempt.speech or Speech()

    def give_back_unseen(self, job_id: str, token: int) -> bool:
        """Let an attempt whose claim is not known here yet not begin, in the keeper's thread; see `RunningAttempt.give_back`.

        Returns:
            Whether its job may be given back by that; not when it has come in meanwhile.
        """
        self._given_back.add((job_id, token))
        attempt = self._running.get(job_id)
        if attempt is not None and attempt.job.token == token:
            self._given_back.discard((job_id, token))
            return False
        return True

    def lose_lease(self, attempt: RunningAttempt) -> None:
        """End an attempt that may be running elsewhere by now."""
        if self._running.get(attempt.job.id) is attempt:
            attempt.cancel(CancelReason.LEASE_LOST)

    def cancel_all(self, reason: CancelReason, grace_seconds: float) -> None:
        """End every attempt."""
        for attempt in self.snapshot():
            attempt.cancel(reason, grace_seconds)

    def stuck(self) -> list[RunningAttempt]:
        """Return the attempts whose handler has outlasted its cancel, or its time, and the grace. Safe in any thread."""
        now = time.monotonic()
        return [attempt for attempt in self.snapshot() if attempt.is_stuck(now)]

    def release_waiting(self) -> None:
        """Let the attempts that wait to begin not begin: their jobs are given back."""
        for attempt in self.snapshot():
            if attempt.is_waiting and not attempt.is_over:
                attempt.cancel(CancelReason.SHUTDOWN)

    async def wait_filled(self) -> None:
        """Wait until something runs."""
        while not len(self):
            if self._filled is None:
                self._filled = trio.Event()
            await self._filled.wait()

    async def wait_empty(self) -> None:
        """Wait until nothing runs and every outcome is written."""
        while len(self):
            await self._emptied.wait()
