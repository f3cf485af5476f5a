"""AdminService: figures, workers, types, dead letters, the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import admin_service_pb2 as pb

from gopher.errors import JobNotFoundError, invalid
from gopher.job import JobState
from gopher.service.jobs import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from gopher.service.stats import read_stats, stats_message, worker_message
from gopher.wire import check, convert
from gopher.wire.check import Faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gopher.service.pages import Pages
    from gopher.service.queues import Queues
    from gopher.store.audit import AuditProgress, Finding
    from gopher.store.store import Store

    Send = Callable[[pb.AuditJobsResponse], Awaitable[None]]

MAX_JOB_IDS: Final = 1000
MAX_DRAIN_MS: Final = 3600 * 1000
REQUEUE_BATCH: Final = 100
"""Jobs a script call at most."""


class Admin:
    """Answers the rpcs.

    Args:
        store: Where everything is.
        queues: Tells the queues' figures.
        pages: Makes and reads page tokens.
    """

    def __init__(self, store: Store, queues: Queues, pages: Pages) -> None:
        self._store = store
        self._queues = queues
        self._pages = pages

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        """Return the figures of a namespace, of its workers and of Redis."""
        namespace = check.namespace(request.namespace)
        return stats_message(await read_stats(self._store, namespace))

    async def list_workers(self, request: pb.ListWorkersRequest) -> pb.ListWorkersResponse:
        """Return the workers that live, by id."""
        workers = await self._store.registry.workers(check.namespace(request.namespace))
        return pb.ListWorkersResponse(workers=map(worker_message, workers))

    async def drain_worker(self, request: pb.DrainWorkerRequest) -> pb.DrainWorkerResponse:
        """Tell a worker to drain."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        if not request.worker_id:
            faults.add("worker_id", "REQUIRED", "must be set")
        grace_ms = None
        if request.HasField("grace"):
            grace_ms = check.duration_ms(faults, "grace", request.grace, 0, MAX_DRAIN_MS)
        faults.refuse()
        worker = await self._store.registry.drain_worker(namespace, request.worker_id, grace_ms)
        return pb.DrainWorkerResponse(worker=worker_message(worker))

    async def list_job_types(self, request: pb.ListJobTypesRequest) -> pb.ListJobTypesResponse:
        """Return the types known, by name, and whether a worker that lives handles each."""
        namespace = check.namespace(request.namespace)
        workers = await self._store.registry.workers(namespace)
        served = {each for worker in workers for each in worker.description.types}
        types = await self._store.registry.types(namespace)
        return pb.ListJobTypesResponse(types=[pb.JobType(type=each, served=each in served) for each in types])

    async def list_failed_jobs(self, request: pb.ListFailedJobsRequest) -> pb.ListFailedJobsResponse:
        """Return a page of dead letters."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        queue = check.optional_name(faults, "queue", request.queue)
        job_type = check.optional_name(faults, "type", request.type)
        size = check.integer(faults, "page_size", request.page_size, 1, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE
        faults.refuse()
        cursor = await self._pages.cursor(namespace, request)
        jobs, cursor = await self._store.query.list_jobs(
            namespace, queue=queue, state=JobState.FAILED, type=job_type, size=size, cursor=cursor
        )
        token = await self._pages.token(namespace, request, cursor)
        return pb.ListFailedJobsResponse(jobs=map(convert.job_to_message, jobs), next_page_token=token)

    async def requeue_failed_jobs(self, request: pb.RequeueFailedJobsRequest) -> pb.RequeueFailedJobsResponse:
        """Give dead letters new attempts: those named, or all that match."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        queue = check.optional_name(faults, "queue", request.queue)
        job_type = check.optional_name(faults, "type", request.type)
        faults.refuse()
        if len(request.job_ids) > MAX_JOB_IDS:
            raise invalid("job_ids", "OUT_OF_RANGE", f"must be at most {MAX_JOB_IDS}, got {len(request.job_ids)}")
        if request.job_ids:
            count = await self._requeue_named(namespace, request.job_ids, queue, job_type)
        else:
            count = await self._requeue_matching(namespace, queue, job_type)
        return pb.RequeueFailedJobsResponse(requeued_count=count)

    async def _requeue_named(self, namespace: str, job_ids: Iterable[str], queue: str | None, job_type: str | None) -> int:
        chosen: list[str] = []
        for job_id in job_ids:
            try:
                job = await self._store.query.get(namespace, job_id)
            except JobNotFoundError:
                continue
            if job.state is JobState.FAILED and queue in {None, job.queue} and job_type in {None, job.type}:
                chosen.append(job_id)
        return await self._requeue(namespace, chosen)

    async def _requeue_matching(self, namespace: str, queue: str | None, job_type: str | None) -> int:
        names = [name for name in await self._store.query.queues(namespace) if queue in {None, name}]
        stats = [await self._store.query.queue_stats(namespace, name) for name in names]
        # No more than there were at the start: jobs that fail again at once would keep us for ever.
        left = sum(each.counts[JobState.FAILED] for each in stats)
        count = 0
        cursor: str | None = None
        while left > 0:
            jobs, cursor = await self._store.query.list_jobs(
                namespace, queue=queue, state=JobState.FAILED, type=job_type, size=min(left, REQUEUE_BATCH), cursor=cursor
            )
            count += await self._requeue(namespace, [job.id for job in jobs])
            left = left - len(jobs) if cursor is not None else 0
        return count

    async def _requeue(self, namespace: str, job_ids: Sequence[str]) -> int:
        return (await self._store.lifecycle.requeue(namespace, job_ids)).count(None)

    async def audit_jobs(self, request: pb.AuditJobsRequest, send: Send) -> None:
        """Check every job of a namespace, and send what is found as it is found."""
        namespace = check.namespace(request.namespace)
        jobs_checked = finding_count = 0

        async def report(progress: AuditProgress) -> None:
            nonlocal jobs_checked, finding_count
            jobs_checked = progress.jobs_checked
            finding_count += len(progress.findings)
            await send(pb.AuditJobsResponse(findings=map(_finding_message, progress.findings), jobs_checked=jobs_checked))

        await self._store.audit.run(namespace, repair=request.repair, report=report)
        await send(pb.AuditJobsResponse(jobs_checked=jobs_checked, done=True, finding_count=finding_count))


def _finding_message(finding: Finding) -> pb.AuditFinding:
    return pb.AuditFinding(
        kind=finding.kind.value,
        queue=finding.queue,
        job_id=finding.job_id,
        detail=finding.detail,
        repaired=finding.repaired,
    )
