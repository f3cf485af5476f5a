"""What `GET /metrics` tells, in the text format of Prometheus: the metrics of `gopher.telemetry.metrics`, with their values.

The figures of a namespace are read from Redis when somebody asks, at most once a second however many ask. While Redis does not
answer, what this server knows by itself is still told, and `gopher_redis_up` is 0.

A new metric is declared in `gopher.telemetry.metrics` and given its values in one of the functions below.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import trio
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gopher.breaker import BreakerState
from gopher.errors import StoreError
from gopher.job import FINAL_STATES, JobState, Priority
from gopher.telemetry import metrics
from gopher.telemetry.metrics import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from prometheus_client.core import Metric as Family

    from gopher.service.stats import Stats
    from gopher.store.query import QueueStats
    from gopher.telemetry.histogram import Durations, Histogram
    from gopher.telemetry.metrics import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FRESH_SECONDS: Final = 1.0
"""How long figures are told again; chosen: far below the 15 s between two scrapes, so that only more scrapers are spared."""
ANSWER_SECONDS: Final = 2.0
"""How long Redis may take; chosen: well within the 10 s that Prometheus waits."""
MOST_NAMESPACES: Final = 64
"""Whose figures are kept for a second; chosen: no caller can fill the memory with names."""


class Exposition:
    """Tells what there is to tell.

    Args:
        read: Returns the figures of a namespace.
        rpcs: Durations of the calls over gRPC, by method and code.
        requests: Durations of the requests over HTTP, by method, path and status.
        scripts: Durations of the scripts, by name.
    """

    def __init__(
        self, read: Callable[[str], Awaitable[Stats]], *, rpcs: Durations, requests: Durations, scripts: Durations
    ) -> None:
        self._read = read
        self.requests = requests
        self._local = ((metrics.RPC_DURATION, rpcs), (metrics.HTTP_DURATION, requests), (metrics.SCRIPT_DURATION, scripts))
        self._process = ProcessCollector(registry=None)
        self._version = version("gopher-jobs")
        self._kept: dict[str, tuple[float, Stats | None]] = {}
        self._reading = trio.Lock()

    async def text(self, namespace: str) -> bytes:
        """Return everything, with the figures of a namespace."""
        stats = await self._stats(namespace)
        return generate_latest(_Told([*self._server(), *_of_redis(stats), *(_of_namespace(stats) if stats else ())]))

    async def _stats(self, namespace: str) -> Stats | None:
        """Return figures not older than a second; None while Redis does not answer."""
        # One at a time: whoever waited finds what the one before has read.
        async with self._reading:
            until, stats = self._kept.get(namespace, (0.0, None))
            if trio.current_time() < until:
                return stats
            stats = None
            with trio.move_on_after(ANSWER_SECONDS), suppress(StoreError):
                stats = await self._read(namespace)
            if len(self._kept) >= MOST_NAMESPACES:
                self._kept.clear()
            self._kept[namespace] = (trio.current_time() + FRESH_SECONDS, stats)
            return stats

    def _server(self) -> Iterator[Family]:
        yield _values(metrics.BUILD, [((self._version,), 1)])
        for metric, durations in self._local:
            yield _histograms(metric, durations.items())
        yield from self._process.collect()


class _Told:
    """What `generate_latest` takes for a registry."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Family]:
        return self._families


def _of_redis(stats: Stats | None) -> Iterator[Family]:
    yield _values(metrics.REDIS_UP, [((), 0 if stats is None else 1)])
    if stats is not None:
        redis = stats.redis
        yield _values(metrics.REDIS_MEMORY, [((), redis.used_memory_bytes)])
        yield _values(metrics.REDIS_MAX_MEMORY, [((), redis.max_memory_bytes)])
        yield _values(metrics.REDIS_CLIENTS, [((), redis.connected_clients)])
        yield _values(metrics.REDIS_UPTIME, [((), redis.uptime_seconds)])


def _of_namespace(stats: Stats) -> Iterator[Family]:
    yield from _of_queues(stats)
    yield from _of_attempts(stats)
    yield from _of_workers(stats)
    yield from _of_breakers(stats)


def _of_queues(stats: Stats) -> Iterator[Family]:
    queues = [((stats.namespace, queue.name), queue) for queue in stats.queues]
    yield _values(metrics.JOBS, [((*of, *kind), count) for of, queue in queues for kind, count in _depths(queue)])
    yield _values(metrics.PARKED, [(of, queue.parked) for of, queue in queues])
    yield _values(metrics.OLDEST_WAIT, [(of, (queue.oldest_wait_ms or 0) / 1000) for of, queue in queues])
    yield _values(metrics.PAUSED, [(of, int(queue.paused)) for of, queue in queues])
    yield _values(metrics.SUBMITTED, [(of, queue.submitted_total) for of, queue in queues])
    yield _values(metrics.RETRIED, [(of, queue.retried_total) for of, queue in queues])
    yield _values(metrics.FINISHED, [((*of, *kind), count) for of, queue in queues for kind, count in _totals(queue)])


def _depths(queue: QueueStats) -> Iterator[tuple[tuple[str, str], int]]:
    for priority in Priority:
        yield (JobState.ENQUEUED.value, priority.value), queue.enqueued[priority]
    for state in JobState:
        if state is not JobState.ENQUEUED:
            yield (state.value, ""), queue.counts[state]


def _totals(queue: QueueStats) -> Iterator[tuple[tuple[str], int]]:
    totals = {
        JobState.COMPLETED: queue.completed_total,
        JobState.FAILED: queue.failed_total,
        JobState.CANCELLED: queue.cancelled_total,
    }
    for state in FINAL_STATES:
        yield (state.value,), totals[state]


def _of_attempts(stats: Stats) -> Iterator[Family]:
    queues = [((stats.namespace, figures.queue), figures) for figures in stats.figures]
    yield _values(
        metrics.ATTEMPTS,
        [((*of, each, outcome), n) for of, figures in queues for (each, outcome), n in figures.total.attempts.items()],
    )
    yield _values(
        metrics.ATTEMPT_RATE,
        [((*of, each, outcome), rate) for of, figures in queues for (each, outcome), rate in figures.per_second.items()],
    )
    yield _histograms(
        metrics.ATTEMPT_DURATION,
        [((*of, each), spread) for of, figures in queues for each, spread in figures.total.durations.items()],
    )
    yield _histograms(
        metrics.QUEUE_WAIT,
        [((*of, each), spread) for of, figures in queues for each, spread in figures.total.waits.items()],
    )
    yield _values(metrics.LEASES_LOST, [(of, figures.total.leases_lost) for of, figures in queues])


def _of_workers(stats: Stats) -> Iterator[Family]:
    workers = [((stats.namespace, worker.id), worker.description) for worker in stats.workers]
    yield _values(metrics.WORKERS, [((stats.namespace,), len(workers))])
    yield _values(metrics.WORKER_SLOTS, [(of, said.slots) for of, said in workers])
    yield _values(metrics.WORKER_BUSY_SLOTS, [(of, said.busy) for of, said in workers])
    yield _values(metrics.WORKER_UTILISATION, [(of, said.utilisation) for of, said in workers])
    yield _values(metrics.WORKER_RATE, [(of, said.attempts_per_second) for of, said in workers])
    yield _values(metrics.WORKER_MEMORY, [(of, said.resident_bytes) for of, said in workers])
    yield _values(metrics.WORKER_CPU, [(of, said.cpu_cores) for of, said in workers])
    yield _values(metrics.WORKER_STUCK, [(of, len(said.stuck)) for of, said in workers])
    yield _values(metrics.WORKER_DRAINING, [(of, int(said.draining)) for of, said in workers])
    totals = [((*of, each.type, each.function), each.seconds) for of, said in workers for each in said.blocked_totals]
    present = {(*of, each.type, each.function): each.seconds for of, said in workers if (each := said.blocked)}
    yield _values(metrics.LOOP_BLOCKED, [(labels, present.get(labels, 0.0)) for labels, _ in totals])
    yield _values(metrics.LOOP_BLOCKED_TOTAL, totals)


def _of_breakers(stats: Stats) -> Iterator[Family]:
    breakers = [((stats.namespace, each.name), each) for each in stats.breakers]
    yield _values(
        metrics.BREAKER_STATE,
        [((*of, state.value), int(each.state is state)) for of, each in breakers for state in BreakerState],
    )
    yield _values(metrics.BREAKER_FAILURES, [(of, each.failures) for of, each in breakers])
    yield _values(metrics.BREAKER_OPENED, [(of, each.opened_total) for of, each in breakers])


def _values(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.tells, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histograms(metric: Metric, samples: Iterable[tuple[tuple[str, ...], Histogram]]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.tells, labels=metric.labels)
    for labels, histogram in samples:
        family.add_metric(labels, [(bound, float(count)) for bound, count in histogram.cumulative()], histogram.sum_seconds)
    return family
