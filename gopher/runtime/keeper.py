"""Keeps the leases of the running attempts, and the worker's entry in the register, from an OS thread.

A thread, so that a handler that blocks the loop keeps its lease; it is not proof against C code that holds the interpreter's lock:
fencing is. The thread has a connection of its own and never waits for the loop: what runs reaches it as a snapshot, what it finds
leaves by `TrioToken.run_sync_soon`.

A worker that cannot reach Redis for as long as a lease ends its attempts when their leases end, before anyone else may start them.
Nor does a worker go on whose keeper has ended.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeVarTuple, Unpack

import msgspec
import structlog
import trio

from gopher.errors import StoreError
from gopher.runtime.scopes import CancelReason
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.runtime.relief import Relief
    from gopher.runtime.scopes import RunningAttempt, Scopes
    from gopher.store.leases import Leases
    from gopher.store.registry import WorkerDescription

ArgsT = TypeVarTuple("ArgsT")

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BEATS_A_LEASE: Final = 3
_SHORTEST_PAUSE_SECONDS: Final = 0.05
_BLOCKED_PAUSE_SECONDS: Final = 1.0
"""Chosen: while the loop is blocked an operator sees for how long, to the second."""
_SAFETY: Final = 0.9
"""Of a lease: then it is taken for lost if it could not be extended. Chosen: the rest is for ending the handlers."""


class Keeper:
    """Extends leases every third of a lease, and beats as often.

    Args:
        leases: The synchronous way to Redis.
        scopes: The running attempts.
        worker: Id of this worker.
        lease_seconds: Lease.
        describe: What the register is to say of this worker; called in the keeper's thread.
        on_lost: Called on the Trio thread with an attempt whose lease is lost.
        on_drain: Called on the Trio thread with the grace in seconds, None for the worker's own, when an operator wants it to drain.
        on_cancel: Called on the Trio thread with job id, token and grace in seconds, for a cancel that was asked for.
        is_blocked: Tells whether the loop is blocked.
        relief: Gives back meanwhile what this worker has claimed and not begun.
    """

    def __init__(
        self,
        leases: Leases,
        scopes: Scopes,
        *,
        worker: str,
        lease_seconds: float,
        describe: Callable[[], WorkerDescription],
        on_lost: Callable[[RunningAttempt], None],
        on_cancel: Callable[[str, int, float], None],
        on_drain: Callable[[float | None], None],
        is_blocked: Callable[[], bool],
        relief: Relief,
    ) -> None:
        self._leases = leases
        self._scopes = scopes
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._describe = describe
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._on_drain = on_drain
        self._is_blocked = is_blocked
        self._relief = relief
        self._stopping = threading.Event()
        self._has_news = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_cut_off = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep leases until cancelled; then take the worker out of the register.

        Raises:
            RuntimeError: The thread has ended: a defect, and the worker's leases are kept no more.
        """
        self._token = trio.lowlevel.current_trio_token()
        ended = trio.Event()
        thread = threading.Thread(target=self._work, args=(ended,), name="gopher-keeper", daemon=True)
        thread.start()
        task_status.started()
        try:
            await ended.wait()
            raise RuntimeError("the keeper's thread has ended")
        finally:
            self._stopping.set()
            self._has_news.set()
            # Shielded, so that the thread has let go of its connection; its socket's time-out bounds the wait.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await ended.wait()

    def hasten(self) -> None:
        """Have the next beat now: the loop is blocked, or is not any more. Safe in any thread."""
        self._has_news.set()

    def tick(self) -> None:
        """Extend the leases of all that runs, and report what was found. Blocks; for the keeper's thread, and for tests."""
        if self._is_cut_off:
            # Before Redis is asked again: a call that nobody answers would outlast the leases.
            self._give_up_expired()
        try:
            if self._is_blocked():
                self._relief.tick(self._end_unbegun)
            by_queue: dict[str, list[RunningAttempt]] = defaultdict(list)
            for attempt in self._scopes.snapshot():
                # The lease of one that was displaced is lost for certain, and its successor's is not.
                if not attempt.is_lost and not attempt.is_given_back:
                    by_queue[attempt.queue].append(attempt)
            for queue, attempts in by_queue.items():
                for start in range(0, len(attempts), BATCH):
                    self._extend(queue, attempts[start : start + BATCH])
            life_seconds = self._lease_seconds
            order = self._leases.beat(self._worker, msgspec.json.encode(self._describe()), round(life_seconds * 1000))
            self._is_cut_off = False
            if order is not None:
                self._tell(self._on_drain, order.grace_seconds)
        except StoreError as error:
            self._is_cut_off = True
            _log.warning("keeper.delayed", error=str(error))
        self._give_up_expired()

    def _work(self, ended: trio.Event) -> None:
        pause_seconds = self._lease_seconds / _BEATS_A_LEASE
        try:
            while True:
                self.tick()
                self._has_news.wait(self._next_pause(pause_seconds))
                self._has_news.clear()
                if self._stopping.is_set():
                    break
            self._leases.beat(self._worker, b"{}", 0)
        except StoreError as error:
            _log.warning("keeper.not_signed_off", error=str(error))
        finally:
            self._leases.close()
            self._tell(ended.set)

    def _next_pause(self, pause_seconds: float) -> float:
        """Come back sooner when a lease would be taken for lost before the next beat, and while the loop is blocked."""
        if self._is_blocked():
            pause_seconds = min(pause_seconds, _BLOCKED_PAUSE_SECONDS)
        now = time.monotonic()
        margin = self._lease_seconds * (1 - _SAFETY)
        ends = [
            attempt.lease_until - margin - now
            for attempt in self._scopes.snapshot()
            if not attempt.is_over and not attempt.is_given_back and not attempt.is_lost
        ]
        return max(_SHORTEST_PAUSE_SECONDS, min([pause_seconds, *ends]))

    def _extend(self, queue: str, attempts: list[RunningAttempt]) -> None:
        until = time.monotonic() + self._lease_seconds
        findings = self._leases.extend(
            queue, [(attempt.job.id, attempt.job.token) for attempt in attempts], round(self._lease_seconds * 1000)
        )
        lost = {finding.job_id for finding in findings if finding.is_lost}
        for attempt in attempts:
            if attempt.job.id not in lost:
                attempt.lease_until = until
            elif not attempt.is_over:
                self._tell(self._on_lost, attempt)
        for finding in findings:
            if not finding.is_lost:
                self._tell(self._on_cancel, finding.job_id, finding.token, finding.grace_seconds)

    def _end_unbegun(self, attempt: RunningAttempt) -> None:
        self._tell(attempt.cancel, CancelReason.GIVEN_BACK)

    def _give_up_expired(self) -> None:
        now = time.monotonic()
        margin = self._lease_seconds * (1 - _SAFETY)
        for attempt in self._scopes.snapshot():
            if not attempt.is_over and not attempt.is_lost and attempt.lease_until - margin <= now:
                attempt.is_cut_off = self._is_cut_off
                self._tell(self._on_lost, attempt)

    def _tell(self, function: Callable[[Unpack[ArgsT]], object], *args: *ArgsT) -> None:
        if self._token is None:
            function(*args)
            return
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            self._stopping.set()
