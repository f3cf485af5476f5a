"""Families: the children that a running attempt starts, where they stand in line, and what becomes of them without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gopher.errors import JobNotFoundError, StoreFullError, UniqueKeyHeldError
from gopher.job import MAX_CRASHES, JobState, Move, NewJob, Priority
from gopher.store import keys
from gopher.store.families import Member, Start, Started
from gopher.store.store import Store
from gopher.store.submission import SubmitReceipt
from tests.store.rig import DELAY_MS, LEASE_MS, Rig, turn_clocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    import trio

    from gopher.store.codec import ClaimedJob
    from gopher.store.families import OrphanStep
    from gopher.store.resp import Argument, Reply
    from tests.redis_server import RedisServer

RESERVED_MS: Final = 10_000
AWKWARD: Final = b"\x00\n12 34\xff" * 9


@pytest.fixture
async def other(rig: Rig) -> Rig:
    """A second queue of the same namespace and clock."""
    made = Rig(rig.store, rig.namespace, "other")
    await made.set_clock()
    return made


async def begin(rig: Rig, **fields: object) -> ClaimedJob:
    """Return a parent whose attempt runs."""
    await rig.submit(type="parent", **fields)
    (parent,) = await rig.claim()
    return parent


async def make(rig: Rig, parent: ClaimedJob, number: int = 1, *, policy: str = "cancel", **fields: object) -> Start:
    """Return a child to start; a job of the same queue unless the fields name another."""
    about = {"type": "child", "queue": rig.queue, "parent_id": parent.id, "root_id": parent.id, **fields}
    job = NewJob(**about)  # type: ignore[arg-type] # the test names fields of NewJob
    child_id = await rig.store.families.reserve(rig.namespace, job.queue)
    return Start(Member(f"{parent.token}.1.{number}", child_id, policy, "-"), job)


async def start(rig: Rig, parent: ClaimedJob, *starts: Start, line_ms: str = "") -> Started | None:
    return await rig.store.families.start(rig.namespace, rig.queue, parent.id, parent.token, starts, line_ms)


async def started(rig: Rig, parent: ClaimedJob, *policies: str, first: int = 1, **fields: object) -> list[Member]:
    """Start a child a policy and return them."""
    starts = [await make(rig, parent, number, policy=policy, **fields) for number, policy in enumerate(policies, first)]
    assert await start(rig, parent, *starts) is not None
    return [each.member for each in starts]


async def family(rig: Rig, parent_id: str) -> list[Member]:
    return sorted(await rig.store.families.members(rig.namespace, rig.queue, parent_id))


async def is_noted(rig: Rig, parent_id: str) -> bool:
    """Tell whether a job's record says that it has a family."""
    return bool(await rig.call("HEXISTS", f"job:{parent_id}", "family"))


async def test_large_family_is_read_in_slices(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent may have any number of children: no reply holds them all, and each is met once."""
    family_of: dict[str, str] = {f"1.1.{number}": f"id{number} cancel -" for number in range(5000)}
    await rig.call("HSET", "family:parent", *(word for pair in family_of.items() for word in pair))
    sizes: list[int] = []
    call = rig.store.link.call

    async def measured(*command: Argument) -> Reply:
        reply = await call(*command)
        sizes.append(len(reply) if isinstance(reply, dict) else len(reply[1]) // 2)
        return reply

    with monkeypatch.context() as patched:
        patched.setattr(rig.store.link, "call", measured)
        found = await rig.store.families.members(rig.namespace, rig.queue, "parent")
    await rig.call("DEL", "family:parent")

    assert sorted(member.place for member in found) == sorted(family_of)
    assert max(sizes) < 2000


async def take(rig: Rig, parent_id: str = "", cursor: int = 0) -> OrphanStep | None:
    return await rig.store.families.take_orphans(rig.namespace, rig.queue, parent_id, cursor)


async def walk(rig: Rig) -> list[str]:
    """Do what a worker does with the orphans of all parents that are due; return the ids to end, sorted."""
    found: list[str] = []
    while (step := await take(rig)) is not None:
        while True:
            found += [child_id for _, child_id in step.members if child_id]
            places = [place for place, _ in step.members]
            reservation = "" if step.cursor else step.reservation
            await leave(rig, step.parent_id, places, reservation=reservation)
            following = await take(rig, step.parent_id, step.cursor) if step.cursor else None
            if following is None:
                break
            step = following
    return sorted(found)


async def leave(rig: Rig, parent_id: str, places: Iterable[str], *, reservation: int | str = "") -> None:
    await rig.store.families.leave(rig.namespace, rig.queue, parent_id, list(places), reservation=reservation)


async def test_children_are_stored_and_written_down_in_one_step(rig: Rig) -> None:
    """They are jobs like others, byte for byte as described, and the parent's family names each, with its place and its policy."""
    parent = await begin(rig)
    plain = await make(rig, parent, 1, payload=b"1")
    full = await make(
        rig,
        parent,
        2,
        policy="adopt",
        payload=AWKWARD,
        content_type="application/octet-stream",
        labels={"a": "é\n"},
        unique_key="k",
        depth=3,
        deadline_ms=rig.now_ms + DELAY_MS,
    )
    later = await make(rig, parent, 3, policy="detach", delay_ms=DELAY_MS)

    answer = await start(rig, parent, plain, full, later)

    jobs = [await rig.get(each.member.id) for each in (plain, full, later)]
    assert answer is not None
    assert answer.answers == [SubmitReceipt(job.id, job.state, is_duplicate=False) for job in jobs]
    assert [job.state for job in jobs] == [JobState.ENQUEUED, JobState.ENQUEUED, JobState.SCHEDULED]
    assert {(job.parent_id, job.root_id) for job in jobs} == {(parent.id, parent.id)}
    assert (jobs[1].payload, jobs[1].labels, jobs[1].unique_key, jobs[1].depth) == (AWKWARD, {"a": "é\n"}, "k", 3)
    assert await family(rig, parent.id) == [plain.member, full.member, later.member]
    assert await is_noted(rig, parent.id)
    assert await rig.audit() == []


async def test_start_may_be_repeated_after_a_lost_reply(rig: Rig) -> None:
    """The same call again stores nothing twice, and tells where each child stands meanwhile."""
    parent = await begin(rig)
    first, second = await make(rig, parent, 1), await make(rig, parent, 2)
    await start(rig, parent, first, second)
    (running,) = await rig.claim()
    await rig.settle(running.id, running.token, Move.COMPLETE)

    again = await start(rig, parent, first, second)

    assert again is not None
    assert again.answers == [
        SubmitReceipt(first.member.id, JobState.COMPLETED, is_duplicate=True),
        SubmitReceipt(second.member.id, JobState.ENQUEUED, is_duplicate=True),
    ]
    assert len(await rig.names("job:*")) == 3
    assert await family(rig, parent.id) == [first.member, second.member]


@pytest.mark.parametrize("way", ["settled", "lost", "gone"])
async def test_start_by_an_attempt_that_is_no_more_changes_nothing(rig: Rig, way: str) -> None:
    """Neither the family nor a queue, byte for byte, when its outcome is written, its lease is lost or its job is gone."""
    parent = await begin(rig)
    child = await make(rig, parent)
    if way == "lost":
        await rig.advance(LEASE_MS + 1)
        await rig.reap()
    else:
        await rig.settle(parent.id, parent.token, Move.COMPLETE)
    if way == "gone":
        await rig.store.lifecycle.delete(rig.namespace, parent.id)
    before = await rig.dump()

    answer = await start(rig, parent, child)

    assert answer is None
    assert await rig.dump() == before


async def test_child_whose_unique_key_is_held_is_refused_alone(rig: Rig) -> None:
    """It stays in the family until its nursery takes it out, and its siblings are stored."""
    holder = await rig.submit(unique_key="k", delay_ms=DELAY_MS)
    parent = await begin(rig)
    held, free = await make(rig, parent, 1, unique_key="k"), await make(rig, parent, 2)

    answer = await start(rig, parent, held, free)
    await leave(rig, parent.id, [held.member.place])

    assert answer is not None
    assert isinstance(answer.answers[0], UniqueKeyHeldError)
    assert answer.answers[0].metadata["job_id"] == holder
    assert answer.answers[1] == SubmitReceipt(free.member.id, JobState.ENQUEUED, is_duplicate=False)
    assert await family(rig, parent.id) == [free.member]


async def test_child_of_another_queue_is_only_written_down(rig: Rig, other: Rig) -> None:
    """It comes into its queue by a call of its own, which may be repeated, and is told of by name in the family before."""
    parent = await begin(rig)
    here, there = await make(rig, parent, 1), await make(rig, parent, 2, queue="other")

    answer = await start(rig, parent, there, here)
    before = await other.names("job:*")
    assert there.job is not None
    for _ in range(2):
        await rig.store.families.submit(rig.namespace, "other", [(there.member.id, there.job)])

    assert answer is not None
    assert answer.answers == [SubmitReceipt(here.member.id, JobState.ENQUEUED, is_duplicate=False)]
    assert await family(rig, parent.id) == [here.member, there.member]
    assert before == []
    assert await other.names("job:*") == [f"job:{there.member.id}"]
    assert (await rig.get(there.member.id)).parent_id == parent.id


async def test_children_stand_before_jobs_that_were_there_earlier(rig: Rig) -> None:
    """So a tree is finished before another is begun: behind its parent's own place, and in the order in which they were started."""
    parent = await begin(rig)
    await rig.advance(1000)
    waiting = [await rig.submit(), await rig.submit(priority=Priority.HIGH)]
    await rig.advance(1000)
    first, second = await make(rig, parent, 1), await make(rig, parent, 2)

    answer = await start(rig, parent, first)
    assert answer is not None
    await rig.advance(1000)
    late = await start(rig, parent, second, line_ms=answer.line_ms)
    claimed = [job.id for job in await rig.claim(4)]

    assert late is not None
    assert late.line_ms == answer.line_ms
    assert claimed.index(first.member.id) < claimed.index(second.member.id) < claimed.index(waiting[0])
    assert {*claimed} == {first.member.id, second.member.id, *waiting}


async def test_children_never_stand_before_the_place_of_their_parent(rig: Rig) -> None:
    """A job that waits since before their parent was enqueued is not overtaken by them."""
    older = await rig.submit(priority=Priority.LOW)
    await rig.advance(1000)
    parent_id = await rig.submit(priority=Priority.HIGH, type="parent")
    (parent,) = await rig.claim()
    (child,) = await started(rig, parent, "cancel", priority=Priority.LOW)
    claimed = [job.id for job in await rig.claim(2)]

    assert parent.id == parent_id
    assert claimed == [older, child.id]


async def test_child_is_taken_over_with_its_place_moved(rig: Rig) -> None:
    """The next attempt names the place that it had; nothing is stored anew, and a repeated call changes nothing more."""
    parent = await begin(rig)
    (left,) = await started(rig, parent, "adopt")
    await rig.settle(parent.id, parent.token, Move.RELEASE)
    (again,) = [job for job in await rig.claim(2) if job.id == parent.id]
    taken = Start(left._replace(place=f"{again.token}.1.1"), None, left.place)
    new = await make(rig, again, 2)

    answers = [await start(rig, again, taken, new), await start(rig, again, taken, new)]

    assert [len(answer.answers) for answer in answers if answer is not None] == [1, 1]
    assert await family(rig, parent.id) == sorted([taken.member, new.member])
    assert len(await rig.names("job:*")) == 3


async def test_parent_that_has_left_all_children_has_no_family(rig: Rig) -> None:
    """Neither a key nor a word in its record stays, and its end orphans nobody."""
    parent = await begin(rig)
    members = await started(rig, parent, "cancel", "detach")

    await leave(rig, parent.id, [members[0].place])
    is_noted_between = await is_noted(rig, parent.id)
    await leave(rig, parent.id, [members[1].place])
    await leave(rig, parent.id, [members[1].place])
    await rig.settle(parent.id, parent.token, Move.COMPLETE)

    assert (is_noted_between, await is_noted(rig, parent.id)) == (True, False)
    assert await rig.names("family:*") == []
    assert await take(rig) is None


ENDS: Final = {Move.COMPLETE, Move.BURY}


@pytest.mark.parametrize("move", [Move.COMPLETE, Move.BURY, Move.RETRY, Move.SNOOZE, Move.RELEASE])
async def test_children_of_an_attempt_that_has_ended_without_them_are_orphans(rig: Rig, move: Move) -> None:
    """Those that may be adopted are so only if no attempt follows; those that go on alone are forgotten."""
    parent = await begin(rig)
    cancelled, adopted, _, kept = await started(rig, parent, "cancel", "adopt", "detach", "keep")

    await rig.settle(parent.id, parent.token, move, delay_ms=DELAY_MS)
    orphans = await walk(rig)

    assert orphans == sorted([cancelled.id, adopted.id] if move in ENDS else [cancelled.id])
    assert await family(rig, parent.id) == ([] if move in ENDS else [adopted, kept])
    assert await is_noted(rig, parent.id) == (move not in ENDS)
    assert await take(rig) is None


async def end_by_crash_loop(rig: Rig, parent: ClaimedJob) -> None:
    await rig.call("HSET", f"job:{parent.id}", "crashes", MAX_CRASHES - 1)
    assert await rig.begin(parent)
    await rig.advance(LEASE_MS + 1)
    await rig.reap()


async def end_by_acknowledged_cancel(rig: Rig, parent: ClaimedJob) -> None:
    await rig.cancel(parent.id)
    await rig.settle(parent.id, parent.token, Move.ACKNOWLEDGE_CANCEL)


async def end_by_cancel_of_a_lost_one(rig: Rig, parent: ClaimedJob) -> None:
    await rig.cancel(parent.id)
    await rig.advance(LEASE_MS + 1)
    await rig.reap()


async def end_by_cancel_while_waiting(rig: Rig, parent: ClaimedJob) -> None:
    await rig.settle(parent.id, parent.token, Move.RETRY, delay_ms=DELAY_MS)
    await rig.cancel(parent.id)


async def end_by_delete_while_waiting(rig: Rig, parent: ClaimedJob) -> None:
    await rig.settle(parent.id, parent.token, Move.RETRY, delay_ms=DELAY_MS)
    await rig.store.lifecycle.delete(rig.namespace, parent.id)


async def end_by_purge(rig: Rig, parent: ClaimedJob) -> None:
    await rig.settle(parent.id, parent.token, Move.SNOOZE, delay_ms=DELAY_MS)
    await rig.store.lifecycle.purge(rig.namespace, rig.queue)


async def end_by_deadline(rig: Rig, parent: ClaimedJob) -> None:
    await rig.settle(parent.id, parent.token, Move.RETRY, delay_ms=10 * DELAY_MS)
    await rig.advance(2 * DELAY_MS)
    await rig.promote()


async def end_by_deadline_at_a_claim(rig: Rig, parent: ClaimedJob) -> None:
    await rig.settle(parent.id, parent.token, Move.RELEASE)
    await rig.advance(2 * DELAY_MS)
    await rig.claim(5)


@pytest.mark.parametrize(
    "end",
    [
        end_by_crash_loop,
        end_by_acknowledged_cancel,
        end_by_cancel_of_a_lost_one,
        end_by_cancel_while_waiting,
        end_by_delete_while_waiting,
        end_by_purge,
        end_by_deadline,
        end_by_deadline_at_a_claim,
    ],
)
async def test_children_of_a_parent_that_goes_in_any_other_way_are_orphans(rig: Rig, other: Rig, end: object) -> None:
    """Whoever ends it or takes it away leaves all its children, those to adopt too, to be found; none is left in a family."""
    parent = await begin(rig, deadline_ms=rig.now_ms + DELAY_MS + 1)
    members = await started(rig, parent, "cancel", "adopt", "detach", queue="other")

    await end(rig, parent)  # type: ignore[operator] # one of those above
    orphans = await walk(rig)

    assert orphans == sorted([members[0].id, members[1].id])
    assert await rig.names("family:*") == await rig.names("orphans") == []


async def test_children_of_a_lost_attempt_that_may_be_adopted_wait_for_the_next(rig: Rig) -> None:
    """The others are ended, though the next attempt runs already; what it has started itself is left alone, whatever its policy."""
    parent = await begin(rig)
    cancelled, adopted = await started(rig, parent, "cancel", "adopt", delay_ms=DELAY_MS)
    await rig.advance(LEASE_MS + 1)
    await rig.reap()
    (again,) = await rig.claim()
    own = await started(rig, again, "cancel", "adopt", "detach", delay_ms=DELAY_MS)

    orphans = await walk(rig)

    assert again.id == parent.id
    assert orphans == [cancelled.id]
    assert await family(rig, parent.id) == sorted([adopted, *own])
    assert await is_noted(rig, parent.id)


async def test_requeued_parent_adopts_what_nobody_has_ended_yet(rig: Rig) -> None:
    """An operator who requeues a dead letter before its orphans were ended gives the next attempt those that it may have."""
    parent = await begin(rig)
    cancelled, adopted = await started(rig, parent, "cancel", "adopt")
    await rig.settle(parent.id, parent.token, Move.BURY)

    await rig.requeue(parent.id)
    orphans = await walk(rig)

    assert orphans == [cancelled.id]
    assert await family(rig, parent.id) == [adopted]


async def test_parent_is_one_walkers_at_a_time(rig: Rig) -> None:
    """Others find nothing while it is reserved; once that is over they do, since whoever had it may have died."""
    parent = await begin(rig)
    (child,) = await started(rig, parent, "cancel")
    await rig.settle(parent.id, parent.token, Move.COMPLETE)

    first, second = await take(rig), await take(rig)
    await rig.advance(RESERVED_MS)
    third = await take(rig)

    assert first is not None
    assert (first.parent_id, first.members, first.cursor) == (parent.id, [(child.place, child.id)], 0)
    assert second is None
    assert third is not None
    assert third.members == first.members


async def test_walker_that_comes_late_does_not_end_the_walk_of_another(rig: Rig) -> None:
    """Its reservation is over: the parent stays noted, also when it was orphaned anew meanwhile."""
    parent = await begin(rig)
    await started(rig, parent, "cancel")
    await rig.settle(parent.id, parent.token, Move.RELEASE)
    late = await take(rig)
    await rig.advance(1)
    (again,) = [job for job in await rig.claim(2) if job.id == parent.id]
    (child,) = await started(rig, again, "cancel")
    await rig.settle(parent.id, again.token, Move.COMPLETE)

    assert late is not None
    await leave(rig, parent.id, [place for place, _ in late.members], reservation=late.reservation)

    assert await walk(rig) == [child.id]
    assert await rig.names("orphans") == []


async def test_walk_comes_by_every_child_of_a_large_family(rig: Rig) -> None:
    """Some hundred a step, however many there are, and though each step takes out what it has found."""
    parent = await begin(rig)
    ids = []
    for first in range(1, 1000, 100):
        ids += [member.id for member in await started(rig, parent, *["cancel"] * 100, first=first, delay_ms=DELAY_MS)]
    await rig.settle(parent.id, parent.token, Move.COMPLETE)
    step = await take(rig)
    await rig.advance(RESERVED_MS)

    orphans = await walk(rig)

    assert step is not None
    assert len(step.members) < 300
    assert orphans == sorted(ids)
    assert await rig.names("family:*") == []


async def test_states_tell_of_jobs_of_any_queue(rig: Rig, other: Rig) -> None:
    """In order; None for one that is gone."""
    here, there, gone = await rig.submit(), await other.submit(delay_ms=DELAY_MS), await rig.submit()
    await rig.store.lifecycle.delete(rig.namespace, gone)

    states = await rig.store.families.states(rig.namespace, [there, gone, here])

    assert states == [JobState.SCHEDULED, None, JobState.ENQUEUED]
    assert await rig.store.families.states(rig.namespace, []) == []
    with pytest.raises(JobNotFoundError):
        await rig.get(gone)


async def test_full_redis_refuses_children_and_lets_families_be_left(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Nothing is written of those refused; what has ended can be taken out, and orphans are found."""
    store = Store(redis_server.url)
    await nursery.start(store.run)
    turn_clocks(store.lifecycle, store.families)
    rig = Rig(store, "full")
    await rig.set_clock()
    parent = await begin(rig)
    first, second = await started(rig, parent, "cancel", "cancel")
    refused = await make(rig, parent, 3)
    await store.link.call("CONFIG", "SET", "maxmemory", 1)

    with pytest.raises(StoreFullError):
        await start(rig, parent, refused)
    await leave(rig, parent.id, [first.place])
    await rig.settle(parent.id, parent.token, Move.COMPLETE)
    orphans = await walk(rig)

    assert orphans == [second.id]
    assert keys.family("full", "default", parent.id).endswith(f"family:{parent.id}")
    assert await rig.names("family:*") == []
