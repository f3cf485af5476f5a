"""The rpcs about queues and for those who run Gopher, built and read as in `calls`."""

from __future__ import annotations

from typing import Final

from grpc_health.v1 import health_pb2

from gopher_pb.v1 import admin_service_pb2, queue_service_pb2, stats_pb2, worker_pb2

from gopher.client import values
from gopher.client.calls import ADMIN, Call, call_of
from gopher.job import JobState
from gopher.wire import convert
from gopher.wire.limits import limits_from_message, ratio_from_message

QUEUES: Final = "/gopher.v1.QueueService/"
HEALTH: Final = "/grpc.health.v1.Health/"


def queues(namespace: str) -> Call[list[values.Queue]]:
    """List the queues."""
    request = queue_service_pb2.ListQueuesRequest(namespace=namespace)
    return call_of(
        QUEUES + "ListQueues",
        request,
        queue_service_pb2.ListQueuesResponse,
        lambda reply: [queue_of(queue) for queue in reply.queues],
    )


def pause(namespace: str, queue: str) -> Call[values.Queue]:
    """Stop claims from the queue."""
    request = queue_service_pb2.PauseQueueRequest(namespace=namespace, queue=queue)
    return call_of(QUEUES + "PauseQueue", request, queue_service_pb2.PauseQueueResponse, lambda reply: queue_of(reply.queue))


def resume(namespace: str, queue: str) -> Call[values.Queue]:
    """Let claims go on."""
    request = queue_service_pb2.ResumeQueueRequest(namespace=namespace, queue=queue)
    return call_of(QUEUES + "ResumeQueue", request, queue_service_pb2.ResumeQueueResponse, lambda reply: queue_of(reply.queue))


def purge(namespace: str, queue: str, confirm: str) -> Call[int]:
    """Remove the queue's waiting jobs and return how many."""
    request = queue_service_pb2.PurgeQueueRequest(namespace=namespace, queue=queue, confirm=confirm)
    return call_of(
        QUEUES + "PurgeQueue",
        request,
        queue_service_pb2.PurgeQueueResponse,
        lambda reply: reply.purged_count,
        repeatable=False,
    )


def queue_of(queue: queue_service_pb2.Queue) -> values.Queue:
    """Return the queue that a server has told of."""
    return values.Queue(
        name=queue.name,
        paused=queue.paused,
        parked=queue.parked,
        priority_ratio=ratio_from_message(queue.priority_ratio),
        limits=limits_from_message(queue.limits) if queue.HasField("limits") else None,
        enqueued={"high": queue.enqueued_high, "normal": queue.enqueued_normal, "low": queue.enqueued_low},
        jobs={
            JobState.SCHEDULED: queue.scheduled,
            JobState.ENQUEUED: queue.enqueued_high + queue.enqueued_normal + queue.enqueued_low + queue.parked,
            JobState.PROCESSING: queue.processing,
            JobState.RETRYING: queue.retrying,
            JobState.COMPLETED: queue.completed,
            JobState.FAILED: queue.failed,
            JobState.CANCELLED: queue.cancelled,
        },
        oldest_wait_seconds=convert.to_ms(queue.oldest_wait) / 1000 if queue.HasField("oldest_wait") else None,
        submitted_total=queue.submitted_total,
        completed_total=queue.completed_total,
        failed_total=queue.failed_total,
        cancelled_total=queue.cancelled_total,
        retried_total=queue.retried_total,
    )


def stats(namespace: str) -> Call[values.Stats]:
    """Return the figures of the namespace."""
    request = admin_service_pb2.GetStatsRequest(namespace=namespace)
    return call_of(ADMIN + "GetStats", request, admin_service_pb2.GetStatsResponse, _stats)


def _stats(reply: admin_service_pb2.GetStatsResponse) -> values.Stats:
    return values.Stats(
        queues=tuple(queue_of(queue) for queue in reply.queues),
        worker_count=reply.worker_count,
        slot_count=reply.slot_count,
        busy_slot_count=reply.busy_slot_count,
        redis=values.RedisStats(
            version=reply.redis.version,
            used_memory_bytes=reply.redis.used_memory_bytes,
            max_memory_bytes=reply.redis.max_memory_bytes,
            connected_clients=reply.redis.connected_clients,
            uptime_seconds=convert.to_ms(reply.redis.uptime) / 1000,
        ),
        types=tuple(map(_type_stats, reply.types)),
        waits=tuple(map(_wait_stats, reply.waits)),
        workers=tuple(map(_worker, reply.workers)),
        utilisation=reply.utilisation,
        attempts_per_second=reply.attempts_per_second,
        succeeded_per_second=reply.succeeded_per_second,
        failed_per_second=reply.failed_per_second,
        leases_lost_total=reply.leases_lost_total,
    )


def _type_stats(message: stats_pb2.TypeStats) -> values.TypeStats:
    return values.TypeStats(
        queue=message.queue,
        type=message.type,
        attempts_total=dict(message.attempts_total),
        succeeded_per_second=message.succeeded_per_second,
        failed_per_second=message.failed_per_second,
        duration=_percentiles(message.duration),
    )


def _wait_stats(message: stats_pb2.WaitStats) -> values.WaitStats:
    return values.WaitStats(
        queue=message.queue, priority=convert.PRIORITY_OF[message.priority].value, wait=_percentiles(message.wait)
    )


def _percentiles(message: stats_pb2.Percentiles) -> values.Percentiles:
    return values.Percentiles(
        count=message.count,
        mean_seconds=message.mean.ToMicroseconds() / 1e6,
        p50_seconds=message.p50.ToMicroseconds() / 1e6,
        p95_seconds=message.p95.ToMicroseconds() / 1e6,
        p99_seconds=message.p99.ToMicroseconds() / 1e6,
        recent=message.recent,
    )


def workers(namespace: str) -> Call[list[values.Worker]]:
    """List the workers that live."""
    request = admin_service_pb2.ListWorkersRequest(namespace=namespace)
    return call_of(
        ADMIN + "ListWorkers",
        request,
        admin_service_pb2.ListWorkersResponse,
        lambda reply: [_worker(worker) for worker in reply.workers],
    )


def drain_worker(namespace: str, worker_id: str, grace_seconds: float | None) -> Call[values.Worker]:
    """Tell a worker to drain."""
    grace = None if grace_seconds is None else convert.duration(round(grace_seconds * 1000))
    request = admin_service_pb2.DrainWorkerRequest(namespace=namespace, worker_id=worker_id, grace=grace)
    return call_of(ADMIN + "DrainWorker", request, admin_service_pb2.DrainWorkerResponse, lambda reply: _worker(reply.worker))


def _worker(worker: worker_pb2.Worker) -> values.Worker:
    return values.Worker(
        id=worker.id,
        host=worker.host,
        pid=worker.pid,
        version=worker.version,
        queues=dict(worker.queues),
        types=tuple(worker.types),
        slot_count=worker.slot_count,
        busy_slot_count=worker.busy_slot_count,
        start_ms=convert.to_ms(worker.start_time),
        heartbeat_ms=convert.to_ms(worker.heartbeat_time),
        draining=worker.draining,
        stuck_job_ids=tuple(worker.stuck_job_ids),
        utilisation=worker.utilisation,
        attempts_per_second=worker.attempts_per_second,
        resident_bytes=worker.resident_bytes,
        cpu_cores=worker.cpu_cores,
        stuck_attempts=tuple(
            values.StuckAttempt(job_id=each.job_id, type=each.type, hangs_at=each.hangs_at) for each in worker.stuck_attempts
        ),
        blocked=_loop_block(worker.blocked) if worker.HasField("blocked") else None,
        blocked_totals=tuple(map(_loop_block, worker.blocked_totals)),
    )


def _loop_block(block: worker_pb2.LoopBlock) -> values.LoopBlock:
    seconds = block.blocked_time.ToMicroseconds() / 1e6
    return values.LoopBlock(type=block.type, function=block.function, job_id=block.job_id, seconds=seconds)


def types(namespace: str) -> Call[list[values.JobType]]:
    """List the types that are known."""
    request = admin_service_pb2.ListJobTypesRequest(namespace=namespace)
    return call_of(
        ADMIN + "ListJobTypes",
        request,
        admin_service_pb2.ListJobTypesResponse,
        lambda reply: [values.JobType(type=each.type, served=each.served) for each in reply.types],
    )


def audit(namespace: str, *, repair: bool) -> Call[values.AuditReport]:
    """Check every job's place; a stream."""
    request = admin_service_pb2.AuditJobsRequest(namespace=namespace, repair=repair)
    return call_of(ADMIN + "AuditJobs", request, admin_service_pb2.AuditJobsResponse, _report)


def _report(reply: admin_service_pb2.AuditJobsResponse) -> values.AuditReport:
    return values.AuditReport(
        findings=tuple(
            values.AuditFinding(
                kind=each.kind, queue=each.queue, job_id=each.job_id, detail=each.detail, repaired=each.repaired
            )
            for each in reply.findings
        ),
        jobs_checked=reply.jobs_checked,
        done=reply.done,
        finding_count=reply.finding_count,
    )


def health() -> Call[bool]:
    """Tell whether the server serves."""
    serving = health_pb2.HealthCheckResponse.SERVING
    return call_of(
        HEALTH + "Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, lambda r: r.status == serving
    )
