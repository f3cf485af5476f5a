"""The children of one nursery: limits, ends, cancels, and what the block waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gopher.errors import JobNotFoundError, TooManyChildrenError, UnknownTypeError
from gopher.job import JobState
from gopher.nursery import MAX_UNSENT_BYTES, MAX_WIDTH
from gopher.store.families import Member
from tests.kin.family import Notebook, ParentByHand, add, kin_of, states, store_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.kin.kin import Kin

C, F, X = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


async def has_ended(kin: Kin) -> bool:
    """Tell whether whoever waits for the children would go on now."""
    with trio.move_on_after(0) as scope:
        await kin.wait_ended()
        return True
    return not scope.cancelled_caught


def test_nursery_takes_ten_thousand_children_and_no_more() -> None:
    """However many have ended meanwhile: the next is refused, and harms none of the others."""
    kin = kin_of(Notebook())
    for _ in range(MAX_WIDTH):
        kin.end(add(kin), C)

    with pytest.raises(TooManyChildrenError, match="10,000 children"):
        add(kin)

    assert len(kin.children) == MAX_WIDTH


def test_payloads_that_are_not_yet_stored_are_bounded() -> None:
    """The error tells to wait for large ones; once they are stored there is room again, and nothing of them is kept."""
    kin = kin_of(Notebook())
    large = b"x" * (MAX_UNSENT_BYTES // 4)
    for _ in range(4):
        add(kin, large)

    with pytest.raises(TooManyChildrenError, match="await start"):
        add(kin, b"x")
    store_all(kin)
    add(kin, b"x")

    assert [child.job.payload for child in kin.children] == [b""] * 4 + [b"x"]


@pytest.mark.parametrize(
    "close", [lambda kin: setattr(kin, "is_closed", True), lambda kin: setattr(kin.parent, "is_over", True)]
)
def test_block_that_has_ended_takes_no_child(close: Callable[[Kin], None]) -> None:
    """Neither after the block nor after the attempt."""
    kin = kin_of(Notebook(), ParentByHand())
    close(kin)

    with pytest.raises(RuntimeError, match="has ended"):
        add(kin)

    assert kin.children == []


def test_failure_cancels_the_siblings_as_far_as_they_have_come() -> None:
    """One that nobody has seen yet ends at once, one that is stored is cancelled in Redis, one on its way when it has arrived."""
    book = Notebook()
    kin = kin_of(book)
    decided: list[bool] = []
    kin.on_decided = lambda: decided.append(True)
    stored, failing = add(kin), add(kin)
    store_all(kin)
    on_its_way, unseen = add(kin), add(kin)
    on_its_way.id = "on its way"

    kin.end(failing, F)
    before = (list(book.cancelled), states(kin))
    kin.note_stored(on_its_way)

    assert before == ([stored], [None, F, None, X])
    assert book.cancelled == [stored, on_its_way]
    assert unseen.by_nursery
    assert decided == [True]


def test_child_that_is_started_too_late_is_cancelled_at_once() -> None:
    """Nothing of it is sent, and its payload is not kept for that."""
    book = Notebook()
    kin = kin_of(book)
    kin.end(add(kin), F)
    store_all(kin)
    sent = book.sent

    late = add(kin, b"x" * MAX_UNSENT_BYTES)
    later = add(kin, b"x")

    assert (late.state, late.by_nursery, late.job.payload, later.state) == (X, True, b"", X)
    assert (book.sent, kin.unsent) == (sent, [])


async def test_block_waits_until_all_have_ended() -> None:
    """However they end, and only once each."""
    kin = kin_of(Notebook(), policy="collect")
    children = [add(kin) for _ in range(3)]
    store_all(kin)
    seen = [await has_ended(kin)]

    for child, state in zip(children, (C, F, None), strict=True):
        seen.append(await has_ended(kin))
        kin.end(child, state)
        kin.end(child, C)

    assert [*seen, await has_ended(kin)] == [False, False, False, False, True]
    assert states(kin) == [C, F, F]
    assert kin.open_count == 0


async def test_whoever_waits_goes_on_with_the_last_end(nursery: trio.Nursery) -> None:
    """It is woken, and not only asked."""
    kin = kin_of(Notebook())
    children = [add(kin) for _ in range(2)]
    woken = trio.Event()

    async def wait() -> None:
        await kin.wait_ended()
        woken.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    kin.end(children[1], C)
    await wait_all_tasks_blocked()
    is_early = woken.is_set()
    kin.end(children[0], C)
    await wait_all_tasks_blocked()

    assert (is_early, woken.is_set()) == (False, True)


async def test_detached_child_is_waited_for_until_the_nursery_is_cancelled() -> None:
    """Then it goes on alone, as soon as it is stored: it is neither cancelled nor waited for, and how it ends is nobody's matter."""
    book = Notebook()
    kin = kin_of(book)
    stored = add(kin, on_cancel="detach")
    store_all(kin)
    unsent = add(kin, on_cancel="detach")
    seen = [await has_ended(kin)]

    kin.cancel()
    seen.append(await has_ended(kin))
    store_all(kin)
    seen.append(await has_ended(kin))
    kin.cancel()
    kin.end(stored, F)
    kin.end(unsent, C)

    assert seen == [False, False, True]
    assert (book.cancelled, kin.open_count) == ([], 0)
    assert await kin.errors() == []


async def test_refusal_is_an_error_of_the_block_unless_somebody_waits_for_it() -> None:
    """`await start()` raises it there; one that was cancelled before it was refused is no error either."""
    soon, awaited, cancelled = (kin_of(Notebook()) for _ in range(3))
    error = UnknownTypeError("unheard-of")
    child = add(awaited)
    raised: list[Exception] = []

    async def start() -> None:
        try:
            await child.wait_stored()
        except UnknownTypeError as caught:
            raised.append(caught)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await wait_all_tasks_blocked()
        awaited.refuse(child, error)
    soon.refuse(add(soon), error)
    gone = add(cancelled)
    gone.id = "on its way"
    cancelled.cancel()
    cancelled.refuse(gone, error)

    assert raised == [error]
    assert await awaited.errors() == await cancelled.errors() == []
    assert await soon.errors() == [error]


async def test_child_that_is_gone_is_told_as_not_found() -> None:
    """Its record has been deleted: that much is known of it."""
    kin = kin_of(Notebook())
    child = add(kin)
    store_all(kin)

    kin.end(child, None)

    (error,) = await kin.errors()
    assert isinstance(error, JobNotFoundError)
    with pytest.raises(JobNotFoundError):
        await child.result()


@pytest.mark.parametrize(
    ("fields", "is_same"),
    [
        ({}, True),
        ({"payload": b"2"}, False),
        ({"type": "other"}, False),
        ({"queue": "other"}, False),
        ({"labels": {"a": "b"}}, True),
    ],
)
def test_child_is_taken_over_by_one_that_says_the_same(fields: dict[str, object], is_same: bool) -> None:
    """Of the same type, queue and payload, in the same place, once."""
    first = kin_of(Notebook(), on_crash="adopt")
    left = add(first, b"1")
    member = Member(first.place(left), "id", first.policy_of(left), first.fingerprint_of(left))
    again = kin_of(Notebook(), ParentByHand(token=8), on_crash="adopt", earlier={1: member})

    child = add(again, **{"payload": b"1", **fields})  # type: ignore[arg-type] # fields of NewJob

    assert (again.take_over(child) is member) == is_same
    assert again.take_over(child) is None
    assert (again.earlier == {}) == is_same
    assert again.place(child) == "8.1.1"


def test_family_names_what_becomes_of_each_child() -> None:
    """One that goes on alone does so also when its parent is lost, unless the next attempt takes it over."""
    for on_crash, detached in (("cancel", "detach"), ("adopt", "keep")):
        kin = kin_of(Notebook(), on_crash=on_crash)
        assert [kin.policy_of(add(kin)), kin.policy_of(add(kin, on_cancel="detach"))] == [on_crash, detached]


async def test_nobody_waits_for_children_that_nobody_tells_of() -> None:
    """The worker ends: what waits goes on, and what begins to wait does not."""
    kin = kin_of(Notebook())
    add(kin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kin.wait_ended)
        await wait_all_tasks_blocked()
        kin.cut_off()

    assert await has_ended(kin)
    assert kin.open_count == 1
