"""What REST answers about figures and workers, as `rest_answers` has it for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from gopher.edge.rest_answers import QueueView, queue_view
from gopher.wire import convert
from gopher.wire.shape import moment

if TYPE_CHECKING:
    from gopher_pb.v1 import admin_service_pb2, stats_pb2, worker_pb2


class RedisView(Struct, frozen=True, kw_only=True):
    """How Redis is; 0 for `max_memory_bytes` means no limit."""

    version: str
    used_memory_bytes: int
    max_memory_bytes: int
    connected_clients: int
    uptime_seconds: float


class PercentilesView(Struct, frozen=True, kw_only=True):
    """How durations are spread: of the last five minutes if `recent`, else of all time."""

    count: int
    mean_seconds: float
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    recent: bool


class TypeStatsView(Struct, frozen=True, kw_only=True):
    """What was measured of the attempts of a type: by outcome, a second over the last minute, and how long handlers ran."""

    queue: str
    type: str
    attempts_total: dict[str, int]
    succeeded_per_second: float
    failed_per_second: float
    duration: PercentilesView


class WaitStatsView(Struct, frozen=True, kw_only=True):
    """How long jobs stood in a line before they were claimed."""

    queue: str
    priority: str
    wait: PercentilesView


class StuckAttemptView(Struct, frozen=True, kw_only=True):
    """An attempt whose handler was to end, has outlasted the grace, and goes on; where, as FILE:LINE in FUNCTION, if it is known."""

    job_id: str
    type: str
    hangs_at: str


class LoopBlockView(Struct, frozen=True, kw_only=True):
    """That a worker's loop is blocked, or has been: by which handler, and for how long."""

    type: str
    function: str
    job_id: str
    seconds: float


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker that lives; what is a share, a rate or of the processor was measured between its last two beats."""

    id: str
    host: str
    pid: int
    version: str
    queues: dict[str, int]
    types: list[str]
    slot_count: int
    busy_slot_count: int
    start_time: str | None
    heartbeat_time: str | None
    draining: bool
    stuck_job_ids: list[str]
    utilisation: float
    attempts_per_second: float
    resident_bytes: int
    cpu_cores: float
    stuck_attempts: list[StuckAttemptView]
    blocked: LoopBlockView | None
    blocked_totals: list[LoopBlockView]


class StatsView(Struct, frozen=True, kw_only=True):
    """The figures of a namespace, of its workers and of Redis; rates are those of the last minute."""

    queues: list[QueueView]
    worker_count: int
    slot_count: int
    busy_slot_count: int
    redis: RedisView
    types: list[TypeStatsView]
    waits: list[WaitStatsView]
    workers: list[WorkerView]
    utilisation: float
    attempts_per_second: float
    succeeded_per_second: float
    failed_per_second: float
    leases_lost_total: int


class WorkerList(Struct, frozen=True):
    """The workers that live, by id."""

    workers: list[WorkerView]


def stats_view(reply: admin_service_pb2.GetStatsResponse) -> StatsView:
    """Return the figures."""
    return StatsView(
        queues=[queue_view(queue) for queue in reply.queues],
        worker_count=reply.worker_count,
        slot_count=reply.slot_count,
        busy_slot_count=reply.busy_slot_count,
        redis=RedisView(
            version=reply.redis.version,
            used_memory_bytes=reply.redis.used_memory_bytes,
            max_memory_bytes=reply.redis.max_memory_bytes,
            connected_clients=reply.redis.connected_clients,
            uptime_seconds=convert.to_ms(reply.redis.uptime) / 1000,
        ),
        types=[
            TypeStatsView(
                queue=each.queue,
                type=each.type,
                attempts_total=dict(each.attempts_total),
                succeeded_per_second=each.succeeded_per_second,
                failed_per_second=each.failed_per_second,
                duration=_percentiles_view(each.duration),
            )
            for each in reply.types
        ],
        waits=[
            WaitStatsView(
                queue=each.queue,
                priority=convert.PRIORITY_OF[each.priority].value,
                wait=_percentiles_view(each.wait),
            )
            for each in reply.waits
        ],
        workers=[worker_view(worker) for worker in reply.workers],
        utilisation=reply.utilisation,
        attempts_per_second=reply.attempts_per_second,
        succeeded_per_second=reply.succeeded_per_second,
        failed_per_second=reply.failed_per_second,
        leases_lost_total=reply.leases_lost_total,
    )


def _percentiles_view(message: stats_pb2.Percentiles) -> PercentilesView:
    return PercentilesView(
        count=message.count,
        mean_seconds=message.mean.ToMicroseconds() / 1e6,
        p50_seconds=message.p50.ToMicroseconds() / 1e6,
        p95_seconds=message.p95.ToMicroseconds() / 1e6,
        p99_seconds=message.p99.ToMicroseconds() / 1e6,
        recent=message.recent,
    )


def worker_view(worker: worker_pb2.Worker) -> WorkerView:
    """Return a worker."""
    return WorkerView(
        id=worker.id,
        host=worker.host,
        pid=worker.pid,
        version=worker.version,
        queues=dict(worker.queues),
        types=list(worker.types),
        slot_count=worker.slot_count,
        busy_slot_count=worker.busy_slot_count,
        start_time=moment(convert.to_ms(worker.start_time)),
        heartbeat_time=moment(convert.to_ms(worker.heartbeat_time)),
        draining=worker.draining,
        stuck_job_ids=list(worker.stuck_job_ids),
        utilisation=worker.utilisation,
        attempts_per_second=worker.attempts_per_second,
        resident_bytes=worker.resident_bytes,
        cpu_cores=worker.cpu_cores,
        stuck_attempts=[
            StuckAttemptView(job_id=each.job_id, type=each.type, hangs_at=each.hangs_at) for each in worker.stuck_attempts
        ],
        blocked=_loop_block(worker.blocked) if worker.HasField("blocked") else None,
        blocked_totals=[_loop_block(each) for each in worker.blocked_totals],
    )


def _loop_block(block: worker_pb2.LoopBlock) -> LoopBlockView:
    seconds = block.blocked_time.ToMicroseconds() / 1e6
    return LoopBlockView(type=block.type, function=block.function, job_id=block.job_id, seconds=seconds)
