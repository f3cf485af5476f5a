"""An attached job as its client knows it: what it has been told, and whether a stream that broke is worth another call.

Whoever drives a `Run` (`sync_runs`, `async_runs`) reads its stream beside the block that the job is attached to, so that a block which
does something else neither holds the server up nor misses its restart.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import job_stream_pb2

from gopher.client import calls
from gopher.client.channel import CallEndedError
from gopher.client.dialogues import Watching, result_of
from gopher.client.submission import job_spec
from gopher.errors import CallExpiredError, WaitTimeoutError
from gopher.wire import convert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gopher.client.values import JobEvent
    from gopher.errors import GopherError
    from gopher.job import Job, JobState, JsonValue
    from gopher.submission import Payload

MAX_EVENTS: Final = 10_000
"""Chosen: what a block may leave unread; of more the oldest are dropped."""
DEFAULT_GRACE_SECONDS: Final = 5.0
"""The server's."""
SPARE_SECONDS: Final = 5.0
"""How much longer than the grace leaving a block waits for its job's end; chosen: a slow worker, not one that is stuck."""
LEFT: Final = "the client has left the block of its run"


class Run:
    """A job that is attached to a block of its client.

    Attributes:
        job_id: Empty until the first event.
        state: As last told; None until the first event.
        job: The whole job, as it was last told whole; None before.
        error: What the run ended with before the job was seen to end.
        is_final: Whether the job has been seen to end.
        has_ended: Whether no event follows.

    Args:
        namespace: Where it is.
        job_type: Which handler.
        payload: Its input.
        options: As for a submit; a `request_id` that is missing is made up.
        grace: How many seconds the handler's cleanup may take when the block is left early; None: the server's 5.
        within: How many seconds from now the job may take, wait and all; None: as long as it takes.
        now: The clock, in seconds.

    Raises:
        InvalidRequestError: An option is unknown, or no message can carry it.
    """

    def __init__(
        self,
        namespace: str,
        job_type: str,
        payload: Payload,
        options: Mapping[str, object],
        *,
        grace: float | None,
        within: float | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        request_id = options.get("request_id") or uuid.uuid4().hex
        self._request = job_stream_pb2.RunJobRequest(
            namespace=namespace,
            job=job_spec(job_type, payload, {**options, "request_id": request_id}),
            grace=None if grace is None else convert.duration(round(grace * 1000)),
        )
        self._watching = Watching(namespace, "", now=now)
        self._now = now
        self._end = None if within is None else now() + within
        self.grace_seconds = DEFAULT_GRACE_SECONDS if grace is None else grace
        self.job_id = ""
        self.state: JobState | None = None
        self.job: Job | None = None
        self.error: GopherError | None = None
        self.is_final = False
        self.has_ended = False
        self._events: deque[JobEvent] = deque(maxlen=MAX_EVENTS)
        self._count = 0

    def call(self) -> calls.Call[JobEvent]:
        """Return the call to make now: the first, or one that goes on where the last was cut."""
        left = None if self._end is None else max(0.001, self._end - self._now())
        return replace(calls.run(self._request), deadline_seconds=left)

    def take(self, event: JobEvent) -> None:
        """Note what the stream tells."""
        if self._watching.is_news(event):
            self._add(event)

    def _add(self, event: JobEvent) -> None:
        self._request.cursor = event.cursor or self._request.cursor
        self._events.append(event)
        self._count += 1
        self.job_id, self.state, self.job = event.job_id, event.state, event.job or self.job
        self.is_final = self.has_ended = event.is_final

    def pause_seconds(self, error: GopherError | None) -> float:
        """Return how long to wait before the next call, after one that ended early.

        Args:
            error: What it ended with; None: with OK, but before the final event.

        Raises:
            GopherError: What the run has ended with: another call would not go better.
        """
        if isinstance(error, CallExpiredError):
            raise CallExpiredError(
                f"job {self.job_id or '?'} was not final within the time of its run, which ends it"
            ) from error
        skipped = None if error is None else self._watching.skipped(error)
        if skipped is not None:
            self._add(skipped)
            return 0.0
        return self._watching.pause_seconds(error)

    def fail(self, error: GopherError) -> None:
        """Note what the run has ended with."""
        self.error = error

    def end(self) -> None:
        """Note that nothing is read any more."""
        self.has_ended = True

    def after(self, place: int) -> Iterator[tuple[int, JobEvent]]:
        """Return the events behind a place, each with its own; those dropped since are left out."""
        oldest = self._count - len(self._events)
        fresh = list(self._events)[max(0, place - oldest) :]
        return enumerate(fresh, max(place, oldest) + 1)

    def has_news(self, place: int) -> bool:
        """Tell whether there is an event behind a place, or none will follow."""
        return self._count > place or self.has_ended

    def require_begun(self) -> None:
        """Raise what the run has ended with if its job is not known."""
        if not self.job_id:
            raise self.error or CallEndedError("the run ended before its job was known")

    def require_final(self) -> Job:
        """Return the job once it has ended.

        Raises:
            GopherError: What the run has ended with before that.
        """
        if not self.is_final or self.job is None:
            raise self.error or CallEndedError("the run ended before its job did")
        return self.job

    def result(self) -> JsonValue:
        """Return what the handler returned; raise what there is in place of it."""
        return result_of(self.require_final())

    def timeout(self, wait_seconds: float | None) -> WaitTimeoutError:
        """Return the error of a wait that was too short."""
        state = self.state or "unknown"
        return WaitTimeoutError(
            f"job {self.job_id} is {state} after {wait_seconds:g} s; it goes on", job_id=self.job_id, state=state
        )

    @property
    def leaving_seconds(self) -> float:
        """How long leaving the block waits for the job's end."""
        return self.grace_seconds + SPARE_SECONDS

    def leave(self) -> calls.Call[Job]:
        """Return the call that cancels the job and waits for its end."""
        namespace = self._request.namespace
        call = calls.cancel(
            namespace, self.job_id, reason=LEFT, actor="its client", grace_seconds=self.grace_seconds, wait_final=True
        )
        return replace(call, deadline_seconds=self.leaving_seconds)

    def see_end(self, job: Job) -> None:
        """Note how the job has ended, as the call that left it says."""
        self.job, self.state, self.is_final = job, job.state, job.state.is_final
