from __future__ import annotations

import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
import trio.testing

from gopher.runtime import stacks
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from types import FrameType


async def test_frames_of_a_coroutine_go_down_to_where_it_waits() -> None:
    """From the outermost call to Trio's own; the place told is the innermost of the application's code."""
    found: list[FrameType] = []

    async def inner() -> None:
        await trio.sleep_forever()

    async def outer() -> None:
        async with AsyncExitStack():
            await inner()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer)
        await trio.testing.wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        found = stacks.frames_of_coroutine(task.coro)
        place, anywhere = stacks.place_of(found, "tests.somewhere"), stacks.place_of(found, "nowhere")
        nursery.cancel_scope.cancel()

    names = [frame.f_code.co_name for frame in found]
    assert names[:3] == ["outer", "inner", "sleep_forever"]
    assert place.endswith("in test_frames_of_a_coroutine_go_down_to_where_it_waits.<locals>.inner")
    assert "tests/runtime/test_stacks.py:" in place
    assert "trio" in anywhere


def test_frames_of_a_thread() -> None:
    """A thread's stack is told from outside, and nothing of one that has ended."""
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, args=(PATIENCE_SECONDS,), name="waits")
    thread.start()
    assert thread.ident is not None

    during = stacks.frames_of_thread(thread.ident)
    gate.set()
    thread.join()

    assert during[0].f_code.co_name == "_bootstrap"
    assert "run" in {frame.f_code.co_name for frame in during}
    assert stacks.place_of([], "tests") == ""
    assert "in _bootstrap" in stacks.shown(during)
