"""Looking at queues and steering them, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.errors import ConfirmationError, InvalidRequestError, QueueNotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.service.conftest import Rig


async def test_queue_tells_its_figures(rig: Rig) -> None:
    """Jobs by priority and by state, and what the queue has seen since it was made."""
    for priority in (job_pb2.PRIORITY_HIGH, job_pb2.PRIORITY_LOW, job_pb2.PRIORITY_LOW, 0):
        await rig.submit(priority=priority)
    await rig.complete()
    await rig.fail()

    queue = (await rig.queues.get_queue(pb.GetQueueRequest(namespace=rig.namespace, queue="default"))).queue

    assert queue.name == "default"
    assert queue.enqueued_high + queue.enqueued_normal + queue.enqueued_low == 2
    assert (queue.completed, queue.failed, queue.processing) == (1, 1, 0)
    assert (queue.submitted_total, queue.completed_total, queue.failed_total) == (4, 1, 1)
    assert queue.HasField("oldest_wait")
    assert not queue.paused


async def test_list_gives_the_queues_by_name(rig: Rig) -> None:
    """Every queue that was used, and no other namespace's."""
    await rig.submit(queue="b")
    await rig.submit(queue="a")

    queues = (await rig.queues.list_queues(pb.ListQueuesRequest(namespace=rig.namespace))).queues

    assert [queue.name for queue in queues] == ["a", "b"]


async def test_paused_queue_takes_jobs_and_gives_none(rig: Rig) -> None:
    """A queue not yet used is created by its pause; resumed, it gives what it took."""
    name = pb.PauseQueueRequest(namespace=rig.namespace, queue="new")

    paused = (await rig.queues.pause_queue(name)).queue
    await rig.submit(queue="new")
    claimed = await rig.store.lifecycle.claim(rig.namespace, "new", worker="w", count=1, lease_ms=1000, claim_id="while-paused")
    resumed = (await rig.queues.resume_queue(pb.ResumeQueueRequest(namespace=rig.namespace, queue="new"))).queue

    assert paused.paused
    assert claimed is None
    assert not resumed.paused
    assert resumed.enqueued_normal == 1


async def test_purge_needs_the_queues_name_again(rig: Rig) -> None:
    """What destroys must name what it destroys; then the waiting jobs go and the final ones stay."""
    for _ in range(3):
        await rig.submit()
    await rig.complete()
    request = pb.PurgeQueueRequest(namespace=rig.namespace, queue="default", confirm="other")

    with pytest.raises(ConfirmationError):
        await rig.queues.purge_queue(request)
    request.confirm = "default"
    reply = await rig.queues.purge_queue(request)

    assert reply.purged_count == 2
    stats = await rig.store.query.queue_stats(rig.namespace, "default")
    assert sum(stats.counts.values()) == 1


async def test_queue_that_nobody_has_used_is_not_found(rig: Rig) -> None:
    """In every rpc but pause, which creates it; and a look creates none."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: rig.queues.get_queue(pb.GetQueueRequest(namespace=rig.namespace, queue="nope")),
        lambda: rig.queues.resume_queue(pb.ResumeQueueRequest(namespace=rig.namespace, queue="nope")),
        lambda: rig.queues.purge_queue(pb.PurgeQueueRequest(namespace=rig.namespace, queue="nope", confirm="nope")),
    ]

    for call in calls:
        with pytest.raises(QueueNotFoundError):
            await call()

    assert await rig.store.query.queues(rig.namespace) == []


@pytest.mark.parametrize(("queue", "reason"), [("", "REQUIRED"), ("{x}", "BAD_NAME"), ("a}b", "BAD_NAME"), ("*", "BAD_NAME")])
async def test_name_that_is_none_is_refused(rig: Rig, queue: str, reason: str) -> None:
    """A name reaches Redis only when it is one."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: rig.queues.get_queue(pb.GetQueueRequest(namespace=rig.namespace, queue=queue)),
        lambda: rig.queues.pause_queue(pb.PauseQueueRequest(namespace=rig.namespace, queue=queue)),
        lambda: rig.queues.resume_queue(pb.ResumeQueueRequest(namespace=rig.namespace, queue=queue)),
        lambda: rig.queues.purge_queue(pb.PurgeQueueRequest(namespace=rig.namespace, queue=queue, confirm=queue)),
    ]

    for call in calls:
        with pytest.raises(InvalidRequestError) as caught:
            await call()
        assert caught.value.violations[0].reason == reason
