"""What `gopher.runtime.scope_tree` needs of the installed Trio: a new Trio that has it otherwise fails here by name."""

from __future__ import annotations

import trio
import trio.testing

from gopher.runtime.scope_tree import abandon_nurseries, open_shields, scopes_below, tasks_below
from tests.waiting import PATIENCE_SECONDS


def test_trio_keeps_the_tree_where_it_is_looked_for() -> None:
    """The private names: a scope's status, its children, its tasks and its scope."""
    assert {"_cancel_status"} <= {field.name for field in trio.CancelScope.__attrs_attrs__}

    async def look() -> None:
        with trio.CancelScope() as outer, trio.CancelScope() as inner:
            await trio.lowlevel.checkpoint()
            assert outer._cancel_status is not None
            (status,) = outer._cancel_status.children
            assert status is inner._cancel_status is not None
            assert status._scope is inner
            assert status.tasks == {trio.lowlevel.current_task()}

    trio.run(look)


async def test_below_a_scope_is_all_that_it_encloses() -> None:
    """Scopes and tasks of nested nurseries are found, and none beside or above."""
    seen: list[trio.CancelScope] = []

    async def child() -> None:
        with trio.CancelScope() as own:
            seen.append(own)
            await trio.sleep_forever()

    async with trio.open_nursery() as beside:
        beside.start_soon(trio.sleep_forever)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first, trio.open_nursery() as second:
                first.start_soon(child, name="one")
                second.start_soon(child, name="two")
                await trio.testing.wait_all_tasks_blocked()

                scopes, tasks = scopes_below(scope), tasks_below(scope)
                scope.cancel()
        beside.cancel_scope.cancel()

    assert set(scopes) == {first.cancel_scope, second.cancel_scope, *seen}
    assert {task.name for task in tasks} == {trio.lowlevel.current_task().name, "one", "two"}


async def test_open_shields_lets_a_cancel_through_every_shield_below() -> None:
    """Shields in shields, a nursery's own, and those of child tasks open; what is outside keeps its own."""
    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            with trio.CancelScope(shield=True), trio.CancelScope(shield=True):  # what is to be opened
                await trio.sleep_forever()
        finally:
            ended.append(name)

    with trio.CancelScope(shield=True) as outside, trio.CancelScope() as scope:  # the outer is to be let alone
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            nursery.start_soon(child, "one")
            nursery.start_soon(child, "two")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            before = list(ended)
            opened = open_shields(scope)
            await trio.sleep_forever()

    assert (before, sorted(ended), opened) == ([], ["one", "two"], 5)
    assert scope.cancelled_caught
    assert outside.shield


async def test_a_scope_that_is_not_entered_has_nothing_below() -> None:
    """Before it is entered and after it was left there is no tree."""
    scope = trio.CancelScope()
    before = tasks_below(scope), scopes_below(scope), open_shields(scope)
    with scope:
        await trio.lowlevel.checkpoint()

    assert before == ([], [], 0) == (tasks_below(scope), scopes_below(scope), open_shields(scope))


async def test_task_that_has_left_a_nursery_open_ends_without_it() -> None:
    """What runs in it is cancelled, the nurseries around it go on, and Trio finds no fault; so it relies on Trio's private list."""
    ended = trio.Event()

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def leave_open() -> None:
        known = len(trio.lowlevel.current_task().child_nurseries)
        left = await trio.open_nursery().__aenter__()
        left.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        abandon_nurseries(known)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_open)
        with trio.fail_after(PATIENCE_SECONDS):
            await ended.wait()
