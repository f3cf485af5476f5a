"""Queues that hold nothing are freed, and their numbers kept for their names; what holds anything stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.job import JobState, NewJob
from gopher.limits import Limits, PriorityRatio
from gopher.schedule import NewSchedule
from gopher.store import keys
from gopher.store.ids import queue_number
from gopher.store.queue_sweep import IDLE_MS, KEPT_MS, OVERDUE_MS
from tests.store.rig import DELAY_MS, LEASE_MS, Rig, turn_clocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.store import Store


@pytest.fixture
async def swept(rig: Rig) -> Rig:
    """A rig in whose queue a job has come and gone; its sweep's clock is turned too."""
    turn_clocks(rig.store.queue_sweep)
    await rig.store.lifecycle.delete(rig.namespace, await rig.submit())
    return rig


async def free(rig: Rig) -> bool:
    """Look at the queue, and again after a day."""
    assert not await rig.store.queue_sweep.free(rig.namespace, rig.queue)
    await rig.advance(IDLE_MS)
    return await rig.store.queue_sweep.free(rig.namespace, rig.queue)


async def test_queue_that_holds_nothing_for_a_day_is_freed(swept: Rig) -> None:
    """It is not listed any more, and nothing of it is left."""
    was_freed = await free(swept)

    assert was_freed
    assert await swept.store.query.queues(swept.namespace) == []
    assert await swept.dump() == {}


async def pause(rig: Rig) -> None:
    await rig.store.lifecycle.pause(rig.namespace, rig.queue)


async def set_ratio(rig: Rig) -> None:
    await rig.store.limits.set_ratio(rig.namespace, rig.queue, PriorityRatio(high=1))


async def set_limits(rig: Rig) -> None:
    await rig.store.limits.set_limits(rig.namespace, rig.queue, "email", Limits(concurrency=1))


async def schedule(rig: Rig) -> object:
    nightly = NewSchedule(name="nightly", cron="@daily", job=NewJob(type="report", queue=rig.queue))
    return await rig.store.schedules.create(rig.namespace, nightly)


async def submit(rig: Rig) -> object:
    return await rig.submit()


async def bury(rig: Rig) -> object:
    return await rig.job_in(JobState.FAILED)


@pytest.mark.parametrize("put", [pause, set_ratio, set_limits, schedule, submit, bury])
async def test_queue_that_holds_anything_is_not_freed(swept: Rig, put: Callable[[Rig], Awaitable[object]]) -> None:
    """Jobs in any state, schedules, and whatever an operator has set."""
    await put(swept)

    assert not await free(swept)
    assert await swept.store.query.queues(swept.namespace) == [swept.queue]


async def test_queue_whose_jobs_come_and_go_is_not_freed(swept: Rig) -> None:
    """A job between two looks begins the day anew."""
    assert not await swept.store.queue_sweep.free(swept.namespace, swept.queue)
    await swept.advance(IDLE_MS)
    await swept.store.lifecycle.delete(swept.namespace, await swept.submit())

    assert not await swept.store.queue_sweep.free(swept.namespace, swept.queue)
    assert await free(swept)


async def test_limits_that_handlers_declare_do_not_keep_a_queue(swept: Rig) -> None:
    """They are declared again by the next worker."""
    await swept.store.limits.declare(swept.namespace, swept.queue, {"email": Limits(concurrency=1)})

    assert await free(swept)


async def test_freed_queue_has_its_number_back_with_the_next_job(swept: Rig, store: Store) -> None:
    """A process that remembers the number submits as before; ids from before and after are of the queue."""
    before = await store.registry.queue_number(swept.namespace, swept.queue)
    await free(swept)

    job_id = await swept.submit()

    assert queue_number(job_id) == before
    assert await store.query.queues(swept.namespace) == [swept.queue]
    assert (await swept.get(job_id)).state is JobState.ENQUEUED


async def test_number_is_kept_for_a_week_and_then_given_to_others(swept: Rig) -> None:
    """Until then the number is the freed queue's alone; afterwards nothing is left of it."""
    names, sweep = keys.queues(swept.namespace), swept.store.queue_sweep
    number = await swept.store.registry.queue_number(swept.namespace, swept.queue)
    await free(swept)
    step = await sweep.step(swept.namespace, 0)
    await sweep.settle_freed(swept.namespace, number, kept_ms=KEPT_MS)
    kept = await swept.store.link.call("HGETALL", names)

    await sweep.settle_freed(swept.namespace, number, kept_ms=0)

    assert (step.queues, step.freed) == ([], [number])
    assert kept.keys() == {f"#{number}".encode(), f"~{number}".encode()}
    assert await swept.store.link.call("EXISTS", names) == 0


async def test_job_that_comes_while_its_queue_is_freed_is_listed(swept: Rig) -> None:
    """Between the two steps of freeing: the queue has its name back at once."""
    number = await swept.store.registry.queue_number(swept.namespace, swept.queue)
    job_id = await swept.submit()
    await swept.store.queue_sweep._free_numbers(swept.store.link, [keys.queues(swept.namespace)], [KEPT_MS, swept.queue])

    await swept.store.queue_sweep.settle_freed(swept.namespace, number)

    assert await swept.store.query.queues(swept.namespace) == [swept.queue]
    assert (await swept.get(job_id)).queue == swept.queue


async def test_namespace_without_queues_is_forgotten(swept: Rig) -> None:
    """It is looked after as long as it has a queue, or the number of one."""
    sweep = swept.store.queue_sweep
    number = await swept.store.registry.queue_number(swept.namespace, swept.queue)
    await sweep.forget_namespace(swept.namespace)
    known = swept.namespace in await sweep.namespaces()
    await free(swept)
    await sweep.settle_freed(swept.namespace, number, kept_ms=0)

    await sweep.forget_namespace(swept.namespace)

    assert known
    assert swept.namespace not in await sweep.namespaces()


async def test_work_is_overdue_some_time_after_a_worker_would_have_done_it(swept: Rig) -> None:
    """A lease that has just ended is its queue's workers' to deal with."""
    await swept.submit()
    await swept.claim()
    await swept.advance(LEASE_MS + 1)
    early = await swept.store.queue_sweep.inspect(swept.namespace, swept.queue)
    await swept.advance(OVERDUE_MS)

    late = await swept.store.queue_sweep.inspect(swept.namespace, swept.queue)

    assert (early.is_overdue, late.is_overdue) == (False, True)


async def test_job_whose_time_passes_is_overdue(swept: Rig) -> None:
    """Scheduled jobs are to be enqueued, also where no worker is."""
    await swept.submit(delay_ms=DELAY_MS)
    await swept.advance(DELAY_MS + OVERDUE_MS + 1)

    assert (await swept.store.queue_sweep.inspect(swept.namespace, swept.queue)).is_overdue
