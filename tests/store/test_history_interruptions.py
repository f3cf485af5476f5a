"""Lua does not roll back: wherever a script is cut short, the history of its job has no gap, and is mended when somebody looks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from gopher.errors import ScriptReplyError
from gopher.event import EventKind
from gopher.job import JobState, Move
from gopher.store.history import Saying
from tests.store.rig import FIRST_TOKEN, LEASE_MS
from tests.store.test_interruptions import CASES, MOST_WRITES, Case, a_job, cut_short, each_cut, repeat, state_of

if TYPE_CHECKING:
    from tests.store.rig import Rig

FOLLOWED: Final = [case for case in CASES if case.name != "audit"]


def opened(case: Case) -> Case:
    """Return the case with the history of each of its jobs opened before the call."""

    async def begin(rig: Rig) -> list[str]:
        ids = await case.begin(rig)
        for job_id in ids:
            await rig.open_history(job_id)
        return ids

    return replace(case, begin=begin)


async def check_history(rig: Rig, job_id: str) -> None:
    """The numbers have no gap, and the last event tells where the job stands."""
    events = await rig.history(job_id)
    job = await rig.get(job_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (events[-1].state, events[-1].attempt) == (job.state, job.attempt)
    before = itertools.pairwise(events)
    assert all(
        (one.state, one.attempt) != (other.state, other.attempt) for one, other in before if other.kind is EventKind.STATE
    )


async def say_three(rig: Rig, job_id: str) -> None:
    sayings = [Saying(job_id, FIRST_TOKEN, number, EventKind.LOG, "", b"info %d" % number) for number in (1, 2, 3)]
    await rig.store.histories.report(rig.namespace, rig.queue, sayings)


@pytest.mark.leaves_keys
@pytest.mark.parametrize("case", FOLLOWED, ids=str)
async def test_history_is_mended_by_whoever_opens_it(rig: Rig, case: Case) -> None:
    """A watcher that comes after the cut is told where the job stands; nothing is told twice."""

    async def check(ids: list[str]) -> None:
        for job_id in ids:
            if await state_of(rig, job_id) is not None:
                await rig.open_history(job_id)
                await check_history(rig, job_id)

    await each_cut(rig, opened(case), check)


@pytest.mark.leaves_keys
@pytest.mark.parametrize("case", FOLLOWED, ids=str)
async def test_history_is_mended_by_the_upkeep(rig: Rig, case: Case) -> None:
    """Watchers that were there before the cut are told by whoever moves the job on, or by the reaper."""

    async def check(ids: list[str]) -> None:
        await repeat(rig, case, ids)
        for _ in range(2):
            await rig.promote()
            await rig.reap()
            for job in await rig.claim(10):
                await rig.settle(job.id, job.token, Move.COMPLETE)
            await rig.advance(2 * LEASE_MS + 1)

        for job_id in ids:
            if await state_of(rig, job_id) is not None:
                await check_history(rig, job_id)

    await each_cut(rig, opened(case), check)


async def test_history_whose_opening_was_cut_short_is_opened_whole(rig: Rig) -> None:
    """The next who opens it, or the first word of the handler, finds nothing of the first try."""
    for at in range(1, MOST_WRITES):
        await rig.clear()
        await rig.set_clock()
        (job_id,) = await a_job(JobState.PROCESSING)(rig)
        histories = rig.store.histories
        whole, histories._open_history = histories._open_history, cut_short(histories._open_history, at)
        try:
            await rig.open_history(job_id)
            is_whole = True
        except ScriptReplyError:
            is_whole = False
        finally:
            histories._open_history = whole

        await rig.say(job_id, FIRST_TOKEN, "info hello")

        kinds = [(event.kind, event.state.value) for event in await rig.history(job_id)]
        assert kinds == [("state", "enqueued"), ("state", "processing"), ("log", "processing")], at
        if is_whole:
            return
    raise AssertionError(f"open_history writes more than {MOST_WRITES} times")


async def test_sayings_cut_short_anywhere_are_kept_once(rig: Rig) -> None:
    """The worker says them again, all of them: each stands in the history once, in order."""
    for at in range(1, MOST_WRITES):
        await rig.clear()
        await rig.set_clock()
        (job_id,) = await a_job(JobState.PROCESSING)(rig)
        histories = rig.store.histories
        whole, histories._report = histories._report, cut_short(histories._report, at)
        try:
            await say_three(rig, job_id)
            is_whole = True
        except ScriptReplyError:
            is_whole = False
        finally:
            histories._report = whole

        await say_three(rig, job_id)

        details = [event.detail for event in await rig.history(job_id) if event.kind is EventKind.LOG]
        assert details == [b"info 1", b"info 2", b"info 3"], at
        if is_whole:
            return
    raise AssertionError(f"report writes more than {MOST_WRITES} times")
