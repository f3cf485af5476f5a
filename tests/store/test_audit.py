"""The audit: each thing that can be wrong is made wrong by hand, found under its name, and mended."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.job import JobState, Move, NewJob, Priority
from gopher.store import keys
from gopher.store.audit import _SLICE, AuditProgress, FindingKind
from gopher.store.ids import queue_number
from gopher.store.registry import Registry
from tests.store.rig import DELAY_MS, LEASE_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.audit import Finding
    from gopher.store.store import Store
    from tests.store.rig import Rig

UNKNOWN_ID = "01998c2e-7a00-7000-8000-000000000000"
KINDS = FindingKind


@dataclass(frozen=True)
class Fault:
    """One way of breaking the store.

    Attributes:
        name: Of the case.
        kind: Under which the audit must find it.
        make: Breaks it; returns the id of the job concerned, or an empty text.
        after: Where the job stands once mended, deadlines and all; None when there is no job then.
    """

    name: str
    kind: FindingKind
    make: Callable[[Rig], Awaitable[str]]
    after: list[str] | None

    def __str__(self) -> str:
        return self.name


async def out_of_index(rig: Rig, state: JobState, index: str) -> str:
    job_id = await rig.job_in(state)
    await rig.call("ZREM", index, job_id)
    return job_id


async def into_index(rig: Rig, state: JobState, *, indexes: tuple[str, ...] = ("processing",)) -> str:
    job_id = await rig.job_in(state)
    for index in indexes:
        await rig.call("ZADD", index, rig.now_ms, job_id)
    return job_id


async def moved(rig: Rig, state: JobState, source: str, target: str) -> str:
    job_id = await rig.job_in(state)
    await rig.call("ZREM", source, job_id)
    await rig.call("ZADD", target, rig.now_ms, job_id)
    return job_id


async def orphan(rig: Rig, index: str) -> str:
    await rig.submit()
    await rig.call("ZADD", index, rig.now_ms, UNKNOWN_ID)
    return UNKNOWN_ID


async def tokenless(rig: Rig, *fields: str) -> str:
    job_id = await rig.job_in(JobState.PROCESSING)
    await rig.call("HDEL", f"job:{job_id}", *fields)
    return job_id


async def unique_of_final(rig: Rig) -> str:
    job_id = await rig.job_in(JobState.COMPLETED, unique_key="k")
    await rig.call("SET", "unique:k", job_id)
    return job_id


async def unique_of_nobody(rig: Rig) -> str:
    await rig.submit()
    await rig.call("SET", "unique:k", UNKNOWN_ID)
    return UNKNOWN_ID


async def unique_of_another(rig: Rig) -> str:
    job_id = await rig.submit(unique_key="other")
    await rig.call("SET", "unique:k", job_id)
    return job_id


async def unique_lost(rig: Rig) -> str:
    job_id = await rig.submit(unique_key="k")
    await rig.call("DEL", "unique:k")
    return job_id


async def deadline_lost(rig: Rig) -> str:
    job_id = await rig.submit(deadline_ms=rig.now_ms + DELAY_MS)
    await rig.call("DEL", "deadlines")
    return job_id


async def deadline_of_final(rig: Rig) -> str:
    job_id = await rig.job_in(JobState.COMPLETED)
    await rig.call("ZADD", "deadlines", 1, job_id)
    return job_id


async def tokens_forgotten(rig: Rig) -> str:
    await rig.submit()
    await rig.submit()
    jobs = await rig.claim(2)
    await rig.call("HSET", "counters", "token", jobs[0].token)
    return jobs[1].id


async def endless(rig: Rig, name: str) -> str:
    await rig.submit(request_id="r")
    await rig.claim(worker="w")
    await rig.call("PERSIST", name)
    return ""


HOMES: Final = {
    JobState.SCHEDULED: "scheduled",
    JobState.ENQUEUED: "enqueued:normal",
    JobState.RETRYING: "retrying",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
FAULTS: Final = [
    *(
        Fault(f"{state} in no index", KINDS.MISSING_INDEX, partial(out_of_index, state=state, index=home), [home])
        for state, home in HOMES.items()
    ),
    *(
        Fault(f"{state} also processing", KINDS.DOUBLE_INDEX, partial(into_index, state=state), [home])
        for state, home in HOMES.items()
    ),
    *(
        Fault(
            f"{state} as processing",
            KINDS.STATE_MISMATCH,
            partial(moved, state=state, source=home, target="processing"),
            [home],
        )
        for state, home in HOMES.items()
    ),
    *(
        Fault(f"orphan in {index}", KINDS.ORPHAN_ID, partial(orphan, index=index), None)
        for index in (*HOMES.values(), "processing", "enqueued:high", "enqueued:low", "deadlines")
    ),
    Fault(
        "in three indexes",
        KINDS.DOUBLE_INDEX,
        partial(into_index, state=JobState.FAILED, indexes=("completed", "enqueued:high")),
        ["failed"],
    ),
    Fault(
        "in the line of another priority",
        KINDS.STATE_MISMATCH,
        lambda rig: moved(rig, JobState.ENQUEUED, "enqueued:normal", "enqueued:high"),
        ["enqueued:normal"],
    ),
    Fault(
        "processing as enqueued",
        KINDS.STATE_MISMATCH,
        lambda rig: moved(rig, JobState.PROCESSING, "processing", "enqueued:normal"),
        ["processing"],
    ),
    Fault(
        "processing with no lease",
        KINDS.LEASELESS_RUNNING,
        lambda rig: out_of_index(rig, JobState.PROCESSING, "processing"),
        ["processing"],
    ),
    Fault("processing with no token", KINDS.TOKENLESS_RUNNING, lambda rig: tokenless(rig, "token"), ["processing"]),
    Fault("no token, no attempt", KINDS.TOKENLESS_RUNNING, lambda rig: tokenless(rig, "token", "attempt"), ["processing"]),
    Fault("unique key of a final job", KINDS.UNIQUE_LEAK, unique_of_final, ["completed"]),
    Fault("unique key of nobody", KINDS.UNIQUE_LEAK, unique_of_nobody, None),
    Fault("unique key of another job", KINDS.UNIQUE_LEAK, unique_of_another, ["enqueued:normal"]),
    Fault("unique key lost", KINDS.UNIQUE_LEAK, unique_lost, ["enqueued:normal"]),
    Fault("deadline lost", KINDS.MISSING_INDEX, deadline_lost, ["enqueued:normal", "deadlines"]),
    Fault("deadline of a final job", KINDS.STATE_MISMATCH, deadline_of_final, ["completed"]),
    Fault("tokens forgotten", KINDS.COUNTER_DRIFT, tokens_forgotten, ["processing"]),
    Fault("request without an end", KINDS.NO_TTL, lambda rig: endless(rig, "request:r"), None),
    Fault("claim without an end", KINDS.NO_TTL, lambda rig: endless(rig, "claim:w"), None),
]


async def find(rig: Rig, *, repair: bool = False) -> list[Finding]:
    return await rig.audit(repair=repair)


@pytest.mark.leaves_keys
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_audit_finds_each_fault_under_its_name_and_changes_nothing(rig: Rig, fault: Fault) -> None:
    """A look finds exactly the fault that was made, once, and leaves every byte as it was."""
    job_id = await fault.make(rig)
    before = await rig.dump()

    findings = await find(rig)

    assert [(f.kind, f.queue, f.job_id, f.repaired) for f in findings] == [(fault.kind, rig.queue, job_id, False)]
    assert await rig.dump() == before


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_audit_mends_each_fault(rig: Rig, fault: Fault) -> None:
    """A repair says that it mended the fault, puts the job where its record says, and leaves nothing for the next audit."""
    job_id = await fault.make(rig)

    findings = await find(rig, repair=True)

    assert [(f.kind, f.job_id, f.repaired) for f in findings] == [(fault.kind, job_id, True)]
    assert await find(rig) == []
    if job_id:
        assert await rig.places(job_id) == (fault.after or [])


@pytest.mark.parametrize("fields", [["token"], ["token", "attempt", "worker", "started_ms"]])
async def test_audit_repair_of_a_tokenless_job_lets_the_reaper_have_it(rig: Rig, fields: list[str]) -> None:
    """A job that nobody could settle, and nobody can by the token it once had, runs again under another one."""
    job_id = await tokenless(rig, *fields)
    await find(rig, repair=True)
    await rig.advance(1)

    word = await rig.settle(job_id, 1, Move.COMPLETE)
    reaped = await rig.reap()
    (job,) = await rig.claim()

    assert (word, reaped) == ("STALE_LEASE", (job_id,))
    assert await rig.settle(job_id, job.token, Move.COMPLETE) == "completed"


async def test_audit_repair_of_a_leaseless_job_gives_its_worker_time(rig: Rig) -> None:
    """The worker, if it lives, extends the lease that was put back before the reaper takes the job from it."""
    job_id = await rig.submit()
    (job,) = await rig.claim()
    await rig.call("ZREM", "processing", job_id)
    await find(rig, repair=True)
    await rig.advance(LEASE_MS // 3)

    reaped = await rig.reap()
    lost = await rig.extend([(job_id, job.token)])

    assert (reaped, lost) == ((), [])


async def test_audit_repair_of_forgotten_tokens_keeps_fencing_whole(rig: Rig) -> None:
    """After the repair no token is given a second time."""
    late = await rig.get(await tokens_forgotten(rig))
    await find(rig, repair=True)
    await rig.submit()

    (job,) = await rig.claim()

    assert job.token == late.token + 1


async def test_audit_keeps_the_moment_of_a_job_that_it_puts_back(rig: Rig) -> None:
    """A waiting job keeps its place in the line or its run time, a final one its retention."""
    first = await rig.submit()
    scheduled = await rig.submit(delay_ms=DELAY_MS)
    await rig.advance(5)
    second = await rig.submit()
    await rig.advance(5)
    await rig.call("ZREM", "enqueued:normal", first)
    await rig.call("ZREM", "scheduled", scheduled)

    await find(rig, repair=True)

    assert [job.id for job in await rig.claim(2)] == [first, second]
    await rig.advance(DELAY_MS - 11)
    assert await rig.promote() == 0
    await rig.advance(1)
    assert await rig.promote() == 1


@pytest.mark.leaves_keys
@pytest.mark.parametrize(
    ("make", "details"),
    [
        (lambda rig, job_id: rig.call("HSET", f"job:{job_id}", "state", "parked"), "state parked, found in enqueued:normal"),
        (lambda rig, job_id: rig.call("HDEL", f"job:{job_id}", "state"), "the record has no state"),
    ],
)
async def test_audit_leaves_alone_what_it_does_not_understand(
    rig: Rig, make: Callable[[Rig, str], Awaitable[object]], details: str
) -> None:
    """A record whose state is none of ours, a newer version's perhaps, is told and not touched."""
    job_id = await rig.submit()
    await make(rig, job_id)
    before = await rig.dump()

    findings = await find(rig, repair=True)

    assert [(f.kind, f.job_id, f.detail, f.repaired) for f in findings] == [(KINDS.STATE_MISMATCH, job_id, details, False)]
    assert await rig.dump() == before


@pytest.mark.leaves_keys
async def test_audit_cannot_give_a_unique_key_to_two(rig: Rig) -> None:
    """When two jobs that are not final claim one key, the holder keeps it and the other is told as it is."""
    job_id = await rig.submit(unique_key="k")
    await rig.call("DEL", "unique:k")
    await rig.submit(unique_key="k")

    findings = await find(rig, repair=True)

    assert [(f.kind, f.job_id, f.repaired) for f in findings] == [(KINDS.UNIQUE_LEAK, job_id, False)]


async def test_audit_finds_nothing_in_a_namespace_in_every_state(rig: Rig) -> None:
    """Work as it should be is clean: every state, priority, key and deadline there is."""
    for state in reversed(JobState):
        await rig.job_in(state, unique_key=state.value, deadline_ms=rig.now_ms + 5 * DELAY_MS, request_id=state.value)
    await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t", queue=f"q{at}") for at in range(5)])

    assert await find(rig) == []


async def test_audit_checks_no_other_namespace(rig: Rig) -> None:
    """What is wrong elsewhere, also where the name begins alike, is none of this audit's business."""
    other = keys.index(rig.namespace + "x", rig.queue, JobState.FAILED)
    await rig.store.link.call("ZADD", other, 1, UNKNOWN_ID)
    await rig.submit()

    findings = await find(rig)

    await rig.store.link.call("DEL", other)
    assert findings == []


async def test_audit_reports_progress_slice_by_slice(store: Store, namespace: str) -> None:
    """Many jobs are checked in slices, each counted once, and a fault among them is found."""
    count = 2 * _SLICE + 5
    await store.lifecycle.submit(namespace, [NewJob(type="t")] * count)
    await store.link.call("ZADD", keys.index(namespace, "default", JobState.FAILED), 1, UNKNOWN_ID)
    reports: list[AuditProgress] = []

    async def take(progress: AuditProgress) -> None:
        await trio.lowlevel.checkpoint()
        reports.append(progress)

    await store.audit.run(namespace, repair=True, report=take)

    checked = [report.jobs_checked for report in reports]
    assert checked == sorted(checked)
    assert checked[-1] == count
    assert len(reports) >= 3
    assert [finding.job_id for report in reports for finding in report.findings] == [UNKNOWN_ID]


async def test_audit_finds_nothing_while_jobs_move(rig: Rig) -> None:
    """Each job is judged in one script call, so that one that moves meanwhile is never found guilty."""
    findings: list[Finding] = []
    is_done = trio.Event()

    async def work() -> None:
        while not is_done.is_set():
            await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t", priority=p) for p in Priority] * 15)
            for job in await rig.claim(40):
                await rig.settle(job.id, job.token, Move.RETRY if job.attempt == 1 else Move.COMPLETE)
            await rig.promote()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for _ in range(20):
                findings += await find(rig)
            is_done.set()

    assert findings == []


async def test_audit_finds_a_lease_that_is_long_over_and_has_the_job_taken_back(rig: Rig) -> None:
    """Once, not by each walk, and not as soon as a lease ends."""
    job_id = await rig.submit()
    await rig.claim()
    await rig.advance(LEASE_MS + 1)
    early = await rig.audit()
    await rig.advance(60_000)

    found = await rig.audit()
    await rig.audit(repair=True)

    assert early == []
    assert [(finding.kind, finding.job_id, finding.repaired) for finding in found] == [("LEASE_OVERDUE", job_id, False)]
    assert await rig.state(job_id) is JobState.ENQUEUED
    assert await rig.audit() == []


async def test_audit_finds_a_queue_that_has_lost_its_name_and_names_it_again(rig: Rig) -> None:
    """The queue has the number back that the ids of its jobs carry."""
    job_id = await rig.submit()
    await rig.store.link.call("DEL", keys.queues(rig.namespace))

    (found,) = await rig.audit()
    await rig.audit(repair=True)

    assert (found.kind, found.queue, found.repaired) == ("UNNAMED_QUEUE", rig.queue, False)
    assert await rig.store.query.queues(rig.namespace) == [rig.queue]
    assert await Registry(rig.store.link).queue_of(rig.namespace, job_id) == rig.queue
    assert await rig.audit() == []


async def test_audit_tells_of_ids_whose_number_another_queue_has(rig: Rig) -> None:
    """That cannot be mended: a number is one queue's."""
    job_id = await rig.submit()
    number = queue_number(job_id)
    await rig.store.link.call("DEL", keys.queues(rig.namespace))
    await rig.store.link.call("HSET", keys.queues(rig.namespace), "other", number, f"#{number}", "other")

    findings = await rig.audit(repair=True)

    assert [(finding.kind, finding.repaired) for finding in findings] == [("UNNAMED_QUEUE", True), ("UNNAMED_QUEUE", False)]
    assert f"carry {job_id[-4:]}, the number of other" in findings[1].detail


@pytest.mark.parametrize("limits", [3, 1_500])
async def test_audit_counts_the_lines_of_any_number_of_limits(rig: Rig, limits: int) -> None:
    """In slices where they are many; jobs that are held back by nothing real stand for them."""
    for start in range(0, limits, 500):
        held_back = [word for at in range(start, min(limits, start + 500)) for word in ("+inf", f"rate:t:{at}")]
        await rig.call("ZADD", "parked", *held_back)
    await rig.call("HSET", "counters", "parked", 7)

    found = await rig.audit()
    await rig.audit(repair=True)

    assert [(finding.kind, finding.detail) for finding in found] == [("COUNTER_DRIFT", "0 jobs are parked, counted are 7")]
    assert await rig.audit() == []
    await rig.call("DEL", "parked")
