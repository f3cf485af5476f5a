"""Answers servers that ask what a running attempt does.

Questions wait in a short line and are answered one after another; those that find it full get no answer, so that nobody can keep the
loop from its jobs by asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from gopher.errors import StoreError
from gopher.handlers import Executor
from gopher.runtime.scopes import RunningAttempt
from gopher.runtime.task_tree import MOST_IN_A_NURSERY, MOST_TASKS, place_of, tree_of
from gopher.store.trees import Answer, NurseryNode, TaskNode
from gopher.telemetry import log

if TYPE_CHECKING:
    from gopher.handlers import HandlerSpec, Registry
    from gopher.runtime.scopes import Scopes
    from gopher.store.trees import Trees

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MOST_WAITING: Final = 16
"""Chosen: a walk takes some ms at most, so that the last of the line still answers in time."""
_MOST_BYTES: Final = 256 * 1024


class Inspector:
    """Answers for the attempts of one queue.

    Args:
        trees: Where to answer.
        registry: Tells how a handler runs.
        scopes: What runs.
        namespace: Of the queue.
        queue: Whose attempts.
    """

    def __init__(self, trees: Trees, registry: Registry, scopes: Scopes, *, namespace: str, queue: str) -> None:
        self._trees = trees
        self._registry = registry
        self._scopes = scopes
        self._namespace = namespace
        self._queue = queue
        self._send, self._receive = trio.open_memory_channel[tuple[RunningAttempt, str]](_MOST_WAITING)

    def ask_nowait(self, job_id: str, token: int, question: str) -> None:
        """Have a question answered soon, if it is of an attempt that runs here."""
        attempt = self._scopes.find(job_id, token)
        if attempt is not None:
            try:
                self._send.send_nowait((attempt, question))
            except trio.WouldBlock:
                _log.warning("tree.refused", job_id=job_id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        task_status.started()
        async for attempt, question in self._receive:
            try:
                await self._trees.answer(self._namespace, self._queue, question, self.answer(attempt))
            except StoreError as error:
                _log.warning("tree.not_answered", job_id=attempt.job.id, error=str(error))

    def answer(self, attempt: RunningAttempt) -> bytes:
        """Return an `Answer` as JSON, of 256 KiB at most."""
        most = MOST_TASKS
        while True:
            encoded = msgspec.json.encode(self._look(attempt, most))
            if len(encoded) <= _MOST_BYTES:
                return encoded
            most //= 2

    def _look(self, attempt: RunningAttempt, most: int) -> Answer:
        spec = self._registry.get(attempt.job.type)
        if attempt.is_over:
            return Answer(note="its handler has ended, and its outcome is being written")
        if not attempt.has_begun or spec is None:
            return Answer(note="it waits in its worker for its turn to begin")
        if spec.executor is Executor.PROCESS:
            return Answer(note="its handler runs in a process of its own, whose tasks are not seen")
        root = _task_of(attempt)
        if root is None:
            return Answer(note="its handler is about to begin")
        node = tree_of(root, spec.name, spec.file, most)
        if spec.executor is Executor.THREAD:
            return _in_thread(node, attempt, spec)
        if spec.executor is Executor.ASYNCIO:
            return _on_asyncio(node, attempt, spec)
        return Answer(task=node)


def _task_of(attempt: RunningAttempt) -> trio.lowlevel.Task | None:
    """Find the Trio task that runs an attempt: the outermost in whose context it is."""
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [root]
    while waiting:
        below = []
        for task in waiting:
            if log.attempt_in(task.context) is attempt:
                return task
            below += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        waiting = below
    return None


def _in_thread(node: TaskNode, attempt: RunningAttempt, spec: HandlerSpec) -> Answer:
    """Show where the thread is in place of the Trio task that waits for it."""
    frames = () if attempt.host is None else attempt.host.frames()
    if not frames:
        return Answer(task=node, note="its handler waits for a thread")
    node.at, node.awaits = place_of(frames, spec.file)
    return Answer(task=node, note="its handler runs in a thread: what it calls is shown in place of what it awaits")


def _on_asyncio(node: TaskNode, attempt: RunningAttempt, spec: HandlerSpec) -> Answer:
    """Show the asyncio tasks of an attempt in place of Trio's, which carry them."""
    # For workers with such a handler only: to import trio_asyncio changes asyncio for the whole process.
    from gopher.runtime.asyncio_loop import calls_of

    found = calls_of(attempt.host)
    shown = []
    for name, frames in found[:MOST_IN_A_NURSERY]:
        at, awaits = place_of(frames, spec.file)
        shown.append(TaskNode(name=name, at=at, awaits=awaits))
    node.nurseries = [NurseryNode(tasks=shown, omitted=len(found) - len(shown))] if found else []
    return Answer(task=node, note="its handler runs on asyncio: its asyncio tasks are shown, the handler's own among them")
