"""Workers that have different types claim from one queue: each is given its own jobs, and rung for no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gopher.job import JobState, Move, NewJob, Priority
from gopher.limits import Limits
from gopher.store import keys
from gopher.store.lifecycle import Bound
from gopher.store.type_set import TypeSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.codec import ClaimedJob
    from tests.store.rig import Rig

MAILER: Final = TypeSet(["email"])
RESIZER: Final = TypeSet(["resize"])
BOTH: Final = TypeSet(["email", "resize"])


async def hear_rings(rig: Rig, *workers: str) -> list[tuple[str, str]]:
    """Return a list that takes worker and type of each ring from now on."""
    heard: list[tuple[str, str]] = []
    for worker in workers:

        def note(message: bytes, worker: str = worker) -> None:
            heard.append((worker, message.decode()))

        await rig.store.link.subscribe(keys.ring(rig.namespace, rig.queue, worker).encode(), note)
    return heard


async def rung(rig: Rig, heard: list[tuple[str, str]]) -> list[tuple[str, str]]:
    await rig.store.link.call("PING")
    found = list(heard)
    heard.clear()
    return found


def ids(jobs: Sequence[ClaimedJob]) -> list[str]:
    return [job.id for job in jobs]


async def test_worker_is_given_only_what_it_has_a_handler_for(rig: Rig) -> None:
    """What it lacks waits, enqueued and unspent, for a worker that has it, which takes it in its order."""
    mails = [await rig.submit(type="email") for _ in range(3)]
    sizes = [await rig.submit(type="resize", priority=p) for p in (Priority.NORMAL, Priority.LOW)]

    first = await rig.claim(10, types=RESIZER, worker="resizer")
    parked = await rig.get(mails[0])
    second = await rig.claim(10, types=MAILER, worker="mailer")

    assert (ids(first), ids(second)) == (sizes, mails)
    assert (parked.state, parked.parked_by, parked.attempt) == (JobState.ENQUEUED, "type:email", 0)
    assert await rig.audit() == []


async def test_waiting_jobs_of_a_foreign_type_are_met_once(rig: Rig) -> None:
    """However many there are, own ones behind them are had after a claim for each hundred, and after that at once."""
    for _ in range(250):
        await rig.submit(type="email")
    own = await rig.submit(type="resize")
    claims = []

    while not (jobs := (claim := await rig.try_claim(4, types=RESIZER)).jobs):
        claims.append(claim.is_cut_short)
    late = await rig.submit(type="resize")

    assert claims == [True, True]
    assert ids(jobs) == [own]
    assert ids(await rig.claim(4, types=RESIZER)) == [late]
    assert not (await rig.try_claim(4, types=RESIZER)).is_cut_short


async def test_line_of_a_type_is_merged_with_the_common_one(rig: Rig) -> None:
    """Older jobs come first, whichever line they stand in, of any type that the worker has."""
    expected = []
    for at in range(4):
        expected.append(await rig.submit(type="email" if at % 2 else "report"))
        await rig.advance(1)
    await rig.claim(9, types=RESIZER)
    for at in range(2):
        expected.append(await rig.submit(type="email" if at % 2 else "report"))
        await rig.advance(1)

    assert ids(await rig.claim(9, types=TypeSet(["email", "report"]))) == expected


async def test_worker_is_rung_only_for_types_it_has(rig: Rig) -> None:
    """By a submit, by the promoter, and by a claim that meets a job which it has to leave to others."""
    heard = await hear_rings(rig, "mailer", "resizer")

    async def be_idle() -> None:
        await rig.claim(1, types=MAILER, worker="mailer")
        await rig.claim(1, types=RESIZER, worker="resizer")

    await be_idle()
    await rig.submit(type="email")
    by_submit = await rung(rig, heard)
    await be_idle()
    await be_idle()
    await rig.submit(type="email", delay_ms=1)
    await rig.advance(1)
    await rig.promote()
    by_promoter = await rung(rig, heard)
    await be_idle()
    await be_idle()
    await rig.call("HDEL", "counters", "idle")
    await rig.submit(type="email")
    await rig.call("HSET", "counters", "idle", MAILER.digest)
    await rig.claim(1, types=RESIZER, worker="resizer")

    assert (by_submit, by_promoter) == ([("mailer", "email")], [("mailer", "email")])
    assert await rung(rig, heard) == [("mailer", "email")]


async def test_submit_rings_as_many_workers_as_there_are_jobs(rig: Rig) -> None:
    """Those that have claimed the longest ago, each once; a worker that has gone is passed over."""
    heard = await hear_rings(rig, "b", "c", "d")
    for worker in "abcd":
        await rig.claim(1, types=MAILER, worker=worker)
        await rig.advance(1)

    first = await rig.submit(type="email")
    once = await rung(rig, heard)
    await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="email", queue=rig.queue)] * 2)
    twice = await rung(rig, heard)
    await rig.submit(type="email")

    assert first
    assert (once, twice) == ([("b", "email")], [("c", "email"), ("d", "email")])
    assert await rung(rig, heard) == []


async def test_ring_that_is_passed_on_goes_to_another_worker(rig: Rig) -> None:
    """It is for the same type."""
    heard = await hear_rings(rig, "a", "b")
    await rig.claim(1, types=MAILER, worker="a")
    await rig.advance(1)
    await rig.claim(1, types=MAILER, worker="b")
    await rig.submit(type="email")

    await rig.store.lifecycle.pass_ring(rig.namespace, rig.queue, ["email"])

    assert await rung(rig, heard) == [("a", "email"), ("b", "email")]


@pytest.mark.parametrize("lose", ["types", "nothing"])
async def test_types_that_redis_has_lost_are_declared_again(rig: Rig, lose: str) -> None:
    """A claim is answered before anything is changed, and made once more."""
    await rig.claim(1, types=MAILER, worker="a")
    job_id = await rig.submit(type="email")
    await rig.store.link.call("DEL", f"{keys.queue(rig.namespace, rig.queue)}{lose}:{MAILER.digest}")

    assert ids(await rig.claim(2, types=MAILER, worker="a")) == [job_id]
    assert (await rig.get(job_id)).attempt == 1


async def test_limit_of_a_foreign_type_is_left_to_those_who_have_it(rig: Rig) -> None:
    """Twenty such limits that are due do not keep a worker from a limit of its own, and their jobs are not moved."""
    limits = rig.store.limits
    for at in range(20):
        await limits.set_limits(rig.namespace, rig.queue, f"email{at}", Limits(concurrency=1))
    await limits.set_limits(rig.namespace, rig.queue, "resize", Limits(concurrency=1))
    mailer = TypeSet([f"email{at}" for at in range(20)])
    waiting = {}
    for at in range(20):
        await rig.submit(type=f"email{at}")
        waiting[f"email{at}"] = await rig.submit(type=f"email{at}")
    running = await rig.claim(40, types=mailer, worker="mailer")
    await rig.submit(type="resize")
    own = await rig.submit(type="resize")
    (first,) = await rig.claim(9, types=RESIZER, worker="resizer")
    for job in (*running, first):
        await rig.settle(job.id, job.token, Move.COMPLETE)

    taken = []
    for _ in range(2):
        taken += await rig.claim(9, types=RESIZER, worker="resizer")
    left = await rig.get(waiting["email7"])
    theirs = await rig.claim(40, types=mailer, worker="mailer")

    assert ids(taken) == [own]
    assert left.parked_by == "concurrency:email7"
    assert sorted(ids(theirs)) == sorted(waiting.values())
    assert await rig.audit() == []


async def test_full_bulkheads_do_not_starve_limits(rig: Rig) -> None:
    """A claim passes over the bounds that are used up, however many there are, to the limits that may let a job start."""
    full = [Bound(f"full{at}", f"bulkhead:full{at}", 0, 0) for at in range(20)]
    await rig.store.limits.set_limits(rig.namespace, rig.queue, "email", Limits(concurrency=1))
    await rig.submit(type="email")
    (job,) = await rig.claim(1)
    waiting = await rig.submit(type="email")
    for at in range(20):
        await rig.submit(type=f"full{at}")
    await rig.claim(40, bounds=full)
    await rig.settle(job.id, job.token, Move.COMPLETE)

    claim = await rig.try_claim(40, bounds=full)

    assert ids(claim.jobs) == [waiting]
    assert sorted(claim.refused) == sorted(bound.by for bound in full)
    assert not claim.is_cut_short


async def test_jobs_of_a_foreign_type_are_cancelled_deleted_purged_and_counted(rig: Rig) -> None:
    """They are enqueued jobs like any other, and count in the length of the queue and the longest wait."""
    cancelled, deleted, *_ = [await rig.submit(type="email") for _ in range(4)]
    await rig.claim(9, types=RESIZER)
    before = await rig.store.query.queue_stats(rig.namespace, rig.queue)

    await rig.cancel(cancelled)
    await rig.store.lifecycle.delete(rig.namespace, deleted)
    after = await rig.store.query.queue_stats(rig.namespace, rig.queue)
    purged = await rig.store.lifecycle.purge(rig.namespace, rig.queue)

    assert (before.counts[JobState.ENQUEUED], before.parked, before.oldest_wait_ms is None) == (4, 4, False)
    assert (after.counts[JobState.ENQUEUED], purged) == (2, 2)
    assert await rig.audit() == []
    assert await rig.call("EXISTS", "foreign") == 0


async def test_audit_finds_a_line_of_a_type_that_nobody_would_look_into(rig: Rig) -> None:
    """It is made known again to the workers with the type."""
    job_id = await rig.submit(type="email")
    await rig.claim(1, types=RESIZER)
    await rig.call("DEL", "foreign")

    found = await rig.audit(repair=True)

    assert [finding.repaired for finding in found] == [True]
    assert ids(await rig.claim(1, types=MAILER)) == [job_id]


async def test_job_of_a_foreign_type_is_parked_from_a_breakers_line(rig: Rig) -> None:
    """Where a worker declares the breaker and has one of two types that it guards, jobs of the other do not stand in its way."""
    foreign = await rig.submit(type="resize")
    own = await rig.submit(type="email")
    bounds = [Bound(each, "breaker:smtp", 0, 0) for each in ("email", "resize")]
    await rig.claim(2, types=BOTH, bounds=bounds)

    jobs = await rig.claim(2, types=TypeSet(["email", "breaker:smtp"]))

    assert ids(jobs) == [own]
    assert (await rig.get(foreign)).parked_by == "type:resize"
    assert (await rig.store.query.queue_stats(rig.namespace, rig.queue)).parked == 1
    assert await rig.audit() == []


async def test_breakers_line_is_left_to_the_workers_with_its_types(rig: Rig) -> None:
    """A worker that has none of them does not move its jobs."""
    waiting = await rig.submit(type="resize")
    await rig.claim(1, types=RESIZER, bounds=[Bound("resize", "breaker:scaler", 0, 0)])

    assert await rig.claim(2, types=MAILER) == []
    assert (await rig.get(waiting)).parked_by == "breaker:scaler"
    assert ids(await rig.claim(2, types=TypeSet(["resize", "breaker:scaler"]))) == [waiting]


async def test_breakers_line_waits_for_a_worker_with_any_of_its_types(rig: Rig) -> None:
    """Where no worker declares the breaker any more, jobs of a type that nobody has do not keep those of another behind them."""
    first = await rig.submit(type="resize")
    await rig.advance(1)
    second = await rig.submit(type="email")
    await rig.claim(2, types=BOTH, bounds=[Bound(each, "breaker:smtp", 0, 0) for each in ("email", "resize")])

    nothing = await rig.claim(2, types=TypeSet(["report"]))
    jobs = await rig.claim(2, types=MAILER)

    assert nothing == []
    assert ids(jobs) == [second]
    assert (await rig.get(first)).parked_by == "type:resize"
    assert ids(await rig.claim(2, types=RESIZER)) == [first]
    assert await rig.audit() == []


async def test_type_whose_last_job_was_cancelled_is_forgotten(rig: Rig) -> None:
    """By the reaper, where no worker with the type comes that would find its line empty."""
    waiting, cancelled = await rig.submit(type="email"), await rig.submit(type="report")
    await rig.claim(1, types=RESIZER)
    await rig.cancel(cancelled)

    await rig.reap()
    known = await rig.call("SMEMBERS", "foreign")
    await rig.cancel(waiting)
    await rig.reap()

    assert known == [b"email"]
    assert await rig.call("EXISTS", "foreign") == 0
    assert await rig.call("ZCARD", "parked") == 0
    assert await rig.call("HEXISTS", "settings", "foreign") == 0
