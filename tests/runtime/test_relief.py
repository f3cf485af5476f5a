"""What a worker whose loop is blocked gives back, and that none of it begins there afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher.errors import StoreUnavailableError
from gopher.job import Move
from gopher.runtime.relief import Relief
from gopher.runtime.scopes import CancelReason, RunningAttempt
from gopher.store.leases import Leases
from tests.runtime.parts import Parts, submit
from tests.runtime.rig import attempt_of
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gopher.store.store import Store
    from tests.runtime.rig import Bench

WORKER = "worker"


class Plight:
    """A worker whose loop is taken for blocked: what it has claimed, and who relieves it.

    Attributes:
        under_way: Queue and id of the claim that is on its way.
        ended: The attempts that the Trio thread is to end.
    """

    def __init__(self, store: Store, leases: Leases, namespace: str, bench: Bench) -> None:
        self.store = store
        self.namespace = namespace
        self.bench = bench
        self.under_way: tuple[str, str] | None = None
        self.ended: list[RunningAttempt] = []
        self.relief = Relief(leases, bench.scopes, worker=WORKER, under_way=lambda: self.under_way)

    def tick(self) -> None:
        self.relief.tick(self.ended.append)

    async def claim(self, count: int, claim_id: str = "claim", worker: str = WORKER) -> list[RunningAttempt]:
        """Claim as the worker does, up to the reply, which is not taken in."""
        claim = await self.store.lifecycle.claim(
            self.namespace, "default", worker=worker, count=count, lease_ms=30_000, claim_id=claim_id
        )
        assert claim is not None
        return [attempt_of(job) for job in claim.jobs]

    async def take(self, count: int) -> list[RunningAttempt]:
        """Submit jobs, claim them and take them in."""
        await submit(self.store, self.namespace, count)
        attempts = await self.claim(count)
        for attempt in attempts:
            self.bench.scopes.add(attempt)
        return attempts

    async def attempts(self, taken: Sequence[RunningAttempt]) -> list[tuple[str, int]]:
        """Return state and number of attempts of each job."""
        jobs = [await self.store.query.get(self.namespace, attempt.job.id) for attempt in taken]
        return [(job.state.value, job.attempt) for job in jobs]


@pytest.fixture
def leases(redis_url: str, namespace: str) -> Iterator[Leases]:
    """The keeper's connection."""
    made = Leases(redis_url, namespace=namespace, reply_seconds=10.0)
    yield made
    made.close()


@pytest.fixture
def plight(store: Store, leases: Leases, namespace: str, bench: Bench) -> Plight:
    """A worker in need."""
    return Plight(store, leases, namespace, bench)


async def begun(bench: Bench, attempt: RunningAttempt) -> bool:
    """Run an attempt as the slots do, and tell whether its handler began."""
    began: list[object] = []

    @bench.handler
    async def work(job: object, payload: object) -> None:  # noqa: ASYNC124 - it must not begin
        began.append(job)

    await bench.run_alone(attempt)
    return bool(began)


async def test_what_has_not_begun_is_given_back_and_does_not_begin(plight: Plight, bench: Bench) -> None:
    """Another worker has it at once, with its attempt unspent, while what had begun goes on here."""
    runs, waits = await plight.take(2)
    runs.begin(trio.CancelScope())

    plight.tick()
    states = await plight.attempts([runs, waits])
    (again,) = await plight.claim(2, "other", "another")
    began = await begun(bench, waits)

    assert states == [("processing", 1), ("enqueued", 0)]
    assert (again.job.id, again.job.attempt) == (waits.job.id, 1)
    assert plight.ended == [waits]
    assert not began
    assert [(each.job_id, each.token, each.move) for each in bench.handed.settlements] == [
        (waits.job.id, waits.job.token, Move.RELEASE)
    ]
    assert again.job.token > waits.job.token


async def test_attempt_that_waits_to_begin_is_given_back(plight: Plight, bench: Bench, nursery: trio.Nursery) -> None:
    """Whether the Trio thread ends it first, or what it waited for comes first."""

    @bench.handler
    async def work(job: object, payload: object) -> None:  # noqa: ASYNC124 - likewise
        raise AssertionError

    told, untold = await plight.take(2)
    for attempt in (told, untold):
        attempt.may_begin = trio.Event()
        nursery.start_soon(bench.run_alone, attempt)
    await trio.testing.wait_all_tasks_blocked()

    plight.tick()
    states = await plight.attempts([told, untold])
    told.cancel(CancelReason.GIVEN_BACK)
    assert untold.may_begin is not None
    untold.may_begin.set()
    await trio.testing.wait_all_tasks_blocked()

    assert states == [("enqueued", 0), ("enqueued", 0)]
    assert [each.move for each in bench.handed.settlements] == [Move.RELEASE, Move.RELEASE]
    assert {told.began_at, untold.began_at} == {None}


async def test_claim_whose_reply_lies_unread_is_given_back(plight: Plight, bench: Bench) -> None:
    """What it took runs elsewhere, and does not begin here when the reply is read at last."""
    await submit(plight.store, plight.namespace, 3)
    taken = await plight.claim(3)
    plight.under_way = ("default", "claim")

    plight.tick()
    states = await plight.attempts(taken)
    for attempt in taken:
        bench.scopes.add(attempt)
    began = [await begun(bench, taken[0])]

    assert states == [("enqueued", 0)] * 3
    assert [attempt.is_given_back for attempt in taken] == [True] * 3
    assert began == [False]
    assert plight.ended == []


async def test_nothing_is_given_back_of_a_claim_that_is_not_the_last(plight: Plight) -> None:
    """A claim that has not come to Redis yet took nothing, and the one before it is known."""
    await submit(plight.store, plight.namespace, 1)
    taken = await plight.claim(1)
    plight.under_way = ("default", "a later one")

    plight.tick()

    assert await plight.attempts(taken) == [("processing", 1)]


def test_attempt_that_begins_at_that_moment_is_not_given_back(bench: Bench) -> None:
    """Of both threads the one that comes second sees what the other has done; where both see it the handler does not begin."""
    attempt = bench.take()
    attempt.begin(trio.CancelScope())
    too_late = attempt.give_back()
    kept = attempt.is_given_back
    bench.scopes.add(unseen := attempt_of(attempt.job))

    assert (too_late, kept) == (False, False)
    assert not bench.scopes.give_back_unseen(unseen.job.id, unseen.job.token)
    assert not attempt_of(attempt.job).has_begun


async def test_what_redis_did_not_hear_is_told_again(plight: Plight, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that was marked does not begin, so its job is given back though the first call for it failed."""
    taken = await plight.take(2)
    release = leases.release

    def fail(queue: str, given: Sequence[tuple[str, int]]) -> None:
        monkeypatch.setattr(leases, "release", release)
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(leases, "release", fail)
    with pytest.raises(StoreUnavailableError):
        plight.tick()
    states = await plight.attempts(taken)
    plight.tick()

    assert states == [("processing", 1)] * 2
    assert await plight.attempts(taken) == [("enqueued", 0)] * 2
    assert plight.ended == taken


async def test_given_back_job_that_was_cancelled_is_cancelled(plight: Plight) -> None:
    """It is not offered to anybody else."""
    (attempt,) = await plight.take(1)
    await plight.store.lifecycle.cancel(plight.namespace, attempt.job.id, reason="not wanted", grace_ms=1000)

    plight.tick()

    assert await plight.attempts([attempt]) == [("cancelled", 1)]


async def test_claimer_tells_of_the_claim_that_is_on_its_way(
    store: Store, namespace: str, bench: Bench, nursery: trio.Nursery
) -> None:
    """From before it is sent until its reply is taken in."""
    parts = Parts(store, namespace, bench, nursery)
    parts.lifecycle.gate = trio.Event()
    before = parts.claimer.under_way
    nursery.start_soon(parts.claim)
    await trio.testing.wait_all_tasks_blocked()
    meanwhile = parts.claimer.under_way
    parts.lifecycle.gate.set()
    await until(lambda: parts.claimer.under_way is None)

    assert (before, meanwhile) == (None, parts.lifecycle.claims[0])
