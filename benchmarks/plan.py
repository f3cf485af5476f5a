"""How much of each thing one run measures: the sizes of the full run and of the quick one.

Job counts differ by system so that each measurement lasts a second or more and none lasts long; a rate does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GOPHER: Final = "Gopher"
BULLMQ: Final = "BullMQ"
DRAMATIQ: Final = "dramatiq"
YARDSTICK: Final = "yardstick"
OTHER: Final = "the other"
"""Another checkout of Gopher, named by `--against`."""

CONCURRENCY: Final = 100
"""Slots of the measured worker, of Gopher and of BullMQ alike."""
DRAMATIQ_THREADS: Final = 32
BATCH: Final = 500
"""Jobs a bulk call."""
PAYLOAD_BYTES: Final = 100
IN_FLIGHT: Final = 100
"""Unary calls under way at a time."""
IDLE_WATCHERS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sizes of one run.

    Attributes:
        repetitions: How often each measurement is made; they are interleaved, and the median is shown.
        drain_jobs: Jobs preloaded for the drain, by system.
        submit_jobs: Jobs of one bulk submit, by system.
        memory_jobs: Waiting jobs whose memory is weighed.
        probes: Latency samples of one repetition, by system.
        load_seconds: Length of one gRPC load.
        idle_seconds: Length of one look at an idle system.
        yardstick_commands: Commands of one redis-benchmark.
        priority_jobs: Jobs of each priority that are waiting when their order is looked at.
        paced_seconds: How long jobs come, or fall due, at a steady rate.
        cancels: Running jobs that are cancelled one by one.
        events: How often all watchers are told something.
        nurseries: Parents whose children are counted.
        watchers: Idle watchers that are weighed.
        watched_seconds: How long they are idle.
        backlog_jobs: Waiting jobs of the long backlog.
        parked_jobs: Jobs that a limit holds back.
    """

    repetitions: int
    drain_jobs: dict[str, int]
    submit_jobs: dict[str, int]
    memory_jobs: int
    probes: dict[str, int]
    load_seconds: float
    idle_seconds: float
    yardstick_commands: int
    priority_jobs: int
    paced_seconds: float
    cancels: int
    events: int
    nurseries: int
    watchers: int
    watched_seconds: float
    backlog_jobs: int
    parked_jobs: int


FULL: Final = Plan(
    repetitions=3,
    drain_jobs={GOPHER: 40_000, BULLMQ: 30_000, DRAMATIQ: 8_000},
    submit_jobs={GOPHER: 50_000, BULLMQ: 20_000, DRAMATIQ: 6_000},
    memory_jobs=10_000,
    probes={GOPHER: 150, BULLMQ: 150, DRAMATIQ: 8},
    load_seconds=2.5,
    idle_seconds=4.0,
    yardstick_commands=200_000,
    priority_jobs=20_000,
    paced_seconds=10.0,
    cancels=300,
    events=5,
    nurseries=10,
    watchers=10_000,
    watched_seconds=24.0,
    backlog_jobs=1_000_000,
    parked_jobs=100_000,
)

QUICK: Final = Plan(
    repetitions=1,
    drain_jobs={GOPHER: 25_000, BULLMQ: 15_000, DRAMATIQ: 4_000},
    submit_jobs={GOPHER: 30_000, BULLMQ: 10_000, DRAMATIQ: 3_000},
    memory_jobs=5_000,
    probes={GOPHER: 100, BULLMQ: 100, DRAMATIQ: 5},
    load_seconds=1.5,
    idle_seconds=3.0,
    yardstick_commands=100_000,
    priority_jobs=5_000,
    paced_seconds=3.0,
    cancels=100,
    events=2,
    nurseries=5,
    watchers=10_000,
    watched_seconds=13.0,
    backlog_jobs=200_000,
    parked_jobs=50_000,
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement of one system, made once a repetition.

    Attributes:
        question: The file it belongs to; what `--only` names.
        column: Where its figures stand in the table.
        measure: Makes it and returns the figures by name.
        missing: Why it cannot be made; its cells stay blank.
        once: Made in the first repetition only, since its figures do not scatter.
        limit_seconds: When it is given up. No measurement of a system that works takes half as long.
    """

    question: str
    column: str
    measure: Callable[[], Awaitable[dict[str, float]]]
    missing: str | None = None
    once: bool = False
    limit_seconds: float = 90.0
