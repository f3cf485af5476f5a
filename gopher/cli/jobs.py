"""The commands about jobs that are there: get, watch, cancel, retry, delete, list, list-failed."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Annotated

from cyclopts import Parameter

from gopher import waiting
from gopher.cli import output, report
from gopher.cli.arguments import Labels, Seconds, State, labels_of
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.errors import JobAlreadyFinalError, invalid
from gopher.job import DEFAULT_NAMESPACE, JobState
from gopher.wire.shape import reason_object


def get(job_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Show a job.

    Args:
        job_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        report.tell_job(client.get(job_id), as_json=target.json)


def why(job_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Show why a job waits, and the command that would change it.

    Args:
        job_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        job = client.get(job_id)
    reason = job.waiting_reason
    remedy = None if reason is None else waiting.remedy(job_id, reason)
    if remedy is not None and target.namespace != DEFAULT_NAMESPACE:
        remedy += f" --namespace {target.namespace}"
    if target.json:
        output.json_line(
            {"job_id": job_id, "state": job.state.value, "waiting_reason": reason_object(reason), "command": remedy}
        )
    elif reason is None:
        output.line(f"{job.state}: it does not wait")
    else:
        output.line(output.one_line(f"{job.state}: {reason.message}"))
        if remedy is not None:
            output.line(output.one_line(f"to change that: {remedy}"))


def watch(
    job_id: str | None = None,
    /,
    *,
    cursor: str | None = None,
    queue: str | None = None,
    job_type: Annotated[str | None, Parameter("--type")] = None,
    label: Labels = None,
    root: str | None = None,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Show all that happens to a job until its end, with what its handler says; exit 8 if it failed, 9 if it was cancelled.

    Without an id, show what happens to all jobs that match, from now on, until told to stop.

    Args:
        job_id: Which.
        cursor: Of the last event that is known, as --json shows it: what follows is shown.
        queue: Without an id: only jobs of this queue.
        job_type: Without an id: only jobs of this type.
        label: Without an id: only jobs with this label; may be given more than once.
        root: Without an id: only jobs of the tree of this one.
        target: Which server, and how to answer.
    """
    labels = labels_of(label)
    with target.connect() as client:
        if job_id is not None:
            if queue or job_type or labels or root:
                raise invalid("ID", "CONFLICT", "excludes --queue, --type, --label and --root")
            with report.said_to_go_on(job_id):
                return report.follow(client.watch(job_id, cursor), as_json=target.json)
        for event in client.watch_jobs(queue=queue, type=job_type, labels=labels, root_id=root, cursor=cursor):
            report.tell_event(event, as_json=target.json)
    return output.DONE


def cancel(
    job_id: str,
    /,
    *,
    reason: str = "",
    actor: str | None = None,
    grace: Seconds = None,
    wait: Annotated[bool, Parameter(negative=())] = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """End a job as cancelled: a waiting one at once, a running one as soon as its task tree has ended.

    Args:
        job_id: Which.
        reason: For people; kept with the job.
        actor: Who asks, for people; kept with the job. Default: your user at this host.
        grace: How long the handler's cleanup may take; default: 5 s.
        wait: Answer only when the job is final.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        job = client.cancel(job_id, reason=reason, actor=_me() if actor is None else actor, grace=grace, wait=wait)
    if target.json:
        report.tell_job(job, as_json=True)
    else:
        output.line(job.state if job.state.is_final else f"{job.state}, cancel requested")
    if job.state in {JobState.COMPLETED, JobState.FAILED}:
        # It has ended otherwise before the cancel was through, which a script must not take for one that is cancelled.
        raise JobAlreadyFinalError(job.id, job.state)


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id with no name, as in a container
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def retry(job_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Give a failed or cancelled job new attempts, or start a waiting one now.

    Args:
        job_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        job = client.retry(job_id)
    if target.json:
        report.tell_job(job, as_json=True)
    else:
        output.line(job.state)


def delete(job_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Remove a job that is not processing, for good.

    Args:
        job_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        client.delete(job_id)
    if target.json:
        output.json_line({"id": job_id, "deleted": True})
    else:
        output.line("deleted")


def list_jobs(
    *,
    state: State | None = None,
    job_type: Annotated[str | None, Parameter(["--type", "-t"])] = None,
    queue: Annotated[str | None, Parameter(["--queue", "-q"])] = None,
    label: Labels = None,
    limit: int = 100,
    target: Target = DEFAULT_TARGET,
) -> None:
    """List jobs that match all that is given.

    Args:
        state: Only in this state.
        job_type: Only of this type.
        queue: Only in this queue.
        label: Only with this label; may be given more than once.
        limit: At most so many; 0: all there are.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        jobs = client.list(state=state, type=job_type, queue=queue, labels=labels_of(label), limit=limit or None)
    report.tell_jobs(jobs, as_json=target.json)


def list_failed(
    *,
    job_type: Annotated[str | None, Parameter(["--type", "-t"])] = None,
    queue: Annotated[str | None, Parameter(["--queue", "-q"])] = None,
    limit: int = 100,
    verbose: Annotated[bool, Parameter(["--verbose", "-v"], negative=())] = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """List the dead letters, oldest first.

    Args:
        job_type: Only of this type.
        queue: Only in this queue.
        limit: At most so many; 0: all there are.
        verbose: Show of each the whole message and the traceback of its last attempt.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        jobs = client.list_failed(type=job_type, queue=queue, limit=limit or None)
    report.tell_failed(jobs, verbose=verbose, as_json=target.json)
