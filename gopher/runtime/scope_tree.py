"""What is below a cancel scope: the scopes and the tasks that it encloses.

Trio keeps that tree and does not show it. All that Gopher needs of Trio's private names is here, and `tests/runtime/test_scope_tree.py`
says what of the installed Trio it relies on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio._core._run import CancelStatus


def scopes_below(scope: trio.CancelScope) -> list[trio.CancelScope]:
    """Return the cancel scopes that are open below one, those of nurseries too, the outer ones first."""
    return [status._scope for status in _statuses(scope) if status._scope is not scope]  # noqa: SLF001 - what this module is for


def tasks_below(scope: trio.CancelScope) -> list[trio.lowlevel.Task]:
    """Return the Trio tasks that run below a scope, that which has entered it among them, if it is in no other runner."""
    return [task for status in _statuses(scope) for task in status.tasks]


def open_shields(scope: trio.CancelScope) -> int:
    """Take away every shield below a scope, so that its cancel reaches all there is; return how many there were.

    Only in the Trio thread. Who opens another shield is reached at the next call.
    """
    return _open(scopes_below(scope))


def open_shields_between(scope: trio.CancelScope, tasks: Iterable[trio.lowlevel.Task]) -> int:
    """Take away the shields between a scope and tasks below it; likewise."""
    over: dict[CancelStatus, None] = {}
    for task in tasks:
        status: CancelStatus | None = task._cancel_status  # noqa: SLF001 - likewise
        while status is not None and status._scope is not scope:  # noqa: SLF001 - likewise
            over[status] = None
            status = status.parent
    return _open([status._scope for status in reversed(over)])  # noqa: SLF001 - likewise


def is_innermost(scope: trio.CancelScope) -> bool:
    """Tell whether a scope is the innermost of the running task: whether none that was entered within it is still open."""
    return trio.lowlevel.current_task()._cancel_status is scope._cancel_status  # noqa: SLF001 - likewise


def abandon_nurseries(keep: int) -> None:
    """Cancel the nurseries that the running task has opened and not left, but for the first ones, and let it end without them.

    Trio ends with an error whatever waits for a task that leaves a nursery open.
    """
    nurseries = trio.lowlevel.current_task()._child_nurseries  # noqa: SLF001 - likewise
    for nursery in nurseries[keep:]:
        nursery.cancel_scope.cancel(reason="left open")
    del nurseries[keep:]


def _open(scopes: list[trio.CancelScope]) -> int:
    shields = [each for each in scopes if each.shield]
    for each in shields:
        each.shield = False
    return len(shields)


def _statuses(scope: trio.CancelScope) -> Iterator[CancelStatus]:
    root = scope._cancel_status  # noqa: SLF001 - likewise; None where the scope is not entered, or was left
    waiting = [] if root is None else [root]
    for status in waiting:
        yield status
        waiting.extend(status.children)
