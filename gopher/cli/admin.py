"""The commands for those who run Gopher: stats, workers, drain, types, health, admin audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gopher.cli import output
from gopher.cli.arguments import Seconds  # noqa: TC001 - cyclopts reads the annotations at run time
from gopher.cli.queues import queue_object, tell_queues
from gopher.cli.report import short_moment
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.wire.shape import moment

if TYPE_CHECKING:
    from gopher.client import AuditFinding, Stats, Worker
    from gopher.job import JsonValue

MIB = 1024 * 1024


def stats(*, target: Target = DEFAULT_TARGET) -> None:
    """Show the figures of the queues, the workers and Redis."""
    with target.connect() as client:
        found = client.stats()
    if target.json:
        output.json_line(_stats_object(found))
        return
    tell_queues(found.queues)
    redis = found.redis
    limit = f"of {redis.max_memory_bytes / MIB:.1f} MiB" if redis.max_memory_bytes else "no limit"
    output.line(f"workers {found.worker_count}, slots busy {found.busy_slot_count} of {found.slot_count}")
    output.line(
        f"redis {redis.version}, memory {redis.used_memory_bytes / MIB:.1f} MiB ({limit}), "
        f"clients {redis.connected_clients}, up {redis.uptime_seconds:.0f} s"
    )


def _stats_object(found: Stats) -> dict[str, JsonValue]:
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
    }


def workers(*, target: Target = DEFAULT_TARGET) -> None:
    """List the workers that live."""
    with target.connect() as client:
        found = client.workers()
    if target.json:
        for worker in found:
            output.json_line(_worker_object(worker))
        return
    output.table(
        ("ID", "HOST", "PID", "QUEUES", "TYPES", "BUSY", "STARTED", "HEARTBEAT", ""),
        (
            (
                worker.id,
                worker.host,
                str(worker.pid),
                ",".join(f"{name}={weight}" for name, weight in worker.queues.items()),
                ",".join(worker.types),
                f"{worker.busy_slot_count}/{worker.slot_count}",
                short_moment(worker.start_ms),
                short_moment(worker.heartbeat_ms),
                " ".join(_remarks(worker)),
            )
            for worker in found
        ),
    )


def drain(worker: str, /, *, grace: Seconds = None, target: Target = DEFAULT_TARGET) -> None:
    """Let a worker finish what it runs, and go; what is not done by then is given back unspent.

    Args:
        worker: Its id, as `gopher workers` shows it.
        grace: How long attempts may go on; default: as it was started with.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        told = client.drain_worker(worker, grace=grace)
    if target.json:
        output.json_line(_worker_object(told))
    else:
        output.line(f"draining, {told.busy_slot_count} running")


def _remarks(worker: Worker) -> list[str]:
    return [*(["draining"] if worker.draining else []), *(f"stuck:{job_id}" for job_id in worker.stuck_job_ids)]


def _worker_object(worker: Worker) -> dict[str, JsonValue]:
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
    }


def types(*, target: Target = DEFAULT_TARGET) -> None:
    """List the types that are known, and whether a worker that lives handles each."""
    with target.connect() as client:
        found = client.types()
    if target.json:
        for each in found:
            output.json_line({"type": each.type, "served": each.served})
    else:
        output.table(("TYPE", "SERVED"), ((each.type, "yes" if each.served else "no") for each in found))


def health(*, target: Target = DEFAULT_TARGET) -> int:
    """Tell whether the server serves; exit 1 if it says that it does not, 5 if it does not answer."""
    with target.connect() as client:
        word = "SERVING" if client.is_serving() else "NOT_SERVING"
    if target.json:
        output.json_line({"status": word})
    else:
        output.line(word)
    return output.DONE if word == "SERVING" else output.FAILED


def audit(*, repair: Annotated[bool, Parameter(negative=())] = False, target: Target = DEFAULT_TARGET) -> int:
    """Prove that every job stands in exactly one place; exit 0 when all do, 2 when there are findings.

    Args:
        repair: Move what stands wrong to where its state says.
        target: Which server, and how to answer.
    """
    jobs_checked = finding_count = 0
    with target.connect() as client, output.counter("jobs checked") as show:
        for stretch in client.audit(repair=repair):
            jobs_checked, finding_count = stretch.jobs_checked, max(finding_count, stretch.finding_count)
            for finding in stretch.findings:
                _tell_finding(finding, as_json=target.json)
            show(jobs_checked)
    if target.json:
        output.json_line({"jobs_checked": jobs_checked, "finding_count": finding_count})
    else:
        output.line(f"{jobs_checked} jobs checked, {finding_count} findings")
    return output.FINDINGS if finding_count else output.DONE


def _tell_finding(finding: AuditFinding, *, as_json: bool) -> None:
    if as_json:
        output.json_line(
            {
                "kind": finding.kind,
                "queue": finding.queue,
                "job_id": finding.job_id,
                "detail": finding.detail,
                "repaired": finding.repaired,
            }
        )
    else:
        mended = "  repaired" if finding.repaired else ""
        output.line(output.one_line(f"{finding.kind}  {finding.queue}  {finding.job_id}  {finding.detail}{mended}"))
