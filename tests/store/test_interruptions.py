"""Lua does not roll back: each script is cut short at each of its writes, and what it leaves behind is never a lost job.

Two ways lead out of such a state, and both are taken: the upkeep of the queue (promote, reap, claim) without anybody's help, and
the audit. A call that was cut short may also be repeated, and then ends as if it had not been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from gopher.bulk import BulkKind
from gopher.errors import JobNotFoundError, JobStateError, ScriptReplyError, UniqueKeyHeldError
from gopher.event import EventKind
from gopher.job import FINAL_STATES, MAX_CRASHES, JobState, Move, NewJob, Priority
from gopher.store.scripts import Script
from gopher.store.submission import SubmitReceipt
from tests.store.rig import DELAY_MS, FIRST_TOKEN, LEASE_MS, START_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.store.rig import Rig

CUT: Final = """
local whole, writes = redis, 0
local READS = {hget = 1, hmget = 1, hgetall = 1, zrange = 1, zrangebyscore = 1, zcard = 1, zscore = 1, zcount = 1, get = 1,
  exists = 1, hlen = 1, time = 1, xrange = 1, xrevrange = 1}
local redis = {call = function(command, ...)
  if not READS[command] then
    writes = writes + 1
    if writes == CUT_AT then
      error('cut short')
    end
  end
  return whole.call(command, ...)
end}
"""
MOST_WRITES: Final = 60
RUN_MS: Final = 10 * LEASE_MS


def cut_short(script: Script, at: int) -> Script:
    """Return the script so changed that its `at`-th write fails, and with it the script."""
    lines = script.text.splitlines()
    begin = next(number for number, line in enumerate(lines) if not line.startswith(("#!", "--")))
    return Script(script.name, "\n".join([*lines[:begin], CUT.replace("CUT_AT", str(at)), *lines[begin:]]) + "\n")


@dataclass(frozen=True)
class Case:
    """A call that is cut short.

    Attributes:
        name: Of the script.
        begin: Makes what the call is about; returns the ids of the jobs that must not be lost.
        call: Is cut short; is given those ids.
        ends: Where the jobs stand after the whole call; None for a job that is gone.
        label: What is special.
    """

    name: str
    begin: Callable[[Rig], Awaitable[list[str]]]
    call: Callable[[Rig, list[str]], Awaitable[object]]
    ends: list[JobState | None]
    label: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.label}".strip()


def a_job(state: JobState, **fields: object) -> Callable[[Rig], Awaitable[list[str]]]:
    async def begin(rig: Rig) -> list[str]:
        return [await rig.job_in(state, unique_key="k", deadline_ms=rig.now_ms + RUN_MS, **fields)]

    return begin


def settle(move: Move) -> Callable[[Rig, list[str]], Awaitable[object]]:
    async def call(rig: Rig, ids: list[str]) -> object:
        return await rig.settle(ids[0], FIRST_TOKEN, move, delay_ms=DELAY_MS)

    return call


async def begin_claim(rig: Rig) -> list[str]:
    late = await rig.submit(deadline_ms=rig.now_ms + 1, unique_key="late")
    await rig.advance(1)
    others = [await rig.submit(priority=p, deadline_ms=rig.now_ms + RUN_MS) for p in (Priority.HIGH, Priority.LOW)]
    return [late, *others]


async def begin_plain(rig: Rig) -> list[str]:
    return [await rig.job_in(JobState.PROCESSING)]


async def begin_cancelled(rig: Rig) -> list[str]:
    (job_id,) = await a_job(JobState.PROCESSING)(rig)
    await rig.cancel(job_id)
    return [job_id]


async def begin_promote(rig: Rig) -> list[str]:
    ids = [await rig.job_in(state) for state in (JobState.RETRYING, JobState.SCHEDULED)]
    late = [
        await rig.job_in(state, deadline_ms=rig.now_ms + 1, unique_key=state.value)
        for state in (JobState.ENQUEUED, JobState.SCHEDULED)
    ]
    await rig.advance(DELAY_MS)
    return [*ids, *late]


async def begin_reap(rig: Rig) -> list[str]:
    ids = [await rig.submit(unique_key=key, deadline_ms=rig.now_ms + RUN_MS) for key in ("a", "b", "c")]
    for _ in range(MAX_CRASHES - 1):
        (job,) = await rig.claim()
        assert job.id == ids[0]
        await rig.advance(LEASE_MS + 1)
        await rig.reap()
    for job in await rig.claim(3):
        await rig.begin(job)
    await rig.cancel(ids[1])
    await rig.advance(LEASE_MS + 1)
    return ids


async def begin_retention(rig: Rig) -> list[str]:
    ids = [await rig.job_in(state, retention_ms=1) for state in (JobState.COMPLETED, JobState.CANCELLED)]
    await rig.advance(1)
    return ids


async def begin_purge(rig: Rig) -> list[str]:
    return [
        await rig.job_in(state, unique_key=state.value, deadline_ms=rig.now_ms + RUN_MS)
        for state in (JobState.PROCESSING, JobState.SCHEDULED, JobState.ENQUEUED)
    ]


async def begin_bulk(rig: Rig) -> list[str]:
    return [await rig.submit(unique_key=key, deadline_ms=rig.now_ms + RUN_MS) for key in ("a", "b")]


def in_bulk(kind: BulkKind) -> Callable[[Rig, list[str]], Awaitable[object]]:
    """Return a call that takes a step of an operation, or finds that it was taken."""

    async def call(rig: Rig, ids: list[str]) -> object:
        state = JobState.FAILED if kind is BulkKind.RETRY else JobState.ENQUEUED
        return await rig.bulk("operation", 0, "[]", kind.value, state.value, "not wanted", 0, len(ids), 60_000, *ids)

    return call


async def begin_bulk_retry(rig: Rig) -> list[str]:
    return [await rig.job_in(JobState.FAILED, unique_key=key, deadline_ms=rig.now_ms + RUN_MS) for key in ("a", "b")]


async def begin_audit(rig: Rig) -> list[str]:
    (job_id,) = await a_job(JobState.ENQUEUED)(rig)
    await rig.call("ZREM", "enqueued:normal", job_id)
    await rig.call("ZADD", "failed", 1, job_id)
    await rig.call("ZADD", "scheduled", 1, job_id)
    await rig.call("DEL", "unique:k")
    await rig.call("DEL", "deadlines")
    return [job_id]


CASES: Final = [
    Case("claim", begin_claim, lambda rig, _: rig.claim(3, claim_id="c"), [JobState.FAILED, *[JobState.PROCESSING] * 2]),
    Case("settle", a_job(JobState.PROCESSING), settle(Move.COMPLETE), [JobState.COMPLETED], "complete"),
    Case("settle", begin_plain, settle(Move.COMPLETE), [JobState.COMPLETED], "complete a plain job"),
    Case("settle", a_job(JobState.PROCESSING), settle(Move.RETRY), [JobState.RETRYING], "retry"),
    Case("settle", a_job(JobState.PROCESSING), settle(Move.BURY), [JobState.FAILED], "bury"),
    Case("settle", a_job(JobState.PROCESSING), settle(Move.SNOOZE), [JobState.SCHEDULED], "snooze"),
    Case("settle", a_job(JobState.PROCESSING), settle(Move.RELEASE), [JobState.ENQUEUED], "release"),
    Case("settle", begin_cancelled, settle(Move.RETRY), [JobState.CANCELLED], "retry of a cancelled job"),
    *(
        Case("cancel", a_job(state), lambda rig, ids: rig.cancel(ids[0]), [JobState.CANCELLED], state.value)
        for state in (JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING)
    ),
    Case("cancel", a_job(JobState.PROCESSING), lambda rig, ids: rig.cancel(ids[0]), [JobState.PROCESSING], "processing"),
    Case("promote", begin_promote, lambda rig, _: rig.promote(), [*[JobState.ENQUEUED] * 2, *[JobState.FAILED] * 2]),
    Case("reap", begin_reap, lambda rig, _: rig.reap(), [JobState.FAILED, JobState.CANCELLED, JobState.ENQUEUED]),
    Case("reap", begin_retention, lambda rig, _: rig.reap(), [None, None], "retention"),
    *(
        Case("requeue", a_job(state), lambda rig, ids: rig.requeue(ids[0]), [JobState.ENQUEUED], state.value)
        for state in (JobState.FAILED, JobState.CANCELLED, JobState.SCHEDULED, JobState.RETRYING)
    ),
    *(
        Case("delete", a_job(state), lambda rig, ids: rig.store.lifecycle.delete(rig.namespace, ids[0]), [None], state.value)
        for state in (JobState.ENQUEUED, JobState.SCHEDULED, JobState.FAILED)
    ),
    Case(
        "purge",
        begin_purge,
        lambda rig, _: rig.store.lifecycle.purge(rig.namespace, rig.queue),
        [JobState.PROCESSING, None, None],
    ),
    Case(
        "report",
        a_job(JobState.PROCESSING),
        lambda rig, ids: rig.say(ids[0], FIRST_TOKEN, "half", EventKind.PROGRESS),
        [JobState.PROCESSING],
    ),
    Case("bulk", begin_bulk, in_bulk(BulkKind.CANCEL), [JobState.CANCELLED] * 2, "cancel"),
    Case("bulk", begin_bulk_retry, in_bulk(BulkKind.RETRY), [JobState.ENQUEUED] * 2, "retry"),
    Case("bulk", begin_bulk, in_bulk(BulkKind.DELETE), [None] * 2, "delete"),
    Case("extend", a_job(JobState.PROCESSING), lambda rig, ids: rig.extend([(ids[0], FIRST_TOKEN)]), [JobState.PROCESSING]),
    Case("audit", begin_audit, lambda rig, _: rig.audit(repair=True), [JobState.ENQUEUED]),
]


async def cut(rig: Rig, case: Case, at: int) -> list[str] | None:
    """Make the queue anew and cut the case's call short at a write; return the ids, or None when it makes fewer writes."""
    owners = (rig.store.lifecycle, rig.store.histories, rig.store.audit, rig)
    owner = next(each for each in owners if f"_{case.name}" in vars(each))
    whole = getattr(owner, f"_{case.name}")
    await rig.clear()
    await rig.set_clock()
    ids = await case.begin(rig)
    setattr(owner, f"_{case.name}", cut_short(whole, at))
    try:
        await case.call(rig, ids)
    except ScriptReplyError as error:
        assert "cut short" in error.message  # noqa: PT017 - any other error is a bug of the script
        return ids
    finally:
        setattr(owner, f"_{case.name}", whole)
    assert at > 1, "the script writes nothing"
    return None


async def each_cut(rig: Rig, case: Case, check: Callable[[list[str]], Awaitable[None]]) -> None:
    """Check the state after each way of cutting the case's call short."""
    for at in range(1, MOST_WRITES):
        ids = await cut(rig, case, at)
        if ids is None:
            return
        await check(ids)
    raise AssertionError(f"{case} writes more than {MOST_WRITES} times")


async def state_of(rig: Rig, job_id: str) -> JobState | None:
    try:
        return await rig.state(job_id)
    except JobNotFoundError:
        return None


async def repeat(rig: Rig, case: Case, ids: list[str]) -> None:
    """Make the call once more; that it is refused since it had been carried out is as good."""
    try:
        await case.call(rig, ids)
    except JobNotFoundError:
        assert None in case.ends
    except JobStateError as error:
        assert (case.name, error.metadata["state"]) == ("requeue", "enqueued")  # noqa: PT017 - refusals differ


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_script_cut_short_anywhere_is_mended_by_the_audit(rig: Rig, case: Case) -> None:
    """After the repair every job that was there, and was not to be removed, stands in exactly one place, and all is clean."""

    async def check(ids: list[str]) -> None:
        await rig.audit(repair=True)

        assert await rig.audit() == []
        for job_id, end in zip(ids, case.ends, strict=True):
            state = await state_of(rig, job_id)
            places = [place for place in await rig.places(job_id) if place != "deadlines"]
            assert (state is not None or end is None, len(places)) == (True, int(state is not None))

    await each_cut(rig, case, check)


@pytest.mark.leaves_keys
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_script_cut_short_anywhere_may_be_repeated(rig: Rig, case: Case) -> None:
    """The same call once more, and a sweep, lead every job to where the first call would have led it."""

    async def check(ids: list[str]) -> None:
        await repeat(rig, case, ids)
        await rig.promote()

        assert [await state_of(rig, job_id) for job_id in ids] == case.ends

    await each_cut(rig, case, check)


@pytest.mark.leaves_keys
@pytest.mark.parametrize("case", [case for case in CASES if case.name != "audit"], ids=str)
async def test_script_cut_short_anywhere_loses_no_job(rig: Rig, case: Case) -> None:
    """Without an audit and without a repeated call, the queue's upkeep and its workers lead every job to an end."""

    async def check(ids: list[str]) -> None:
        for _ in range(MAX_CRASHES + 1):
            await rig.promote()
            await rig.reap()
            for job in await rig.claim(10):
                await rig.settle(job.id, job.token, Move.COMPLETE)
            await rig.advance(2 * LEASE_MS + 1)

        for job_id, end in zip(ids, case.ends, strict=True):
            state = await state_of(rig, job_id)
            assert state in FINAL_STATES or (state is end is None)
            assert state is None or state.value in await rig.places(job_id)

    await each_cut(rig, case, check)


SUBMISSIONS: Final = [
    NewJob(type="t", unique_key="a", request_id="a", deadline_ms=START_MS + RUN_MS),
    NewJob(type="t", unique_key="b", request_id="b", delay_ms=DELAY_MS),
    NewJob(type="t", priority=Priority.LOW, request_id="c"),
]


async def submit_cut_short(rig: Rig, at: int) -> bool:
    """Submit with the script cut short at a write; return whether it was."""
    await rig.clear()
    await rig.set_clock()
    lifecycle = rig.store.lifecycle
    whole, lifecycle._submit = lifecycle._submit, cut_short(lifecycle._submit, at)
    try:
        answers = await lifecycle.submit(rig.namespace, SUBMISSIONS)
    finally:
        lifecycle._submit = whole
    return any(isinstance(answer, ScriptReplyError) for answer in answers)


@pytest.mark.parametrize("at", range(1, MOST_WRITES, 8))
async def test_submit_cut_short_anywhere_leaves_no_half_of_a_job(rig: Rig, at: int) -> None:
    """Nothing was acknowledged; what was stored nevertheless is whole, and what was not is swept away by work or by the audit."""
    for write in range(at, at + 8):
        if not await submit_cut_short(rig, write):
            return
        await rig.audit(repair=True)

        assert await rig.audit() == []
        jobs, _ = await rig.store.query.list_jobs(rig.namespace, size=10)
        assert len(jobs) == len(await rig.names("job:*"))


@pytest.mark.leaves_keys
async def test_submit_cut_short_anywhere_may_be_repeated(rig: Rig) -> None:
    """The same submit once more is accepted, or names the job that the first one stored after all; each of them runs."""
    for write in range(1, MOST_WRITES):
        if not await submit_cut_short(rig, write):
            return
        answers = await rig.store.lifecycle.submit(rig.namespace, SUBMISSIONS)
        await rig.advance(DELAY_MS)
        await rig.promote()
        running = {job.id for job in await rig.claim(10)}

        assert all(isinstance(answer, SubmitReceipt | UniqueKeyHeldError) for answer in answers)
        named = {a.job_id if isinstance(a, SubmitReceipt) else a.metadata["job_id"] for a in answers}
        assert len(named) == len(SUBMISSIONS)
        assert named <= running
