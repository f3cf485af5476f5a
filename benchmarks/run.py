"""The order of the measurements, and what becomes of one that fails.

Repetitions are the outermost loop, so that A, B and C are measured in turn, three times, and a slow minute of the machine hits
all of them. A peer that is missing or fails leaves its cells blank; a failure of Gopher's is the run's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import redis
import trio
from rich.console import Console

from benchmarks import (
    adaptive,
    backlog,
    cancel,
    drain,
    fanout,
    idle,
    latency,
    lateness,
    memory,
    nursery,
    parked,
    priorities,
    processes,
    steady,
    submit,
    watchers,
    yardstick,
)
from benchmarks.children import MeasurementError
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.systems import all_systems, gopher_at
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.targets import Results

MODULES = {
    "drain": drain,
    "submit": submit,
    "latency": latency,
    "steady": steady,
    "lateness": lateness,
    "cancel": cancel,
    "fanout": fanout,
    "nursery": nursery,
    "priorities": priorities,
    "processes": processes,
    "backlog": backlog,
    "parked": parked,
    "memory": memory,
    "idle": idle,
    "watchers": watchers,
    "adaptive": adaptive,
}
ON_DEMAND = ("watchers", "adaptive")
"""Asked by name alone: they take minutes, and have no peer."""
QUESTIONS = (*(name for name in MODULES if name not in ON_DEMAND), "yardstick")


@dataclass(kw_only=True)
class Run:
    """The figures so far.

    Attributes:
        results: All values.
        notes: A line for each blank cell, and why.
        gopher_failed: Whether one of Gopher's own measurements could not be made.
    """

    results: Results = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gopher_failed: bool = False

    def add(self, step: Step, figures: dict[str, float]) -> None:
        """Take the figures of one measurement."""
        for name, value in figures.items():
            self.results.setdefault(name, {}).setdefault(step.column, []).append(value)

    def note(self, step: Step, reason: str, *, is_failure: bool) -> None:
        """Take the reason of a blank cell."""
        line = f"{step.column}, {step.question}: {reason}"
        if line not in self.notes:
            self.notes.append(line)
        self.gopher_failed |= is_failure and step.column == GOPHER


def all_steps(plan: Plan, questions: Sequence[str], against: Path | None = None) -> list[Step]:
    """Return the measurements that answer the given questions, in their order.

    Args:
        plan: How much of each.
        questions: Which.
        against: Another checkout of Gopher; only it and this one are then measured, and only how they drain.
    """
    systems = all_systems()
    if against is not None:
        pair = [system for system in systems if system.name == GOPHER] + [gopher_at(against)]
        return drain.steps(pair, plan)
    steps = [step for module in MODULES.values() for step in module.steps(systems, plan)]
    return [step for step in (*steps, *yardstick.steps(plan)) if step.question in questions]


async def measure(plan: Plan, questions: Sequence[str], against: Path | None = None) -> Run:
    """Make every measurement as often as the plan says, and tell on standard error how it goes."""
    run = Run()
    progress = Console(stderr=True, highlight=False)
    steps = all_steps(plan, questions, against)
    for repetition in range(plan.repetitions):
        for step in steps:
            if repetition == 0 or not step.once:
                progress.print(f"{repetition + 1}/{plan.repetitions} {step.question:10} {step.column:9} ", end="")
                progress.print(await _measure_one(run, step), markup=False, soft_wrap=True)
    return run


async def _measure_one(run: Run, step: Step) -> str:
    """Make one measurement; return what to tell about it."""
    if step.missing is not None:
        run.note(step, step.missing, is_failure=False)
        return f"blank: {step.missing}"
    reason = f"not done after {step.limit_seconds:.0f} s"
    with trio.move_on_after(step.limit_seconds):
        try:
            figures = await step.measure()
        except (MeasurementError, GopherError, redis.RedisError) as error:
            reason = str(error)
        else:
            run.add(step, figures)
            return "  ".join(f"{name}={value:,.2f}" for name, value in figures.items())
    run.note(step, reason, is_failure=True)
    return f"failed: {reason}"
