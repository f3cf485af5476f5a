"""RunJob: a job that lives no longer than the call that runs it.

The job is attached to the call from the moment it is stored, and its deadline is no later than the call's. What becomes of it when the
call ends before the job does is told by how:

- the client has cancelled, has gone, has waited long enough or reads too slowly: the job is cancelled;
- the server stops, or Redis does not serve: it is let go of. The client may call again, any server, with the same request id, and
  goes on with the same job; if it does not within the lease, the reaper of a worker cancels the job. So it is also when this
  process is killed.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.errors import CallExpiredError, GopherError, StoreError, invalid
from gopher.service.jobs import DEFAULT_GRACE_MS, MAX_GRACE_MS
from gopher.store.attached_jobs import LEASE_MS
from gopher.store.attachments import Attachment
from gopher.telemetry import tracing
from gopher.wire import check
from gopher.wire.check import Faults
from gopher.wire.status import SlowReaderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.job import NewJob
    from gopher.service.jobs import Jobs
    from gopher.service.watch import Watch
    from gopher.store.store import Store
    from gopher.store.submission import SubmitReceipt

    Send = Callable[[pb.RunJobResponse], Awaitable[None]]

_STORE_SECONDS: Final = 8.0
"""How long the store may take about a job whose call is over; chosen: longer than it waits for Redis by default."""
_NEARLY_SECONDS: Final = 0.5
"""A client that goes so shortly before its deadline goes because of it: its own clock runs ahead of the server's by the way there."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Run:
    """A job under way, and the call that it is attached to."""

    def __init__(self, namespace: str, queue: str, job_id: str, call_id: str, grace_ms: int) -> None:
        self.attachment = Attachment(namespace, queue, job_id, LEASE_MS, self._warn)
        self.call_id = call_id
        self.grace_ms = grace_ms

    def _warn(self) -> None:
        # The stream goes on: it tells of the cancel.
        _log.warning("run.attachment_lost", job_id=self.attachment.id)


class Runs:
    """Answers RunJob.

    Args:
        store: Where the jobs are.
        jobs: Checks them as for a submit.
        watch: Streams their events.
    """

    def __init__(self, store: Store, jobs: Jobs, watch: Watch) -> None:
        self._store = store
        self._jobs = jobs
        self._watch = watch

    async def run_job(self, request: pb.RunJobRequest, send: Send, scope: trio.CancelScope) -> None:
        """Store a job, send its events until it is final, and cancel it when the call ends first.

        Args:
            request: As it came.
            send: Takes the stream's messages.
            scope: Of the call: its deadline bounds the job, and who cancels it is the client.
        """
        namespace = check.namespace(request.namespace)
        faults = Faults()
        grace_ms = DEFAULT_GRACE_MS
        if request.HasField("grace"):
            grace_ms = check.duration_ms(faults, "grace", request.grace, 0, MAX_GRACE_MS)
        faults.refuse()
        with tracing.submit_span(request.job.type, request.job.queue, 1) as trace:
            job = await self._jobs.checked(namespace, request.job, trace)
            if request.cursor and not await self._store.attached_jobs.is_known(namespace, job.queue, job.request_id):
                # Before the job is stored, which would run until its lease is over.
                raise invalid("cursor", "BAD_CURSOR", "is of no job with this request_id; start again without one")
            run = await self._begin(namespace, job, scope, grace_ms)
        reason = None
        try:
            await self._stream(run, request.cursor, send)
            await self._detach(run)
        except trio.Cancelled:
            # Where the scope itself was not cancelled what is around it was: the server stops.
            reason = _reason(scope) if scope.cancel_called else None
            raise
        except SlowReaderError:
            reason = "the client of RunJob reads too slowly"
            raise
        finally:
            self._store.attachments.let_go(run.attachment)
            # The call's own time is over; bounded, since the lease ends the job too.
            with trio.move_on_after(_STORE_SECONDS, shield=True):
                await self._abandon(run, reason)

    async def _begin(self, namespace: str, job: NewJob, scope: trio.CancelScope, grace_ms: int) -> _Run:
        call_id = secrets.token_hex(8)
        left_seconds = scope.deadline - trio.current_time()
        if scope.cancel_called or left_seconds <= 0:
            raise CallExpiredError("the call was over before its job was stored: there is none")
        left_ms = None if left_seconds == math.inf else math.ceil(left_seconds * 1000)
        # Shielded, so that what was stored is known, and is ended if the call is over by then. The store gives up by itself.
        with trio.CancelScope(shield=True, relative_deadline=_STORE_SECONDS):
            answer = await self._store.attached_jobs.submit(namespace, job, call_id, left_ms)
            return self._attached(namespace, job, answer, call_id, grace_ms)
        raise CallExpiredError("the store did not answer in time")

    def _attached(self, namespace: str, job: NewJob, answer: SubmitReceipt | GopherError, call_id: str, grace_ms: int) -> _Run:
        if isinstance(answer, GopherError):
            raise answer
        run = _Run(namespace, job.queue, answer.job_id, call_id, grace_ms)
        if not answer.state.is_final:
            self._store.attachments.keep(run.attachment)
        return run

    async def _stream(self, run: _Run, cursor: str, send: Send) -> None:
        async def pass_on(message: pb.WatchJobResponse) -> None:
            await send(pb.RunJobResponse(event=message.event))

        attachment = run.attachment
        request = pb.WatchJobRequest(namespace=attachment.namespace, job_id=attachment.id, cursor=cursor)
        await self._watch.watch_job(request, pass_on)

    async def _abandon(self, run: _Run, reason: str | None) -> None:
        """Cancel the job where there is a reason to."""
        if reason is None:
            return
        of = run.attachment
        try:
            await self._store.attached_jobs.abandon(
                of.namespace, of.queue, of.id, run.call_id, reason=reason, grace_ms=run.grace_ms
            )
        except StoreError as error:
            _log.warning("run.cancel_delayed", job_id=of.id, error=str(error))

    async def _detach(self, run: _Run) -> None:
        try:
            await self._store.attachments.detach(run.attachment)
        except StoreError as error:
            # A job that has ended is not ended again.
            _log.warning("run.detach_failed", job_id=run.attachment.id, error=str(error))


def _reason(scope: trio.CancelScope) -> str:
    if scope.deadline - trio.current_time() <= _NEARLY_SECONDS:
        return "the deadline of the client's RunJob is over"
    # gRPC does not tell the two apart.
    return "the client of RunJob has cancelled it or has gone"
