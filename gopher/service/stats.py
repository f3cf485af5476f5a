"""The figures of a namespace, read from the store all at once, and as GetStats tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration

from gopher_pb.v1 import admin_service_pb2 as pb
from gopher_pb.v1 import stats_pb2, worker_pb2

from gopher.job import Outcome, Priority
from gopher.service.queues import queue_message
from gopher.wire import convert

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from gopher.breaker import BreakerStatus
    from gopher.store.figures import QueueFigures
    from gopher.store.query import QueueStats, RedisStats
    from gopher.store.registry import LoopBlock, WorkerInfo
    from gopher.store.store import Store
    from gopher.telemetry.histogram import Histogram

FAILURES: Final = (Outcome.RAISED, Outcome.TIMED_OUT)
"""Outcomes that speak against the handler; a lost attempt speaks against its worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The figures of a namespace.

    Attributes:
        namespace: Its name.
        queues: Depth and totals of each queue, by name.
        figures: What was measured in each of them, in the same order.
        workers: Those that live, by id.
        breakers: Those that handlers have declared, by name.
        redis: How Redis is.
    """

    namespace: str
    queues: Sequence[QueueStats]
    figures: Sequence[QueueFigures]
    workers: Sequence[WorkerInfo]
    breakers: Sequence[BreakerStatus]
    redis: RedisStats

    @property
    def utilisation(self) -> float:
        """Of all slots' time since the workers' last beats, the share in which a handler ran."""
        slots = sum(worker.description.slots for worker in self.workers)
        busy = sum(worker.description.utilisation * worker.description.slots for worker in self.workers)
        return busy / slots if slots else 0.0

    def per_second(self, outcomes: Collection[Outcome] = tuple(Outcome)) -> float:
        """Return how many attempts ended so a second, over the last minute."""
        return sum(rate for each in self.figures for (_, outcome), rate in each.per_second.items() if outcome in outcomes)


async def read_stats(store: Store, namespace: str) -> Stats:
    """Return the figures of a namespace.

    Raises:
        StoreError: Redis failed.
    """
    names = await store.query.queues(namespace)
    return Stats(
        namespace=namespace,
        queues=[await store.query.queue_stats(namespace, name) for name in names],
        figures=await store.figures.read(namespace, names),
        workers=await store.registry.workers(namespace),
        breakers=await store.breakers.list_breakers(namespace),
        redis=await store.query.redis_stats(),
    )


def stats_message(stats: Stats) -> pb.GetStatsResponse:
    """Return the figures as GetStats tells them."""
    workers = [worker.description for worker in stats.workers]
    return pb.GetStatsResponse(
        queues=map(queue_message, stats.queues),
        worker_count=len(workers),
        slot_count=sum(worker.slots for worker in workers),
        busy_slot_count=sum(worker.busy for worker in workers),
        redis=_redis_message(stats.redis),
        types=[each for figures in stats.figures for each in _types(figures)],
        waits=[each for figures in stats.figures for each in _waits(figures)],
        workers=map(worker_message, stats.workers),
        utilisation=stats.utilisation,
        attempts_per_second=stats.per_second(),
        succeeded_per_second=stats.per_second([Outcome.SUCCEEDED]),
        failed_per_second=stats.per_second(FAILURES),
        leases_lost_total=sum(each.total.leases_lost for each in stats.figures),
    )


def worker_message(worker: WorkerInfo) -> worker_pb2.Worker:
    """Return a worker as it is told of."""
    said = worker.description
    return worker_pb2.Worker(
        id=worker.id,
        host=said.host,
        pid=said.pid,
        version=said.version,
        queues=said.queues,
        types=said.types,
        slot_count=said.slots,
        busy_slot_count=said.busy,
        start_time=convert.timestamp(said.started_ms),
        heartbeat_time=convert.timestamp(worker.heartbeat_ms),
        draining=said.draining,
        stuck_job_ids=said.stuck,
        utilisation=said.utilisation,
        attempts_per_second=said.attempts_per_second,
        resident_bytes=said.resident_bytes,
        cpu_cores=said.cpu_cores,
        stuck_attempts=[
            worker_pb2.StuckAttempt(job_id=each.job_id, type=each.type, hangs_at=each.hangs_at) for each in said.stuck_attempts
        ],
        blocked=None if said.blocked is None else _loop_block(said.blocked),
        blocked_totals=map(_loop_block, said.blocked_totals),
        labels=said.labels,
    )


def _loop_block(block: LoopBlock) -> worker_pb2.LoopBlock:
    return worker_pb2.LoopBlock(
        type=block.type, function=block.function, job_id=block.job_id, blocked_time=_duration(block.seconds)
    )


def _types(figures: QueueFigures) -> Iterator[stats_pb2.TypeStats]:
    for job_type in sorted(figures.total.durations):
        yield stats_pb2.TypeStats(
            queue=figures.queue,
            type=job_type,
            attempts_total={outcome.value: count for (of, outcome), count in figures.total.attempts.items() if of == job_type},
            succeeded_per_second=figures.per_second.get((job_type, Outcome.SUCCEEDED), 0.0),
            failed_per_second=sum(figures.per_second.get((job_type, outcome), 0.0) for outcome in FAILURES),
            duration=_percentiles(figures.recent.durations.get(job_type), figures.total.durations[job_type]),
        )


def _waits(figures: QueueFigures) -> Iterator[stats_pb2.WaitStats]:
    for priority in Priority:
        total = figures.total.waits.get(priority)
        if total is not None:
            yield stats_pb2.WaitStats(
                queue=figures.queue,
                priority=convert.PRIORITY_NUMBER[priority],
                wait=_percentiles(figures.recent.waits.get(priority), total),
            )


def _percentiles(recent: Histogram | None, total: Histogram) -> stats_pb2.Percentiles:
    shown = recent if recent is not None and recent.count else total
    return stats_pb2.Percentiles(
        count=shown.count,
        mean=_duration(shown.sum_seconds / max(1, shown.count)),
        p50=_duration(shown.percentile(0.50)),
        p95=_duration(shown.percentile(0.95)),
        p99=_duration(shown.percentile(0.99)),
        recent=shown is recent,
    )


def _duration(seconds: float) -> Duration:
    length = Duration()
    # A handler that does nothing takes some microseconds.
    length.FromMicroseconds(round(seconds * 1e6))
    return length


def _redis_message(stats: RedisStats) -> stats_pb2.RedisStats:
    return stats_pb2.RedisStats(
        version=stats.version,
        used_memory_bytes=stats.used_memory_bytes,
        max_memory_bytes=stats.max_memory_bytes,
        connected_clients=stats.connected_clients,
        uptime=convert.duration(stats.uptime_seconds * 1000),
    )
