"""Why a job waits, as it is read from a real Redis."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from gopher.job import Failure, Move, NewJob, Outcome, Priority
from gopher.limits import Limits, RateLimit
from gopher.store import keys
from gopher.store.codec import encode_failure
from gopher.store.lifecycle import Bound, Settlement
from gopher.store.registry import WorkerDescription
from gopher.store.submission import SubmitReceipt
from gopher.waiting import WaitingKind, remedy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.codec import ClaimedJob
    from gopher.store.store import Store
    from gopher.waiting import WaitingReason

pytestmark = pytest.mark.leaves_keys  # jobs are left waiting, and workers in the register

FAR_MS = 9_999_999_999_999
WORKER = WorkerDescription(
    host="h",
    pid=1,
    version="1",
    queues={"default": 1},
    types=["email"],
    slots=2,
    busy=0,
    started_ms=0,
    draining=False,
    stuck=[],
)


class Scene:
    """A queue, and workers that stand in the register."""

    def __init__(self, store: Store, namespace: str) -> None:
        self.store = store
        self.namespace = namespace
        self._numbers = itertools.count()

    async def worker(self, **fields: object) -> None:
        """Have one more worker stand in the register."""
        said = msgspec.json.encode(msgspec.structs.replace(WORKER, **fields))
        await self.store.link.call("HSET", keys.workers(self.namespace), f"w{next(self._numbers)}", b"%d 1 %b" % (FAR_MS, said))

    async def submit(self, job_type: str = "email", **fields: object) -> str:
        job = NewJob(**{"type": job_type, **fields})  # type: ignore[arg-type] # the test names fields of NewJob
        (answer,) = await self.store.lifecycle.submit(self.namespace, [job])
        assert isinstance(answer, SubmitReceipt)
        return answer.job_id

    async def claim(self, count: int = 1, bounds: Sequence[Bound] = ()) -> list[ClaimedJob]:
        claim = await self.store.lifecycle.claim(
            self.namespace,
            "default",
            worker="w",
            count=count,
            lease_ms=60_000,
            claim_id=f"c{next(self._numbers)}",
            bounds=bounds,
        )
        return [] if claim is None else claim.jobs

    async def look(self, job_id: str) -> WaitingReason | None:
        return await self.store.waiting.explain(await self.store.query.get(self.namespace, job_id))

    async def reason(self, job_id: str) -> WaitingReason:
        found = await self.look(job_id)
        assert found is not None
        return found


@pytest.fixture
def scene(store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The queue, and a register that is read anew with each question."""
    monkeypatch.setattr("gopher.store.waiting.REGISTER_SECONDS", 0.0)
    return Scene(store, namespace)


async def test_job_that_waits_for_its_run_time_says_until_when(scene: Scene) -> None:
    """Be it scheduled, or backing off after a failure; whatever else holds, it is not to run before."""
    scheduled = await scene.submit(delay_ms=3_600_000)
    retrying = await scene.submit()
    (job,) = await scene.claim()
    failure = encode_failure(Failure(reason="X", message="m"))
    settlement = Settlement(job.id, job.token, Move.RETRY, Outcome.RAISED, 60_000, failure=failure)
    await scene.store.lifecycle.settle(scene.namespace, "default", [settlement])

    first, second = await scene.reason(scheduled), await scene.reason(retrying)

    assert (first.kind, second.kind) == (WaitingKind.SCHEDULED, WaitingKind.BACKING_OFF)
    assert first.until_ms == (await scene.store.query.get(scene.namespace, scheduled)).run_ms
    assert second.until_ms == (await scene.store.query.get(scene.namespace, retrying)).run_ms
    assert remedy(scheduled, first) == f"gopher retry {scheduled}"


async def test_enqueued_job_says_the_first_thing_that_it_wants(scene: Scene) -> None:
    """A queue that goes on, then a worker, then one with its handler, then a slot, then its turn."""
    job_id = await scene.submit()

    told = [await scene.reason(job_id)]
    await scene.worker(queues={"other": 1})
    await scene.worker(draining=True)
    told.append(await scene.reason(job_id))
    await scene.worker(types=["report"])
    told.append(await scene.reason(job_id))
    await scene.worker(busy=2)
    told.append(await scene.reason(job_id))
    await scene.worker(slots=3)
    told.append(await scene.reason(job_id))
    await scene.store.lifecycle.pause(scene.namespace, "default")
    told.append(await scene.reason(job_id))

    assert [each.kind for each in told] == [
        WaitingKind.NO_WORKER,
        WaitingKind.NO_WORKER,
        WaitingKind.TYPE_NOT_SERVED,
        WaitingKind.SLOTS_BUSY,
        WaitingKind.IN_LINE,
        WaitingKind.QUEUE_PAUSED,
    ]
    assert told[2].message == "no live worker of queue 'default' serves type 'email'"
    assert told[3].message == "all 2 slots of the workers that serve type 'email' are busy, and it is the next in line"
    assert (told[4].busy_slots, told[4].slots) == (2, 5)
    assert remedy(job_id, told[5]) == "gopher resume default"


async def test_place_in_line_counts_those_of_the_same_priority(scene: Scene) -> None:
    """The older ones before it; slots that were taken since the last beat count too, where every worker could run the job."""
    await scene.worker(slots=2)
    ids = [await scene.submit() for _ in range(5)]

    before = [(await scene.reason(job_id)).jobs_ahead for job_id in ids]
    await scene.claim(2)
    after = await scene.reason(ids[3])
    low = await scene.reason(await scene.submit(priority=Priority.LOW))

    assert (*before, low.jobs_ahead) == (0, 1, 2, 3, 4, 0)
    assert (after.kind, after.jobs_ahead, after.busy_slots) == (WaitingKind.SLOTS_BUSY, 1, 2)
    assert await scene.look(ids[0]) is None


@pytest.mark.parametrize(
    ("limits", "held_by", "command"),
    [
        (Limits(rate=RateLimit(1, 60_000)), "rate:email", "gopher rate-limit email --queue default --limit N"),
        (Limits(concurrency=1), "concurrency:email", "gopher rate-limit email --queue default --concurrency N"),
        (
            Limits(concurrency_per_key=1),
            "concurrency:email:acme",
            "gopher rate-limit email --queue default --concurrency-per-key N",
        ),
    ],
)
async def test_job_behind_a_limit_names_it(scene: Scene, limits: Limits, held_by: str, command: str) -> None:
    """Until when is said of a rate; whoever runs under a concurrency limit decides that."""
    await scene.worker(slots=10)
    await scene.store.limits.set_limits(scene.namespace, "default", "email", limits)
    ids = [await scene.submit(limit_key="acme") for _ in range(3)]
    await scene.claim(3)

    reason = await scene.reason(ids[2])

    assert (reason.kind, reason.held_by, reason.jobs_ahead) == (WaitingKind.LIMIT, held_by, 1)
    assert (reason.until_ms is not None) == held_by.startswith("rate")
    assert remedy(ids[2], reason) == command


async def test_job_behind_a_limit_of_the_whole_queue_names_that(scene: Scene) -> None:
    """It stands in its own line, for such a limit parks nothing."""
    await scene.worker(slots=10)
    await scene.store.limits.set_limits(scene.namespace, "default", "*", Limits(concurrency=1))
    ids = [await scene.submit() for _ in range(2)]
    await scene.claim(2)

    reason = await scene.reason(ids[1])

    assert (reason.kind, reason.held_by) == (WaitingKind.LIMIT, "concurrency:*")
    assert remedy(ids[1], reason) == "gopher update-queue default --concurrency N"


@pytest.mark.parametrize(
    ("by", "due_ms", "kind", "until_ms"),
    [("breaker:smtp", FAR_MS, WaitingKind.BREAKER, FAR_MS), ("bulkhead:email", 0, WaitingKind.BULKHEAD, None)],
)
async def test_job_behind_a_breaker_or_a_bulkhead_names_it(
    scene: Scene, by: str, due_ms: int, kind: WaitingKind, until_ms: int | None
) -> None:
    """Also where the next claim is to ask it again: with a free slot that is all that holds the job back."""
    await scene.worker()
    job_id = await scene.submit()
    await scene.claim(1, [Bound("email", by, 0, due_ms)])

    reason = await scene.reason(job_id)

    assert (reason.kind, reason.held_by, reason.until_ms) == (kind, by, until_ms)


async def test_line_of_a_type_holds_back_nothing_by_itself(scene: Scene) -> None:
    """What counts is whether a worker has the type by now: then the job waits for its turn there."""
    await scene.worker(types=["report"])
    ids = [await scene.submit() for _ in range(2)]
    await scene.claim(2, [Bound("email", "type:email", 0, FAR_MS)])

    unserved = await scene.reason(ids[1])
    await scene.worker()
    served = await scene.reason(ids[1])

    assert (unserved.kind, unserved.held_by) == (WaitingKind.TYPE_NOT_SERVED, None)
    assert (served.kind, served.jobs_ahead) == (WaitingKind.IN_LINE, 1)


async def test_register_is_read_once_a_second(store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask: of thousands of workers it is large."""
    scene = Scene(store, namespace)
    job_id = await scene.submit()
    reads = []
    workers = store.registry.workers

    async def counted(name: str) -> object:
        reads.append(name)
        return await workers(name)

    monkeypatch.setattr(store.registry, "workers", counted)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(scene.reason, job_id)
    await scene.reason(job_id)

    assert reads == [namespace]
