"""What a job does at this moment: its Trio tasks, as its worker sees them, and the same of the jobs that it has started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from gopher_pb.v1 import task_tree_pb2 as pb

from gopher.errors import JobNotFoundError, StoreError
from gopher.job import JobState
from gopher.wire import convert

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from gopher.job import Job
    from gopher.store.store import Store
    from gopher.store.trees import NurseryNode, TaskNode

ANSWER_SECONDS: Final = 2.0
"""Chosen: a worker that is not blocked answers within milliseconds, and a person waits that long."""
MOST_CHILDREN: Final = 100
"""Of one job."""
MOST_JOBS: Final = 1_000
"""Of one tree."""
DEEPEST: Final = 10
"""Jobs below one another; chosen so that no message is nested deeper than protobuf reads."""
_AT_ONCE: Final = 8
"""Questions of this server that workers are asked at the same time, whoever asks; chosen: a worker answers one after another."""

_BUSY: Final = "this server is asked for many trees now: ask again"
_SILENT: Final = "its worker did not answer in time"


@dataclass(slots=True)
class _Reading:
    """One tree that is being read.

    Attributes:
        left: Jobs that may still be shown.
        silent: Those whose worker has not answered.
    """

    left: int
    silent: list[pb.TaskTree] = field(default_factory=list)


class TaskTrees:
    """Reads trees, for any number of callers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = trio.CapacityLimiter(_AT_ONCE)

    async def read(self, namespace: str, job: Job) -> pb.TaskTree:
        """Return what a job and those that it has started do; what is not known within two seconds says so."""
        tree, reading = pb.TaskTree(), _Reading(MOST_JOBS)
        with trio.move_on_after(ANSWER_SECONDS):
            await self._fill(tree, namespace, job, reading, 1)
        if reading.silent:
            await self._explain(namespace, reading.silent)
        return tree

    async def _fill(self, tree: pb.TaskTree, namespace: str, job: Job, reading: _Reading, depth: int) -> None:
        reading.left -= 1
        tree.job_id, tree.type, tree.state = job.id, job.type, convert.STATE_NUMBER[job.state]
        if job.state is not JobState.PROCESSING:
            tree.note = f"it does not run: it is {job.state.value}"
        try:
            reason = await self._store.waiting.explain(job)
            if reason is not None:
                tree.note += f"; {reason.message}"
            async with trio.open_nursery() as nursery:
                if job.state is JobState.PROCESSING:
                    nursery.start_soon(self._ask, tree, namespace, job, reading)
                if not job.state.is_final:
                    await self._add_children(tree, namespace, job, reading, depth)
        except* StoreError:
            tree.note = "redis did not answer"

    async def _ask(self, tree: pb.TaskTree, namespace: str, job: Job, reading: _Reading) -> None:
        tree.worker = job.worker or ""
        tree.note = _BUSY
        async with self._room:
            tree.note = _SILENT
            reading.silent.append(tree)
            answer = await self._store.trees.ask(namespace, job.queue, job.id, job.token)
        reading.silent.remove(tree)
        tree.note = answer.note
        if answer.task is not None:
            tree.task.CopyFrom(_task(answer.task))

    async def _add_children(self, tree: pb.TaskTree, namespace: str, job: Job, reading: _Reading, depth: int) -> None:
        members = await self._store.families.members(namespace, job.queue, job.id)
        shown = members[: min(MOST_CHILDREN, max(0, reading.left))] if depth < DEEPEST else []
        tree.omitted_count = len(members) - len(shown)
        found = []
        for member in shown:
            try:
                child = await self._store.query.get(namespace, member.id)
            except JobNotFoundError:
                continue
            if not child.state.is_final:
                found.append(child)
        async with trio.open_nursery() as nursery:
            for child in found:
                nursery.start_soon(self._fill, tree.children.add(), namespace, child, reading, depth + 1)

    async def _explain(self, namespace: str, silent: list[pb.TaskTree]) -> None:
        """Say of those whose worker has not answered what the register knows of it."""
        try:
            workers = {worker.id: worker.description for worker in await self._store.registry.workers(namespace)}
        except StoreError:
            return  # that no worker has answered is true all the same
        for tree in silent:
            said = workers.get(tree.worker)
            if said is None:
                tree.note = "its worker is gone, or cut off: it runs elsewhere once its lease has ended"
            elif said.blocked is not None:
                block = said.blocked
                culprit = " ".join(filter(None, (block.function, block.job_id)))
                tree.note = f"its worker's loop is blocked by {culprit} for {block.seconds:.0f} s"


def _task(node: TaskNode) -> pb.TrioTask:
    return pb.TrioTask(
        name=node.name,
        at=node.at,
        awaits=node.awaits,
        deadline_left=_left(node.deadline_left_seconds),
        cancelled=node.cancelled,
        shielded=node.shielded,
        nurseries=map(_nursery, node.nurseries),
    )


def _nursery(node: NurseryNode) -> pb.TrioNursery:
    return pb.TrioNursery(
        deadline_left=_left(node.deadline_left_seconds),
        cancelled=node.cancelled,
        tasks=map(_task, node.tasks),
        omitted_count=node.omitted,
    )


def _left(seconds: float | None) -> Duration | None:
    return None if seconds is None else convert.duration(round(seconds * 1000))
