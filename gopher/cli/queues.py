"""The commands about queues: queues, pause, resume, purge."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gopher.cli import output, report
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.errors import ConfirmationError
from gopher.wire.shape import limits_object
from gopher.wire.status import exit_code_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gopher.client import Queue
    from gopher.job import JsonValue


def queues(*, target: Target = DEFAULT_TARGET) -> None:
    """List the queues with their figures."""
    with target.connect() as client:
        found = client.queues()
    if target.json:
        for queue in found:
            output.json_line(queue_object(queue))
    else:
        tell_queues(found)


def pause(queue: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Stop claims from a queue; jobs are still accepted, and running ones go on.

    Args:
        queue: Which; one not yet used is created.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        _tell_state(client.pause(queue), as_json=target.json)


def resume(queue: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Let claims from a queue go on.

    Args:
        queue: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        _tell_state(client.resume(queue), as_json=target.json)


def purge(queue: str, /, *, confirm: str | None = None, target: Target = DEFAULT_TARGET) -> int:
    """Remove every waiting job of a queue, for good; running and final ones stay.

    Args:
        queue: Which.
        confirm: The queue's name again; asked for when there is a terminal to ask on.
        target: Which server, and how to answer.
    """
    if confirm is None and sys.stdin.isatty() and sys.stdout.isatty():
        confirm = input(f"This removes every waiting job of {output.one_line(queue)}. Its name again, to go ahead: ")
    if confirm != queue:
        output.say(f"this removes every waiting job of {queue} for good: add --confirm {queue} to go ahead")
        return exit_code_of(ConfirmationError(queue))
    with target.connect() as client:
        count = client.purge(queue, confirm=confirm)
    if target.json:
        output.json_line({"queue": queue, "purged": count})
    else:
        output.line(f"purged {count}")
    return output.DONE


def _tell_state(queue: Queue, *, as_json: bool) -> None:
    if as_json:
        output.json_line(queue_object(queue))
    else:
        output.line("paused" if queue.paused else "running")


def tell_queues(queues: Iterable[Queue]) -> None:
    """Show queues in a table, and below it what limits each as a whole."""
    queues = list(queues)
    states = ("scheduled", "retrying", "processing", "completed", "failed", "cancelled")
    output.table(
        ("QUEUE", "HIGH", "NORMAL", "LOW", "PARKED", *(state.upper() for state in states), "OLDEST WAIT", ""),
        (
            (
                queue.name,
                *(str(queue.enqueued[priority]) for priority in ("high", "normal", "low")),
                str(queue.parked),
                *(str(queue.jobs[state]) for state in states),
                "-" if queue.oldest_wait_seconds is None else f"{queue.oldest_wait_seconds:.1f} s",
                "paused" if queue.paused else "",
            )
            for queue in queues
        ),
        spare=("CANCELLED", "COMPLETED", "OLDEST WAIT", "RETRYING", "SCHEDULED", "PARKED", "FAILED", "LOW", "HIGH"),
    )
    for queue in queues:
        if queue.limits:
            output.line(f"{queue.name} is limited to {report.limits_words(queue.limits)}")


def queue_object(queue: Queue) -> dict[str, JsonValue]:
    """Return a queue as a JSON object."""
    return {
        "name": queue.name,
        "paused": queue.paused,
        "priority_ratio": {each.value: share for each, share in queue.priority_ratio.shares.items()},
        "limits": limits_object(queue.limits),
        "enqueued": dict(queue.enqueued),
        "parked": queue.parked,
        "jobs": dict(queue.jobs),
        "oldest_wait_seconds": queue.oldest_wait_seconds,
        "submitted_total": queue.submitted_total,
        "completed_total": queue.completed_total,
        "failed_total": queue.failed_total,
        "cancelled_total": queue.cancelled_total,
        "retried_total": queue.retried_total,
    }
