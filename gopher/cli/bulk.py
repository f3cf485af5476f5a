"""The commands that act on many jobs: bulk cancel, retry, delete, list, get, watch, stop; retry-all and purge-failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter

from gopher.bulk import BulkState
from gopher.cli import output
from gopher.cli.arguments import Labels, Moment, Seconds, State, labels_of
from gopher.cli.report import NOTHING, short_moment
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.errors import ConfirmationError
from gopher.wire.bulk import operation_object
from gopher.wire.status import exit_code_of

if TYPE_CHECKING:
    from gopher.bulk import BulkOperation
    from gopher.client import BulkFilter, Client
    from gopher.job import JsonValue

Type = Annotated[str | None, Parameter(["--type", "-t"])]
Queue = Annotated[str | None, Parameter(["--queue", "-q"])]
Switch = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which jobs: those that match all that is given, and were submitted before.

    Attributes:
        state: In this state; may be given more than once.
        job_type: Of this type.
        queue: In this queue.
        label: With this label; may be given more than once.
        submitted_before: Submitted before this moment.
    """

    state: Annotated[list[State] | None, Parameter(negative=(), help="Only in this state; may be given more than once.")] = None
    job_type: Annotated[str | None, Parameter(["--type", "-t"], help="Only of this type.")] = None
    queue: Annotated[str | None, Parameter(["--queue", "-q"], help="Only in this queue.")] = None
    label: Annotated[Labels, Parameter(help="Only with this label; may be given more than once.")] = None
    submitted_before: Annotated[Moment, Parameter(help="Only those submitted before; default: now.")] = None

    def which(self) -> BulkFilter:
        """Return it as the client takes it."""
        return {
            "states": self.state or (),
            "queue": self.queue,
            "type": self.job_type,
            "labels": labels_of(self.label),
            "submitted_before": self.submitted_before,
        }


EVERYTHING: Final = Filter()


def cancel(
    *,
    which: Filter = EVERYTHING,
    reason: str = "",
    grace: Seconds = None,
    confirm: str | None = None,
    wait: Switch = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """End every job that matches as cancelled: waiting ones at once, running ones as soon as their task tree has ended.

    Args:
        which: Which jobs.
        reason: For people; kept with each job.
        grace: How long a handler's cleanup may take; default: 5 s.
        confirm: Needed when nothing but the queue narrows it: the queue's name, or without one the namespace's.
        wait: Answer only when it has ended.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        return _run(client, "cancel", which.which(), reason, grace, confirm, wait=wait, as_json=target.json)


def retry(*, which: Filter = EVERYTHING, wait: Switch = False, target: Target = DEFAULT_TARGET) -> int:
    """Give every dead letter that matches new attempts; with --state, cancelled jobs too, or start waiting ones now.

    Args:
        which: Which jobs; default: failed ones.
        wait: Answer only when it has ended.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        return _run(client, "retry", which.which(), wait=wait, as_json=target.json)


def delete(
    *, which: Filter = EVERYTHING, confirm: str | None = None, wait: Switch = False, target: Target = DEFAULT_TARGET
) -> int:
    """Remove every job that matches and is not processing, for good.

    Args:
        which: Which jobs.
        confirm: The queue's name, or without one the namespace's.
        wait: Answer only when it has ended.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        return _run(client, "delete", which.which(), confirm=confirm, wait=wait, as_json=target.json)


def list_bulk(*, target: Target = DEFAULT_TARGET) -> None:
    """List the bulk operations of the last week, the last one first.

    Args:
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        found = client.list_bulk_operations()
    if target.json:
        for operation in found:
            output.json_line(operation_object(operation))
        return
    output.table(
        ("ID", "KIND", "OF", "STATE", "DONE", "SKIPPED", "FAILED", "LOOKED AT", "STARTED", "ENDED"),
        (_row(operation) for operation in found),
        spare=("ENDED", "STARTED", "LOOKED AT", "SKIPPED", "FAILED", "DONE"),
    )


def _row(operation: BulkOperation) -> tuple[str, ...]:
    plan = operation.plan
    words = [",".join(plan.states), *(each for each in (plan.queue, plan.type) if each)]
    return (
        operation.id,
        plan.kind,
        " ".join([*words, *(f"{key}={value}" for key, value in plan.labels.items())]),
        operation.state,
        *(str(each) for each in (operation.done, operation.skipped, operation.failed)),
        f"{operation.scanned}/{operation.total}",
        short_moment(operation.created_ms),
        short_moment(operation.ended_ms) if operation.has_ended else NOTHING,
    )


def get(operation_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Show a bulk operation.

    Args:
        operation_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        found = client.get_bulk_operation(operation_id)
    if target.json:
        output.json_line(operation_object(found))
        return
    for name, value in operation_object(found).items():
        if value not in (None, [], {}, ""):
            output.line(f"{name:18}{output.one_line(_text(value))}")


def watch(operation_id: str, /, *, target: Target = DEFAULT_TARGET) -> int:
    """Show how far a bulk operation has come until its end; exit 1 if it failed, 9 if it was stopped.

    Args:
        operation_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        return _tell_end(_follow(client, operation_id), as_json=target.json)


def stop(operation_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """End a bulk operation; what it has done stays done.

    Args:
        operation_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        stopped = client.cancel_bulk_operation(operation_id)
    if target.json:
        output.json_line(operation_object(stopped))
    else:
        output.line(_summary(stopped))


def retry_all(*, job_type: Type = None, queue: Queue = None, target: Target = DEFAULT_TARGET) -> int:
    """Give all dead letters that match new attempts, and say how many when all have them.

    Args:
        job_type: Only of this type.
        queue: Only in this queue.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        started = client.start_bulk_operation("retry", queue=queue, type=job_type)
        ended = _follow(client, started.id)
    return _tell_count(ended, "requeued", as_json=target.json)


def purge_failed(
    *, job_type: Type = None, queue: Queue = None, confirm: str | None = None, target: Target = DEFAULT_TARGET
) -> int:
    """Remove all dead letters that match, for good, and say how many when all are gone.

    Args:
        job_type: Only of this type.
        queue: Only in this queue.
        confirm: The queue's name, or without one the namespace's.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        try:
            started = client.start_bulk_operation("delete", states=["failed"], queue=queue, type=job_type, confirm=confirm)
        except ConfirmationError as refusal:
            return _ask_to_confirm(refusal)
        ended = _follow(client, started.id)
    return _tell_count(ended, "purged", as_json=target.json)


def _run(
    client: Client,
    kind: str,
    which: BulkFilter,
    reason: str = "",
    grace: float | None = None,
    confirm: str | None = None,
    *,
    wait: bool,
    as_json: bool,
) -> int:
    try:
        operation = client.start_bulk_operation(kind, reason=reason, grace=grace, confirm=confirm, **which)
    except ConfirmationError as refusal:
        return _ask_to_confirm(refusal)
    if wait:
        return _tell_end(_follow(client, operation.id), as_json=as_json)
    if as_json:
        output.json_line(operation_object(operation))
    else:
        output.line(operation.id)
    return output.DONE


def _ask_to_confirm(refusal: ConfirmationError) -> int:
    output.say(f"this ends or removes jobs for good: add --confirm {refusal.metadata['confirm']} to go ahead")
    return exit_code_of(refusal)


def _follow(client: Client, operation_id: str) -> BulkOperation:
    with output.bar("jobs looked at") as show:
        return client.wait_bulk_operation(operation_id, tell=lambda operation: show(operation.scanned, operation.total))


def _tell_end(operation: BulkOperation, *, as_json: bool) -> int:
    if as_json:
        output.json_line(operation_object(operation))
    else:
        output.line(_summary(operation))
    return _exit_code(operation)


def _tell_count(operation: BulkOperation, word: str, *, as_json: bool) -> int:
    if as_json:
        output.json_line({word: operation.done})
    else:
        output.line(f"{word} {operation.done}")
    return _exit_code(operation)


def _exit_code(operation: BulkOperation) -> int:
    if operation.state is BulkState.COMPLETED:
        return output.DONE
    output.say(f"bulk operation {operation.id} was not completed: {operation.fault or 'it was stopped'}")
    return output.FAILED if operation.state is BulkState.FAILED else output.CANCELLED


def _summary(operation: BulkOperation) -> str:
    counts = f"{operation.done} done, {operation.skipped} skipped, {operation.failed} failed"
    return f"{operation.state}: {counts}, {operation.scanned} looked at"


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
