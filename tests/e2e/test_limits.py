"""Limits, bulkheads and breakers with several real workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from gopher.breaker import BreakerState
from gopher.job import JobState
from tests.e2e.apps.outage import FAILURES, PORT_VARIABLE, RESET_SECONDS
from tests.e2e.farm import states
from tests.waiting import until_async

if TYPE_CHECKING:
    from tests.e2e.farm import Farm

OUTAGE = "tests.e2e.apps.outage:registry"


class Dependency:
    """A server that tells whoever calls whether it is up, and counts the calls it got while it was down."""

    def __init__(self) -> None:
        self.is_up = False
        self.calls_while_down = 0
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            self.calls_while_down += not self.is_up
            async with stream:
                await stream.send_all(b"up\n" if self.is_up else b"down\n")

        async with trio.open_nursery() as nursery:
            (listener, *_) = await nursery.start(trio.serve_tcp, serve, 0)
            self.port = listener.socket.getsockname()[1]
            task_status.started()


async def outlast(farm: Farm, nursery: trio.Nursery, *, jobs: int, resets: int) -> tuple[Dependency, list[str], float]:
    """Have four workers meet a dependency that is down for so many reset times; return it, the jobs and its seconds."""
    dependency = Dependency()
    await nursery.start(dependency.run)
    ids = await farm.submit("call", count=jobs)
    began = trio.current_time()
    for _ in range(4):
        await farm.worker("--concurrency", "25", app=OUTAGE, variables={PORT_VARIABLE: str(dependency.port)})

    async def has_tripped() -> bool:
        found = await farm.store.breakers.list_breakers(farm.namespace)
        return any(each.opened_total > resets for each in found)

    await until_async(has_tripped)
    dependency.is_up = True
    return dependency, ids, trio.current_time() - began


async def test_outage_of_a_dependency_costs_few_calls_and_no_job(farm: Farm, nursery: trio.Nursery) -> None:
    """While it is down it gets as many calls as trip the breaker, and the probes; then every job completes, none buried."""
    dependency, ids, seconds = await outlast(farm, nursery, jobs=500, resets=3)

    jobs = await farm.finals(ids)

    assert states(jobs) == {JobState.COMPLETED}
    assert FAILURES < dependency.calls_while_down <= FAILURES + seconds / RESET_SECONDS + 1
    breaker = await farm.store.breakers.get(farm.namespace, "dependency")
    assert breaker.state is BreakerState.CLOSED
    assert sum(job.attempt - 1 for job in jobs) == dependency.calls_while_down
    assert await farm.findings() == []


async def test_job_that_always_fails_under_a_breaker_becomes_a_dead_letter(farm: Farm) -> None:
    """Its handler starts as often as it has attempts and no more, though its breaker trips each time; none of them is unspent."""
    ids = await farm.submit("always_fails", count=2)
    await farm.worker(app=OUTAGE)

    jobs = await farm.finals(ids)

    assert states(jobs) == {JobState.FAILED}
    assert [job.attempt for job in jobs] == [2, 2]
    assert [event.attempt for job_id in ids for event in farm.events("start", [job_id])] == [1, 2, 1, 2]
    assert await farm.findings() == []


async def test_rate_limit_holds_over_several_workers(farm: Farm) -> None:
    """Four workers, 10/s: never 11 starts in a second by the handlers' own clock."""
    ids = await farm.submit("ten_a_second", count=35)
    for _ in range(4):
        await farm.worker(app=OUTAGE)

    jobs = await farm.finals(ids)

    starts = sorted(msgspec.json.decode(job.result or b"0", type=float) for job in jobs)
    assert all(later - earlier > 1 for earlier, later in zip(starts, starts[10:], strict=False))


async def test_bulkhead_leaves_slots_to_other_types(farm: Farm) -> None:
    """One type runs twice a worker at most, however many wait; another type behind them is run at once."""
    bulky = await farm.submit("bulky", str(farm.gate), 20)
    for _ in range(2):
        await farm.worker("--concurrency", "5", app=OUTAGE)
    begun = await farm.started(bulky, 4)
    others = await farm.finals(await farm.submit("ten_a_second", count=3))
    still = farm.events("start", bulky)
    farm.open_gate()

    jobs = await farm.finals(bulky)

    assert len(begun) == len(still) == 4
    assert states(others) == states(jobs) == {JobState.COMPLETED}
    assert await farm.findings() == []
