"""Shows the Trio tasks of a running attempt: its nurseries, what each task awaits, how long it still may.

The only file that reads what Trio keeps to itself, in `_Trio` below; a test holds it against the Trio that is installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from gopher.runtime.own_code import innermost_own
from gopher.store.trees import NurseryNode, TaskNode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from trio._core._run import CancelStatus

MOST_TASKS: Final = 1_000
MOST_IN_A_NURSERY: Final = 100
DEEPEST: Final = 30
"""Chosen: each level is two of a message's, of which protobuf reads a hundred."""
_LONGEST: Final = 300
"""Characters of a name or a place; chosen: no path is longer, and no answer grows without bound."""


class _Trio:
    """What Trio keeps to itself."""

    @staticmethod
    def deadline_left(of: trio.lowlevel.Task | trio.Nursery, frames: Sequence[FrameType] = ()) -> float | None:
        """Return the seconds until the nearest deadline; None for none, and for what is cancelled already.

        Args:
            of: Whose.
            frames: Its calls. That of a sleep is a scope with a deadline to Trio, and none to anybody else.
        """
        status: CancelStatus | None = of._cancel_status
        if status is not None and any(frame.f_code is trio.sleep_until.__code__ for frame in frames):
            status = status._parent
        deadline = math.inf if status is None else status.effective_deadline()
        return None if math.isinf(deadline) else max(0.0, deadline - trio.current_time())

    @staticmethod
    def is_cancelled(of: trio.lowlevel.Task | trio.Nursery) -> bool:
        return bool(of._cancel_status.effectively_cancelled)

    @staticmethod
    def is_shielded(task: trio.lowlevel.Task, root: trio.lowlevel.Task) -> bool:
        """Tell whether a scope between a task and the nursery that holds its attempt has a shield."""
        outside = None if root.parent_nursery is None else root.parent_nursery._cancel_status
        status: CancelStatus | None = task._cancel_status
        while status is not None and status is not outside:
            if status._scope.shield:
                return True
            status = status._parent
        return False

    @staticmethod
    def started(task: trio.lowlevel.Task) -> int:
        """Return what orders tasks by when they were started."""
        return task._counter


@dataclass(slots=True)
class _Walk:
    """A walk through one attempt.

    Attributes:
        root: The task that runs the handler.
        home: The handler's file.
        left: Tasks that may still be shown.
    """

    root: trio.lowlevel.Task
    home: str | None
    left: int

    def task(self, task: trio.lowlevel.Task, name: str, depth: int) -> TaskNode:
        self.left -= 1
        frames = [frame for frame, _ in task.iter_await_frames()]
        at, awaits = place_of(frames, self.home)
        return TaskNode(
            name=name[:_LONGEST],
            at=at,
            awaits=awaits,
            deadline_left_seconds=_Trio.deadline_left(task, frames),
            cancelled=_Trio.is_cancelled(task),
            shielded=_Trio.is_shielded(task, self.root),
            nurseries=[self.nursery(nursery, depth) for nursery in task.child_nurseries],
        )

    def nursery(self, nursery: trio.Nursery, depth: int) -> NurseryNode:
        children = sorted(nursery.child_tasks, key=_Trio.started)
        shown: list[TaskNode] = []
        for child in children[:MOST_IN_A_NURSERY]:
            if self.left <= 0 or depth >= DEEPEST:
                break
            shown.append(self.task(child, child.name, depth + 1))
        return NurseryNode(
            deadline_left_seconds=_Trio.deadline_left(nursery),
            cancelled=_Trio.is_cancelled(nursery),
            tasks=shown,
            omitted=len(children) - len(shown),
        )


def tree_of(root: trio.lowlevel.Task, name: str, home: str | None, most: int = MOST_TASKS) -> TaskNode:
    """Return what a Trio task and all below it do, at this moment.

    Args:
        root: Where to begin; it must not be the one that asks.
        name: To show it by.
        home: The handler's file.
        most: Tasks to show.
    """
    return _Walk(root, home, most).task(root, name, 1)


def place_of(frames: Sequence[FrameType], home: str | None) -> tuple[str, str]:
    """Return where the application's own code stands, and what it has called there.

    Args:
        frames: The calls under way, outermost first.
        home: The handler's file.
    """
    place = innermost_own([frame.f_code.co_filename for frame in frames], home)
    if place is None:
        return "", _label(frames[-1]) if frames else ""
    frame = frames[place]
    at = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
    return at[-_LONGEST:], _label(frames[place + 1]) if place + 1 < len(frames) else ""


def _label(frame: FrameType) -> str:
    """Name a function as its users do: `trio.Event.wait` lives in a module that is Trio's own affair."""
    parts = str(frame.f_globals.get("__name__", "")).split(".")
    return ".".join([*(part for part in parts if not part.startswith("_")), frame.f_code.co_qualname])[:_LONGEST]
