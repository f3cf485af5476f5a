"""Cancelled is cancelled: nothing of the job's task tree runs on, the record says so, and one of cancel and completion wins."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.client.trio_client import TrioClient
from gopher.errors import JobAlreadyFinalError
from gopher.job import JobState
from gopher.store import keys
from tests.e2e.apps.cancelled import RECORD_VARIABLE
from tests.programs import Program
from tests.waiting import PATIENCE_SECONDS, runs, until, until_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.farm import Farm

APP: Final = "tests.e2e.apps.cancelled:registry"
GRACE_SECONDS: Final = 2.0

RACES: Final = 10_000
LANES: Final = 4
LANE_BATCH: Final = 50
LONGEST_SECONDS: Final = 0.02

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


class Stage:
    """A `gopher dev` with the handlers of `tests.e2e.apps.cancelled`, and what these record."""

    def __init__(self, address: str, record: Path) -> None:
        self.address = address
        self._record = record

    def lines(self, word: str) -> list[str]:
        """Return what was recorded after a word."""
        found = [line.split() for line in self._record.read_text().splitlines()]
        return [" ".join(rest) for first, *rest in found if first == word]


@contextmanager
def staged(tmp_path: Path) -> Iterator[Stage]:
    record = tmp_path / "record"
    record.touch()
    environ = {**os.environ, RECORD_VARIABLE: str(record)}
    arguments = ["--app", APP, "--grpc", "127.0.0.1:0", "--http", "none", "--data-dir", str(tmp_path / "data"), "--lease", "1"]
    with Program("gopher.cli.main", "dev", *arguments, environ=environ) as program:
        yield Stage(program.wait_ready()["grpc"], record)
        assert program.stop() == 0, "".join(program.errors)


@pytest.fixture
def stage(redis_program: str, tmp_path: Path) -> Iterator[Stage]:
    """A system of the test's own."""
    with staged(tmp_path) as made:
        yield made


async def started(client: TrioClient, job_type: str, payload: object) -> str:
    """Submit a job and wait until its handler has said its first word."""
    job_id = await client.submit(job_type, payload)

    async def has_begun() -> bool:
        return (await client.get(job_id)).progress is not None

    await until_async(has_begun)
    return job_id


async def test_cancel_ends_the_whole_task_tree_and_answers_when_it_is_gone(stage: Stage, tmp_path: Path) -> None:
    """Nested nurseries, a process deaf to SIGTERM, a temporary file, a cleanup of a minute: all is over after a grace of 2 s."""
    file = tmp_path / "temporary"
    async with TrioClient(stage.address) as client:
        job_id = await started(client, "tree", str(file))
        was_there = file.exists()
        began = trio.current_time()
        job = await client.cancel(job_id, reason="no longer wanted", actor="ann@desk", grace=GRACE_SECONDS, wait=True)
        took_seconds = trio.current_time() - began
        left = file.exists(), [runs(int(pid)) for pid in stage.lines("pid")], stage.lines("left"), len(stage.lines("branch"))

    assert was_there
    assert left == (False, [False], [job_id], 15)
    assert job.state is JobState.CANCELLED
    assert (job.cancel_reason, job.cancel_actor) == ("no longer wanted", "ann@desk")
    assert [attempt.outcome.value for attempt in job.attempts] == ["cancelled"]
    assert GRACE_SECONDS * 0.9 <= took_seconds < GRACE_SECONDS + 10


@pytest.mark.parametrize("job_type", ["family", "daemon"])
async def test_cancel_ends_a_subprocess_with_all_it_has_started(stage: Stage, job_type: str) -> None:
    """A handler deaf to SIGTERM, its child, and a daemon that has left the group are gone when the answer comes."""
    async with TrioClient(stage.address) as client:
        job_id = await started(client, job_type, "deaf")
        pids = [int(pid) for pid in ((await client.get(job_id)).progress_message or "").split()]
        were_there = [runs(pid) for pid in pids]
        job = await client.cancel(job_id, grace=0.5, wait=True)

    assert were_there == [True, True]
    assert job.state is JobState.CANCELLED
    await until(lambda: not any(runs(pid) for pid in pids))


async def test_second_cancel_shortens_the_grace_of_the_first(stage: Stage, tmp_path: Path) -> None:
    """Whoever was given a minute for cleanup is cut when somebody else has less patience; the first one's words stay."""
    async with TrioClient(stage.address) as client:
        job_id = await started(client, "tree", str(tmp_path / "temporary"))
        first = await client.cancel(job_id, reason="first", actor="ann", grace=60)
        with trio.fail_after(PATIENCE_SECONDS):
            second = await client.cancel(job_id, reason="second", actor="bob", grace=0.2, wait=True)

    assert (first.state, second.state) == (JobState.PROCESSING, JobState.CANCELLED)
    assert (second.cancel_reason, second.cancel_actor) == ("first", "ann")


async def test_thread_is_awaited_or_left_behind_as_its_handler_says(stage: Stage, tmp_path: Path) -> None:
    """One job stays processing, stuck by name and line, until its thread returns; the other is cancelled, its thread unheard."""
    gate = tmp_path / "gate"
    async with TrioClient(stage.address) as client:
        held = await started(client, "stubborn-thread", str(gate))
        left = await started(client, "left-thread", str(gate))
        # What a handler says may be known here before its call has returned, which a cancel would then end.
        await until(lambda: set(stage.lines("up")) == {held, left})
        await client.cancel(held, grace=0)
        ended = await client.cancel(left, grace=0, wait=True)

        async def is_named() -> bool:
            (worker,) = await client.workers()
            return [each.job_id for each in worker.stuck_attempts] == [held]

        await until_async(is_named)
        (worker,) = await client.workers()
        meanwhile = await client.get(held)
        gate.touch()
        with trio.fail_after(PATIENCE_SECONDS):
            finished = await client.result(held, wait=PATIENCE_SECONDS)
        await until(lambda: stage.lines("refused") == [left])

    assert ended.state is JobState.CANCELLED
    assert (meanwhile.state, meanwhile.cancel_reason) == (JobState.PROCESSING, "")
    assert worker.stuck_attempts[0].type == "stubborn-thread"
    assert worker.stuck_attempts[0].hangs_at.endswith("in stubborn_thread")
    assert finished == "done"


async def test_cancel_of_a_parent_answers_when_its_children_have_ended(stage: Stage) -> None:
    """The children have the parent's grace for their cleanup, and the parent is cancelled after them."""
    async with TrioClient(stage.address) as client:
        job_id = await started(client, "parent", 5)
        await until(lambda: len(stage.lines("begun")) == 5)
        job = await client.cancel(job_id, grace=0.5, wait=True)
        children = [await client.get(each) for each in stage.lines("begun")]

    assert job.state is JobState.CANCELLED
    assert [(child.state, child.cancel_actor) for child in children] == [(JobState.CANCELLED, f"parent {job_id}")] * 5
    assert sorted(stage.lines("left")[:-1]) == sorted(child.id for child in children)
    assert stage.lines("left")[-1] == job_id


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_job_whose_cancel_is_pending_is_never_run_again(farm: Farm, tmp_path: Path, end: signal.Signals) -> None:
    """Its worker dies, or drains, while the handler still cleans up: the job is cancelled, and nobody else starts it."""
    record = tmp_path / "record"
    record.touch()
    variables = {RECORD_VARIABLE: str(record)}
    victim = await farm.worker(app=APP, lease_seconds=1.0, grace_seconds=0.1, variables=variables)
    (job_id,) = await farm.submit("slow-cleanup")
    await until(lambda: record.read_text() == f"begun {job_id}\n")
    await farm.store.lifecycle.cancel(farm.namespace, job_id, reason="enough", grace_ms=60_000, actor="ann")
    await until(lambda: f"cleaning {job_id}" in record.read_text())
    await farm.worker(app=APP, lease_seconds=1.0, variables=variables)

    victim.process.send_signal(end)
    (job,) = await farm.finals([job_id])

    assert (job.state, job.attempt, job.cancel_actor) == (JobState.CANCELLED, 1, "ann")
    assert record.read_text().count("begun") == 1
    assert await farm.findings() == []


# --- races ----------------------------------------------------------------------------------------------------------------------


class Races:
    """Cancels jobs at random moments of their short lives.

    Attributes:
        answers: The state that each cancel was answered.
        finals: The final states that were published, by job.
    """

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._random = random.Random(5)
        self.answers: dict[str, str] = {}
        self.finals: defaultdict[str, list[str]] = defaultdict(list)

    async def listen(self) -> None:
        await self._farm.store.link.subscribe(keys.events(self._farm.namespace, "default").encode(), self._hear)

    async def lane(self, count: int) -> None:
        """Submit jobs, a batch at a time, and cancel each once."""
        for _ in range(count // LANE_BATCH):
            ids = await self._farm.submit("race", LONGEST_SECONDS / 2, LANE_BATCH)
            async with trio.open_nursery() as nursery:
                for job_id in ids:
                    nursery.start_soon(self._cancel, job_id, self._random.random() * LONGEST_SECONDS)

    async def _cancel(self, job_id: str, after_seconds: float) -> None:
        await trio.sleep(after_seconds)
        try:
            state = await self._farm.store.lifecycle.cancel(
                self._farm.namespace, job_id, reason="race", grace_ms=5000, actor="racer"
            )
            self.answers[job_id] = state.value
        except JobAlreadyFinalError as error:
            self.answers[job_id] = error.metadata["state"]

    def _hear(self, message: bytes) -> None:
        for line in message.decode().splitlines()[1:]:
            job_id, state, *_ = line.split()
            if JobState(state).is_final:
                self.finals[job_id].append(state)


async def test_ten_thousand_races_of_cancel_and_completion_have_one_winner_each(farm: Farm, tmp_path: Path) -> None:
    """Each job has one final state, told once, and it is the one that its own handler has recorded."""
    record = tmp_path / "record"
    record.touch()
    races = Races(farm)
    await races.listen()
    await farm.worker("--concurrency", "100", app=APP, variables={RECORD_VARIABLE: str(record)})

    async with trio.open_nursery() as lanes:
        for _ in range(LANES):
            lanes.start_soon(races.lane, RACES // LANES)
    await until(lambda: len(races.finals) == RACES, within_seconds=2 * PATIENCE_SECONDS)
    states = {job.id: job.state.value for job in await farm.jobs(races.answers)}
    recorded = dict(line.split() for line in record.read_text().splitlines())

    assert len(recorded) == len(record.read_text().splitlines())
    assert {job_id: [state] for job_id, state in states.items()} == races.finals
    assert [job_id for job_id, state in states.items() if (state == "completed") != (recorded.get(job_id) == "returned")] == []
    assert [job_id for job_id, answer in races.answers.items() if answer not in {"processing", states[job_id]}] == []
    stats = await farm.store.query.queue_stats(farm.namespace, "default")
    told = Counter(states.values())
    assert stats.counts[JobState.COMPLETED] == told["completed"] > RACES / 100
    assert stats.counts[JobState.CANCELLED] == told["cancelled"] > RACES / 100
    assert await farm.findings() == []
