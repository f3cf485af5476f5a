"""The operations on jobs: the original's two, and those of `/api/v1/jobs`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.edge.rest_answers import (
    BatchReceipt,
    BatchReceipts,
    Deleted,
    JobPage,
    JobTree,
    JobView,
    Receipt,
    SeedReceipt,
    job_page,
    job_view,
)
from gopher.edge.rest_bodies import (
    BatchBody,
    CancelBody,
    JobBody,
    JobQuery,
    JobsQuery,
    NoBody,
    Query,
    SeedSubmitBody,
    SubmitBody,
    UnreadBatch,
)
from gopher.edge.rest_calls import DELETE, GET, POST, Call
from gopher.edge.rest_errors import fault_of
from gopher.edge.rest_parsing import decode_body
from gopher.edge.rest_schedules import ScheduleView, create_recurring
from gopher.errors import InvalidRequestError, invalid
from gopher.service.jobs import MAX_BATCH
from gopher.wire.convert import STATE_NUMBER, STATE_OF
from gopher.wire.status import from_status
from gopher.wire.task_tree import tree_from_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msgspec import Raw

    from gopher.edge.rest_calls import Operation
    from gopher.service.jobs import Jobs
    from gopher.service.schedules import Schedules


class JobOperations:
    """Answers them.

    Args:
        jobs: The service.
        schedules: The service; a submit may ask for a schedule.
    """

    def __init__(self, jobs: Jobs, schedules: Schedules) -> None:
        self._jobs = jobs
        self._schedules = schedules

    def operations(self) -> list[Operation]:
        """Return the operations."""
        created = HTTPStatus.CREATED
        jobs, job = "/api/v1/jobs", "/api/v1/jobs/{job_id}"
        return [
            Call(
                POST,
                "/api/jobs",
                "Submit a job, as the original did, or make a schedule.",
                self._submit_seed,
                query=Query,
                body=SeedSubmitBody,
                answer=SeedReceipt,
                other_answer=ScheduleView,
                status=created,
            ),
            Call(GET, "/api/jobs/{job_id}", "Look at a job.", self._get, query=Query, body=NoBody, answer=JobView),
            Call(
                POST,
                jobs,
                "Submit a job, or make a schedule.",
                self._submit,
                query=Query,
                body=SubmitBody,
                answer=Receipt,
                other_answer=ScheduleView,
                status=created,
            ),
            Call(GET, jobs, "List jobs, page by page.", self._list, query=JobsQuery, body=NoBody, answer=JobPage),
            Call(
                POST,
                f"{jobs}/batch",
                "Submit up to 1,000 jobs, each accepted or refused by itself.",
                self._submit_batch,
                query=Query,
                body=UnreadBatch,
                told_body=BatchBody,
                answer=BatchReceipts,
            ),
            Call(
                GET,
                job,
                "Look at a job.",
                self._look,
                query=JobQuery,
                body=NoBody,
                answer=JobView,
                other_answer=JobTree,
            ),
            Call(
                DELETE,
                job,
                "Remove a job that is not processing, for good.",
                self._delete,
                query=Query,
                body=NoBody,
                answer=Deleted,
            ),
            Call(POST, f"{job}/cancel", "End a job as cancelled.", self._cancel, query=Query, body=CancelBody, answer=JobView),
            Call(
                POST,
                f"{job}/retry",
                "Give a failed or cancelled job new attempts, or start a waiting one now.",
                self._retry,
                query=Query,
                body=NoBody,
                answer=JobView,
            ),
        ]

    async def _submit_seed(self, _name: str, query: Query, body: SeedSubmitBody) -> SeedReceipt | ScheduleView:
        if body.recurring is not None:
            return await create_recurring(self._schedules, query.namespace, body.spec(), body.recurring)
        receipt = await self._jobs.submit_job(pb.SubmitJobRequest(namespace=query.namespace, job=body.spec()))
        return SeedReceipt(receipt.job_id, STATE_OF[receipt.state])

    async def _submit(self, _name: str, query: Query, body: SubmitBody) -> Receipt | ScheduleView:
        if body.recurring is not None:
            return await create_recurring(self._schedules, query.namespace, body.spec(), body.recurring)
        receipt = await self._jobs.submit_job(pb.SubmitJobRequest(namespace=query.namespace, job=body.spec()))
        return Receipt(job_id=receipt.job_id, status=STATE_OF[receipt.state], deduplicated=receipt.deduplicated)

    async def _submit_batch(self, _name: str, query: Query, body: UnreadBatch) -> BatchReceipts:
        if not 1 <= len(body.jobs) <= MAX_BATCH:
            raise invalid("jobs", "BATCH_SIZE", f"must be 1 to {MAX_BATCH}, got {len(body.jobs)}")
        read = [_read(raw) for raw in body.jobs]
        specs = [each for each in read if isinstance(each, job_pb2.JobSpec)]
        request = pb.SubmitJobsRequest(namespace=query.namespace, jobs=specs)
        stored = iter((await self._jobs.submit_jobs(request)).results if specs else [])
        return BatchReceipts([_batch_receipt(next(stored)) if isinstance(each, job_pb2.JobSpec) else each for each in read])

    async def _get(self, job_id: str, query: Query, _body: NoBody) -> JobView:
        reply = await self._jobs.get_job(pb.GetJobRequest(namespace=query.namespace, job_id=job_id))
        return job_view(reply.job)

    async def _look(self, job_id: str, query: JobQuery, body: NoBody) -> JobView | JobTree:
        if query.view == "basic":
            return await self._get(job_id, query, body)
        request = pb.GetJobRequest(namespace=query.namespace, job_id=job_id, view=pb.JobView.JOB_VIEW_TASK_TREE)
        reply = await self._jobs.get_job(request)
        return JobTree(job=job_view(reply.job), task_tree=tree_from_message(reply.task_tree))

    async def _list(self, _name: str, query: JobsQuery, _body: NoBody) -> JobPage:
        request = pb.ListJobsRequest(
            namespace=query.namespace,
            queue=query.queue or "",
            state=job_pb2.JOB_STATE_UNSPECIFIED if query.state is None else STATE_NUMBER[query.state],
            type=query.type or "",
            labels=_labels(query.label),
            page_size=query.page_size,
            page_token=query.page_token,
        )
        return job_page(await self._jobs.list_jobs(request))

    async def _cancel(self, job_id: str, query: Query, body: CancelBody) -> JobView:
        request = pb.CancelJobRequest(
            namespace=query.namespace, job_id=job_id, reason=body.reason, actor=body.actor, grace=body.grace(), wait=body.wait
        )
        return job_view((await self._jobs.cancel_job(request)).job)

    async def _retry(self, job_id: str, query: Query, _body: NoBody) -> JobView:
        reply = await self._jobs.retry_job(pb.RetryJobRequest(namespace=query.namespace, job_id=job_id))
        return job_view(reply.job)

    async def _delete(self, job_id: str, query: Query, _body: NoBody) -> Deleted:
        await self._jobs.delete_job(pb.DeleteJobRequest(namespace=query.namespace, job_id=job_id))
        return Deleted(job_id)


def _read(raw: Raw) -> job_pb2.JobSpec | BatchReceipt:
    """Return the message of one job of a batch, or why it is refused."""
    try:
        return decode_body(JobBody, bytes(raw)).spec()
    except InvalidRequestError as error:
        return BatchReceipt(error=fault_of(error))


def _batch_receipt(result: pb.SubmitJobsResult) -> BatchReceipt:
    if result.HasField("error"):
        return BatchReceipt(error=fault_of(from_status(result.error)))
    return BatchReceipt(job_id=result.job_id, status=STATE_OF[result.state], deduplicated=result.deduplicated)


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise invalid("label", "LABELS", f"must be KEY=VALUE, got {pair[:64]!r}")
        labels[key] = value
    return labels
