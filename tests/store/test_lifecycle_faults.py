"""Moves where Redis has lost writes, where records are large, and where they are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gopher.job import MAX_CRASHES, JobState, Move, Outcome
from tests.store.rig import LEASE_MS

if TYPE_CHECKING:
    from tests.store.rig import Rig

MIB = 1 << 20


async def test_tokens_are_not_given_again_where_the_counter_has_gone_back(rig: Rig) -> None:
    """A queue that has lost its last writes gives a claim no token that was given before; the stale holder settles nothing."""
    job_id = await rig.submit()
    (stale,) = await rig.claim()
    await rig.call("DEL", "counters", "processing", "claim:worker")
    await rig.call("HDEL", f"job:{job_id}", "token", "worker", "started_ms", "attempt")
    await rig.call("HSET", f"job:{job_id}", "state", "enqueued")
    await rig.call("ZADD", "enqueued:normal", rig.now_ms, job_id)
    await rig.advance(1)
    (taken,) = await rig.claim(worker="other")

    word = await rig.settle(job_id, stale.token, Move.COMPLETE)

    assert taken.token > stale.token
    assert word == "STALE_LEASE"


async def test_tokens_are_whole_numbers_wherever_they_are_kept(rig: Rig) -> None:
    """Record, counter and last claim hold every digit of a token, also where the number is beyond what Lua prints by itself."""
    await rig.submit()
    (job,) = await rig.claim()

    token = str(job.token).encode()

    assert len(token) == 16
    assert await rig.call("HGET", f"job:{job.id}", "token") == token
    assert await rig.call("HGET", "counters", "token") == token
    assert (await rig.call("GET", "claim:worker")).endswith(b" " + token)


@pytest.mark.parametrize("is_limited", [False, True])
async def test_a_claim_stops_at_four_mib(rig: Rig, is_limited: bool) -> None:
    """A claim gives at most 4 MiB of records and one; the same claim again gives the same; the workers hear that more wait."""
    if is_limited:
        await rig.call("HSET", "settings", "limited", "1")
    ids = [await rig.submit(payload=b"x" * MIB) for _ in range(6)]

    first = await rig.claim(100, claim_id="one")
    again = await rig.claim(100, claim_id="one")
    rest = await rig.claim(100, claim_id="two")

    assert [job.id for job in first] == ids[:4]
    assert [job.id for job in again] == ids[:4]
    assert [job.id for job in rest] == ids[4:]


async def test_a_claim_gives_one_job_of_any_size(rig: Rig) -> None:
    """A record that is larger than what a claim may give is given alone."""
    ids = [await rig.submit(payload=b"x" * 5 * MIB) for _ in range(2)]

    assert [job.id for job in await rig.claim(2)] == ids[:1]
    assert [job.id for job in await rig.claim(2)] == ids[1:]


DAMAGE: Final[dict[str, tuple[str, *tuple[str | bytes, ...]]]] = {
    "no type": ("HDEL", "type"),
    "no payload": ("HDEL", "payload"),
    "a type that is no text": ("HSET", "type", b"\xff"),
    "a number that is none": ("HSET", "timeout_ms", "soon"),
    "attempts that are none": ("HSET", "attempt", "x"),
    "a deadline that is none": ("HSET", "deadline_ms", "x"),
    "crashes that are none": ("HSET", "crashes", "x"),
    "labels that are none": ("HSET", "labels", "{"),
    "a priority that has no line": ("HSET", "priority", "top"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_record_becomes_a_dead_letter_alone(rig: Rig, damage: str) -> None:
    """The job is buried with a reason, can be looked at and listed, and the claim gives the others."""
    first, job_id, last = [await rig.submit(), await rig.submit(), await rig.submit()]
    word, *words = DAMAGE[damage]
    await rig.call(word, f"job:{job_id}", *words)

    claim = await rig.try_claim(3)

    job = await rig.get(job_id)
    listed, _ = await rig.store.query.list_jobs(rig.namespace, state=JobState.FAILED, size=10)
    assert [job.id for job in claim.jobs] == [first, last]
    assert claim.taken == 3
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "DAMAGED_RECORD"
    assert [job.id for job in listed] == [job_id]
    assert await rig.places(job_id) == ["failed"]


@pytest.mark.parametrize(
    "field", ["crashes", "attempt", "deadline_ms", "enqueued_ms", "submitted_ms", "priority", "retention_ms", "type"]
)
async def test_a_damaged_record_stops_no_sweep(rig: Rig, field: str) -> None:
    """A job whose record was damaged while it ran is taken back with the others."""
    ids = [await rig.submit(), await rig.submit()]
    await rig.claim(2)
    await rig.call("HSET", f"job:{ids[0]}", field, "garbage")
    await rig.advance(LEASE_MS + 1)

    assert sorted(await rig.reap()) == sorted(ids)

    await rig.claim(2)
    assert await rig.places(ids[1]) == ["processing"]


async def test_a_claim_that_is_repeated_gives_its_leases_their_whole_time(rig: Rig) -> None:
    """Leases begin anew where the reply to a claim was lost and the claim is made again, however late."""
    job_id = await rig.submit()
    await rig.claim(claim_id="one")
    await rig.advance(LEASE_MS - 1)
    await rig.claim(claim_id="one")
    await rig.advance(LEASE_MS - 1)

    reaped = await rig.reap()
    again = await rig.claim(claim_id="one")

    assert reaped == ()
    assert [job.id for job in again] == [job_id]


async def test_a_worker_that_lives_takes_its_crash_back(rig: Rig) -> None:
    """A lease that ended in an outage costs neither a crash nor an attempt, once, and only where the worker says so itself."""
    job_id = await rig.submit()
    (former,) = await rig.claim()
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    refused = [await rig.settle(job_id, former.token, move) for move in (Move.COMPLETE, Move.RELEASE)]
    charged = (await rig.get(job_id)).crashes

    refused += [await rig.settle(job_id, former.token, Move.RELEASE, outcome=Outcome.LOST) for _ in range(2)]

    after = await rig.get(job_id)
    assert set(refused) == {"STALE_LEASE"}
    assert (charged, after.crashes, after.attempt) == (1, 0, 1)
    assert await rig.call("HGET", f"job:{job_id}", "spent") == b"1"


async def test_a_crash_of_another_attempt_is_not_taken_back(rig: Rig) -> None:
    """What a worker says of its own attempt does not clear the next one's worker."""
    job_id = await rig.submit()
    (former,) = await rig.claim()
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    await rig.claim(worker="other")
    await rig.advance(LEASE_MS + 1)
    await rig.reap()

    await rig.settle(job_id, former.token, Move.RELEASE, outcome=Outcome.LOST)

    assert (await rig.get(job_id)).crashes == 2


async def test_a_job_that_never_began_is_no_dead_letter(rig: Rig) -> None:
    """However often its claim's reply is lost with its lease, the last crash is charged only to an attempt that may have begun."""
    job_id = await rig.submit()
    (lost,) = await rig.claim()
    for _ in range(2 * MAX_CRASHES):
        await rig.advance(LEASE_MS + 1)
        await rig.reap()
        await rig.claim()
    never_began = await rig.get(job_id)
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    is_stale_refused = not await rig.begin(lost)
    (job,) = await rig.claim()
    await rig.begin(job)
    await rig.advance(LEASE_MS + 1)
    await rig.reap()

    began = await rig.get(job_id)

    assert (never_began.state, never_began.crashes) == (JobState.PROCESSING, MAX_CRASHES - 1)
    assert is_stale_refused
    assert (began.state, began.crashes) == (JobState.FAILED, MAX_CRASHES)
    assert began.failure is not None
    assert began.failure.reason == "CRASH_LOOP"
