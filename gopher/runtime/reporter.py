"""Writes what attempts say to the watchers of their jobs: progress, log lines, output, notices, and what becomes of children.

Group commit, as the settler's: a call takes all that has come meanwhile, and leaves as soon as the one before has returned. What a
handler says, it awaits: its pace is that of the store. What Gopher itself says of an attempt waits for nobody, and beyond a bound
is dropped.

What cannot be written is tried again for as long as the worker lives; each saying has its number in its attempt, so that writing
twice changes nothing. The outcome of an attempt is held back until all that it has said is written.
"""

from __future__ import annotations

import random
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import ScriptReplyError, StoreError
from gopher.event import EventKind
from gopher.retry import RetryPolicy
from gopher.runtime.scopes import Speech
from gopher.store.history import Saying
from gopher.store.submission import BATCH, BATCH_BYTES

if TYPE_CHECKING:
    from gopher.job import JobState
    from gopher.runtime.scopes import RunningAttempt, Scopes
    from gopher.store.history import Histories

MAX_WAITING_NOTES: Final = 1_000
"""Chosen: notes kept while Redis is away; a thousand attempts may have one each."""
_RETRY: Final = RetryPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""As for outcomes: written within 2 s of Redis being back."""
_KEPT: Final = "OK"

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Line:
    """A saying on its way.

    Attributes:
        attempt: Whose.
        saying: What.
        written: Set when it is kept, or never will be.
        error: Why it never will be.
    """

    __slots__ = ("attempt", "error", "saying", "written")

    def __init__(self, attempt: RunningAttempt, saying: Saying) -> None:
        self.attempt = attempt
        self.saying = saying
        self.written: trio.Event | None = None
        self.error: StoreError | None = None


class Reporter:
    """Writes what one queue's attempts say.

    Args:
        histories: Where to.
        scopes: Ends the attempts whose lease is lost.
        namespace: Of the queue.
        queue: Whose attempts.
    """

    def __init__(self, histories: Histories, scopes: Scopes, *, namespace: str, queue: str) -> None:
        self._histories = histories
        self._scopes = scopes
        self._namespace = namespace
        self._queue = queue
        self._waiting: deque[_Line] = deque()
        self._notes = 0
        self._has_work = trio.Event()

    async def say(self, attempt: RunningAttempt, kind: EventKind, progress: float | str, detail: bytes) -> None:
        """Keep what a handler says; returns when it is kept, or when the lease is lost: then the attempt is being ended.

        Raises:
            ScriptReplyError: Redis cannot keep it, as that of a job whose record is damaged.

        Cancellation:
            It is kept all the same.
        """
        line = self._add(attempt, kind, progress, detail)
        line.written = trio.Event()
        await line.written.wait()
        if line.error is not None:
            raise line.error

    def note_nowait(self, attempt: RunningAttempt, reason: str, message: str) -> None:
        """Have it kept what Gopher tells of an attempt.

        Args:
            attempt: Which.
            reason: UPPER_SNAKE.
            message: For people.
        """
        self._add_note(attempt, EventKind.NOTICE, f"{reason} {message}")

    def child_nowait(self, attempt: RunningAttempt, child_id: str, child_type: str, state: JobState) -> None:
        """Have it kept that a child of an attempt was started, or has ended."""
        self._add_note(attempt, EventKind.CHILD, f"{child_id} {child_type} {state}")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled."""
        task_status.started()
        while True:
            await self._has_work.wait()
            self._has_work = trio.Event()
            while self._waiting:
                await self.tick()

    async def tick(self) -> None:
        """Write what waits, at most 100 sayings and 1 MiB.

        Cancellation:
            They may have been written; they stay in the line.
        """
        batch = self._next_batch()
        words = await self._write(batch)
        for line, word in zip(batch, words, strict=True):
            self._waiting.popleft()
            if word != _KEPT and not line.attempt.is_over:
                self._scopes.lose_lease(line.attempt)
            if line.written is None:
                self._notes -= 1
            else:
                line.written.set()
            line.attempt.note_said()

    def _next_batch(self) -> list[_Line]:
        batch: list[_Line] = []
        size = 0
        for line in islice(self._waiting, BATCH):
            size += len(line.saying.detail)
            if batch and size > BATCH_BYTES:
                break
            batch.append(line)
        return batch

    def _add_note(self, attempt: RunningAttempt, kind: EventKind, text: str) -> None:
        if self._notes >= MAX_WAITING_NOTES:
            _log.warning("note.dropped", job_id=attempt.job.id, kind=kind.value, text=text)
            return
        self._notes += 1
        self._add(attempt, kind, "", text.encode("utf-8", "replace"))

    def _add(self, attempt: RunningAttempt, kind: EventKind, progress: float | str, detail: bytes) -> _Line:
        job = attempt.job
        speech = attempt.speech = attempt.speech or Speech()
        speech.said += 1
        speech.unwritten += 1
        line = _Line(attempt, Saying(job.id, job.token, speech.said, kind, progress, detail))
        self._waiting.append(line)
        self._has_work.set()
        return line

    async def _write(self, batch: list[_Line]) -> list[str]:
        failures = 0
        while True:
            try:
                return await self._histories.report(self._namespace, self._queue, [line.saying for line in batch])
            except ScriptReplyError as error:
                if len(batch) == 1:
                    _log.error("report.refused", job_id=batch[0].attempt.job.id, queue=self._queue, error=str(error))
                    batch[0].error = error
                    return [_KEPT]
                return [word for line in batch for word in await self._write([line])]
            except StoreError as error:
                failures += 1
                _log.warning("report.delayed", queue=self._queue, sayings=len(batch), error=str(error))
                await trio.sleep(_RETRY.delay_seconds(failures, random.random))
