"""The operations on queues, dead letters, workers and types, and the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher_pb.v1 import admin_service_pb2 as admin_pb
from gopher_pb.v1 import queue_service_pb2 as queue_pb

from gopher.edge import rest_answers as answers
from gopher.edge.rest_answers import JobPage, Purged, QueueList, QueueView, Requeued, TypeList, TypeView
from gopher.edge.rest_bodies import DrainBody, NoBody, PageQuery, PurgeBody, Query, RequeueBody
from gopher.edge.rest_calls import GET, POST, Call
from gopher.edge.rest_figures import StatsView, WorkerList, WorkerView, stats_view, worker_view

if TYPE_CHECKING:
    from gopher.edge.rest_calls import Operation
    from gopher.service.admin import Admin
    from gopher.service.queues import Queues


class AdminOperations:
    """Answers them.

    Args:
        queues: A service.
        admin: Another.
    """

    def __init__(self, queues: Queues, admin: Admin) -> None:
        self._queues = queues
        self._admin = admin

    def operations(self) -> list[Operation]:
        """Return the operations."""
        v1, queue = "/api/v1", "/api/v1/queues/{queue}"
        return [
            Call(GET, f"{v1}/queues", "List the queues.", self._list, query=Query, body=NoBody, answer=QueueList),
            Call(GET, f"{v1}/queue/stats", "Return the figures.", self._stats, query=Query, body=NoBody, answer=StatsView),
            Call(GET, queue, "Look at a queue.", self._get, query=Query, body=NoBody, answer=QueueView),
            Call(POST, f"{queue}/pause", "Stop claims from a queue.", self._pause, query=Query, body=NoBody, answer=QueueView),
            Call(POST, f"{queue}/resume", "Let claims go on.", self._resume, query=Query, body=NoBody, answer=QueueView),
            Call(
                POST,
                f"{queue}/purge",
                "Remove every waiting job of a queue, for good.",
                self._purge,
                query=Query,
                body=PurgeBody,
                answer=Purged,
            ),
            Call(
                GET,
                f"{v1}/failed",
                "List the dead letters, page by page.",
                self._failed,
                query=PageQuery,
                body=NoBody,
                answer=JobPage,
            ),
            Call(
                POST,
                f"{v1}/failed/retry",
                "Give the dead letters that match new attempts.",
                self._requeue,
                query=Query,
                body=RequeueBody,
                answer=Requeued,
            ),
            Call(
                GET, f"{v1}/workers", "List the workers that live.", self._workers, query=Query, body=NoBody, answer=WorkerList
            ),
            Call(
                POST,
                f"{v1}/workers/{{worker_id}}/drain",
                "Let a worker finish what it runs, and go.",
                self._drain,
                query=Query,
                body=DrainBody,
                answer=WorkerView,
            ),
            Call(GET, f"{v1}/jobs/types", "List the types known.", self._types, query=Query, body=NoBody, answer=TypeList),
        ]

    async def _list(self, _name: str, query: Query, _body: NoBody) -> QueueList:
        reply = await self._queues.list_queues(queue_pb.ListQueuesRequest(namespace=query.namespace))
        return QueueList([answers.queue_view(queue) for queue in reply.queues])

    async def _get(self, queue: str, query: Query, _body: NoBody) -> QueueView:
        reply = await self._queues.get_queue(queue_pb.GetQueueRequest(namespace=query.namespace, queue=queue))
        return answers.queue_view(reply.queue)

    async def _pause(self, queue: str, query: Query, _body: NoBody) -> QueueView:
        reply = await self._queues.pause_queue(queue_pb.PauseQueueRequest(namespace=query.namespace, queue=queue))
        return answers.queue_view(reply.queue)

    async def _resume(self, queue: str, query: Query, _body: NoBody) -> QueueView:
        reply = await self._queues.resume_queue(queue_pb.ResumeQueueRequest(namespace=query.namespace, queue=queue))
        return answers.queue_view(reply.queue)

    async def _purge(self, queue: str, query: Query, body: PurgeBody) -> Purged:
        request = queue_pb.PurgeQueueRequest(namespace=query.namespace, queue=queue, confirm=body.confirm)
        return Purged(queue, (await self._queues.purge_queue(request)).purged_count)

    async def _failed(self, _name: str, query: PageQuery, _body: NoBody) -> JobPage:
        request = admin_pb.ListFailedJobsRequest(
            namespace=query.namespace,
            queue=query.queue or "",
            type=query.type or "",
            page_size=query.page_size,
            page_token=query.page_token,
        )
        return answers.job_page(await self._admin.list_failed_jobs(request))

    async def _requeue(self, _name: str, query: Query, body: RequeueBody) -> Requeued:
        request = admin_pb.RequeueFailedJobsRequest(
            namespace=query.namespace, queue=body.queue or "", type=body.type or "", job_ids=body.job_ids
        )
        return Requeued((await self._admin.requeue_failed_jobs(request)).requeued_count)

    async def _stats(self, _name: str, query: Query, _body: NoBody) -> StatsView:
        return stats_view(await self._admin.get_stats(admin_pb.GetStatsRequest(namespace=query.namespace)))

    async def _workers(self, _name: str, query: Query, _body: NoBody) -> WorkerList:
        reply = await self._admin.list_workers(admin_pb.ListWorkersRequest(namespace=query.namespace))
        return WorkerList([worker_view(worker) for worker in reply.workers])

    async def _drain(self, worker_id: str, query: Query, body: DrainBody) -> WorkerView:
        request = admin_pb.DrainWorkerRequest(namespace=query.namespace, worker_id=worker_id, grace=body.grace())
        return worker_view((await self._admin.drain_worker(request)).worker)

    async def _types(self, _name: str, query: Query, _body: NoBody) -> TypeList:
        reply = await self._admin.list_job_types(admin_pb.ListJobTypesRequest(namespace=query.namespace))
        return TypeList([TypeView(each.type, each.served) for each in reply.types])
