"""In which order does one worker start the jobs of three priorities that are all backlogged?

The lease token grows with every claim in a queue, so the tokens of the finished jobs tell the order in which they were claimed,
exactly and with no clock. While all three lines have jobs, each priority's count of starts must stay within one cycle of its share:
3, 2 and 1 of every six. `python -m benchmarks.priorities [JOBS]` prints the counts window by window.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from benchmarks.children import open_child
from benchmarks.drain import fall_to
from benchmarks.plan import FULL, GOPHER, Plan, Step
from benchmarks.preload import preload
from benchmarks.servers import Server, open_server
from benchmarks.systems import System, all_systems
from gopher.job import DEFAULT_NAMESPACE, DEFAULT_QUEUE, JobState, NewJob, Priority
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

RATIO: Final = {Priority.HIGH: 3, Priority.NORMAL: 2, Priority.LOW: 1}
CYCLE: Final = sum(RATIO.values())
RECORDS_A_CALL: Final = 1_000
WINDOWS: Final = 12


def steps(systems: Sequence[System], plan: Plan) -> list[Step]:
    """Return the one measurement."""
    gopher = next(system for system in systems if system.name == GOPHER)
    return [Step(question="priorities", column=GOPHER, measure=partial(_measure, gopher, plan.priority_jobs), once=True)]


async def starts(gopher: System, jobs_each: int) -> list[Priority]:
    """Have this many jobs of each priority drained, and return the priorities in the order of their claims."""
    async with open_server() as server:
        for priority in Priority:
            await preload(server, [NewJob(type="noop", payload=b"{}", priority=priority)] * jobs_each)
        async with open_child(gopher.worker, server.environment) as worker:
            await fall_to(gopher, server, worker, 0)
        return _in_order(server)


def cycles_off(order: Sequence[Priority]) -> float:
    """Return by how many cycles any priority's count was ever off its share, while all three had jobs waiting."""
    total, count = Counter(order), Counter[Priority]()
    worst = 0.0
    for number, priority in enumerate(order, 1):
        count[priority] += 1
        worst = max(worst, *(abs(count[each] - number * RATIO[each] / CYCLE) / RATIO[each] for each in Priority))
        if count[priority] == total[priority]:
            break
    return worst


async def _measure(gopher: System, jobs_each: int) -> dict[str, float]:
    return {"priority_cycles_off": cycles_off(await starts(gopher, jobs_each))}


def _in_order(server: Server) -> list[Priority]:
    completed = keys.index(DEFAULT_NAMESPACE, DEFAULT_QUEUE, JobState.COMPLETED)
    ids = [name.decode() for name in msgspec.convert(server.look.zrange(completed, 0, -1), list[bytes])]
    claims: list[tuple[int, Priority]] = []
    for start in range(0, len(ids), RECORDS_A_CALL):
        pipeline = server.look.pipeline(transaction=False)
        for job_id in ids[start : start + RECORDS_A_CALL]:
            pipeline.hmget(keys.job(DEFAULT_NAMESPACE, DEFAULT_QUEUE, job_id), "token", "priority")
        claims += [(int(token), Priority((priority or b"normal").decode())) for token, priority in pipeline.execute()]
    return [priority for _, priority in sorted(claims, key=lambda claim: claim[0])]


def _print_windows(order: Sequence[Priority]) -> None:
    width = max(CYCLE, len(order) // WINDOWS)
    print(f"{'starts':>15}  {'high':>7} {'normal':>7} {'low':>7}")
    for first in range(0, len(order), width):
        count = Counter(order[first : first + width])
        last = min(first + width, len(order))
        print(f"{first + 1:>7}-{last:<7}  {count[Priority.HIGH]:>7} {count[Priority.NORMAL]:>7} {count[Priority.LOW]:>7}")
    print(f"while all three were backlogged, no count was more than {cycles_off(order):.2f} cycles off 3:2:1")


if __name__ == "__main__":
    each = int(sys.argv[1]) // len(Priority) if len(sys.argv) > 1 else FULL.priority_jobs
    measured = next(system for system in all_systems() if system.name == GOPHER)
    _print_windows(trio.run(starts, measured, each))
