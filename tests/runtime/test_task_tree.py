"""What is shown of a running attempt's Trio tasks; and that the Trio that is installed has what `task_tree` reads of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from gopher.runtime.task_tree import DEEPEST, MOST_IN_A_NURSERY, tree_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.trees import TaskNode

NAME: Final = "shop.work"


async def look(nursery: trio.Nursery, handler: Callable[[], Awaitable[object]], *, most: int = 1_000) -> TaskNode:
    """Run a handler until it waits, and return what is to be seen then."""
    nursery.start_soon(handler)
    await trio.testing.wait_all_tasks_blocked()
    (root,) = nursery.child_tasks
    return tree_of(root, NAME, __file__, most)


async def test_tree_shows_what_there_is(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Nested nurseries, named tasks in the order of their start, where each stands and what it awaits, and the deadlines left."""

    async def work() -> None:
        with trio.move_on_after(60):
            async with trio.open_nursery() as outer:
                outer.start_soon(fetch, name="first")
                outer.start_soon(fetch, name="second")
                outer.cancel_scope.deadline = trio.current_time() + 30
                async with trio.open_nursery():
                    await trio.Event().wait()

    async def fetch() -> None:
        with trio.move_on_after(10):
            await trio.sleep_forever()

    node = await look(nursery, work)

    outer, inner = node.nurseries
    assert (node.name, node.awaits, node.deadline_left_seconds) == (NAME, "trio.Event.wait", 30)
    assert node.at.startswith(f"{__file__}:")
    assert node.at.endswith(".work")
    assert (outer.deadline_left_seconds, inner.deadline_left_seconds) == (30, 30)
    assert [(task.name, task.awaits, task.deadline_left_seconds) for task in outer.tasks] == [
        ("first", "trio.sleep_forever", 10),
        ("second", "trio.sleep_forever", 10),
    ]
    assert {task.at.rpartition(".")[2] for task in outer.tasks} == {"fetch"}
    assert inner.tasks == []


async def test_sleep_is_no_deadline(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """It wakes by itself; what may cut it short is told."""

    async def work() -> None:
        with trio.move_on_after(60):
            await trio.sleep(5)

    node = await look(nursery, work)

    assert (node.awaits, node.deadline_left_seconds) == ("trio.sleep", 60)


async def test_tree_shows_an_async_generator(nursery: trio.Nursery) -> None:
    """Where a handler iterates, the innermost line is that of what it iterates over."""

    async def numbers() -> object:
        await trio.sleep_forever()
        yield 1

    async def work() -> None:
        async for _ in numbers():  # type: ignore[attr-defined] # mypy takes the annotation for what is awaited
            pass

    node = await look(nursery, work)

    assert (node.at.rpartition(".")[2], node.awaits) == ("numbers", "trio.sleep_forever")


async def test_tree_tells_who_is_cancelled_and_who_is_shielded(nursery: trio.Nursery) -> None:
    """Cancelled is what ends at its next checkpoint; a task behind a shield is not, and has no deadline but its own."""
    release = trio.Event()

    async def work() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(clean_up, name="shielded")
                scope.cancel()
                with trio.CancelScope(shield=True):  # what is tested
                    await release.wait()

    async def clean_up() -> None:
        with trio.CancelScope(shield=True):  # likewise
            await release.wait()

    node = await look(nursery, work)
    release.set()
    (inner,) = node.nurseries
    (task,) = inner.tasks

    assert (node.cancelled, node.shielded) == (False, True)
    assert (inner.cancelled, inner.deadline_left_seconds) == (True, None)
    assert (task.name, task.cancelled, task.shielded) == ("shielded", False, True)


async def test_tree_ends_at_its_bounds(nursery: trio.Nursery) -> None:
    """A hundred tasks of a nursery, so many in all, and a depth that a message can carry; what is left out is counted."""

    async def wide() -> None:
        async with trio.open_nursery() as inner:
            for _ in range(MOST_IN_A_NURSERY + 5):
                inner.start_soon(trio.sleep_forever)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as alone:
            (full,) = (await look(alone, wide)).nurseries
            scope.cancel()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as alone:
            (cut,) = (await look(alone, wide, most=10)).nurseries
            scope.cancel()
    node, depth = await _deep(nursery), 1
    while node.nurseries[0].tasks:
        (node,) = node.nurseries[0].tasks
        depth += 1

    assert (len(full.tasks), full.omitted) == (MOST_IN_A_NURSERY, 5)
    assert (len(cut.tasks), cut.omitted) == (9, MOST_IN_A_NURSERY - 4)
    assert (depth, node.nurseries[0].omitted) == (DEEPEST, 1)


async def _deep(nursery: trio.Nursery) -> TaskNode:
    async def down(levels: int) -> None:
        async with trio.open_nursery() as inner:
            if levels:
                inner.start_soon(down, levels - 1)
            await trio.sleep_forever()

    async def work() -> None:
        await down(2 * DEEPEST)

    return await look(nursery, work)


@pytest.mark.parametrize("name", ["_cancel_status", "_counter", "parent_nursery", "child_nurseries", "iter_await_frames"])
async def test_trio_has_what_is_read_of_a_task(name: str) -> None:
    """A Trio that has it no more must be met here, and not by an operator."""
    await trio.lowlevel.checkpoint()
    task = trio.lowlevel.current_task()

    assert hasattr(task, name)
    assert all(
        hasattr(task._cancel_status, each) for each in ("_scope", "_parent", "effectively_cancelled", "effective_deadline")
    )
