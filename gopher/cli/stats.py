"""The command `stats`: every figure there is, for people and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gopher.cli import output
from gopher.cli.queues import queue_object, tell_queues
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.wire.shape import moment

if TYPE_CHECKING:
    from gopher.client import LoopBlock, Percentiles, Stats, Worker
    from gopher.job import JsonValue

MIB: Final = 1024 * 1024
_PERCENTILES: Final = ("COUNT", "P50", "P95", "P99", "LAST")


def stats(*, target: Target = DEFAULT_TARGET) -> None:
    """Show the figures of the queues, the job types, the workers and Redis."""
    with target.connect() as client:
        found = client.stats()
    if target.json:
        output.json_line(stats_object(found))
        return
    tell_queues(found.queues)
    _tell_waits(found)
    _tell_types(found)
    _tell_workers(found)
    _tell_redis(found)


def _tell_waits(found: Stats) -> None:
    if found.waits:
        output.line("")
        output.table(
            ("WAIT IN LINE", "PRIORITY", *_PERCENTILES),
            ((each.queue, each.priority, *_percentile_cells(each.wait)) for each in found.waits),
            spare=("LAST", "P99"),
        )


def _tell_types(found: Stats) -> None:
    if found.types:
        output.line("")
        output.table(
            ("DURATION", "QUEUE", *_PERCENTILES, "SUCCEEDED/S", "FAILED/S", "SUCCEEDED", "FAILED"),
            (
                (
                    each.type,
                    each.queue,
                    *_percentile_cells(each.duration),
                    f"{each.succeeded_per_second:.2f}",
                    f"{each.failed_per_second:.2f}",
                    str(each.attempts_total.get("succeeded", 0)),
                    str(each.attempts_total.get("raised", 0) + each.attempts_total.get("timed_out", 0)),
                )
                for each in found.types
            ),
            spare=("FAILED/S", "SUCCEEDED/S", "LAST", "SUCCEEDED", "QUEUE", "P99"),
        )


def _tell_workers(found: Stats) -> None:
    output.line("")
    output.line(
        f"attempts {found.attempts_per_second:.2f}/s in the last minute, succeeded {found.succeeded_per_second:.2f}/s, "
        f"failed {found.failed_per_second:.2f}/s"
    )
    output.line(
        f"workers {found.worker_count}, slots busy {found.busy_slot_count} of {found.slot_count}, used {found.utilisation:.0%}, "
        f"leases lost {found.leases_lost_total}"
    )
    if found.workers:
        output.line("")
        output.table(("WORKER", *USE_HEADINGS), ((worker.id, *use_of(worker)) for worker in found.workers))
    output.line("")


def _tell_redis(found: Stats) -> None:
    redis = found.redis
    limit = f"of {redis.max_memory_bytes / MIB:.1f} MiB" if redis.max_memory_bytes else "no limit"
    output.line(
        f"redis {redis.version}, memory {redis.used_memory_bytes / MIB:.1f} MiB ({limit}), "
        f"clients {redis.connected_clients}, up {redis.uptime_seconds:.0f} s"
    )


USE_HEADINGS: Final = ("BUSY", "USED", "JOBS/S", "MEMORY", "CPU")


def use_of(worker: Worker) -> tuple[str, ...]:
    """Return how much a worker does and takes, below `USE_HEADINGS`."""
    return (
        f"{worker.busy_slot_count}/{worker.slot_count}",
        f"{worker.utilisation:.0%}",
        f"{worker.attempts_per_second:.1f}",
        f"{worker.resident_bytes / MIB:.0f} MiB",
        f"{worker.cpu_cores:.2f}",
    )


def _percentile_cells(found: Percentiles) -> tuple[str, ...]:
    shown = (found.p50_seconds, found.p95_seconds, found.p99_seconds)
    return (str(found.count), *map(_length, shown), "5 minutes" if found.recent else "all time")


def _length(seconds: float) -> str:
    """Return a length of time with two digits that count, in the unit that suits it."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.2g} {unit}" if seconds * factor < 10 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def stats_object(found: Stats) -> dict[str, JsonValue]:
    """Return the figures as a JSON object."""
    return {
        "queues": [queue_object(queue) for queue in found.queues],
        "worker_count": found.worker_count,
        "slot_count": found.slot_count,
        "busy_slot_count": found.busy_slot_count,
        "redis": {
            "version": found.redis.version,
            "used_memory_bytes": found.redis.used_memory_bytes,
            "max_memory_bytes": found.redis.max_memory_bytes,
            "connected_clients": found.redis.connected_clients,
            "uptime_seconds": found.redis.uptime_seconds,
        },
        "types": [
            {
                "queue": each.queue,
                "type": each.type,
                "attempts_total": dict(each.attempts_total),
                "succeeded_per_second": each.succeeded_per_second,
                "failed_per_second": each.failed_per_second,
                "duration": _percentiles_object(each.duration),
            }
            for each in found.types
        ],
        "waits": [
            {"queue": each.queue, "priority": each.priority, "wait": _percentiles_object(each.wait)} for each in found.waits
        ],
        "workers": [worker_object(worker) for worker in found.workers],
        "utilisation": found.utilisation,
        "attempts_per_second": found.attempts_per_second,
        "succeeded_per_second": found.succeeded_per_second,
        "failed_per_second": found.failed_per_second,
        "leases_lost_total": found.leases_lost_total,
    }


def _percentiles_object(found: Percentiles) -> JsonValue:
    return {
        "count": found.count,
        "mean_seconds": found.mean_seconds,
        "p50_seconds": found.p50_seconds,
        "p95_seconds": found.p95_seconds,
        "p99_seconds": found.p99_seconds,
        "recent": found.recent,
    }


def worker_object(worker: Worker) -> dict[str, JsonValue]:
    """Return a worker as a JSON object."""
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "queues": dict(worker.queues),
        "types": list(worker.types),
        "slot_count": worker.slot_count,
        "busy_slot_count": worker.busy_slot_count,
        "start_time": moment(worker.start_ms),
        "heartbeat_time": moment(worker.heartbeat_ms),
        "draining": worker.draining,
        "stuck_job_ids": list(worker.stuck_job_ids),
        "utilisation": worker.utilisation,
        "attempts_per_second": worker.attempts_per_second,
        "resident_bytes": worker.resident_bytes,
        "cpu_cores": worker.cpu_cores,
        "stuck_attempts": [
            {"job_id": each.job_id, "type": each.type, "hangs_at": each.hangs_at} for each in worker.stuck_attempts
        ],
        "blocked": None if worker.blocked is None else _block_object(worker.blocked),
        "blocked_totals": [_block_object(each) for each in worker.blocked_totals],
    }


def _block_object(block: LoopBlock) -> dict[str, JsonValue]:
    return {"type": block.type, "function": block.function, "job_id": block.job_id, "seconds": block.seconds}
