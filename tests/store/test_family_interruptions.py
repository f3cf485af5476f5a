"""Lua does not roll back, and workers die: wherever a parent's way is cut short, no child is started twice, and none is left alone."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from gopher.errors import JobNotFoundError, ScriptReplyError
from gopher.job import JobState, Move
from gopher.store.families import Member, Start
from tests.store.rig import DELAY_MS, LEASE_MS
from tests.store.test_families import begin, family, make, start, started, walk
from tests.store.test_interruptions import MOST_WRITES, cut_short

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.codec import ClaimedJob
    from gopher.store.scripts import Script
    from tests.store.rig import Rig


async def is_whole(owner: object, script: str, at: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call with the script cut short at a write; return whether it made fewer writes."""
    whole: Script = getattr(owner, script)
    setattr(owner, script, cut_short(whole, at))
    try:
        await call()
    except ScriptReplyError as error:
        assert "cut short" in error.message  # noqa: PT017 - any other error is a bug of the script
        return False
    finally:
        setattr(owner, script, whole)
    return True


async def begin_start(rig: Rig) -> tuple[ClaimedJob, list[Start]]:
    """Make the queue anew; return a parent whose second attempt runs, and children: one to take over and some new."""
    await rig.clear()
    await rig.set_clock()
    parent = await begin(rig)
    (left,) = await started(rig, parent, "adopt", delay_ms=DELAY_MS)
    await rig.settle(parent.id, parent.token, Move.RELEASE)
    (again,) = await rig.claim()
    taken = Start(Member(f"{again.token}.1.1", left.id, "adopt", "-"), None, left.place)
    return again, [taken, *[await make(rig, again, n, unique_key=f"k{n}", delay_ms=None if n < 4 else 1) for n in (2, 3, 4)]]


async def jobs_there(rig: Rig, starts: list[Start]) -> list[str]:
    """Return the ids of the children that are stored, sorted."""
    found = await rig.store.families.states(rig.namespace, [each.member.id for each in starts])
    return sorted(each.member.id for each, state in zip(starts, found, strict=True) if state is not None)


async def test_start_cut_short_anywhere_may_be_repeated(rig: Rig) -> None:
    """The same call once more stores each child once, and the family is as if nothing had happened."""
    families = rig.store.families
    for at in range(1, MOST_WRITES):
        parent, starts = await begin_start(rig)
        whole = await is_whole(families, "_start", at, partial(start, rig, parent, *starts))

        answer = await start(rig, parent, *starts)

        assert answer is not None
        assert await jobs_there(rig, starts) == sorted(each.member.id for each in starts)
        assert len(await rig.names("job:*")) == 1 + len(starts)
        assert await family(rig, parent.id) == [each.member for each in starts]
        if whole:
            return
    raise AssertionError(f"start_children writes more than {MOST_WRITES} times")


async def test_worker_that_dies_in_start_leaves_no_child_alone(rig: Rig) -> None:
    """Whatever was stored is found once its parent's lease is over: as an orphan, or kept to be taken over."""
    families = rig.store.families
    for at in range(1, MOST_WRITES):
        parent, starts = await begin_start(rig)
        whole = await is_whole(families, "_start", at, partial(start, rig, parent, *starts))

        await rig.audit(repair=True)
        await rig.advance(LEASE_MS + 1)
        await rig.reap()
        orphans = await walk(rig)
        kept = [member.id for member in await family(rig, parent.id)]

        assert {*await jobs_there(rig, starts)} <= {*orphans, *kept}, at
        assert starts[0].member.id in kept
        assert await rig.audit() == []
        if whole:
            return
    raise AssertionError(f"start_children writes more than {MOST_WRITES} times")


async def settle(rig: Rig, parent: ClaimedJob, move: Move) -> None:
    await rig.settle(parent.id, parent.token, move, delay_ms=DELAY_MS)


async def complete(rig: Rig, parent: ClaimedJob) -> None:
    await settle(rig, parent, Move.COMPLETE)


async def retry(rig: Rig, parent: ClaimedJob) -> None:
    await settle(rig, parent, Move.RETRY)


async def release(rig: Rig, parent: ClaimedJob) -> None:
    await settle(rig, parent, Move.RELEASE)


async def lose(rig: Rig, _: ClaimedJob) -> None:
    await rig.advance(LEASE_MS + 1)
    await rig.reap()


async def cancel(rig: Rig, parent: ClaimedJob) -> None:
    await rig.cancel(parent.id)


async def delete(rig: Rig, parent: ClaimedJob) -> None:
    with suppress(JobNotFoundError):  # the first call may have come so far
        await rig.store.lifecycle.delete(rig.namespace, parent.id)


async def purge(rig: Rig, _: ClaimedJob) -> None:
    await rig.store.lifecycle.purge(rig.namespace, rig.queue)


WAYS: Final = [
    (None, "_settle", complete),
    (None, "_settle", retry),
    (None, "_settle", release),
    (None, "_reap", lose),
    (retry, "_cancel", cancel),
    (retry, "_delete", delete),
    (retry, "_purge", purge),
]


@pytest.mark.parametrize(("before", "script", "step"), WAYS, ids=lambda each: getattr(each, "__name__", str(each)))
async def test_parent_whose_end_is_cut_short_anywhere_leaves_no_child_alone(
    rig: Rig, before: Callable[[Rig, ClaimedJob], Awaitable[None]] | None, script: str, step: Callable[..., Awaitable[None]]
) -> None:
    """With the walks that come between and after, and the call repeated, every child of the attempt is found."""
    for at in range(1, MOST_WRITES):
        await rig.clear()
        await rig.set_clock()
        parent = await begin(rig)
        members = await started(rig, parent, "cancel", "cancel", delay_ms=10 * DELAY_MS)
        orphans = []
        if before is not None:
            await before(rig, parent)
            await rig.call("DEL", "orphans")  # as if nobody had come to it

        whole = await is_whole(rig.store.lifecycle, script, at, partial(step, rig, parent))
        orphans += await walk(rig)
        if not whole:
            await step(rig, parent)
        orphans += await walk(rig)

        assert {*orphans} >= {member.id for member in members}, at
        assert await rig.names("family:*") == []
        if whole:
            return
    raise AssertionError(f"{script} writes more than {MOST_WRITES} times")


async def test_walk_and_leave_cut_short_anywhere_are_done_again(rig: Rig) -> None:
    """A walker that dies at any write leaves all to the next, which comes once its reservation is over."""
    families = rig.store.families
    for script in ("_take", "_leave"):
        for at in range(1, MOST_WRITES):
            await rig.clear()
            await rig.set_clock()
            parent = await begin(rig)
            members = await started(rig, parent, "cancel", "detach", delay_ms=10 * DELAY_MS)
            await complete(rig, parent)
            found: list[str] = []

            async def once(found: list[str] = found) -> None:
                found += await walk(rig)

            whole = await is_whole(families, script, at, once)
            await rig.advance(10_000)
            found += await walk(rig)

            assert (found == [members[0].id]) or (not whole and found == []), (script, at)
            assert await rig.names("family:*") == await rig.names("orphans") == []
            assert await rig.state(members[1].id) is JobState.SCHEDULED
            if whole:
                break
