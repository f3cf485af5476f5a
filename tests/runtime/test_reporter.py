"""What attempts say reaches the history in order, once, and before their outcome; nobody who must not wait waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio
import trio.testing

from gopher.errors import ScriptReplyError, StoreUnavailableError
from gopher.event import EventKind
from gopher.job import JobState, Move, Outcome
from gopher.runtime.relay import Relay
from gopher.runtime.reporter import MAX_WAITING_NOTES, Reporter
from gopher.runtime.scopes import CancelReason, Scopes
from gopher.runtime.settler import Settler
from gopher.store.history import Histories, HistoryEvent, Saying
from gopher.store.lifecycle import Settlement
from tests.runtime.parts import lose_lease, submit
from tests.runtime.rig import attempt_of
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.store import Store


class WilfulHistories(Histories):
    """The real one, whose reports a test may hold up, rob of their replies, or refuse.

    Attributes:
        batches: How many sayings each call had.
        lose: So many of the next calls are carried out, and their replies lost.
        refuse: A call with such a detail is refused, as one whose record is damaged.
        gate: Calls wait for it before they are sent.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.link)
        self.batches: list[int] = []
        self.lose = 0
        self.refuse: bytes | None = None
        self.gate = trio.Event()
        self.gate.set()

    async def report(self, namespace: str, queue: str, sayings: Sequence[Saying]) -> list[str]:
        self.batches.append(len(sayings))
        await self.gate.wait()
        if any(saying.detail == self.refuse for saying in sayings):
            raise ScriptReplyError("damaged")
        words = await super().report(namespace, queue, sayings)
        if self.lose:
            self.lose -= 1
            raise StoreUnavailableError("lost on purpose", outcome_unknown=True)
        return words


class Desk:
    """A reporter and a settler, and attempts that speak."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        self.histories = WilfulHistories(store)
        self.scopes = Scopes()
        self.reporter = Reporter(self.histories, self.scopes, namespace=namespace, queue="default")
        relay = Relay(store.outbox, namespace=namespace, queue="default", sweep_seconds=3600)
        self.settler = Settler(
            store.lifecycle, self.scopes, namespace=namespace, queue="default", relay=relay, on_change=lambda: None
        )

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.reporter.run)
        await nursery.start(self.settler.run)

    async def take(self) -> RunningAttempt:
        """Submit a job and claim it."""
        await submit(self.store, self.namespace, 1)
        claim = await self.store.lifecycle.claim(
            self.namespace, "default", worker="w", count=1, lease_ms=60_000, claim_id=f"{trio.current_time()}"
        )
        assert claim
        (job,) = claim.jobs
        attempt = attempt_of(job)
        self.scopes.add(attempt)
        return attempt

    async def log(self, attempt: RunningAttempt, text: str) -> None:
        await self.reporter.say(attempt, EventKind.LOG, "", text.encode())

    async def told(self, attempt: RunningAttempt) -> list[HistoryEvent]:
        return await self.histories.read(self.namespace, "default", attempt.job.id, after=0, count=10_000)

    async def details(self, attempt: RunningAttempt) -> list[str]:
        """Return what was said, in the order of the history."""
        return [event.detail.decode() for event in await self.told(attempt) if event.kind is not EventKind.STATE]


@pytest.fixture
def desk(store: Store, namespace: str) -> Desk:
    """A reporter on the shared redis-server."""
    return Desk(store, namespace)


async def test_saying_is_kept_when_it_returns(desk: Desk, nursery: trio.Nursery) -> None:
    """A handler that goes on knows that its watchers can read it."""
    attempt = await desk.take()
    await desk.start(nursery)

    await desk.log(attempt, "info hello")

    assert await desk.details(attempt) == ["info hello"]


async def test_sayings_of_many_share_calls_and_keep_their_order(desk: Desk, nursery: trio.Nursery) -> None:
    """While one call is under way all that comes waits for the next, 100 at most."""
    first, second = await desk.take(), await desk.take()
    desk.histories.gate = trio.Event()
    await desk.start(nursery)

    async with trio.open_nursery() as talking:
        for number in range(120):
            for attempt in (first, second):
                talking.start_soon(desk.log, attempt, f"info {number}")
        await trio.testing.wait_all_tasks_blocked()
        desk.histories.gate.set()

    assert len(desk.histories.batches) <= 4
    assert max(desk.histories.batches) == 100
    for attempt in (first, second):
        numbers = [event.sequence for event in await desk.told(attempt)]
        assert numbers == list(range(1, 123))
        assert sorted(await desk.details(attempt)) == sorted(f"info {number}" for number in range(120))


async def test_saying_whose_reply_is_lost_is_kept_once(desk: Desk, nursery: trio.Nursery) -> None:
    """It is said again until it is known to be kept."""
    attempt = await desk.take()
    await desk.start(nursery)
    desk.histories.lose = 2

    await desk.log(attempt, "info 1")
    await desk.log(attempt, "info 2")

    assert await desk.details(attempt) == ["info 1", "info 2"]
    assert len(desk.histories.batches) == 4


async def test_outcome_waits_for_all_that_was_said(desk: Desk, nursery: trio.Nursery) -> None:
    """Notes and sayings whose author was cancelled stand in the history before the end."""
    attempt = await desk.take()
    job = attempt.job
    desk.histories.gate = trio.Event()
    await desk.start(nursery)
    with trio.move_on_after(0):
        await desk.log(attempt, "info last words")
    desk.reporter.note_nowait(attempt, "CLEANUP_CUT", "it took too long")
    desk.reporter.child_nowait(attempt, job.id, "email", JobState.ENQUEUED)

    desk.settler.put_nowait(attempt, Settlement(job.id, job.token, Move.COMPLETE, Outcome.SUCCEEDED, result=b"1"))
    await trio.testing.wait_all_tasks_blocked()
    before = await desk.store.query.get(desk.namespace, job.id)
    desk.histories.gate.set()
    await until(lambda: len(desk.scopes) == 0)

    assert before.state is JobState.PROCESSING
    events = await desk.told(attempt)
    assert [event.kind.value for event in events] == ["state", "state", "log", "notice", "child", "state"]
    assert [event.detail for event in events[2:5]] == [
        b"info last words",
        b"CLEANUP_CUT it took too long",
        f"{job.id} email enqueued".encode(),
    ]
    assert events[-1].state is JobState.COMPLETED


async def test_saying_under_a_lost_lease_ends_the_attempt(desk: Desk, nursery: trio.Nursery) -> None:
    """Nothing is kept of what it says."""
    attempt = await desk.take()
    await desk.start(nursery)
    await lose_lease(desk.store, await desk.store.query.get(desk.namespace, attempt.job.id))

    await desk.log(attempt, "info from beyond")

    assert attempt.cancel_reason is CancelReason.LEASE_LOST
    assert await desk.details(attempt) == []


async def test_saying_that_redis_refuses_is_its_authors_error_alone(desk: Desk, nursery: trio.Nursery) -> None:
    """Those beside it are kept."""
    first, second = await desk.take(), await desk.take()
    desk.histories.refuse = b"info bad"
    desk.histories.gate = trio.Event()
    await desk.start(nursery)

    async with trio.open_nursery() as talking:
        talking.start_soon(desk.log, second, "info good")
        await trio.testing.wait_all_tasks_blocked()
        desk.reporter.note_nowait(second, "STUCK", "still")
        desk.histories.gate.set()
        with pytest.raises(ScriptReplyError):
            await desk.log(first, "info bad")

    await desk.log(second, "info after")
    assert await desk.details(second) == ["info good", "STUCK still", "info after"]


async def test_notes_that_nobody_can_write_are_dropped_beyond_a_bound(desk: Desk, nursery: trio.Nursery) -> None:
    """They never block, and never fill the memory; the log says what is missing."""
    attempt = await desk.take()
    desk.histories.gate = trio.Event()
    await desk.start(nursery)

    with structlog.testing.capture_logs() as logs:
        for number in range(MAX_WAITING_NOTES + 1):
            desk.reporter.note_nowait(attempt, "STUCK", f"{number}")
    desk.histories.gate.set()
    await desk.log(attempt, "info end")

    assert [line["event"] for line in logs] == ["note.dropped"]
    assert len(await desk.details(attempt)) == MAX_WAITING_NOTES + 1
