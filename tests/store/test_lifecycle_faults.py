"""Moves where Redis has lost writes, where records are large, and where they are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.job import Move

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
