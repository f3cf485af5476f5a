"""JobService but for what follows a job: submit one, many or a stream, get, list, cancel, retry, delete."""

from __future__ import annotations

import secrets
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import structlog
import trio
from google.rpc import code_pb2

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb
from gopher_pb.v1.job_stream_pb2 import SubmitJobStreamRequest, SubmitJobStreamResponse

from gopher.errors import (
    GopherError,
    InvalidRequestError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnknownTypeError,
    invalid,
)
from gopher.service.task_trees import TaskTrees
from gopher.service.telling import message_with_reason
from gopher.store.submission import SubmitReceipt
from gopher.telemetry import tracing
from gopher.wire import check, convert
from gopher.wire.check import Faults
from gopher.wire.status import to_status
from gopher.wire.submission import new_job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.rpc.status_pb2 import Status

    from gopher.job import JobState, NewJob
    from gopher.service.pages import Pages
    from gopher.service.requests import Requests
    from gopher.store.store import Store

    SendSubmitted = Callable[[SubmitJobStreamResponse], Awaitable[None]]

MAX_BATCH: Final = 1000
MAX_STREAM_BATCH: Final = 100
"""Jobs of a stream that are stored together at most; the store cuts its script calls at as many."""
DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1000
DEFAULT_GRACE_MS: Final = 5_000
MAX_GRACE_MS: Final = 300_000

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Jobs:
    """Answers the rpcs.

    Args:
        store: Where the jobs are.
        pages: Makes and reads page tokens.
        accept_unknown_types: Whether to take jobs whose type no worker has registered.
        max_payload_bytes: Largest payload.
    """

    def __init__(self, store: Store, pages: Pages, *, accept_unknown_types: bool, max_payload_bytes: int) -> None:
        self._store = store
        self._trees = TaskTrees(store)
        self._pages = pages
        self._accept_unknown_types = accept_unknown_types
        self._max_payload_bytes = max_payload_bytes

    async def submit_job(self, request: pb.SubmitJobRequest) -> pb.SubmitJobResponse:
        """Store one job."""
        with tracing.submit_span(request.job.type, request.job.queue, 1) as trace:
            (answer,) = await self._submit(request.namespace, [("job.", request.job)], trace)
        if isinstance(answer, GopherError):
            raise answer
        return _submitted(answer)

    async def submit_job_batch(self, requests: Sequence[pb.SubmitJobRequest]) -> list[pb.SubmitJobResponse | GopherError]:
        """Answer several SubmitJob calls at once: a group commit. An entry a call, in order."""
        answers: dict[int, SubmitReceipt | GopherError] = {}
        by_namespace: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_namespace.setdefault(request.namespace, []).append(place)

        async def submit(namespace: str, places: list[int]) -> None:
            try:
                found = await self._submit(namespace, [("job.", requests[place].job) for place in places], None)
            except GopherError as error:
                found = [error] * len(places)
            answers.update(zip(places, found, strict=True))

        if len(by_namespace) == 1:
            await submit(requests[0].namespace, list(range(len(requests))))
        else:
            # While the namespaces store their jobs: one that fails, or takes its time to, holds up no other.
            async with trio.open_nursery() as nursery:
                for namespace, places in by_namespace.items():
                    nursery.start_soon(submit, namespace, places)
        return [each if isinstance(each, GopherError) else _submitted(each) for _, each in sorted(answers.items())]

    async def submit_jobs(self, request: pb.SubmitJobsRequest) -> pb.SubmitJobsResponse:
        """Store up to 1,000 jobs, each by itself."""
        if not 1 <= len(request.jobs) <= MAX_BATCH:
            raise invalid("jobs", "BATCH_SIZE", f"must be 1 to {MAX_BATCH}, got {len(request.jobs)}")
        specs = [(f"jobs[{place}].", spec) for place, spec in enumerate(request.jobs)]
        with tracing.submit_span(request.jobs[0].type, request.jobs[0].queue, len(specs)) as trace:
            answers = await self._submit(request.namespace, specs, trace)
        # Where nothing was stored there is nothing to tell apart, and the caller may repeat the call as a whole.
        if not any(isinstance(answer, SubmitReceipt) for answer in answers):
            _raise_outage(answers)
        return pb.SubmitJobsResponse(results=[_result(answer) for answer in answers])

    async def submit_job_stream(self, requests: Requests[SubmitJobStreamRequest], send: SendSubmitted) -> None:
        """Store jobs as they come, all that have arrived together, and answer each, in order."""
        namespace = ""
        sequence = 0
        while batch := await requests.take(MAX_STREAM_BATCH):
            namespace = namespace or check.namespace(batch[0].namespace)
            own = _of_namespace(namespace, batch)
            answers = await self._submit_arrived(namespace, own)
            stored = [place for place, answer in enumerate(answers) if isinstance(answer, SubmitReceipt)]
            told = stored[-1] + 1 if stored else 0
            for answer in answers[:told]:
                sequence += 1
                await send(_stream_answer(sequence, answer))
            # What follows the last that was stored needs no answers of its own once the call ends.
            _raise_outage(answers[told:])
            for answer in answers[told:]:
                sequence += 1
                await send(_stream_answer(sequence, answer))
            if len(own) < len(batch):
                other = batch[len(own)].namespace[:64]
                expected = f"must be empty or {namespace!r}, as in the first message, got {other!r}"
                raise invalid("namespace", "CONFLICT", expected)

    async def _submit_arrived(self, namespace: str, specs: Sequence[job_pb2.JobSpec]) -> Sequence[SubmitReceipt | GopherError]:
        if not specs:
            return []
        with tracing.submit_span(specs[0].type, specs[0].queue, len(specs)) as trace:
            return await self._submit(namespace, [("job.", spec) for spec in specs], trace)

    async def _submit(
        self, namespace: str, specs: Sequence[tuple[str, job_pb2.JobSpec]], trace: str | None
    ) -> list[SubmitReceipt | GopherError]:
        """Check and store jobs; an entry a job, in order."""
        namespace = check.namespace(namespace)
        checked = await self._check(namespace, specs, trace)
        accepted = [job for job in checked if not isinstance(job, GopherError)]
        receipts = iter(await self._store.lifecycle.submit(namespace, accepted) if accepted else [])
        return [job if isinstance(job, GopherError) else next(receipts) for job in checked]

    async def checked(self, namespace: str, spec: job_pb2.JobSpec, trace: str | None) -> NewJob:
        """Return the job that a request describes in its field `job`, checked as every submit.

        Raises:
            RequestError: A submit of it would be refused so.
        """
        (job,) = await self._check(namespace, [("job.", spec)], trace)
        if isinstance(job, GopherError):
            raise job
        return job

    async def _check(
        self, namespace: str, specs: Sequence[tuple[str, job_pb2.JobSpec]], trace: str | None
    ) -> list[NewJob | GopherError]:
        checked = [self._read(path, spec, trace) for path, spec in specs]
        return checked if self._accept_unknown_types else await self._refuse_unknown(namespace, checked)

    def _read(self, path: str, spec: job_pb2.JobSpec, trace: str | None) -> NewJob | GopherError:
        try:
            return new_job(spec, path, max_payload_bytes=self._max_payload_bytes, trace=trace)
        except InvalidRequestError as error:
            return error

    async def _refuse_unknown(self, namespace: str, jobs: Sequence[NewJob | GopherError]) -> list[NewJob | GopherError]:
        """Put a refusal in the place of each job whose type no worker has registered."""
        refusals: dict[str, GopherError | None] = {}
        failure: StoreError | None = None
        for job in jobs:
            if isinstance(job, GopherError) or job.type in refusals:
                continue
            is_known = False
            try:
                is_known = failure is None and await self._store.registry.is_known_type(namespace, job.type)
            except StoreError as error:
                # Each would wait for Redis in vain, as this one did.
                failure = error
            refusals[job.type] = failure or (None if is_known else UnknownTypeError(job.type))
        return [job if isinstance(job, GopherError) else refusals[job.type] or job for job in jobs]

    async def get_job(self, request: pb.GetJobRequest) -> pb.GetJobResponse:
        """Return one job, and what it does if that is asked for."""
        namespace = check.namespace(request.namespace)
        if request.view not in pb.JobView.values():
            known = ", ".join(f"{number} ({name})" for name, number in pb.JobView.items())
            raise invalid("view", "BAD_ENUM", f"must be {known}, got {request.view}")
        job = await self._store.query.get(namespace, request.job_id)
        is_asked = request.view == pb.JobView.JOB_VIEW_TASK_TREE
        tree = await self._trees.read(namespace, job) if is_asked else None
        return pb.GetJobResponse(job=await message_with_reason(self._store, job), task_tree=tree)

    async def list_jobs(self, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """Return a page of jobs."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        queue = check.optional_name(faults, "queue", request.queue)
        job_type = check.optional_name(faults, "type", request.type)
        labels = check.labels(faults, "labels", request.labels)
        state = _state(faults, request.state)
        size = check.integer(faults, "page_size", request.page_size, 1, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE
        faults.refuse()
        cursor = await self._pages.cursor(namespace, request)
        jobs, cursor = await self._store.query.list_jobs(
            namespace, queue=queue, state=state, type=job_type, labels=labels, size=size, cursor=cursor
        )
        token = await self._pages.token(namespace, request, cursor)
        return pb.ListJobsResponse(jobs=map(convert.job_to_message, jobs), next_page_token=token)

    async def cancel_job(self, request: pb.CancelJobRequest) -> pb.CancelJobResponse:
        """End a job as cancelled; on request, answer only when it has ended."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        reason = check.text(faults, "reason", request.reason) or ""
        actor = check.text(faults, "actor", request.actor) or ""
        grace_ms = DEFAULT_GRACE_MS
        if request.HasField("grace"):
            grace_ms = check.duration_ms(faults, "grace", request.grace, 0, MAX_GRACE_MS)
        faults.refuse()
        await self._store.lifecycle.cancel(namespace, request.job_id, reason=reason, grace_ms=grace_ms, actor=actor)
        look = self._store.wait if request.wait else self._store.query.get
        return pb.CancelJobResponse(job=convert.job_to_message(await look(namespace, request.job_id)))

    async def retry_job(self, request: pb.RetryJobRequest) -> pb.RetryJobResponse:
        """Give a job new attempts."""
        namespace = check.namespace(request.namespace)
        (refusal,) = await self._store.lifecycle.requeue(namespace, [request.job_id])
        if refusal is not None:
            raise refusal
        job = await self._store.query.get(namespace, request.job_id)
        return pb.RetryJobResponse(job=convert.job_to_message(job))

    async def delete_job(self, request: pb.DeleteJobRequest) -> pb.DeleteJobResponse:
        """Remove a job."""
        await self._store.lifecycle.delete(check.namespace(request.namespace), request.job_id)
        return pb.DeleteJobResponse()


def _submitted(receipt: SubmitReceipt) -> pb.SubmitJobResponse:
    return pb.SubmitJobResponse(
        job_id=receipt.job_id, state=convert.STATE_NUMBER[receipt.state], deduplicated=receipt.is_duplicate
    )


def _raise_outage(answers: Sequence[SubmitReceipt | GopherError]) -> None:
    """Raise what keeps Redis from storing anything now, if an answer says so: the call is better repeated than refused item by item.

    Raises:
        StoreError: Redis does not serve, or is full.
    """
    for answer in answers:
        if isinstance(answer, StoreUnavailableError | StoreFullError):
            raise answer


def _item_error(error: GopherError) -> Status:
    """Return what the answer to one item of many says of its error; a defect has an id there, and the log holds the rest."""
    status = to_status(error)
    if status.code != code_pb2.INTERNAL:
        return status
    error_id = secrets.token_hex(8)
    _log.error("submit.defect", error_id=error_id, exc_info=error)
    return to_status(GopherError(f"internal error {error_id}", error_id=error_id))


def _result(answer: SubmitReceipt | GopherError) -> pb.SubmitJobsResult:
    if isinstance(answer, GopherError):
        return pb.SubmitJobsResult(error=_item_error(answer))
    return pb.SubmitJobsResult(job_id=answer.job_id, state=convert.STATE_NUMBER[answer.state], deduplicated=answer.is_duplicate)


def _of_namespace(namespace: str, batch: Sequence[SubmitJobStreamRequest]) -> list[job_pb2.JobSpec]:
    """Return the jobs up to the first message that names another namespace."""
    return [request.job for request in takewhile(lambda request: request.namespace in {"", namespace}, batch)]


def _stream_answer(sequence: int, answer: SubmitReceipt | GopherError) -> SubmitJobStreamResponse:
    if isinstance(answer, GopherError):
        return SubmitJobStreamResponse(sequence=sequence, error=_item_error(answer))
    return SubmitJobStreamResponse(
        sequence=sequence,
        job_id=answer.job_id,
        state=convert.STATE_NUMBER[answer.state],
        deduplicated=answer.is_duplicate,
    )


def _state(faults: Faults, value: int) -> JobState | None:
    """Check the state that a list asks for; None for every state."""
    if value == 0:
        return None
    state = convert.STATE_OF.get(value)
    if state is None:
        known = ", ".join(f"{number} ({each})" for each, number in convert.STATE_NUMBER.items())
        faults.add("state", "BAD_ENUM", f"must be {known} or unset, got {value}")
    return state
