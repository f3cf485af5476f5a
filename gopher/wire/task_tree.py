"""What a job does, as the Python clients, REST and the command line show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gopher.wire import convert

if TYPE_CHECKING:
    from gopher_pb.v1 import task_tree_pb2 as pb


class TrioNursery(msgspec.Struct, frozen=True, kw_only=True):
    """A nursery that a Trio task holds open.

    Attributes:
        deadline_left_seconds: Until the nearest deadline of a cancel scope around it; None for none.
        cancelled: Whether it is being cancelled.
        tasks: At most 100, in the order in which they were started.
        omitted_count: Tasks left out.
    """

    deadline_left_seconds: float | None
    cancelled: bool
    tasks: list[TrioTask]
    omitted_count: int


class TrioTask(msgspec.Struct, frozen=True, kw_only=True):
    """One Trio task.

    Attributes:
        name: As Trio has it; of the outermost, the handler.
        at: File, line and function of the innermost call of the application's own code; empty where there is none.
        awaits: What that awaits.
        deadline_left_seconds: Until the nearest deadline of a cancel scope around it; None for none.
        cancelled: Whether it is being cancelled.
        shielded: Whether a shield keeps the cancel from it.
        nurseries: That it holds open, outermost first.
    """

    name: str
    at: str
    awaits: str
    deadline_left_seconds: float | None
    cancelled: bool
    shielded: bool
    nurseries: list[TrioNursery]


class TaskTree(msgspec.Struct, frozen=True, kw_only=True):
    """What runs of a job at this moment, and of the jobs that it has started.

    Attributes:
        job_id: Of the job.
        type: Of the job.
        state: Where it stands.
        worker: That runs it; None when none does.
        task: That runs the handler; None where `note` says why.
        children: Jobs that it has started and that have not ended.
        omitted_count: Children left out.
        note: What to know about it; None for nothing.
    """

    job_id: str
    type: str
    state: str
    worker: str | None
    task: TrioTask | None
    children: list[TaskTree]
    omitted_count: int
    note: str | None


def tree_from_message(message: pb.TaskTree) -> TaskTree:
    """Return a tree."""
    return TaskTree(
        job_id=message.job_id,
        type=message.type,
        state=convert.STATE_OF[message.state].value,
        worker=message.worker or None,
        task=_task(message.task) if message.HasField("task") else None,
        children=[tree_from_message(child) for child in message.children],
        omitted_count=message.omitted_count,
        note=message.note or None,
    )


def _task(message: pb.TrioTask) -> TrioTask:
    return TrioTask(
        name=message.name,
        at=message.at,
        awaits=message.awaits,
        deadline_left_seconds=_left(message),
        cancelled=message.cancelled,
        shielded=message.shielded,
        nurseries=[_nursery(nursery) for nursery in message.nurseries],
    )


def _nursery(message: pb.TrioNursery) -> TrioNursery:
    return TrioNursery(
        deadline_left_seconds=_left(message),
        cancelled=message.cancelled,
        tasks=[_task(task) for task in message.tasks],
        omitted_count=message.omitted_count,
    )


def _left(message: pb.TrioTask | pb.TrioNursery) -> float | None:
    return convert.to_ms(message.deadline_left) / 1000 if message.HasField("deadline_left") else None
