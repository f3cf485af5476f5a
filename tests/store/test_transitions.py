"""The Lua against the table: each move from each state either leads where TRANSITIONS says or changes nothing at all."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import pytest

from gopher.errors import RequestError
from gopher.event import EventKind
from gopher.job import MAX_CRASHES, TRANSITIONS, JobState, Move, Outcome
from gopher.store.lifecycle import Settlement
from tests.store.rig import DEADLINE_MS, DELAY_MS, FAILURE, LEASE_MS, OUTCOMES, Rig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAIRS: Final = list(itertools.product(JobState, Move))
COUNTERS: Final = ("counters", "idle:*")
"""What a claim that finds nothing writes: that its worker is idle."""
"""What a claim that finds nothing notes there is not the job's."""

AGAIN: Final = (Move.RETRY, Move.SNOOZE, Move.RELEASE, Move.RECOVER, Move.CRASH)
STALE: Final = (0, 999_999)
GARBAGE: Final = ("", "-1", "one", "1.0", "01", "\N{ARABIC-INDIC DIGIT ONE}")


def expected(state: JobState, move: Move) -> JobState | None:
    """Return the state after, None for a refusal. An operator's requeue of a waiting job is its promotion ahead of time."""
    after = TRANSITIONS.get((state, move))
    if after is None and move is Move.REQUEUE:
        return TRANSITIONS.get((state, Move.PROMOTE))
    return after


async def settle_with_current_token(rig: Rig, job_id: str, move: Move) -> None:
    await rig.settle(job_id, (await rig.get(job_id)).token, move, delay_ms=DELAY_MS)


async def make(rig: Rig, job_id: str, move: Move) -> None:
    """Have the script that is in charge of a move try it; a refusal by an error is swallowed here, its effect is compared."""

    async def promote() -> None:
        await rig.advance(DELAY_MS)
        await rig.promote()

    async def expire() -> None:
        await rig.advance(DEADLINE_MS)
        await rig.promote()

    async def lose_lease() -> None:
        await rig.advance(LEASE_MS + 1)
        await rig.reap()

    steps: dict[Move, Callable[[], Awaitable[object]]] = {
        Move.PROMOTE: promote,
        Move.EXPIRE: expire,
        Move.RECOVER: lose_lease,
        Move.CRASH: lose_lease,
        Move.CLAIM: rig.claim,
        Move.CANCEL: lambda: rig.cancel(job_id),
        Move.REQUEUE: lambda: rig.requeue(job_id),
        **{of: lambda of=of: settle_with_current_token(rig, job_id, of) for of in OUTCOMES},  # type: ignore[misc] # binds the loop's
    }
    try:
        await steps[move]()
    except RequestError:
        return


async def crash_twice(rig: Rig) -> None:
    """Bring a waiting job one crash short of its last."""
    for _ in range(MAX_CRASHES - 1):
        await rig.claim()
        await rig.advance(LEASE_MS + 1)
        await rig.reap()


async def job_before(rig: Rig, state: JobState, move: Move) -> str:
    """Bring a job into the state in which the move is to be tried."""
    if state is JobState.PROCESSING and move is Move.CRASH:
        job_id = await rig.submit()
        await crash_twice(rig)
        (job,) = await rig.claim()
        assert await rig.begin(job)
        return job_id
    return await rig.job_in(state, **({"deadline_ms": rig.now_ms + DEADLINE_MS} if move is Move.EXPIRE else {}))


@pytest.mark.parametrize(("state", "move"), PAIRS)
async def test_lua_makes_the_legal_moves_of_the_table_and_no_other(rig: Rig, state: JobState, move: Move) -> None:
    """Whatever is tried from whatever state: the job ends where the table says, or not a byte of the queue has changed."""
    job_id = await job_before(rig, state, move)
    before = await rig.dump(COUNTERS)

    await make(rig, job_id, move)

    after = expected(state, move)
    if after is None:
        assert await rig.dump(COUNTERS) == before
    else:
        assert await rig.state(job_id) is after
    assert await rig.audit() == []


@pytest.mark.parametrize("move", AGAIN)
async def test_lua_never_runs_cancelled_work_again(rig: Rig, move: Move) -> None:
    """Once a cancel was asked for, every move that would run the job again ends it as cancelled."""
    job_id = await job_before(rig, JobState.PROCESSING, move)
    await rig.cancel(job_id)

    await make(rig, job_id, move)

    assert await rig.state(job_id) is JobState.CANCELLED
    assert await rig.audit() == []


@pytest.mark.parametrize("move", [Move.COMPLETE, Move.BURY])
async def test_lua_lets_finished_work_be_finished_despite_a_cancel(rig: Rig, move: Move) -> None:
    """A handler that ended before it noticed the cancel keeps its outcome."""
    job_id = await rig.job_in(JobState.PROCESSING)
    await rig.cancel(job_id)

    await make(rig, job_id, move)

    assert await rig.state(job_id) is TRANSITIONS[JobState.PROCESSING, move]


@pytest.mark.parametrize("token", STALE + GARBAGE)
@pytest.mark.parametrize("move", OUTCOMES)
async def test_settle_with_another_token_changes_nothing(rig: Rig, move: Move, token: int | str) -> None:
    """An outcome under a token that is not the attempt's is refused, and not a byte of the queue has changed."""
    job_id = await rig.job_in(JobState.PROCESSING)
    before = await rig.dump()

    word = await rig.settle(job_id, token, move)  # type: ignore[arg-type] # garbage on purpose

    assert word == "STALE_LEASE"
    assert await rig.dump() == before


@pytest.mark.parametrize("token", STALE + GARBAGE)
async def test_report_and_extend_with_another_token_change_nothing(rig: Rig, token: int | str) -> None:
    """Neither progress nor a longer lease is granted under a token that is not the attempt's."""
    job_id = await rig.job_in(JobState.PROCESSING)
    before = await rig.dump()

    word = await rig.say(job_id, token, "half", EventKind.PROGRESS)
    findings = await rig.extend([(job_id, token)])

    assert word == "STALE_LEASE"
    assert findings == [[b"LOST", job_id.encode()]]
    assert await rig.dump() == before


@pytest.mark.parametrize("move", OUTCOMES)
@pytest.mark.parametrize("crashes_before", [0, MAX_CRASHES - 1])
async def test_settle_after_the_lease_was_reaped_is_stale(rig: Rig, move: Move, crashes_before: int) -> None:
    """A worker that was stopped past its lease has its outcome refused, whether or not another one has the job by now."""
    job_id = await rig.submit()
    for _ in range(crashes_before):
        await rig.claim()
        await rig.advance(LEASE_MS + 1)
        await rig.reap()
    (late,) = await rig.claim(worker="late")
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    before = await rig.dump()

    first_word = await rig.settle(job_id, late.token, move)
    unclaimed = await rig.dump()
    await rig.claim(worker="other")
    claimed = await rig.dump()
    second_word = await rig.settle(job_id, late.token, move)

    assert (first_word, second_word) == ("STALE_LEASE", "STALE_LEASE")
    assert unclaimed == before
    assert await rig.dump() == claimed


async def test_tokens_strictly_increase_over_every_claim_of_the_queue(rig: Rig) -> None:
    """No two claims share a token, and a later one always has the greater."""
    tokens = []
    for _ in range(5):
        await rig.submit()
        await rig.submit()
        jobs = await rig.claim(2)
        tokens += [job.token for job in jobs]
        await rig.settle(jobs[0].id, jobs[0].token, Move.RELEASE)
        await rig.settle(jobs[1].id, jobs[1].token, Move.COMPLETE)

    assert tokens == sorted(set(tokens))


async def test_last_attempts_keep_their_tracebacks(rig: Rig) -> None:
    """Of the last four, as many as a job has by default: more would make a record, which every claim reads, too large."""
    job_id = await rig.submit()

    for number in range(1, 7):
        (job,) = await rig.claim()
        settlement = Settlement(job_id, job.token, Move.RETRY, Outcome.RAISED, 0, b"trace %d" % number, FAILURE)
        await rig.store.lifecycle.settle(rig.namespace, rig.queue, [settlement])
        await rig.store.lifecycle.promote(rig.namespace, rig.queue)
    await rig.claim()
    attempts = (await rig.store.query.get(rig.namespace, job_id)).attempts

    assert [attempt.traceback for attempt in attempts] == [None, None, "trace 3", "trace 4", "trace 5", "trace 6"]
    assert {attempt.failure is not None for attempt in attempts} == {True}
