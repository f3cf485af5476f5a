from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.errors import StoreUnavailableError
from gopher.runtime.keeper import Keeper
from gopher.runtime.relief import Relief
from gopher.runtime.scopes import CancelReason, RunningAttempt, Scopes
from gopher.store import keys
from gopher.store.leases import Leases
from gopher.store.registry import WorkerDescription
from gopher.store.store import Store
from tests.runtime.parts import lose_lease, submit
from tests.runtime.rig import attempt_of, claimed_job
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gopher.store.leases import LeaseFinding
    from tests.redis_server import RedisServer

WORKER: Final = "worker-1"
LEASE_SECONDS: Final = 30.0
SHORT_LEASE_SECONDS: Final = 3.0

pytestmark = pytest.mark.leaves_keys  # jobs are left processing: what is tested is their lease


def describe() -> WorkerDescription:
    return WorkerDescription(
        host="h",
        pid=1,
        version="0",
        queues={"default": 1},
        types=["work"],
        slots=1,
        busy=0,
        started_ms=0,
        draining=False,
        stuck=[],
    )


class Desk:
    """A keeper, the attempts whose leases it keeps, and what it says.

    Attributes:
        lost: When each attempt was said to be lost, by `time.monotonic()`, by job id.
        cancels: Each cancel that was brought back: job id, token, grace in seconds.
        drains: The grace of each order to drain that was brought back, in seconds.
        is_blocked: Whether the loop is taken for blocked.
        under_way: Queue and id of the claim that is taken to be on its way.
    """

    def __init__(self, store: Store, url: str, namespace: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store = store
        self.namespace = namespace
        self.lease_seconds = lease_seconds
        self.scopes = Scopes()
        self.lost: dict[str, float] = {}
        self.cancels: list[tuple[str, int, float]] = []
        self.drains: list[float | None] = []
        self.is_blocked = False
        self.under_way: tuple[str, str] | None = None
        self.leases = Leases(url, namespace=namespace, reply_seconds=lease_seconds / 4)
        self.keeper = self.new_keeper(self.leases)

    def new_keeper(self, leases: Leases) -> Keeper:
        return Keeper(
            leases,
            self.scopes,
            worker=WORKER,
            lease_seconds=self.lease_seconds,
            describe=describe,
            on_lost=self._lose,
            on_cancel=lambda *finding: self.cancels.append(finding),
            on_drain=self.drains.append,
            is_blocked=lambda: self.is_blocked,
            relief=Relief(leases, self.scopes, worker="w", under_way=lambda: self.under_way),
        )

    def _lose(self, attempt: RunningAttempt) -> None:
        self.lost.setdefault(attempt.job.id, time.monotonic())
        self.scopes.lose_lease(attempt)

    async def claim(self, count: int = 1) -> list[RunningAttempt]:
        await submit(self.store, self.namespace, count)
        until = time.monotonic() + self.lease_seconds
        claim = await self.store.lifecycle.claim(
            self.namespace, "default", worker="w", count=count, lease_ms=round(self.lease_seconds * 1000), claim_id="claim"
        )
        assert claim is not None
        attempts = [RunningAttempt(job, "default", until) for job in claim.jobs]
        for attempt in attempts:
            self.scopes.add(attempt)
        return attempts

    async def lease_ms(self, attempt: RunningAttempt) -> int | None:
        return (await self.store.query.get(self.namespace, attempt.job.id)).lease_ms

    async def states(self) -> dict[str, tuple[str, int]]:
        """Return state and attempt of each job that is held here, by its id."""
        ids = [attempt.job.id for attempt in self.scopes.snapshot()]
        jobs = [await self.store.query.get(self.namespace, job_id) for job_id in ids]
        return {job.id: (job.state.value, job.attempt) for job in jobs}


@pytest.fixture
def desk(store: Store, redis_url: str, namespace: str) -> Iterator[Desk]:
    """A keeper on the shared redis-server, to be ticked by hand."""
    made = Desk(store, redis_url, namespace)
    yield made
    made.leases.close()


async def test_keeper_moves_leases_forward(desk: Desk) -> None:
    """A tick extends every lease, in Redis and in the worker's own view; more than a script call takes are no matter."""
    attempts = await desk.claim(100)
    strays = [attempt_of(claimed_job()) for _ in range(50)]
    for stray in strays:
        desk.scopes.add(stray)
    await desk.store.link.call("ZADD", f"{keys.queue(desk.namespace, 'default')}processing", "XX", 9, attempts[0].job.id)
    before = [attempt.lease_until for attempt in attempts]

    desk.keeper.tick()

    assert all(attempt.lease_until > was for attempt, was in zip(attempts, before, strict=True))
    lease_ms = await desk.lease_ms(attempts[0])
    assert lease_ms is not None
    assert lease_ms > 9
    assert desk.lost.keys() == {stray.job.id for stray in strays}


async def test_keeper_finds_a_lost_lease(desk: Desk) -> None:
    """An attempt whose job was taken back is ended; the others are not."""
    lost, kept = await desk.claim(2)
    await lose_lease(desk.store, await desk.store.query.get(desk.namespace, lost.job.id))

    desk.keeper.tick()

    assert lost.cancel_reason is CancelReason.LEASE_LOST
    assert kept.cancel_reason is None


async def test_keeper_ends_no_attempt_that_has_ended_by_itself(desk: Desk) -> None:
    """Between its last line and its outcome's way to Redis an attempt has no lease to lose."""
    (attempt,) = await desk.claim()
    await lose_lease(desk.store, await desk.store.query.get(desk.namespace, attempt.job.id))
    attempt.is_over = True

    desk.keeper.tick()

    assert desk.lost == {}


async def test_keeper_brings_a_cancel_back(desk: Desk) -> None:
    """A cancel whose push was missed is found with the next extension, with its grace."""
    (attempt,) = await desk.claim()
    await desk.store.lifecycle.cancel(desk.namespace, attempt.job.id, reason="not wanted", grace_ms=1500)

    desk.keeper.tick()

    assert desk.cancels == [(attempt.job.id, attempt.job.token, 1.5)]
    assert desk.lost == {}


@pytest.mark.parametrize("reason", [None, CancelReason.REQUESTED])
async def test_keeper_tells_the_displaced_attempt_from_its_successor(desk: Desk, reason: CancelReason | None) -> None:
    """A job that the worker has lost and claimed again has one lease: that of the later attempt, which is kept."""
    (former,) = await desk.claim()
    if reason is not None:
        former.cancel(reason)
    await lose_lease(desk.store, await desk.store.query.get(desk.namespace, former.job.id))
    claim = await desk.store.lifecycle.claim(
        desk.namespace, "default", worker="w", count=1, lease_ms=30_000, claim_id="claim-2"
    )
    assert claim is not None
    latter = attempt_of(claim.jobs[0])
    desk.scopes.add(latter)

    desk.keeper.tick()

    assert former.job.id == latter.job.id
    assert former.cancel_reason is (reason or CancelReason.LEASE_LOST)
    assert former.is_lost
    assert latter.cancel_reason is None
    assert desk.lost == {}


def test_keeper_takes_its_time_when_nothing_can_be_done(redis_url: str) -> None:
    """A handler that outlasts its cancel does not make the keeper's thread spin."""
    desk = Desk(None, redis_url, "n")  # type: ignore[arg-type] # nothing is asked of it
    attempt = attempt_of(claimed_job(), lease_seconds=-100)
    attempt.cancel(CancelReason.LEASE_LOST)
    desk.scopes.add(attempt)

    assert desk.keeper._next_pause(10.0) == 10.0
    desk.leases.close()


def test_keeper_comes_back_before_a_lease_is_taken_for_lost(redis_url: str) -> None:
    """The next look is never later than the moment at which an attempt must be given up."""
    desk = Desk(None, redis_url, "n")  # type: ignore[arg-type] # nothing is asked of it
    desk.scopes.add(attempt_of(claimed_job(), lease_seconds=5.0))

    assert 1.5 < desk.keeper._next_pause(10.0) <= 2.0
    desk.leases.close()


async def test_keeper_signs_on_and_off(desk: Desk, nursery: trio.Nursery) -> None:
    """While it runs the worker stands in the register; afterwards it does not, and the thread has ended."""
    scope = trio.CancelScope()
    gone = trio.Event()

    async def keep() -> None:
        with scope:
            await desk.keeper.run()
        gone.set()

    async def is_there() -> bool:
        return [worker.id for worker in await desk.store.registry.workers(desk.namespace)] == [WORKER]

    nursery.start_soon(keep)
    await until_async(is_there)
    scope.cancel()
    await gone.wait()

    assert await desk.store.registry.workers(desk.namespace) == []
    # Its last words are that it ends; a moment later it has.
    await until(lambda: "gopher-keeper" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_worker_does_not_outlive_its_keeper(desk: Desk) -> None:
    """When the thread dies of a defect the worker ends with it, rather than run jobs whose leases nobody keeps."""

    class BrokenLeases(Leases):
        def extend(self, queue: str, leases: Sequence[tuple[str, int]], lease_ms: int) -> list[LeaseFinding]:
            raise LookupError("a defect")

    await desk.claim()
    keeper = desk.new_keeper(BrokenLeases("redis://127.0.0.1:1", namespace="n", reply_seconds=1.0))

    with pytest.raises(RuntimeError, match="the keeper's thread has ended"), trio.fail_after(10):
        await keeper.run()
    # Until then its defect might be told of in another test.
    await until(lambda: "gopher-keeper" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("how", ["gone", "silent"])
async def test_keeper_gives_attempts_up_before_their_leases_end(
    redis_server: RedisServer, nursery: trio.Nursery, how: str
) -> None:
    """When Redis is gone, or hangs, attempts go on while their leases stand and are ended in time, whatever the loop does."""
    store = Store(redis_server.url)
    await nursery.start(store.run)
    desk = Desk(store, redis_server.url, "n", lease_seconds=SHORT_LEASE_SECONDS)
    (attempt,) = await desk.claim()
    keeping = trio.CancelScope()

    async def keep() -> None:
        with keeping:
            await desk.keeper.run()

    extended = attempt.lease_until
    nursery.start_soon(keep)
    await until(lambda: attempt.lease_until > extended)
    pid = redis_server.pid
    redis_server.kill() if how == "gone" else os.kill(pid, signal.SIGSTOP)
    cut_off_at = time.monotonic()
    await until(lambda: bool(desk.lost))
    lost_at = desk.lost[attempt.job.id]
    if how == "silent":
        os.kill(pid, signal.SIGCONT)
    keeping.cancel()

    assert lost_at <= attempt.lease_until
    assert lost_at - cut_off_at >= SHORT_LEASE_SECONDS / 3
    assert attempt.cancel_reason is CancelReason.LEASE_LOST
    assert attempt.is_cut_off


async def test_keeper_asks_again_before_it_gives_up_after_a_long_stop(desk: Desk) -> None:
    """A worker that was stopped for longer than its lease, which nobody took, goes on as if nothing had been."""
    (attempt,) = await desk.claim()
    attempt.lease_until = time.monotonic() - 100

    desk.keeper.tick()

    assert attempt.cancel_reason is None
    assert attempt.lease_until > time.monotonic()


async def test_keeper_gives_up_first_when_it_was_cut_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once Redis has not answered, the attempts whose time is over are ended before it is asked again."""
    order: list[str] = []

    def fail(*args: object) -> None:
        order.append("asked")
        raise StoreUnavailableError("gone")

    (attempt,) = await desk.claim()
    monkeypatch.setattr(desk.leases, "extend", fail)
    desk.keeper.tick()
    attempt.lease_until = time.monotonic()
    monkeypatch.setattr(desk.scopes, "lose_lease", lambda attempt: order.append("given up"))
    desk.keeper.tick()

    assert order[:3] == ["asked", "given up", "asked"]


async def test_order_to_drain_is_found_with_the_next_beat(desk: Desk) -> None:
    """Without any message: with the grace that was ordered, or none; and no other worker finds it."""
    desk.keeper.tick()
    await desk.store.registry.drain_worker(desk.namespace, WORKER, None)
    desk.keeper.tick()
    await desk.store.registry.drain_worker(desk.namespace, WORKER, 1500)
    desk.keeper.tick()
    other = desk.leases.beat("other", b"{}", 1000)
    desk.leases.beat(WORKER, b"{}", 0)

    assert desk.drains == [None, 1.5]
    assert other is None
    assert [key.decode() for key in await desk.store.link.call("HKEYS", keys.workers(desk.namespace))] == ["other"]


async def test_keeper_gives_back_what_has_not_begun_while_the_loop_is_blocked(desk: Desk) -> None:
    """At once and unspent; what runs keeps its lease, and nothing is given back while the loop goes on."""
    runs, waits = await desk.claim(2)
    runs.begin(trio.CancelScope())

    desk.keeper.tick()
    before = await desk.states()
    desk.is_blocked = True
    desk.keeper.tick()
    after = await desk.states()

    assert before == {runs.job.id: ("processing", 1), waits.job.id: ("processing", 1)}
    assert after == {runs.job.id: ("processing", 1), waits.job.id: ("enqueued", 0)}
    assert (runs.cancel_reason, waits.cancel_reason) == (None, CancelReason.GIVEN_BACK)
    assert desk.lost == {}


def test_keeper_beats_every_second_while_the_loop_is_blocked(redis_url: str) -> None:
    """So that an operator sees for how long, to the second, however long the lease."""
    desk = Desk(None, redis_url, "n")  # type: ignore[arg-type] # nothing is asked of it
    desk.is_blocked = True

    assert desk.keeper._next_pause(10.0) == 1.0
    desk.leases.close()


async def test_hastened_keeper_does_not_wait_for_its_next_beat(desk: Desk, nursery: trio.Nursery) -> None:
    """It comes back at once, a third of a lease of half a minute before its time."""
    (attempt,) = await desk.claim()
    claimed = attempt.lease_until
    nursery.start_soon(desk.keeper.run)
    await until(lambda: attempt.lease_until > claimed)
    extended = attempt.lease_until

    desk.keeper.hasten()
    with trio.fail_after(LEASE_SECONDS / 3 - 1):
        await until(lambda: attempt.lease_until > extended)

    nursery.cancel_scope.cancel()
