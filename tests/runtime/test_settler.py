from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio
import trio.testing

from gopher.job import Failure, JobState, Move, NewJob, Outcome
from gopher.runtime.relay import Relay
from gopher.runtime.scopes import Scopes
from gopher.runtime.settler import Settler
from gopher.store import keys
from gopher.store.codec import encode_failure
from gopher.store.ids import IdSource
from gopher.store.lifecycle import Settlement
from gopher.store.outbox import pack
from gopher.store.store import Store
from gopher.telemetry import log
from tests.runtime.parts import WilfulLifecycle, lose_lease, submit
from tests.runtime.rig import attempt_of
from tests.waiting import until

if TYPE_CHECKING:
    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.outbox import Child
    from tests.redis_server import RedisServer


class Line:
    """A settler, and attempts whose outcomes it is to write."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        self.lifecycle = WilfulLifecycle(store)
        self.scopes = Scopes()
        self.ids = IdSource()
        self.relay = Relay(store.outbox, namespace=namespace, queue="default", sweep_seconds=3600)
        self.settler = Settler(
            self.lifecycle, self.scopes, namespace=namespace, queue="default", relay=self.relay, on_change=lambda: None
        )

    async def claim(self, count: int) -> list[RunningAttempt]:
        """Submit jobs and claim them."""
        await submit(self.store, self.namespace, count)
        attempts: list[RunningAttempt] = []
        while len(attempts) < count:
            claim = await self.store.lifecycle.claim(
                self.namespace, "default", worker="w", count=100, lease_ms=60_000, claim_id=f"claim-{len(attempts)}"
            )
            assert claim
            attempts += [attempt_of(job) for job in claim.jobs]
        for attempt in attempts:
            self.scopes.add(attempt)
        return attempts

    def complete(self, attempt: RunningAttempt) -> None:
        job = attempt.job
        self.settler.put_nowait(attempt, Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, result=b"1"))

    async def state(self, attempt: RunningAttempt) -> JobState:
        return (await self.store.query.get(self.namespace, attempt.job.id)).state


@pytest.fixture
def line(store: Store, namespace: str) -> Line:
    """A settler on the shared redis-server."""
    return Line(store, namespace)


async def test_settler_writes_a_lone_outcome_at_once(line: Line, nursery: trio.Nursery) -> None:
    """An idle worker waits for nobody to share a call with."""
    (attempt,) = await line.claim(1)
    await nursery.start(line.settler.run)

    line.complete(attempt)
    await until(lambda: len(line.scopes) == 0)

    assert line.lifecycle.settles == [1]
    assert await line.state(attempt) is JobState.COMPLETED


async def test_settler_writes_what_has_come_meanwhile_in_one_call(line: Line, nursery: trio.Nursery) -> None:
    """While a flush is on its way outcomes gather; the next takes them all, up to 100."""
    attempts = await line.claim(230)
    await nursery.start(line.settler.run)
    line.lifecycle.gate = trio.Event()

    for number, attempt in enumerate(attempts):
        line.complete(attempt)
        if number < 2:
            await trio.testing.wait_all_tasks_blocked()
    line.lifecycle.gate.set()
    await until(lambda: len(line.scopes) == 0)

    assert line.lifecycle.settles == [1, 100, 100, 29]


async def test_settler_keeps_an_attempt_until_its_outcome_is_written(line: Line, nursery: trio.Nursery) -> None:
    """Until then its lease is kept and its slot is taken."""
    (attempt,) = await line.claim(1)
    await nursery.start(line.settler.run)
    line.lifecycle.gate = trio.Event()

    line.complete(attempt)
    await trio.testing.wait_all_tasks_blocked()
    held = len(line.scopes)
    line.lifecycle.gate.set()
    await until(lambda: len(line.scopes) == 0)

    assert held == 1


async def test_settler_keeps_what_it_is_cancelled_in(line: Line) -> None:
    """A flush that is cut short loses no outcome: the next one writes it, and once."""
    (attempt,) = await line.claim(1)
    line.complete(attempt)
    line.lifecycle.gate = trio.Event()

    with trio.move_on_after(0) as scope:
        await line.settler.tick()
    line.lifecycle.gate.set()
    await line.settler.tick()

    assert scope.cancelled_caught
    assert line.lifecycle.settles == [1, 1]
    assert await line.state(attempt) is JobState.COMPLETED


async def test_settler_repeats_a_flush_whose_reply_was_lost(line: Line) -> None:
    """Whether it was carried out nobody knows; the repetition changes nothing and is no lost lease."""
    (attempt,) = await line.claim(1)
    line.lifecycle.lose = 2

    with structlog.testing.capture_logs() as logs:
        line.complete(attempt)
        await line.settler.tick()

    assert line.lifecycle.settles == [1, 1, 1]
    assert [entry["event"] for entry in logs] == ["settle.delayed"] * 2
    assert len(line.scopes) == 0
    assert await line.state(attempt) is JobState.COMPLETED


@pytest.mark.leaves_keys
@pytest.mark.parametrize("is_cut_off", [False, True])
async def test_settler_takes_the_crash_back_of_an_attempt_that_was_cut_off(line: Line, is_cut_off: bool) -> None:
    """A job whose lease ended while its worker could not reach Redis is charged no crash; a lease lost otherwise stays one."""
    (attempt,) = await line.claim(1)
    await lose_lease(line.store, await line.store.query.get(line.namespace, attempt.job.id))
    attempt.is_cut_off = is_cut_off
    line.complete(attempt)

    await line.settler.tick()

    job = await line.store.query.get(line.namespace, attempt.job.id)
    assert (job.state, job.crashes) == (JobState.ENQUEUED, 0 if is_cut_off else 1)


@pytest.mark.leaves_keys
async def test_settler_gives_up_an_outcome_that_cannot_be_written(line: Line) -> None:
    """A job whose record is damaged holds up nobody else's outcome: it is told of, and left to the reaper."""
    good, bad, last = await line.claim(3)
    await line.store.link.call("HDEL", f"{keys.queue(line.namespace, 'default')}job:{bad.job.id}", "submitted_ms")

    with structlog.testing.capture_logs() as logs:
        line.complete(good)
        line.settler.put_nowait(bad, Settlement(bad.job.id, bad.job.token, Move.RELEASE, Outcome.CANCELLED))
        line.complete(last)
        await line.settler.tick()

    assert [(entry["event"], entry["job_id"]) for entry in logs] == [("settle.refused", bad.job.id)]
    assert len(line.scopes) == 0
    assert [await line.state(attempt) for attempt in (good, last)] == [JobState.COMPLETED] * 2


async def test_settler_reports_dead_letters_and_on_debug_what_has_succeeded(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new dead letter is a line for operators; that an attempt has succeeded is one for those who ask for all."""
    first, second, third = await line.claim(3)
    failure = encode_failure(Failure(reason="CARD_DECLINED", message="no"))
    buried = Settlement(first.job.id, first.job.token, Move.BURY, Outcome.RAISED, failure=failure)

    with structlog.testing.capture_logs() as logs:
        line.settler.put_nowait(first, buried)
        await line.settler.tick()
        line.complete(second)
        await line.settler.tick()
        monkeypatch.setattr(log, "is_debug", lambda: True)
        line.complete(third)
        await line.settler.tick()

    failed, succeeded = logs
    assert (failed["event"], failed["log_level"], failed["reason"]) == ("job.failed", "error", "CARD_DECLINED")
    assert (failed["job_id"], failed["type"]) == (first.job.id, first.job.type)
    assert (succeeded["event"], succeeded["log_level"], succeeded["job_id"]) == ("attempt.succeeded", "debug", third.job.id)


async def test_settler_tells_of_an_outcome_that_came_too_late(line: Line) -> None:
    """The outcome of an attempt whose lease was lost is refused, logged, and its slot is free."""
    late, in_time = await line.claim(2)
    await lose_lease(line.store, await line.store.query.get(line.namespace, late.job.id))

    with structlog.testing.capture_logs() as logs:
        line.complete(late)
        line.complete(in_time)
        await line.settler.tick()

    assert [(entry["event"], entry["job_id"]) for entry in logs] == [("lease.lost", late.job.id)]
    assert len(line.scopes) == 0
    assert await line.state(late) is JobState.ENQUEUED
    assert await line.state(in_time) is JobState.COMPLETED


async def test_settler_tries_again_until_redis_is_back(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Outcomes wait for Redis, in order, and are written under the tokens they were made with."""
    store = Store(redis_server.url)
    await nursery.start(store.run)
    line = Line(store, "n")
    attempts = await line.claim(3)
    await nursery.start(line.settler.run)

    redis_server.kill()
    for attempt in attempts:
        line.complete(attempt)
    await until(lambda: bool(line.lifecycle.settles))
    redis_server.start()
    await until(lambda: len(line.scopes) == 0)

    assert [await line.state(attempt) for attempt in attempts] == [JobState.COMPLETED] * 3


# --- attempts that have submitted jobs -------------------------------------------------------------------------------------------


async def with_children(line: Line, attempt: RunningAttempt, count: int, queue: str = "default", size: int = 1) -> list[Child]:
    """Complete an attempt that has submitted so many jobs; the queue `other` is not named yet."""
    job = attempt.job
    number = await line.store.registry.queue_number(line.namespace, queue) if queue == "default" else 1
    described = NewJob(type="work", queue=queue, payload=b"1" * size, parent_id=job.id)
    children = [pack(job.id, job.token, line.ids.new(number), described) for _ in range(count)]
    settlement = Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, result=b"1", children=tuple(children))
    line.settler.put_nowait(attempt, settlement)
    return children


async def test_call_writes_few_outcomes_where_these_have_many_children(line: Line, nursery: trio.Nursery) -> None:
    """What a call writes stays bounded in jobs and bytes, however many outcomes wait; a parent with too many goes alone."""
    attempts = await line.claim(8)
    for attempt, count in zip(attempts[:5], (40, 40, 40, 150, 0), strict=True):
        await with_children(line, attempt, count)
    for attempt in attempts[5:7]:
        await with_children(line, attempt, 3, size=250_000)
    line.complete(attempts[7])

    while len(line.settler):
        await line.settler.tick()
    await line.relay.tick()

    assert line.lifecycle.settles == [2, 1, 1, 2, 2]
    assert {await line.state(attempt) for attempt in attempts} == {JobState.COMPLETED}


@pytest.mark.parametrize("lost", [0, 1])
async def test_children_of_other_queues_go_to_the_relay_once_the_outcome_is_written(line: Line, lost: int) -> None:
    """Also when the reply to the first call was lost, and the second says ALREADY."""
    (attempt,) = await line.claim(1)
    line.lifecycle.lose = lost
    children = await with_children(line, attempt, 3, queue="other")

    await line.settler.tick()
    await line.relay.tick()

    assert not await line.store.link.call("EXISTS", keys.outbox(line.namespace, "default"))
    jobs: list[bytes] = await line.store.link.call("ZRANGE", f"{keys.queue(line.namespace, 'other')}enqueued:normal", 0, -1)
    assert [job_id.decode() for job_id in jobs] == [child.id for child in children]


async def test_children_of_a_lost_lease_go_nowhere(line: Line) -> None:
    """The relay is not told of them."""
    (attempt,) = await line.claim(1)
    await lose_lease(line.store, await line.store.query.get(line.namespace, attempt.job.id))
    await with_children(line, attempt, 1, queue="other")

    await line.settler.tick()
    await line.relay.tick()

    assert not await line.store.link.call("KEYS", f"{keys.queue(line.namespace, 'other')}*")
