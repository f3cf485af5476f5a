"""What the commands tell of jobs, for people and as JSON, and how a job is followed on the screen."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from gopher.cli import output
from gopher.client.dialogues import result_of
from gopher.errors import JobCancelledError, JobFailedError
from gopher.event import ChildChange, EventKind, LogLine, Notice, OutputChunk, Truncation
from gopher.job import JobState
from gopher.wire.events import details_object
from gopher.wire.shape import failure_object, job_object, moment, reason_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gopher.client import JobEvent
    from gopher.event import EventDetail
    from gopher.job import Attempt, Failure, Job, JsonValue
    from gopher.limits import Limits

NOTHING: Final = "-"


def tell_job(job: Job, *, as_json: bool) -> None:
    """Tell all of a job: a JSON object, or a line a field that is set."""
    if as_json:
        output.json_line(job_object(job))
        return
    for name, value in job_object(job).items():
        if name == "state":
            output.state_line(f"{name:24}", job.state)
        elif value not in (None, [], {}, "") and name not in {"job_id", "status", "attempts", "waiting_reason"}:
            output.line(f"{name:24}{output.one_line(_text(value))}")
    if job.waiting_reason is not None:
        output.line(f"{'waiting_reason':24}{output.one_line(job.waiting_reason.message)}")
    for attempt in job.attempts:
        _tell_attempt(attempt)


def _tell_attempt(attempt: Attempt) -> None:
    said = [f"attempt {attempt.number}", attempt.outcome, moment(attempt.finished_ms) or NOTHING, attempt.worker]
    said += [_failure_words(attempt.failure)] if attempt.failure else []
    output.line(output.one_line("  ".join(said)))
    tell_traceback(attempt)


def tell_traceback(attempt: Attempt) -> None:
    """Tell the traceback that was kept with an attempt, if any, a line below the other."""
    for each in (attempt.traceback or "").splitlines():
        output.line("    " + output.one_line(each))


def _failure_words(failure: Failure) -> str:
    return f"{failure.reason}: {failure.message}"


def tell_jobs(jobs: Iterable[Job], *, as_json: bool) -> None:
    """Tell of many jobs: a JSON object a line, or a table."""
    if as_json:
        for job in jobs:
            output.json_line(job_object(job))
        return
    output.table(
        ("ID", "TYPE", "QUEUE", "PRIORITY", "STATE", "ATTEMPT", "SUBMITTED"),
        (
            (job.id, job.type, job.queue, job.priority, job.state, str(job.attempt), short_moment(job.submitted_ms))
            for job in jobs
        ),
        spare=("SUBMITTED", "PRIORITY", "ATTEMPT"),
    )


def tell_failed(jobs: Iterable[Job], *, verbose: bool, as_json: bool) -> None:
    """Tell of dead letters, with why each failed; if verbose, all of each, with the traceback of its last attempt."""
    if as_json:
        tell_jobs(jobs, as_json=True)
        return
    if verbose:
        for job in jobs:
            _tell_dead_letter(job)
        return
    output.table(
        ("ID", "TYPE", "QUEUE", "ATTEMPT", "FAILED", "REASON", "MESSAGE"),
        (
            (
                job.id,
                job.type,
                job.queue,
                str(job.attempt),
                short_moment(job.finished_ms),
                job.failure.reason if job.failure else NOTHING,
                job.failure.message if job.failure else NOTHING,
            )
            for job in jobs
        ),
        spare=("FAILED", "ATTEMPT", "QUEUE", "REASON"),
    )


def _tell_dead_letter(job: Job) -> None:
    head = [job.id, job.type, job.queue, f"attempt {job.attempt}", short_moment(job.finished_ms)]
    output.line(output.one_line("  ".join(head)))
    if job.failure is not None:
        output.line("    " + output.one_line(_failure_words(job.failure)))
    for attempt in job.attempts[-1:]:
        tell_traceback(attempt)


def tell_event(event: JobEvent, *, as_json: bool) -> None:
    """Tell of a change: a JSON object, or a line."""
    if as_json:
        output.json_line(_event_object(event))
        return
    before = [moment(event.event_ms) or NOTHING]
    before += [event.job_id, event.queue, event.type or NOTHING] if event.queue else []
    parts = ["deleted"] if event.kind is EventKind.DELETED else []
    parts += [f"attempt {event.attempt}"] if event.attempt else []
    parts += [f"{event.progress:.0%}"] if event.progress else []
    parts += [event.progress_message] if event.progress_message else []
    parts += ["cancel requested"] if event.cancel_requested and not event.state.is_final else []
    parts += [_failure_words(event.failure)] if event.failure else []
    parts += [event.waiting_reason.message] if event.waiting_reason else []
    parts += _detail_words(event.detail)
    output.state_line("  ".join([*before, ""]), f"{event.state:10}", "".join(f"  {part}" for part in parts))


def _detail_words(detail: EventDetail | None) -> list[str]:
    match detail:
        case LogLine(level, message):
            return [level, message]
        case OutputChunk():
            value = detail.value
            return ["output", f"{len(value)} bytes" if isinstance(value, bytes) else _text(value)]
        case ChildChange(job_id, job_type, state):
            return [f"child {job_id} {job_type} {state}"]
        case Notice(reason, message):
            return [f"{reason}: {message}"]
        case Truncation(_, dropped):
            return [f"{dropped or 'some'} events are kept no more"]
        case None:
            return []


def _event_object(event: JobEvent) -> dict[str, JsonValue]:
    return {
        "job_id": event.job_id,
        "kind": event.kind.value,
        "sequence": event.sequence,
        "cursor": event.cursor,
        **({"queue": event.queue, "type": event.type} if event.queue else {}),
        "state": event.state.value,
        "attempt": event.attempt,
        "event_time": moment(event.event_ms),
        "cancel_requested": event.cancel_requested,
        "progress": event.progress,
        "progress_message": event.progress_message,
        "job": None if event.job is None else job_object(event.job),
        "failure": failure_object(event.failure),
        "waiting_reason": reason_object(event.waiting_reason),
        **details_object(event.detail),
    }


def follow(events: Iterable[JobEvent], *, as_json: bool) -> int:
    """Tell each change until the job is final, then its result; return the exit code its end stands for."""
    job = None
    for event in events:
        tell_event(event, as_json=as_json)
        job = event.job or job
    if job is None:
        return output.DONE
    if job.state is JobState.COMPLETED and not as_json:
        tell_result(job)
    return exit_code_of_end(job)


@contextmanager
def said_to_go_on(job_id: str) -> Iterator[None]:
    """Say, where a person stops to wait in the block, that the job does not stop with it."""
    try:
        yield
    except KeyboardInterrupt:
        output.say(f"job {job_id} goes on: gopher watch {job_id} shows it, gopher cancel {job_id} ends it")
        raise


def tell_result(job: Job) -> None:
    """Tell the result alone, in JSON, so that it can be piped on."""
    output.json_line(result_of(job))


def exit_code_of_end(job: Job) -> int:
    """Return the exit code for how the job ended, having said why if that was not well."""
    try:
        result_of(job)
    except (JobFailedError, JobCancelledError) as fault:
        return output.tell(fault)
    return output.DONE


def follow_with_bar(events: Iterable[JobEvent]) -> None:
    """Show the job's progress on stderr while it is followed; nothing is left of it at the end."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("submitted", total=1.0)
        message = ""
        for event in events:
            message = event.progress_message if event.kind is EventKind.PROGRESS else message
            reason = event.waiting_reason
            said = f"{event.state} {message}".strip() if reason is None else f"{event.state}: {reason.message}"
            progress.update(bar, completed=event.progress, description=output.one_line(said))


def short_moment(ms: int | None, otherwise: str = NOTHING) -> str:
    """Return a moment for a table: to the second."""
    said = moment(ms)
    return otherwise if said is None else f"{said[:19]}Z"


def limits_words(limits: Limits) -> str:
    """Return limits for people to read."""
    parts = [
        f"{words}{rate}" + (f" with a burst of {rate.burst}" if rate.burst else "")
        for words, rate in (("", limits.rate), ("per key ", limits.rate_per_key))
        if rate is not None
    ]
    parts += [f"{limits.concurrency} at once"] if limits.concurrency else []
    parts += [f"per key {limits.concurrency_per_key} at once"] if limits.concurrency_per_key else []
    return ", ".join(parts) or "no limit"


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
