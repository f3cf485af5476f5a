"""The figures in the order of the table, and what Gopher's must reach."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.adaptive import LOADS
from benchmarks.plan import BULLMQ, DRAMATIQ, OTHER, YARDSTICK


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure of Gopher's must reach.

    Attributes:
        bound: The least or the most, of the figure itself or of its ratio to `against`.
        against: The column it is divided by; None for the figure itself.
        at_least: Whether more is better.
        goal: The further bound the design asks for; None where it is the same.
    """

    bound: float
    against: str | None = None
    at_least: bool = True
    goal: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row of the table.

    Attributes:
        name: As the measurements call it.
        title: As the table shows it.
        digits: Decimal places.
        targets: What Gopher's must reach; none where the figure only explains another.
    """

    name: str
    title: str
    digits: int = 0
    targets: tuple[Target, ...] = ()


def _paced(name: str, title: str, *, p99: float, p50: float | None = None) -> tuple[Figure, Figure]:
    """Return the rows of two percentiles, each with the most it may be, in ms."""
    low, high = (() if most is None else (Target(bound=most, at_least=False),) for most in (p50, p99))
    return (
        Figure(name=f"{name}_p50_ms", title=f"{title}, p50 (ms)", digits=2, targets=low),
        Figure(name=f"{name}_p99_ms", title=f"{title}, p99 (ms)", digits=2, targets=high),
    )


FIGURES: Final = (
    Figure(
        name="drain_jobs_per_second",
        title="drain, one worker process (jobs/s)",
        targets=(
            Target(bound=1.5, goal=1.75, against=BULLMQ),
            Target(bound=5, goal=6, against=DRAMATIQ),
            Target(bound=0.95, against=OTHER),
        ),
    ),
    Figure(name="drain_worker_us_per_job", title="  worker CPU a job (us)", digits=1),
    Figure(name="drain_redis_us_per_job", title="  Redis CPU a job (us)", digits=1),
    Figure(
        name="submit_bulk_jobs_per_second",
        title="bulk submit, 500 a call (jobs/s)",
        targets=(Target(bound=5, against=BULLMQ),),
    ),
    Figure(
        name="submit_unary_calls_per_second",
        title="gRPC SubmitJob, 100 in flight (calls/s)",
        targets=(Target(bound=0.75, against=YARDSTICK),),
    ),
    Figure(name="submit_batch_jobs_per_second", title="gRPC SubmitJobs, 500 a call (jobs/s)", targets=(Target(bound=60_000),)),
    Figure(name="submit_stream_jobs_per_second", title="gRPC SubmitJobStream, one stream (jobs/s)"),
    Figure(
        name="pickup_p50_ms",
        title="idle pick-up, p50 (ms)",
        digits=2,
        targets=(Target(bound=0.6, at_least=False),),
    ),
    Figure(
        name="pickup_p99_ms",
        title="idle pick-up, p99 (ms)",
        digits=2,
        targets=(Target(bound=1.5, at_least=False),),
    ),
    Figure(
        name="pickup_grpc_p50_ms",
        title="idle pick-up over gRPC, p50 (ms)",
        digits=2,
        targets=(Target(bound=1.5, at_least=False),),
    ),
    Figure(name="pickup_grpc_p99_ms", title="idle pick-up over gRPC, p99 (ms)", digits=2),
    *_paced("steady", "500 jobs/s, submit to handler", p50=0.6, p99=1.5),
    *_paced("lateness_200", "lateness of scheduled jobs, 200 due/s", p50=3, p99=10),
    *_paced("lateness_1000", "lateness of scheduled jobs, 1,000 due/s", p99=50),
    *_paced("cancel", "CancelJob to the handler's Cancelled, 100 running", p99=20),
    *_paced("fanout", "an event to each of 1,000 watchers", p99=250),
    *(
        figure
        for name, title in (("one_job", "10,000 idle watchers of one job"), ("job_each", "10,000 idle watchers, a job each"))
        for figure in (
            Figure(
                name=f"watchers_{name}_bytes",
                title=f"{title}, memory beyond gRPC's (bytes each)",
                targets=(Target(bound=10 * 1024, at_least=False),),
            ),
            Figure(name=f"watchers_{name}_cpu_percent", title="  their signs of life, server CPU (%)", digits=1),
        )
    ),
    Figure(name="watchers_bare_bytes", title="  gRPC's own memory an idle stream (bytes)"),
    Figure(
        name="nursery_children_per_second",
        title="a nursery of 1,000 no-op children (children/s)",
        targets=(Target(bound=5_000),),
    ),
    Figure(
        name="priority_cycles_off",
        title="three priorities backlogged, off 3:2:1 (cycles)",
        digits=2,
        targets=(Target(bound=1, at_least=False),),
    ),
    Figure(name="processes_one_jobs_per_second", title="drain, one process (jobs/s)"),
    Figure(name="processes_two_jobs_per_second", title="drain, two processes (jobs/s)"),
    Figure(name="processes_ratio", title="  two processes to one", digits=2, targets=(Target(bound=1.15),)),
    Figure(name="processes_bound", title="  at most, by w and r: 2w / (w + r)", digits=2),
    Figure(name="processes_worker_us_per_job", title="  w, worker CPU a job (us)", digits=1),
    Figure(name="processes_redis_us_per_job", title="  r, Redis CPU a job (us)", digits=1),
    Figure(name="backlog_short_jobs_per_second", title="drain, short backlog (jobs/s)"),
    Figure(name="backlog_long_jobs_per_second", title="drain, long backlog (jobs/s)"),
    Figure(name="backlog_ratio", title="  long to short", digits=2, targets=(Target(bound=0.9),)),
    Figure(name="backlog_short_redis_us_per_job", title="  Redis CPU a job, short (us)", digits=1),
    Figure(name="backlog_long_redis_us_per_job", title="  Redis CPU a job, long (us)", digits=1),
    Figure(name="parked_none_jobs_per_second", title="drain, no job parked (jobs/s)"),
    Figure(name="parked_many_jobs_per_second", title="drain, beside a parked backlog (jobs/s)"),
    Figure(name="parked_ratio", title="  with parked jobs to without", digits=2, targets=(Target(bound=0.9),)),
    Figure(name="parked_scheduled_jobs_per_second", title="  beside as many scheduled jobs (jobs/s)"),
    Figure(name="parked_none_redis_us_per_job", title="  Redis CPU a job, none parked (us)", digits=1),
    Figure(name="parked_many_redis_us_per_job", title="  Redis CPU a job, beside parked (us)", digits=1),
    Figure(name="parked_scheduled_redis_us_per_job", title="  Redis CPU a job, beside scheduled (us)", digits=1),
    Figure(
        name="memory_bytes_per_job",
        title="Redis memory a waiting job (bytes)",
        targets=(Target(bound=500, at_least=False),),
    ),
    Figure(
        name="idle_commands_per_second",
        title="idle worker, Redis commands (1/s)",
        digits=1,
        targets=(Target(bound=3, at_least=False),),
    ),
    Figure(
        name="idle_cpu_percent",
        title="idle worker, CPU (%)",
        digits=1,
        targets=(Target(bound=1, at_least=False),),
    ),
    Figure(name="idle_with_server_commands_per_second", title="idle worker and server, Redis commands (1/s)", digits=1),
    Figure(
        name="idle_watchers_add_per_second",
        title="  added by 100 idle watchers (1/s)",
        digits=1,
        # One command of a beat that falls into one of the two looks and not into the other is no cost of the watchers.
        targets=(Target(bound=0.25, at_least=False),),
    ),
    *(
        figure
        for load in LOADS
        for figure in (
            Figure(
                name=f"adaptive_{load.name}_share",
                title=f"adaptive slots, {load.name}: share of the best fixed",
                digits=2,
                targets=(Target(bound=0.9),),
            ),
            Figure(name=f"adaptive_{load.name}_slots", title="  slots it settles at", digits=1),
            Figure(name=f"adaptive_{load.name}_per_second", title="  adaptive (jobs/s)"),
            *(
                Figure(name=f"adaptive_{load.name}_at_{slots}_per_second", title=f"  {slots} slots (jobs/s)")
                for slots in load.fixed
            ),
            Figure(name=f"adaptive_{load.name}_again_per_second", title="  the best of these again (jobs/s)"),
        )
    ),
    Figure(name="redis_set_per_second", title="redis-benchmark SET (commands/s)"),
)

Results = dict[str, dict[str, list[float]]]
"""Figure name -> column -> the value of each repetition."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How Gopher's figure stands to one target.

    Attributes:
        value: The figure, or its ratio to the other column's.
        met: Whether the bound is kept.
        goal_met: Whether the design's bound is kept too.
    """

    target: Target
    value: float
    met: bool
    goal_met: bool


def judge(target: Target, own: list[float], others: list[float] | None) -> Verdict | None:
    """Compare medians; None if the column to compare with is blank."""
    value = median(own)
    if target.against is not None:
        if not others:
            return None
        value /= median(others)
    goal = target.bound if target.goal is None else target.goal
    met, goal_met = (value >= bound if target.at_least else value <= bound for bound in (target.bound, goal))
    return Verdict(target=target, value=value, met=met, goal_met=goal_met)
