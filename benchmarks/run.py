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

from benchmarks import adaptive, drain, idle, latency, memory, submit, yardstick
from benchmarks.children import MeasurementError
from benchmarks.plan import GOPHER, Plan, Step
from benchmarks.systems import all_systems
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.targets import Results

QUESTIONS = ("drain", "submit", "latency", "memory", "idle", "yardstick")
ON_DEMAND = ("adaptive",)
"""Asked by name alone: they take minutes, and have no peer."""
STEP_SECONDS = 90.0
"""No measurement of a system that works takes half as long."""


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


def all_steps(plan: Plan, questions: Sequence[str]) -> list[Step]:
    """Return the measurements that answer the given questions, in their order."""
    systems = all_systems()
    steps = [step for module in (drain, submit, latency, memory, idle, adaptive) for step in module.steps(systems, plan)]
    return [step for step in (*steps, *yardstick.steps(plan)) if step.question in questions]


async def measure(plan: Plan, questions: Sequence[str]) -> Run:
    """Make every measurement as often as the plan says, and tell on standard error how it goes."""
    run = Run()
    progress = Console(stderr=True, highlight=False)
    steps = all_steps(plan, questions)
    for repetition in range(plan.repetitions):
        for step in steps:
            if repetition == 0 or not step.once:
                progress.print(f"{repetition + 1}/{plan.repetitions} {step.question:9} {step.column:9} ", end="")
                progress.print(await _measure_one(run, step), markup=False, soft_wrap=True)
    return run


async def _measure_one(run: Run, step: Step) -> str:
    """Make one measurement; return what to tell about it."""
    if step.missing is not None:
        run.note(step, step.missing, is_failure=False)
        return f"blank: {step.missing}"
    reason = f"not done after {STEP_SECONDS:.0f} s"
    with trio.move_on_after(STEP_SECONDS):
        try:
            figures = await step.measure()
        except (MeasurementError, GopherError, redis.RedisError) as error:
            reason = str(error)
        else:
            run.add(step, figures)
            return "  ".join(f"{name}={value:,.2f}" for name, value in figures.items())
    run.note(step, reason, is_failure=True)
    return f"failed: {reason}"
