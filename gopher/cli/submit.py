"""The command `submit`."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gopher.cli import output, report
from gopher.cli.arguments import Labels, Moment, Retries, Seconds, labels_of, payload_of
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.errors import GopherError, WaitTimeoutError

if TYPE_CHECKING:
    from gopher.client import Client, SubmitOptions
    from gopher.client.sync_runs import AttachedJob


def submit(
    job_type: Annotated[str, Parameter(["--type", "-t"])],
    *,
    payload: Annotated[str, Parameter(["--payload", "-p"], allow_leading_hyphen=True, metavar="JSON|@FILE|-")] = "null",
    queue: Annotated[str | None, Parameter(["--queue", "-q"])] = None,
    priority: Literal["high", "normal", "low"] | None = None,
    retries: Retries = None,
    non_retryable: Annotated[list[str] | None, Parameter(negative=())] = None,
    delay: Seconds = None,
    at: Moment = None,
    timeout: Seconds = None,
    deadline: Moment = None,
    unique_key: str | None = None,
    limit_key: str | None = None,
    request_id: str | None = None,
    label: Labels = None,
    retention: Seconds = None,
    content_type: Literal["application/json", "application/octet-stream"] = "application/json",
    wait: Annotated[bool, Parameter(negative=())] = False,
    wait_timeout: Seconds = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    attach: Annotated[bool, Parameter(negative=())] = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Submit a job and print its id; with --wait its result, with --watch or --attach all that happens to it.

    Args:
        job_type: Which handler.
        payload: The input: JSON, or @FILE to read it from a file, or - for standard input.
        queue: Where it waits; default: default.
        priority: Which line of the queue; default: normal.
        retries: How often a failed attempt is followed by another, 0 to 99; default: what the handler declares.
        non_retryable: A reason of failures that are not followed by another attempt; may be given more than once.
        delay: Not started before so long from now: seconds, or 90s, 1h30m.
        at: Not started before this moment.
        timeout: Longest run of one attempt.
        deadline: Not started after this moment, and ended then.
        limit_key: Whose share of the limits per key it takes, as that of a tenant.
        unique_key: At most one job that is not final holds it, in its queue.
        request_id: The same one again, within 24 hours, gives the same job.
        label: May be given more than once.
        retention: How long the job is kept once completed or cancelled; default: 1 hour.
        content_type: What the payload is; JSON is passed to the handler decoded.
        wait: Wait for the end; exit 8 if the job failed, 9 if it was cancelled.
        wait_timeout: Wait no longer than this (exit 6); the job goes on.
        watch: Show each change until the end.
        attach: Show each change until the end, and cancel the job if this command ends first: by Ctrl-C, by a signal, or however.
        target: Which server, and how to answer.
    """
    options: SubmitOptions = {
        "content_type": content_type,
        "queue": queue,
        "priority": priority,
        "max_attempts": None if retries is None else retries + 1,
        "delay_seconds": delay,
        "run_at": at,
        "timeout_seconds": timeout,
        "deadline": deadline,
        "unique_key": unique_key,
        "limit_key": limit_key,
        "non_retryable_reasons": non_retryable,
        "request_id": request_id,
        "labels": labels_of(label),
        "retention_seconds": retention,
    }
    if attach and (wait or wait_timeout is not None or watch):
        output.say("--attach shows the job to its end: it goes without --wait, --wait-timeout and --watch")
        return output.USAGE
    with target.connect() as client:
        if attach:
            return _attach(client.run(job_type, payload_of(payload), **options), as_json=target.json)
        job_id = client.submit(job_type, payload_of(payload), **options)
        if watch:
            with report.said_to_go_on(job_id):
                return report.follow(client.watch(job_id), as_json=target.json)
        if wait or wait_timeout is not None:
            with report.said_to_go_on(job_id):
                return _wait(client, job_id, wait_timeout, as_json=target.json)
        if target.json:
            report.tell_job(client.get(job_id), as_json=True)
        else:
            output.line(job_id)
        return output.DONE


def _attach(run: AttachedJob, *, as_json: bool) -> int:
    try:
        with run as job:
            return report.follow(job.events(), as_json=as_json)
    except KeyboardInterrupt:
        # The block has been left, which waits for the job's end for as long as its cleanup may take.
        if run.is_known and run.state.is_final:
            output.say(f"job {run.id} was {run.state}" if run.state == "cancelled" else f"job {run.id} is {run.state}")
        elif run.is_known:
            output.say(f"job {run.id} is told to end, and is {run.state}")
        raise


def _wait(client: Client, job_id: str, wait_seconds: float | None, *, as_json: bool) -> int:
    if wait_seconds is None and sys.stderr.isatty():
        report.follow_with_bar(client.watch(job_id))
    try:
        job = client.wait(job_id, wait_seconds)
    except WaitTimeoutError as fault:
        code = output.tell(fault)
        with suppress(GopherError):  # the server may be gone by now
            reason = client.get(job_id).waiting_reason
            if reason is not None:
                output.say(reason.message)
        return code
    if as_json:
        report.tell_job(job, as_json=True)
    elif job.state == "completed":
        report.tell_result(job)
    return report.exit_code_of_end(job)
