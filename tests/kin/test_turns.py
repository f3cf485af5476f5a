"""Turns: each item has its own, one that fails gets another later, and holds up no other meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher.errors import StoreUnavailableError
from gopher.kin.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Work:
    """Work that fails for the items in `failing`.

    Attributes:
        turns: Gives them out.
        done: In order.
        tried: Likewise, the turns that failed too.
    """

    def __init__(self) -> None:
        self.turns = Turns(self._do)
        self.failing: set[str] = set()
        self.done: list[str] = []
        self.tried: list[str] = []

    async def _do(self, item: str) -> None:
        await trio.lowlevel.checkpoint()
        self.tried.append(item)
        if item in self.failing:
            raise StoreUnavailableError("the connection was lost")
        self.done.append(item)


@pytest.fixture
async def work(nursery: trio.Nursery) -> AsyncIterator[Work]:
    """Work that is under way."""
    made = Work()
    nursery.start_soon(made.turns.run)
    yield made
    nursery.cancel_scope.cancel()


async def test_item_that_fails_holds_up_no_other(work: Work, autojump_clock: trio.testing.MockClock) -> None:
    """Those behind it have their turn at once, and later ones do not wait for its retry."""
    work.failing = {"bad"}
    for item in ("bad", "good", "better"):
        work.turns.put(item)
    await trio.testing.wait_all_tasks_blocked()
    work.turns.put("later")
    await trio.testing.wait_all_tasks_blocked()

    assert work.done == ["good", "better", "later"]
    assert work.tried == ["bad", "good", "better", "later"]


async def test_item_that_has_failed_gets_another_turn(work: Work, autojump_clock: trio.testing.MockClock) -> None:
    """Once Redis is back, in 2 s at most; until then it is tried more and more rarely, also if it is put again."""
    work.failing = {"bad"}
    work.turns.put("bad")
    await trio.sleep(60)
    work.turns.put("bad")
    work.failing.clear()
    tried = len(work.tried)
    await trio.sleep(2)

    assert work.done == ["bad"]
    assert 60 / 2 <= tried < 60 / 2 * 3


async def test_retry_does_not_wait_for_the_line_to_be_empty(work: Work, autojump_clock: trio.testing.MockClock) -> None:
    """An item that always has more to do leaves the others their turns."""
    is_over = False

    async def go_on(item: str) -> None:
        await trio.sleep(0.1)
        if item == "endless" and not is_over:
            turns.put(item)
        if item == "bad" and item in work.failing:
            work.failing.clear()
            raise StoreUnavailableError("the connection was lost")
        work.done.append(item)

    work.failing = {"bad"}
    turns = Turns(go_on)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        turns.put("bad")
        turns.put("endless")
        await trio.sleep(5)
        is_over = True
        nursery.cancel_scope.cancel()

    assert work.done.count("bad") == 1
    assert work.done.count("endless") > 10
