"""Who watches a job is told of the children that its nurseries start, and how each has ended; a job that nobody watches says nothing."""

from __future__ import annotations

import pytest
import trio

import gopher
import gopher.testing
from gopher.event import ChildChange, EventKind
from gopher.job import DEFAULT_NAMESPACE, JobState
from tests.waiting import PATIENCE_SECONDS, until


@pytest.mark.parametrize("is_watched", [True, False])
async def test_watcher_is_told_of_children_from_start_to_end(redis_program: str, is_watched: bool) -> None:
    """Also when he comes while the parent runs; all of it stands before the parent's own end."""
    registry = gopher.Registry()
    begun, gate = trio.Event(), trio.Event()

    @registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        begun.set()
        await gate.wait()
        async with job.open_nursery(policy="collect") as nursery:
            nursery.start_soon("child", 1)
            nursery.start_soon("child", 2)

    @registry.handler("child", max_attempts=1)
    async def child(job: gopher.JobContext, payload: int) -> None:
        await trio.lowlevel.checkpoint()
        if payload == 2:
            raise ValueError(payload)

    with trio.fail_after(PATIENCE_SECONDS):
        async with gopher.testing.open_runtime(registry) as runtime:
            histories = runtime._store.histories
            job_id = await runtime.submit("parent", max_attempts=1)
            await begun.wait()
            if is_watched:
                await histories.open(DEFAULT_NAMESPACE, "default", job_id)
                await until(lambda: runtime._supervisor._scopes.snapshot()[0].is_heard)
            gate.set()
            await runtime.drain()
            events = await histories.read(DEFAULT_NAMESPACE, "default", job_id, after=0, count=100)

    told = [event.told for event in events if event.kind is EventKind.CHILD]
    changes = [(each.type, each.state) for each in told if isinstance(each, ChildChange)]
    if not is_watched:
        assert events == []
        return
    assert sorted(changes) == [
        ("child", state) for state in sorted([*[JobState.ENQUEUED] * 2, JobState.COMPLETED, JobState.FAILED])
    ]
    assert changes[0][1] is JobState.ENQUEUED
    assert [event.kind for event in events] == [EventKind.STATE] * 2 + [EventKind.CHILD] * 4 + [EventKind.STATE]
    assert len({each.job_id for each in told if isinstance(each, ChildChange)}) == 2
