"""How late do scheduled jobs start, when 200 or 1,000 of them fall due every second?

The jobs are there before the first is due, one every 5 or 1 ms. The handler compares the machine's clock, which is Redis's too, with
the moment in its payload; the figures are told at the end, so that nothing but the work is going on meanwhile.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from benchmarks.children import Child, open_child
from benchmarks.latency import SETTLE_SECONDS, percentiles
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.preload import preload
from benchmarks.servers import Server, open_server
from gopher.job import DEFAULT_NAMESPACE, DEFAULT_QUEUE, JobState, NewJob
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.systems import System

RATES: Final = (200, 1_000)
"""Jobs that fall due a second."""
LEAD_MS: Final = 3_000
"""From now to the first due moment: the jobs are submitted by then."""
LOOK_EVERY_SECONDS: Final = 0.25


class Report(msgspec.Struct):
    """What the handler `report` tells; see `benchmarks.app`."""

    marks: list[tuple[int, int]]
    lateness_ms: list[float]


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return one measurement a rate."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [
        Step(question="lateness", column=GOPHER, measure=partial(_measure, gopher, rate, plan.paced_seconds)) for rate in RATES
    ]


async def report_of(server: Server, worker: Child, jobs: int) -> Report:
    """Wait until that many jobs are completed, and return what their handlers have noted."""
    completed = keys.index(DEFAULT_NAMESPACE, DEFAULT_QUEUE, JobState.COMPLETED)
    while int(server.look.zcard(completed)) < jobs:
        worker.require_running()
        await trio.sleep(LOOK_EVERY_SECONDS)
    await preload(server, [NewJob(type="report")])
    return msgspec.json.decode(await worker.line_starting("{"), type=Report)


async def _measure(gopher: System, rate: int, seconds: float) -> dict[str, float]:
    async with open_server() as server, open_child(gopher.worker, server.environment) as worker:
        await worker.ready()
        await trio.sleep(SETTLE_SECONDS)
        now_seconds, microseconds = server.look.time()
        first_ms = now_seconds * 1_000 + microseconds // 1_000 + LEAD_MS
        moments = [first_ms + number * 1_000 // rate for number in range(int(rate * seconds))]
        await preload(server, [NewJob(type="due", payload=str(moment).encode(), run_ms=moment) for moment in moments])
        report = await report_of(server, worker, len(moments))
    return percentiles(f"lateness_{rate}", report.lateness_ms)
