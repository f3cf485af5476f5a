"""The commands for those who run Gopher: workers, drain, types, health, admin audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gopher.cli import output
from gopher.cli.arguments import Seconds  # noqa: TC001 - cyclopts reads the annotations at run time
from gopher.cli.report import short_moment
from gopher.cli.stats import USE_HEADINGS, use_of, worker_object
from gopher.cli.target import DEFAULT_TARGET, Target

if TYPE_CHECKING:
    from gopher.client import AuditFinding, Worker


def workers(*, target: Target = DEFAULT_TARGET) -> None:
    """List the workers that live."""
    with target.connect() as client:
        found = client.workers()
    if target.json:
        for worker in found:
            output.json_line(worker_object(worker))
        return
    output.table(
        ("ID", "HOST", "PID", "QUEUES", "TYPES", *USE_HEADINGS, "STARTED", "HEARTBEAT", ""),
        (
            (
                worker.id,
                worker.host,
                str(worker.pid),
                ",".join(f"{name}={weight}" for name, weight in worker.queues.items()),
                ",".join(worker.types),
                *use_of(worker),
                short_moment(worker.start_ms),
                short_moment(worker.heartbeat_ms),
                " ".join(_remarks(worker)),
            )
            for worker in found
        ),
        spare=("HEARTBEAT", "STARTED", "CPU", "MEMORY", "HOST", "PID", "USED", "JOBS/S"),
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
        output.json_line(worker_object(told))
    else:
        output.line(f"draining, {told.busy_slot_count} running")


def _remarks(worker: Worker) -> list[str]:
    known = {each.job_id: f"({each.type}{', ' if each.hangs_at else ''}{each.hangs_at})" for each in worker.stuck_attempts}
    remarks = ["draining"] if worker.draining else []
    if worker.blocked is not None:
        block = worker.blocked
        remarks.append(":".join(["blocked", *filter(None, (block.type, block.job_id)), f"{block.seconds:.0f}s"]))
    return [*remarks, *(f"stuck:{job_id}{known.get(job_id, '')}" for job_id in worker.stuck_job_ids)]


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
