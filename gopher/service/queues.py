"""QueueService: looks at queues and steers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.errors import ConfirmationError
from gopher.job import JobState, Priority
from gopher.wire import check, convert, limits

if TYPE_CHECKING:
    from gopher.store.query import QueueStats
    from gopher.store.store import Store


class Queues:
    """Answers the rpcs.

    Args:
        store: Where the queues are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_queues(self, request: pb.ListQueuesRequest) -> pb.ListQueuesResponse:
        """Return every queue of the namespace, by name."""
        return pb.ListQueuesResponse(queues=await self.all_queues(check.namespace(request.namespace)))

    async def all_queues(self, namespace: str) -> list[pb.Queue]:
        """Return every queue of a namespace, by name."""
        names = await self._store.query.queues(namespace)
        return [await self.queue(namespace, name) for name in names]

    async def get_queue(self, request: pb.GetQueueRequest) -> pb.GetQueueResponse:
        """Return one queue."""
        namespace, queue = check.namespace(request.namespace), check.queue(request.queue)
        return pb.GetQueueResponse(queue=await self.queue(namespace, queue))

    async def pause_queue(self, request: pb.PauseQueueRequest) -> pb.PauseQueueResponse:
        """Stop claims from a queue."""
        namespace, queue = check.namespace(request.namespace), check.queue(request.queue)
        await self._store.lifecycle.pause(namespace, queue)
        return pb.PauseQueueResponse(queue=await self.queue(namespace, queue))

    async def resume_queue(self, request: pb.ResumeQueueRequest) -> pb.ResumeQueueResponse:
        """Let claims go on."""
        namespace, queue = check.namespace(request.namespace), check.queue(request.queue)
        await self._store.registry.require_queue(namespace, queue)
        await self._store.lifecycle.resume(namespace, queue)
        return pb.ResumeQueueResponse(queue=await self.queue(namespace, queue))

    async def purge_queue(self, request: pb.PurgeQueueRequest) -> pb.PurgeQueueResponse:
        """Remove the waiting jobs of a queue."""
        namespace, queue = check.namespace(request.namespace), check.queue(request.queue)
        await self._store.registry.require_queue(namespace, queue)
        if request.confirm != queue:
            raise ConfirmationError(queue)
        return pb.PurgeQueueResponse(purged_count=await self._store.lifecycle.purge(namespace, queue))

    async def queue(self, namespace: str, name: str) -> pb.Queue:
        """Return a queue of a namespace."""
        return queue_message(await self._store.query.queue_stats(namespace, name))


def queue_message(stats: QueueStats) -> pb.Queue:
    """Return a queue as it is told of."""
    return pb.Queue(
        name=stats.name,
        paused=stats.paused,
        enqueued_high=stats.enqueued[Priority.HIGH],
        enqueued_normal=stats.enqueued[Priority.NORMAL],
        enqueued_low=stats.enqueued[Priority.LOW],
        scheduled=stats.counts[JobState.SCHEDULED],
        retrying=stats.counts[JobState.RETRYING],
        processing=stats.counts[JobState.PROCESSING],
        completed=stats.counts[JobState.COMPLETED],
        failed=stats.counts[JobState.FAILED],
        cancelled=stats.counts[JobState.CANCELLED],
        oldest_wait=convert.duration(stats.oldest_wait_ms),
        submitted_total=stats.submitted_total,
        completed_total=stats.completed_total,
        failed_total=stats.failed_total,
        cancelled_total=stats.cancelled_total,
        retried_total=stats.retried_total,
        priority_ratio=limits.ratio_to_message(stats.ratio),
        parked=stats.parked,
        limits=limits.limits_to_message(stats.limits),
    )
