from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher.job import MAX_CRASHES, Move
from gopher.runtime.scopes import CancelReason
from gopher.runtime.settler import Settler
from gopher.runtime.slots import Slots
from gopher.runtime.suspects import Suspects
from tests.runtime.rig import claimed_job

if TYPE_CHECKING:
    from gopher.runtime.scopes import RunningAttempt, Scopes
    from gopher.store.lifecycle import Settlement
    from tests.runtime.rig import Bench


class Tray(Settler):
    """Keeps outcomes until the test writes them."""

    def __init__(self, scopes: Scopes) -> None:
        self.waiting: list[tuple[RunningAttempt, Settlement]] = []
        self._of = scopes

    def put_nowait(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        self.waiting.append((attempt, settlement))

    def write(self) -> list[Settlement]:
        """Write what waits and return it."""
        written = [settlement for _, settlement in self.waiting]
        for attempt, _ in self.waiting:
            self._of.remove(attempt)
        self.waiting.clear()
        return written


async def announce(_attempt: RunningAttempt) -> None:
    """Have Redis note nothing."""
    await trio.lowlevel.checkpoint()


class Ward:
    """Suspects, the slots they run in, and what becomes of them.

    Attributes:
        begun: The ids of the jobs whose handlers have begun.
        finish: Lets the handlers return.
    """

    def __init__(self, bench: Bench, nursery: trio.Nursery) -> None:
        self.begun: list[str] = []
        self.finish = trio.Event()
        self.tray = Tray(bench.scopes)
        self._bench = bench
        self._slots = Slots(bench.runner, nursery)
        self._suspects = Suspects(bench.scopes, announce)

        @bench.handler
        async def work(job: object, payload: object) -> None:
            self.begun.append(job.id)  # type: ignore[attr-defined] # the test asks for no type
            await self.finish.wait()

    async def claim(self, count: int) -> list[RunningAttempt]:
        """Take in suspects as the claimer does."""
        attempts = [self._bench.take(claimed_job(record={"crashes": MAX_CRASHES - 1})) for _ in range(count)]
        self._suspects.take([(attempt, self.tray) for attempt in attempts], self._slots)
        self._slots.start_nowait()
        await trio.testing.wait_all_tasks_blocked()
        return attempts

    async def write(self) -> list[Settlement]:
        """Do what the settler does."""
        written = self.tray.write()
        self._suspects.review()
        await trio.testing.wait_all_tasks_blocked()
        return written


@pytest.fixture
async def ward(bench: Bench, nursery: trio.Nursery) -> Ward:
    """A worker's suspects."""
    return Ward(bench, nursery)


@pytest.mark.parametrize(("crashes", "expected"), [(None, False), (1, False), (MAX_CRASHES - 1, True)])
def test_suspect_is_a_job_with_one_crash_left(crashes: int | None, expected: bool) -> None:
    """A job that was lost with its worker so often that the next time ends it."""
    assert claimed_job(record={} if crashes is None else {"crashes": crashes}).is_suspect is expected


async def test_lone_suspect_runs_at_once(ward: Ward) -> None:
    """With no other in the worker's hands there is nothing to wait for."""
    (suspect,) = await ward.claim(1)

    assert ward.begun == [suspect.job.id]


async def test_of_several_suspects_one_runs_once_the_others_are_out_of_its_reach(ward: Ward) -> None:
    """The others are put off, unspent; until that is written they would still be lost with the first."""
    first, *others = await ward.claim(3)
    too_early = list(ward.begun)
    put_off = await ward.write()

    assert too_early == []
    assert ward.begun == [first.job.id]
    assert [(settlement.job_id, settlement.move) for settlement in put_off] == [
        (attempt.job.id, Move.SNOOZE) for attempt in others
    ]
    assert all(500 <= settlement.delay_ms <= 5000 for settlement in put_off)


async def test_suspects_are_put_off_while_one_runs(ward: Ward) -> None:
    """Until the outcome of the one that runs is written no other begins; then one does."""
    (first,) = await ward.claim(1)
    await ward.claim(1)
    await ward.write()
    ward.finish.set()
    await trio.testing.wait_all_tasks_blocked()
    await ward.claim(1)
    meanwhile = list(ward.begun)
    await ward.write()
    (last,) = await ward.claim(1)

    assert meanwhile == [first.job.id]
    assert ward.begun == [first.job.id, last.job.id]


@pytest.mark.parametrize(
    ("reason", "move"), [(CancelReason.REQUESTED, Move.ACKNOWLEDGE_CANCEL), (CancelReason.SHUTDOWN, Move.RELEASE)]
)
async def test_suspect_can_be_ended_while_it_waits(ward: Ward, reason: CancelReason, move: Move) -> None:
    """A cancel and a drain find the one that waits, and its handler never begins."""
    first, _ = await ward.claim(2)

    first.cancel(reason)
    await trio.testing.wait_all_tasks_blocked()
    moves = {settlement.job_id: settlement.move for settlement in await ward.write()}

    assert moves[first.job.id] is move
    assert ward.begun == []
