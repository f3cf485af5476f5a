"""The command `tree`: what a job does at this moment, drawn as a tree or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gopher.cli import output
from gopher.cli.target import DEFAULT_TARGET, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.client import TaskTree, TrioNursery, TrioTask


def tree(job_id: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Show what a job does at this moment: its Trio tasks, and the jobs that it has started.

    Args:
        job_id: Which.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        found = client.tree(job_id)
    if target.json:
        output.json_line(msgspec.to_builtins(found))
        return
    for line in drawn(found):
        output.line(output.one_line(line))


def drawn(found: TaskTree) -> Iterator[str]:
    """Yield the lines of the drawing."""
    yield " ".join([found.type, found.job_id, found.state, *([f"on {found.worker}"] if found.worker else [])])
    if found.note:
        yield f"   ({found.note})"
    branches = [list(_of_task(found.task))] if found.task is not None else []
    branches += [list(drawn(child)) for child in found.children]
    if found.omitted_count:
        branches.append([f"and {found.omitted_count} jobs more"])
    yield from _below(branches)


def _of_task(task: TrioTask) -> Iterator[str]:
    marks = [*_left(task.deadline_left_seconds), *(["cancelled"] if task.cancelled else [])]
    marks += ["shielded"] if task.shielded else []
    yield "  ".join([task.name, *([f"[{', '.join(marks)}]"] if marks else [])])
    if task.at or task.awaits:
        yield "   " + " awaits ".join(filter(None, (task.at, task.awaits)))
    yield from _below([list(_of_nursery(nursery)) for nursery in task.nurseries])


def _of_nursery(nursery: TrioNursery) -> Iterator[str]:
    marks = [*_left(nursery.deadline_left_seconds), *(["cancelled"] if nursery.cancelled else [])]
    yield "  ".join(["nursery", *([f"[{', '.join(marks)}]"] if marks else [])])
    branches = [list(_of_task(task)) for task in nursery.tasks]
    if nursery.omitted_count:
        branches.append([f"and {nursery.omitted_count} tasks more"])
    yield from _below(branches)


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{seconds:.1f} s left"]


def _below(branches: list[list[str]]) -> Iterator[str]:
    """Yield branches below one another, each behind a line that leads to it."""
    for place, (first, *others) in enumerate(branches):
        is_last = place == len(branches) - 1
        yield ("└─ " if is_last else "├─ ") + first
        for line in others:
            yield ("   " if is_last else "│  ") + line
