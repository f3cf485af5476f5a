"""Nurseries of jobs in Trio handlers: how their blocks end, and what becomes of the children."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher.errors import (
    JobCancelledError,
    JobFailedError,
)
from gopher.job import JobState, Priority
from tests.waiting import until, until_async

if TYPE_CHECKING:
    import gopher
    from gopher.nursery import ChildJob
    from tests.runtime.home import Home


async def test_block_ends_when_all_children_have(home: Home) -> None:
    """Each has run, on the way of any other job, as a child of its parent; results and states are there after the block."""
    told: list[object] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            children = [nursery.start_soon("leaf", number, labels={"n": str(number)}) for number in range(5)]
            told.append([child.state for child in children])
            first = await nursery.start("leaf", "first")
            told.append(first.id is not None)
        told.append([child.state for child in children])
        told.append([await child.result() for child in [*children, first]])

    async with home.working():
        job = await home.run(priority=Priority.HIGH)
        family = await home.family(job.id)
    leaves = await home.jobs("leaf")

    assert job.state is JobState.COMPLETED
    assert told == [[None] * 5, True, [JobState.COMPLETED] * 5, [0, 1, 2, 3, 4, "first"]]
    assert {(leaf.parent_id, leaf.root_id, leaf.depth, leaf.priority) for leaf in leaves} == {
        (job.id, job.id, 1, Priority.HIGH)
    }
    assert family == await home.families() == []
    assert await home.findings() == []


async def test_nursery_without_children_ends_at_once(home: Home) -> None:
    """It costs nothing but its block, and leaves nothing."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> str:
        async with job.open_nursery():
            pass
        async with job.open_nursery(policy="any"):
            pass
        return "done"

    async with home.working():
        job = await home.run()

    assert job.result == b'"done"'


async def test_failure_of_a_child_cancels_its_siblings_and_is_raised(home: Home) -> None:
    """All others have ended by then; the error names the child, and why it failed."""
    groups: list[ExceptionGroup] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> list[str | None]:
        sleepers: list[ChildJob] = []
        try:
            async with job.open_nursery() as nursery:
                sleepers += [nursery.start_soon("sleep"), nursery.start_soon("sleep", delay_seconds=3600)]
                await until(lambda: bool(home.begun))
                nursery.start_soon("fail", "luck")
        except* JobFailedError as group:
            groups.append(group)
        return [sleeper.state for sleeper in sleepers]

    async with home.working():
        job = await home.run()
    (fail,) = await home.jobs("fail")

    assert job.result == b'["cancelled","cancelled"]'
    assert home.ended == home.begun
    (error,) = groups[0].exceptions
    assert isinstance(error, JobFailedError)
    assert (error.metadata["job_id"], error.metadata["failure_reason"]) == (fail.id, "HANDLER_RAISED")
    assert "no luck" in error.message
    assert await home.states("sleep") == [JobState.CANCELLED] * 2


async def test_failure_of_a_child_ends_the_body_of_the_block(home: Home) -> None:
    """Whatever it waits for; what it had under way is cancelled, and the child's error is raised alone."""
    seen: list[str] = []

    @home.registry.handler("parent", max_attempts=1)
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("fail", "luck")
            try:
                await trio.sleep_forever()
            finally:
                seen.append("cancelled")

    async with home.working():
        job = await home.run()

    assert seen == ["cancelled"]
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "CHILD_FAILED"
    assert job.failure.metadata == {"cause_reason": "HANDLER_RAISED"}
    assert "luck" in job.failure.message
    assert await home.families() == []


async def test_error_of_the_body_cancels_the_children_and_comes_first(home: Home) -> None:
    """It is raised when they have ended, together with theirs."""
    groups: list[ExceptionGroup] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        try:
            async with job.open_nursery(policy="any") as nursery:
                nursery.start_soon("sleep")
                failed = nursery.start_soon("fail", "luck")
                await until(lambda: bool(home.begun) and failed.state is not None)
                raise KeyError("own")  # noqa: TRY301 - what the block makes of it is tested
        except* (KeyError, JobFailedError) as group:
            groups.append(group)

    async with home.working():
        job = await home.run()

    assert job.state is JobState.COMPLETED
    assert [type(error) for error in groups[0].exceptions] == [KeyError, JobFailedError]
    assert home.ended == home.begun
    assert await home.states("sleep") == [JobState.CANCELLED]


async def test_verdict_raised_in_a_block_is_still_one(home: Home) -> None:
    """`Retry`, `Snooze` and `Discard` mean what they mean elsewhere; the children are cancelled."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        import gopher

        async with job.open_nursery() as nursery:
            await nursery.start("sleep", delay_seconds=3600)
            raise gopher.Discard("not worth it")

    async with home.working():
        job = await home.run()

    assert job.failure is not None
    assert (job.failure.reason, job.failure.message) == ("DISCARDED", "not worth it")
    assert await home.states("sleep") == [JobState.CANCELLED]


@pytest.mark.parametrize("policy", ["any", "collect"])
async def test_children_are_looked_at_one_by_one(home: Home, policy: str) -> None:
    """With `any` the first that completes has the others cancelled; with `collect` each goes its way; nothing is raised."""
    told: list[object] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery(policy=policy) as nursery:
            failed = await nursery.start("fail", "luck")
            await until(lambda: failed.state is not None)
            children = [failed, nursery.start_soon("sleep", delay_seconds=3600 if policy == "any" else None)]
            if policy == "collect":
                await until(lambda: bool(home.begun))
                await home.cancel(home.begun[0])
            children.append(nursery.start_soon("leaf", "won"))
        for child in children:
            try:
                told.append(await child.result())
            except (JobFailedError, JobCancelledError) as error:
                told.append(type(error))

    async with home.working():
        job = await home.run()

    assert job.state is JobState.COMPLETED
    assert told == [JobFailedError, JobCancelledError, "won"]


async def test_any_raises_what_all_have_met_when_none_completes(home: Home) -> None:
    """In the order in which they were started."""
    messages: list[str] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        try:
            async with job.open_nursery(policy="any") as nursery:
                for name in "abc":
                    nursery.start_soon("fail", name)
        except* JobFailedError as group:
            messages.extend(str(error)[-1] for error in group.exceptions)

    async with home.working():
        await home.run()

    assert messages == ["a", "b", "c"]


async def test_scope_of_the_handlers_own_ends_the_nursery_in_it(home: Home) -> None:
    """The children are cancelled and have ended when the scope is left, and the handler goes on."""
    ended: list[int] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> str:
        with trio.CancelScope() as scope:
            async with job.open_nursery() as nursery:
                nursery.start_soon("sleep")
                nursery.start_soon("sleep", delay_seconds=3600)
                await until(lambda: bool(home.begun))
                scope.cancel()
        ended.append(len(home.ended))
        return "went on"

    async with home.working():
        job = await home.run()

    assert (job.result, ended) == (b'"went on"', [1])
    assert await home.states("sleep") == [JobState.CANCELLED] * 2
    assert await home.families() == []


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_parent_that_is_ended_while_it_waits_has_its_children_ended_first(home: Home, way: str) -> None:
    """Cancelled or timed out: its own outcome is written when nothing of its tree runs or waits any more."""

    @home.registry.handler("parent", max_attempts=1)
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("nest")

    @home.registry.handler("nest")
    async def nest(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("sleep")
            nursery.start_soon("sleep", delay_seconds=3600)

    async with home.working():
        job_id = await home.submit(timeout_ms=3000 if way == "timeout" else None)
        await until(lambda: bool(home.begun))
        if way == "cancel":
            await home.cancel(job_id)
        job = await home.final(job_id)
        left = [state for kind in ("nest", "sleep") for state in await home.states(kind)]

    assert job.state is (JobState.CANCELLED if way == "cancel" else JobState.FAILED)
    assert way == "cancel" or (job.failure is not None and job.failure.reason == "TIMED_OUT")
    assert left == [JobState.CANCELLED] * 3
    assert home.ended == home.begun
    assert await home.families() == []


async def test_nursery_cancelled_by_hand_takes_other_children_after(home: Home) -> None:
    """Nothing is raised for those that it has cancelled."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> list[str | None]:
        async with job.open_nursery() as nursery:
            first = await nursery.start("sleep", delay_seconds=3600)
            unsent = nursery.start_soon("sleep")
            nursery.cancel()
            second = nursery.start_soon("leaf")
        return [first.state, unsent.state, second.state]

    async with home.working():
        job = await home.run()

    assert job.result == b'["cancelled","cancelled","completed"]'
    assert await home.states("sleep") == [JobState.CANCELLED]


async def test_detached_child_goes_on_when_its_nursery_is_cancelled(home: Home) -> None:
    """Also one that was not yet stored; the block waits for neither, and a parent that ends well waits for it."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: bool) -> None:
        with trio.CancelScope() as scope:
            async with job.open_nursery() as nursery:
                await nursery.start("leaf", delay_seconds=3600, on_cancel="detach")
                nursery.start_soon("leaf", delay_seconds=3600, on_cancel="detach")
                nursery.start_soon("sleep", delay_seconds=3600)
                if payload:
                    nursery.start_soon("fail")
                else:
                    scope.cancel()

    async with home.working():
        jobs = [await home.run(payload=True), await home.run(payload=False)]
        states = await home.states("leaf")

    assert [job.state for job in jobs] == [JobState.FAILED, JobState.COMPLETED]
    assert states == [JobState.SCHEDULED] * 4
    assert await home.families() == []


async def test_nurseries_of_one_handler_may_stand_in_each_other_and_side_by_side(home: Home) -> None:
    """With one slot for all: one block in another, and blocks in Trio tasks of the handler's own."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> list[object]:
        found: list[object] = []

        async def block(number: int) -> None:
            async with job.open_nursery() as nursery:
                child = nursery.start_soon("leaf", number)
            found.append(await child.result())

        async with job.open_nursery() as outer:
            first = outer.start_soon("leaf", "outer")
            async with trio.open_nursery() as tasks:
                for number in range(5):
                    tasks.start_soon(block, number)
        return [*sorted(map(str, found)), await first.result()]

    async with home.working(home.worker(slots=1)):
        job = await home.run()

    assert job.result == b'["0","1","2","3","4","outer"]'
    assert await home.families() == []


async def test_parent_whose_record_tells_of_no_family_is_plain_again(home: Home) -> None:
    """After its block nothing in Redis tells that it ever had children."""
    held: list[bool] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            await nursery.start("sleep", delay_seconds=3600)
            held.append(bool(await home.family(job.id)))
            nursery.cancel()
        held.append(bool(await home.family(job.id)))

    async with home.working():
        job = await home.run()

    async def is_kept() -> bool:
        return await home.state(job.id) is JobState.COMPLETED

    await until_async(is_kept)
    assert held == [True, False]
