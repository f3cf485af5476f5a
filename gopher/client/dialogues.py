"""What the clients do in more than one call: repeat, wait, page, send in batches, follow; written once for all of them.

A dialogue is a generator. It yields the next step, a `Call` to make or a `Pause` to take; whoever drives it (`sync` by blocking,
`asynchronous` by awaiting) sends back what the call returned, or throws in the `GopherError` it ended with. The value that the
generator returns is the method's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

import grpc
import msgspec

from gopher.client import calls
from gopher.client.submission import item_spec, job_spec
from gopher.errors import (
    CallExpiredError,
    GopherError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    RequestError,
    WaitTimeoutError,
)
from gopher.event import EventKind, Truncation
from gopher.job import Job, JobState, JsonValue
from gopher.retry import RetryPolicy
from gopher.wire import status

if TYPE_CHECKING:
    from gopher_pb.v1 import job_pb2

    from gopher.client.values import JobEvent
    from gopher.submission import Payload

T = TypeVar("T")

REPEATS: Final = RetryPolicy(max_attempts=6, backoff_initial_seconds=0.1, backoff_max_seconds=2.0)
"""Of a call that found no server: in 1.5 s on average, 3.1 s at most; long enough for a restart behind a balancer."""
LAST_REPEAT_SECONDS: Final = 4.0
"""Chosen: after so long no repeat is begun; a server whose Redis is down has waited 5 s for it before it says so."""
PATIENCE_SECONDS: Final = 60.0
"""Chosen: how long a wait or a watch goes on trying while nothing answers."""
LONGEST_WAIT_SECONDS: Final = 240.0
"""Of one WaitJob; the server ends every unary call after 300."""
BATCH_JOBS: Final = 1_000  # the server's limit
BATCH_BYTES: Final = 900 * 1024  # the server takes messages up to 1 MiB
PAGE_JOBS: Final = 100


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is done for so long."""

    seconds: float


Step: TypeAlias = "calls.Call[object] | Pause"
Dialogue: TypeAlias = Generator[Step, object, T]


def is_unavailable(error: GopherError) -> bool:
    """Tell whether a later call may succeed, because no server or no Redis served this one."""
    return status.row_of(error).code is grpc.StatusCode.UNAVAILABLE


def may_repeat(failures: int, since_seconds: float) -> bool:
    """Tell whether a call that nothing answered is made again.

    Args:
        failures: How often nothing answered.
        since_seconds: How long ago the first call was begun.
    """
    return REPEATS.has_attempt_after(failures) and since_seconds <= LAST_REPEAT_SECONDS


def ask(call: calls.Call[T], now: Callable[[], float] = time.monotonic) -> Dialogue[T]:
    """Make a call; again, if it is repeatable and nothing answered.

    Args:
        call: Which.
        now: The clock, in seconds.
    """
    begun = now()
    for failures in range(1, REPEATS.max_attempts + 1):
        try:
            return cast("T", (yield call))
        except GopherError as error:
            if not (call.is_repeatable and is_unavailable(error) and may_repeat(failures, now() - begun)):
                raise
        yield Pause(REPEATS.delay_seconds(failures, random.random))
    raise AssertionError  # the last round returns or raises


# --- submitting -----------------------------------------------------------------------------------------------------------------


class SubmitManyError(RequestError):
    """Some items of `submit_many` were refused, or a call failed after others had stored theirs; the others are jobs now.

    Attributes:
        results: An entry an item, in their order: the job's id, or why it is none. Once a call has failed no more are sent.
    """

    reason = "ITEMS_REFUSED"

    def __init__(self, results: list[str | GopherError]) -> None:
        refused = [(number, each) for number, each in enumerate(results) if isinstance(each, GopherError)]
        number, first = refused[0]
        super().__init__(f"{len(refused)} of {len(results)} jobs were not stored; the first, jobs[{number}]: {first.message}")
        self.results = results


def submit(namespace: str, job_type: str, payload: Payload, options: Mapping[str, object]) -> Dialogue[calls.Receipt]:
    """Submit one job."""
    return (yield from ask(calls.submit(namespace, job_spec(job_type, payload, options))))


def submit_many(namespace: str, items: Iterable[Mapping[str, object]]) -> Dialogue[list[str]]:
    """Submit jobs in batches, and return their ids in order.

    Raises:
        SubmitManyError: Some were refused, or a call failed when others had stored theirs; raised when all items have been read.
        GopherError: A call failed, and nothing is stored.
    """
    results: list[str | GopherError] = []
    batch: dict[int, job_pb2.JobSpec] = {}
    batch_bytes = 0
    failure: GopherError | None = None
    for number, item in enumerate(items):
        try:
            spec = item_spec(item, f"jobs[{number}]")
        except InvalidRequestError as error:
            results.append(error)
            continue
        if batch and (len(batch) == BATCH_JOBS or batch_bytes + spec.ByteSize() > BATCH_BYTES):
            failure = yield from _send_batch(namespace, batch, results)
            batch_bytes = 0
        if failure is not None:
            results.append(failure)
            continue
        batch[number] = spec
        batch_bytes += spec.ByteSize()
        results.append("")
    if batch:
        yield from _send_batch(namespace, batch, results)
    if any(isinstance(each, GopherError) for each in results):
        raise SubmitManyError(results)
    return cast("list[str]", results)


def _send_batch(
    namespace: str, batch: dict[int, job_pb2.JobSpec], results: list[str | GopherError]
) -> Dialogue[GopherError | None]:
    """Submit the batch, put each answer at its item's place and empty the batch; return the error if the call failed.

    Raises:
        GopherError: The call failed, and nothing was stored before.
    """
    failure: GopherError | None = None
    answers: list[calls.Receipt | GopherError]
    try:
        answers = yield from ask(calls.submit_many(namespace, list(batch.values())))
    except GopherError as error:
        if not any(each and isinstance(each, str) for each in results):
            raise
        failure = error
        answers = [error for _ in batch]
    for number, answer in zip(batch, answers, strict=True):
        results[number] = answer if isinstance(answer, GopherError) else answer.job_id
    batch.clear()
    return failure


# --- looking --------------------------------------------------------------------------------------------------------------------


def list_all(page_of: Callable[[int, str], calls.Call[tuple[list[T], str]]], limit: int | None) -> Dialogue[list[T]]:
    """Return what is on all pages, at most `limit`; None: all there is."""
    found: list[T] = []
    token = ""
    while limit is None or len(found) < limit:
        size = PAGE_JOBS if limit is None else min(PAGE_JOBS, limit - len(found))
        page, token = yield from ask(page_of(size, token))
        found += page
        if not token:
            break
    return found


def wait(namespace: str, job_id: str, wait_seconds: float | None, now: Callable[[], float] = time.monotonic) -> Dialogue[Job]:
    """Return the job once it is final.

    Args:
        namespace: Where it is.
        job_id: Which.
        wait_seconds: How long to wait; None: as long as it takes.
        now: The clock, in seconds.

    Raises:
        WaitTimeoutError: It was not final by then.
    """
    end = None if wait_seconds is None else now() + wait_seconds
    while True:
        left = LONGEST_WAIT_SECONDS if end is None else min(LONGEST_WAIT_SECONDS, end - now())
        if left <= 0:
            return (yield from _final_or_timeout(namespace, job_id, wait_seconds))
        try:
            return (yield from ask(replace(calls.wait(namespace, job_id), deadline_seconds=left), now))
        except CallExpiredError:
            continue
        except GopherError as error:
            if not is_unavailable(error):
                raise
        # Cut, however long it had gone well: by a server that restarts, or a proxy that has had enough. A look shows whether one answers.
        job = yield from keep_asking(calls.get(namespace, job_id), end, now)
        if job.state.is_final:
            return job


def keep_asking(call: calls.Call[T], end: float | None = None, now: Callable[[], float] = time.monotonic) -> Dialogue[T]:
    """Make a repeatable call for a wait, which a server that restarts must not end: again for `PATIENCE_SECONDS` while nothing answers.

    Args:
        call: Which.
        end: The moment after which it is not made again; None for none.
        now: The clock, in seconds.
    """
    begun = now()
    while True:
        try:
            return (yield from ask(call, now))
        except GopherError as error:
            is_lost = is_unavailable(error) or isinstance(error, CallExpiredError)
            if not is_lost or now() - begun > PATIENCE_SECONDS or (end is not None and now() >= end):
                raise


def _final_or_timeout(namespace: str, job_id: str, wait_seconds: float | None) -> Dialogue[Job]:
    job = yield from ask(calls.get(namespace, job_id))
    if job.state.is_final:
        return job
    raise WaitTimeoutError(f"job {job_id} is {job.state} after {wait_seconds:g} s; it goes on", job_id=job_id, state=job.state)


def cancel(
    namespace: str,
    job_id: str,
    *,
    reason: str,
    actor: str,
    grace_seconds: float | None,
    wait_final: bool,
    now: Callable[[], float] = time.monotonic,
) -> Dialogue[Job]:
    """Ask that the job end as cancelled; with `wait_final`, return it once it has ended, however long its cleanup takes."""
    call = calls.cancel(namespace, job_id, reason=reason, actor=actor, grace_seconds=grace_seconds, wait_final=False)
    job = yield from ask(call, now)
    return (yield from wait(namespace, job_id, None, now)) if wait_final and not job.state.is_final else job


def result(namespace: str, job_id: str, wait_seconds: float | None) -> Dialogue[JsonValue]:
    """Return what the handler returned."""
    return result_of((yield from wait(namespace, job_id, wait_seconds)))


def result_of(job: Job) -> JsonValue:
    """Return the decoded result of a final job.

    Raises:
        JobFailedError: It failed; the metadata hold the reason of its failure.
        JobCancelledError: It was cancelled.
    """
    if job.state is JobState.FAILED:
        reason, message = (job.failure.reason, job.failure.message) if job.failure else ("UNKNOWN", "no reason is known")
        raise JobFailedError(f"job {job.id} failed: {reason}: {message}", job_id=job.id, failure_reason=reason)
    if job.state is JobState.CANCELLED:
        why = f": {job.cancel_reason}" if job.cancel_reason else ""
        raise JobCancelledError(f"job {job.id} was cancelled{why}", job_id=job.id)
    return None if job.result is None else cast("JsonValue", msgspec.json.decode(job.result))


# --- following ------------------------------------------------------------------------------------------------------------------


class Watching:
    """How far a watch has come: what its next stream asks for, and whether one that broke is worth another.

    Args:
        namespace: Of the job.
        job_id: Which.
        cursor: Of the last event that the reader knows; None for none.
        now: The clock, in seconds.
    """

    def __init__(
        self, namespace: str, job_id: str, cursor: str | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._namespace = namespace
        self._job_id = job_id
        self._cursor = cursor or ""
        self._now = now
        self._last: JobEvent | None = None
        self._place = 0
        self._failures = 0
        self._has_heard = False
        self._heard_at = now()

    @property
    def call(self) -> calls.Call[JobEvent]:
        """The next stream: it goes on behind what is known."""
        return calls.watch(self._namespace, self._job_id, self._cursor)

    @property
    def has_ended(self) -> bool:
        """Whether a stream that ended with OK has told all: the end, or nothing, where the reader knew the end already."""
        return bool(self._cursor) if self._last is None else self._last.state.is_final

    def is_news(self, event: JobEvent) -> bool:
        """Note the event and tell whether the reader is told it, as all are but signs of life."""
        self._failures = 0
        self._has_heard = True
        self._heard_at = self._now()
        self._cursor = event.cursor or self._cursor
        if event.kind is EventKind.HEARTBEAT:
            return False
        self._last = event
        self._place = event.sequence or self._place
        return True

    def skipped(self, error: GopherError) -> JobEvent | None:
        """Return the news that events were lost while the stream was cut, where that is what another stream was refused for.

        None otherwise, and for the cursor that the reader himself has given: he is told by the error.
        """
        if not isinstance(error, status.CursorTooOldError) or self._last is None:
            return None
        oldest = int(error.metadata["oldest_sequence"])
        # One of very many queues has no room in an error: then the stream goes on from now.
        self._cursor = error.metadata.get("oldest_cursor", "")
        detail = Truncation(oldest, max(0, oldest - 1 - self._place) if self._place else 0)
        return replace(
            self._last, kind=EventKind.TRUNCATED, sequence=0, cursor=self._cursor, progress_message="", job=None, detail=detail
        )

    def pause_seconds(self, error: GopherError | None) -> float:
        """Return how long to wait before the next stream, after one that ended early.

        Args:
            error: What it ended with; None: with OK, but before the final event.

        Raises:
            GopherError: The error, when another stream would not go better: the server refuses, it has not been there from the
                start, or it has been away for long.
        """
        self._failures += 1
        if not self._has_heard:
            has_time = may_repeat(self._failures, self._now() - self._heard_at)
        else:
            has_time = self._now() - self._heard_at <= PATIENCE_SECONDS
        is_cut = error is None or is_unavailable(error) or isinstance(error, status.SlowReaderError)
        if error is not None and not (is_cut and has_time):
            raise error
        return REPEATS.delay_seconds(self._failures, random.random)


class WatchingJobs(Watching):
    """The same of a watch of all jobs that match, which has no end.

    Args:
        namespace: Of the jobs.
        which: Jobs and events.
        cursor: Of the last event that the reader knows; None: from now on.
        now: The clock, in seconds.
    """

    def __init__(
        self,
        namespace: str,
        which: calls.EventFilter,
        cursor: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(namespace, "", cursor, now)
        self._which = which

    @property
    def call(self) -> calls.Call[JobEvent]:
        """The next stream: it goes on behind what is known."""
        return calls.watch_jobs(self._namespace, self._which, self._cursor)

    @property
    def has_ended(self) -> bool:
        """Never."""
        return False
