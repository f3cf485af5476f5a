"""Rate and concurrency limits, by type, key and queue, as claims meet them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gopher.errors import QueueNotFoundError
from gopher.job import JobState, Move, Priority
from gopher.limits import Limits, PriorityRatio, RateLimit
from gopher.store.lifecycle import Bound
from tests.store.rig import LEASE_MS
from tests.waiting import until

if TYPE_CHECKING:
    from tests.store.rig import Rig

TEN_A_SECOND = Limits(rate=RateLimit(10))
WIDER = 1.02
"""As in lib/limits.lua."""


async def limit(rig: Rig, limits: Limits | None, type: str = "email") -> None:  # noqa: A002 - its name
    await rig.store.limits.set_limits(rig.namespace, rig.queue, type, limits)


async def submit_many(rig: Rig, count: int, **fields: object) -> list[str]:
    return [await rig.submit(**fields) for _ in range(count)]


async def starts_over(rig: Rig, steps: int, step_ms: int) -> list[int]:
    """Claim all there is at each step of the clock; return the moments of the starts, ms from the first step."""
    begin = rig.now_ms
    starts: list[int] = []
    for _ in range(steps):
        for worker in ("a", "b", "c", "d"):
            starts += [rig.now_ms - begin] * len(await rig.claim(100, worker=worker))
        await rig.advance(step_ms)
    return starts


def most_in_window(starts: list[int], period_ms: int) -> int:
    return max(sum(first <= other <= first + period_ms for other in starts) for first in starts)


async def test_rate_limit_is_never_exceeded_in_any_window(rig: Rig) -> None:
    """Whoever claims and whenever: 10/s are never 11 in a second, ends included, and what is allowed is started."""
    await limit(rig, TEN_A_SECOND)
    await submit_many(rig, 60)

    starts = await starts_over(rig, 500, 7)

    assert most_in_window(starts, 1000) == 10
    assert len(starts) >= 30
    assert await rig.audit() == []


@pytest.mark.parametrize(("period_ms", "count"), [(1000, 3), (60_000, 25), (3_600_000, 2)])
async def test_rate_limit_holds_for_any_period(rig: Rig, period_ms: int, count: int) -> None:
    """A minute and an hour are windows like a second."""
    await limit(rig, Limits(rate=RateLimit(count, period_ms)))
    await submit_many(rig, count * 3)

    starts = await starts_over(rig, 40, period_ms // 16)

    assert most_in_window(starts, period_ms) == count
    assert len(starts) == count * 3


async def test_burst_lets_start_no_more_than_count_and_burst(rig: Rig) -> None:
    """With a burst the limit is a token bucket: full at first, then refilled at the rate."""
    await limit(rig, Limits(rate=RateLimit(10, burst=5)))
    await submit_many(rig, 60)

    starts = await starts_over(rig, 300, 10)

    assert starts.count(0) == 5
    assert most_in_window(starts, 1000) <= 15
    assert 33 <= len(starts) <= 35


async def test_limited_jobs_are_parked_and_the_others_go_on(rig: Rig) -> None:
    """What a limit refuses stands apart, says why and since when; jobs behind it are claimed by the same call."""
    await limit(rig, Limits(rate=RateLimit(1)))
    limited = await submit_many(rig, 3)
    other = await rig.submit(type="report")

    claimed = [job.id for job in await rig.claim(10)]

    assert claimed == [limited[0], other]
    job = await rig.get(limited[1])
    assert (job.state, job.parked_by) == (JobState.ENQUEUED, "rate:email")
    stats = await rig.store.query.queue_stats(rig.namespace, rig.queue)
    assert (stats.parked, stats.counts[JobState.ENQUEUED], stats.enqueued[Priority.NORMAL]) == (2, 2, 0)
    assert await rig.audit() == []


async def test_promoter_is_told_when_a_limit_lets_start_again(rig: Rig) -> None:
    """Nobody polls: promote names the exact moment, and at that moment the job is given."""
    await limit(rig, Limits(rate=RateLimit(1)))
    await submit_many(rig, 2)
    await rig.claim(10)

    promotion = await rig.store.lifecycle.promote(rig.namespace, rig.queue)
    await rig.advance(1019)
    early = await rig.claim(10)
    await rig.advance(1)
    late = await rig.claim(10)

    assert promotion.next_seconds == pytest.approx(1.02)
    assert (len(early), len(late)) == (0, 1)


async def test_rate_limit_per_key_counts_each_key_alone(rig: Rig) -> None:
    """Each tenant has the whole rate; jobs without a key are not counted."""
    await limit(rig, Limits(rate_per_key=RateLimit(2)))
    for key in ("a", "b", "a b:{c}", None):
        await submit_many(rig, 3, **({} if key is None else {"limit_key": key}))

    keys = [(await rig.get(job.id)).limit_key for job in await rig.claim(100)]

    assert sorted(keys, key=str) == [None, None, None, "a", "a", "a b:{c}", "a b:{c}", "b", "b"]
    assert await rig.audit() == []


@pytest.mark.parametrize("move", [Move.COMPLETE, Move.RETRY, Move.BURY, Move.SNOOZE, Move.RELEASE])
async def test_concurrency_limit_frees_its_place_however_an_attempt_ends(rig: Rig, move: Move) -> None:
    """At most two run; whatever ends one of them lets the next start, and only one."""
    await limit(rig, Limits(concurrency=2))
    await submit_many(rig, 4)
    first, _ = await rig.claim(10)
    refused = await rig.claim(10)

    await rig.settle(first.id, first.token, move, delay_ms=LEASE_MS)
    let_in = await rig.claim(10)

    assert (len(refused), len(let_in)) == (0, 1)
    assert await rig.audit() == []


async def test_concurrency_limit_frees_the_place_of_a_lost_worker(rig: Rig) -> None:
    """The reaper gives back what the lost attempt held."""
    await limit(rig, Limits(concurrency=1))
    lost, waiting = await submit_many(rig, 2)
    await rig.claim(10)
    await rig.advance(LEASE_MS + 1)

    await rig.reap()
    again = await rig.claim(10)

    assert [job.id for job in again] in ([lost], [waiting])
    assert await rig.audit() == []


async def test_concurrency_limit_per_key(rig: Rig) -> None:
    """One job of each tenant at a time; a tenant's backlog keeps nobody else from running."""
    await limit(rig, Limits(concurrency_per_key=1))
    await submit_many(rig, 5, limit_key="big")
    await rig.submit(limit_key="small")

    claimed = await rig.claim(10)
    await rig.settle(claimed[0].id, claimed[0].token, Move.COMPLETE)
    after = await rig.claim(10)

    assert [(await rig.get(job.id)).limit_key for job in claimed] == ["big", "small"]
    assert [(await rig.get(job.id)).limit_key for job in after] == ["big"]
    assert await rig.audit() == []


async def test_limits_of_a_whole_queue(rig: Rig) -> None:
    """A queue as a whole can be limited too: its jobs wait in their lines, and are given when there is room."""
    await limit(rig, Limits(concurrency=3, rate=RateLimit(4)), "*")
    await submit_many(rig, 4)
    await submit_many(rig, 4, type="report")

    first = await rig.claim(10)
    await rig.settle(first[0].id, first[0].token, Move.COMPLETE)
    second = await rig.claim(10)
    await rig.settle(first[1].id, first[1].token, Move.COMPLETE)
    third = await rig.claim(10)
    await rig.advance(1020)
    fourth = await rig.claim(10)

    assert [len(jobs) for jobs in (first, second, third, fourth)] == [3, 1, 0, 1]
    assert await rig.audit() == []


async def test_parked_jobs_keep_their_order_and_the_priority_ratio(rig: Rig) -> None:
    """Let out, they come before younger ones, each priority by its share."""
    await limit(rig, Limits(concurrency=1))
    await rig.submit()
    (running,) = await rig.claim()
    by_priority = {p: await submit_many(rig, 6, priority=p) for p in Priority}
    await rig.claim(20)
    younger = await rig.submit(priority=Priority.HIGH)
    await limit(rig, None)
    await rig.settle(running.id, running.token, Move.COMPLETE)

    order = [job.id for job in await rig.claim(20)]

    assert [job for job in order if job in by_priority[Priority.LOW]] == by_priority[Priority.LOW]
    assert [job for job in order if job in by_priority[Priority.HIGH] or job == younger] == [
        *by_priority[Priority.HIGH],
        younger,
    ]
    assert sorted([(await rig.get(job)).priority for job in order[:6]]) == ["high"] * 3 + ["low"] + ["normal"] * 2
    assert await rig.audit() == []


async def test_operators_limits_stand_before_declared_ones(rig: Rig) -> None:
    """What an operator sets holds whole; taken back, what the handler declares holds again; a handler may declare nothing."""
    await rig.store.limits.declare(rig.namespace, rig.queue, {"email": Limits(concurrency=1), "report": Limits()})
    await limit(rig, Limits(concurrency=3))
    await submit_many(rig, 9)

    three = await rig.claim(20)
    await limit(rig, None)
    for job in three:
        await rig.settle(job.id, job.token, Move.COMPLETE)
    one = await rig.claim(20)
    await rig.store.limits.declare(rig.namespace, rig.queue, {"email": Limits()})
    rest = await rig.claim(20)

    assert [len(jobs) for jobs in (three, one, rest)] == [3, 1, 5]
    assert await rig.store.limits.rules(rig.namespace, rig.queue) == []


async def test_rules_of_an_unknown_queue_are_refused(rig: Rig) -> None:
    """There is nothing to show."""
    with pytest.raises(QueueNotFoundError):
        await rig.store.limits.rules(rig.namespace, "nowhere")


async def test_parked_jobs_can_be_cancelled_deleted_purged_and_expire(rig: Rig) -> None:
    """A job that is held back is an enqueued job: all that can be done to one can be done to it, and the count follows."""
    await limit(rig, Limits(concurrency=1))
    _, cancelled, deleted, expired, *purged = [
        await rig.submit(**({"deadline_ms": rig.now_ms + 50} if at == 3 else {})) for at in range(7)
    ]
    await rig.claim(10)

    await rig.cancel(cancelled)
    await rig.store.lifecycle.delete(rig.namespace, deleted)
    await rig.advance(60)
    await rig.promote()
    left = (await rig.store.query.queue_stats(rig.namespace, rig.queue)).parked
    count = await rig.store.lifecycle.purge(rig.namespace, rig.queue)

    assert (await rig.state(cancelled), await rig.state(expired)) == (JobState.CANCELLED, JobState.FAILED)
    assert (left, count) == (3, len(purged))
    assert (await rig.store.query.queue_stats(rig.namespace, rig.queue)).parked == 0
    assert await rig.audit() == []


async def test_lists_show_parked_jobs_page_by_page(rig: Rig) -> None:
    """Every job that waits is listed once, whatever holds it back."""
    await limit(rig, Limits(concurrency_per_key=1))
    ids = [await rig.submit(limit_key=f"k{at % 3}") for at in range(12)]
    await rig.claim(12)
    ids += [await rig.submit(limit_key="k0")]

    found: list[str] = []
    cursor = None
    while True:
        jobs, cursor = await rig.store.query.list_jobs(rig.namespace, state=JobState.ENQUEUED, size=2, cursor=cursor)
        found += [job.id for job in jobs]
        if cursor is None:
            break

    assert len(found) == len(set(found)) == 10
    assert set(found) == set(ids[3:])


async def test_bound_of_a_worker_parks_what_it_does_not_take(rig: Rig) -> None:
    """A worker that takes two more of a type gets two; another, which sets no bound, takes those it left."""
    ids = await submit_many(rig, 5)
    bound = Bound("email", "bulkhead:email", 2, 0)

    first = await rig.try_claim(10, bounds=[bound])
    none = await rig.try_claim(10, bounds=[bound._replace(room=0)])
    others = await rig.claim(10, worker="other")

    assert ([job.id for job in first.jobs], first.refused) == (ids[:2], ("bulkhead:email",))
    assert (none.jobs, none.refused) == ([], ("bulkhead:email",))
    assert [job.id for job in others] == ids[2:]
    assert await rig.audit() == []


async def test_bound_of_a_breaker_is_asked_again_at_its_moment(rig: Rig) -> None:
    """What an open breaker holds back is not offered before; two types may share one."""
    await rig.submit()
    await rig.submit(type="newsletter")
    until_ms = rig.now_ms + 10_000
    bounds = [Bound(job_type, "breaker:smtp", 0, until_ms) for job_type in ("email", "newsletter")]

    refused = await rig.try_claim(10, bounds=bounds)
    await rig.advance(9_999)
    early = await rig.claim(10)
    promotion = await rig.store.lifecycle.promote(rig.namespace, rig.queue)
    await rig.advance(1)
    due = await rig.claim(10)

    assert (refused.jobs, refused.refused) == ([], ("breaker:smtp",))
    assert (len(early), promotion.next_seconds, len(due)) == (0, 0.001, 2)


async def test_promoter_is_told_of_a_limit_though_another_is_due(rig: Rig) -> None:
    """A limit that claims may ask at any time hides none that has a moment of its own: that moment is published."""
    told: list[str] = []
    await rig.store.control.listen(rig.namespace, rig.queue, lambda word, rest: told.append(" ".join([word, *rest])))
    await submit_many(rig, 2)
    await rig.claim(1, bounds=[Bound("email", "bulkhead:email", 0, 0)])

    await rig.claim(2, bounds=[Bound("email", "breaker:smtp", 0, rig.now_ms + 500)])

    await until(lambda: f"due {rig.now_ms + 500}" in told)


async def test_priority_ratio_can_be_changed_while_work_goes_on(rig: Rig) -> None:
    """From the next claim on the shares are the new ones."""
    for priority in Priority:
        await submit_many(rig, 20, priority=priority)
    before = await rig.claim(6)

    await rig.store.limits.set_ratio(rig.namespace, rig.queue, PriorityRatio(high=1, normal=1, low=4))
    after = await rig.claim(6)

    async def count(jobs: list[str]) -> list[int]:
        found = [(await rig.get(job)).priority for job in jobs]
        return [found.count(priority) for priority in Priority]

    assert await count([job.id for job in before]) == [3, 2, 1]
    assert await count([job.id for job in after]) == [1, 1, 4]
    assert (await rig.store.query.queue_stats(rig.namespace, rig.queue)).ratio == PriorityRatio(high=1, normal=1, low=4)


async def test_big_parked_backlog_is_passed_by_in_bounded_steps(rig: Rig) -> None:
    """However many jobs of a limited type stand before it, each claim looks at a bounded number and the other job is found."""
    await limit(rig, Limits(concurrency=1))
    await submit_many(rig, 450)
    other = await rig.submit(type="report")

    claims = [[job.id for job in await rig.claim(10)] for _ in range(8)]

    assert any(other in claimed for claimed in claims)
    assert sum(map(len, claims)) == 2
    assert await rig.audit() == []


@given(high=st.integers(1, 20), normal=st.integers(1, 20), low=st.integers(1, 20))
@hypothesis_settings(max_examples=50)
def test_cycle_is_spread_and_says_its_ratio(high: int, normal: int, low: int) -> None:
    """Every priority has its share of the cycle, and the ratio can be read from it."""
    ratio = PriorityRatio(high=high, normal=normal, low=low)

    assert PriorityRatio.of_cycle(ratio.cycle()) == ratio


async def test_declaration_that_changes_nothing_asks_nothing_again(rig: Rig) -> None:
    """A worker that starts with the rules that hold leaves what is held back alone; another rule has it asked again."""
    declared = {"email": Limits(concurrency_per_key=1)}
    await rig.store.limits.declare(rig.namespace, rig.queue, declared)
    for _ in range(2):
        await rig.submit(limit_key="a")
    await rig.claim(2)
    held_back = await rig.call("ZRANGE", "parked", 0, -1, "WITHSCORES")

    await rig.store.limits.declare(rig.namespace, rig.queue, declared)
    unchanged = await rig.call("ZRANGE", "parked", 0, -1, "WITHSCORES")
    await rig.store.limits.declare(rig.namespace, rig.queue, {"email": Limits(concurrency_per_key=2)})
    changed = await rig.call("ZRANGE", "parked", 0, -1, "WITHSCORES")

    assert held_back == unchanged == [[b"concurrency:email:a", float("inf")]]
    assert changed == [[b"concurrency:email:a", float(rig.now_ms)]]


async def test_changed_rule_has_any_number_of_keys_asked_again(rig: Rig) -> None:
    """What is held back is read in slices, and none is left out."""
    held_back = [word for number in range(2_500) for word in ("+inf", f"concurrency:email:{number}")]
    await rig.call("ZADD", "parked", *held_back, "+inf", "concurrency:other:1")

    await rig.store.limits.set_limits(rig.namespace, rig.queue, "email", Limits(concurrency_per_key=2))

    assert await rig.call("ZCOUNT", "parked", "+inf", "+inf") == 1
    await rig.call("DEL", "parked")
