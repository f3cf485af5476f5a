"""Every metric that Gopher exports, declared once: its name, its labels and what it tells. Where the values come from: `edge/metrics.py`.

Figures of jobs and workers are kept in Redis, so each server tells the same of them, whichever process measured them. They are of
one namespace, which their label `namespace` names. Metrics without that label are of the server that is asked.

A job's id is never a label. `type`, and `function` which names its handler, are bounded by the registered handlers, `queue` by the 65,536 of a namespace, `worker` by those
that live.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What Prometheus is told a metric is."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes:
        name: With its unit; a counter's ends in `_total`.
        kind: What it is.
        labels: Names of its labels.
        tells: Its help text.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    tells: str


def _gauge(name: str, tells: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, labels, tells)


def _counter(name: str, tells: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, labels, tells)


def _histogram(name: str, tells: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, labels, tells)


_QUEUE: Final = ("namespace", "queue")
_WORKER: Final = ("namespace", "worker")

# --- of a breaker ---
_BREAKER: Final = ("namespace", "breaker")
BREAKER_STATE: Final = _gauge("gopher_breaker_state", "1 for the state in which the breaker is.", *_BREAKER, "state")
BREAKER_FAILURES: Final = _gauge("gopher_breaker_failures", "Attempts that have failed in a row.", *_BREAKER)
BREAKER_OPENED: Final = _counter("gopher_breaker_opened_total", "How often the breaker has tripped.", *_BREAKER)

# --- of a queue ---
JOBS: Final = _gauge(
    "gopher_jobs", "Jobs kept now; the priority is that of enqueued ones, the parked left out.", *_QUEUE, "state", "priority"
)
PARKED: Final = _gauge("gopher_jobs_parked", "Enqueued jobs that a limit or an open breaker holds back.", *_QUEUE)
OLDEST_WAIT: Final = _gauge(
    "gopher_queue_oldest_wait_seconds", "How long the job that waits longest has stood in line; 0 when none does.", *_QUEUE
)
PAUSED: Final = _gauge("gopher_queue_paused", "1 while nothing is claimed from the queue.", *_QUEUE)
SUBMITTED: Final = _counter("gopher_jobs_submitted_total", "Jobs accepted.", *_QUEUE)
FINISHED: Final = _counter("gopher_jobs_finished_total", "Jobs that reached a final state.", *_QUEUE, "state")
RETRIED: Final = _counter("gopher_jobs_retried_total", "Attempts that failed and were to be followed by another.", *_QUEUE)
ATTEMPTS: Final = _counter("gopher_attempts_total", "Attempts that ended.", *_QUEUE, "type", "outcome")
ATTEMPT_RATE: Final = _gauge(
    "gopher_attempts_per_second", "Attempts that ended, over the last minute.", *_QUEUE, "type", "outcome"
)
ATTEMPT_DURATION: Final = _histogram("gopher_attempt_duration_seconds", "How long handlers ran.", *_QUEUE, "type")
QUEUE_WAIT: Final = _histogram(
    "gopher_queue_wait_seconds", "How long jobs stood in line before they were claimed.", *_QUEUE, "priority"
)
LEASES_LOST: Final = _counter("gopher_leases_lost_total", "Attempts whose lease ended with no outcome.", *_QUEUE)

# --- of the workers; what is a share or a rate was measured between a worker's last two beats ---
WORKERS: Final = _gauge("gopher_workers", "Workers that live.", "namespace")
WORKER_SLOTS: Final = _gauge("gopher_worker_slots", "Attempts the worker runs at most at once.", *_WORKER)
WORKER_BUSY_SLOTS: Final = _gauge("gopher_worker_busy_slots", "Attempts the worker ran at its last beat.", *_WORKER)
WORKER_UTILISATION: Final = _gauge(
    "gopher_worker_utilisation", "Of the time of the worker's slots, the share in which a handler ran, 0 to 1.", *_WORKER
)
WORKER_RATE: Final = _gauge("gopher_worker_attempts_per_second", "Attempts that ended in the worker.", *_WORKER)
WORKER_MEMORY: Final = _gauge("gopher_worker_resident_memory_bytes", "Memory of the worker's process.", *_WORKER)
WORKER_CPU: Final = _gauge("gopher_worker_cpu_cores", "Processor time of the worker's process; 1 is a core.", *_WORKER)
WORKER_STUCK: Final = _gauge("gopher_worker_stuck_jobs", "Jobs whose handler outlasts its cancel.", *_WORKER)
WORKER_DRAINING: Final = _gauge("gopher_worker_draining", "1 while the worker claims no more.", *_WORKER)
LOOP_BLOCKED: Final = _gauge(
    "gopher_loop_blocked_seconds",
    "For how long the handler has blocked the worker's loop by now; 0 once it goes on again.",
    *_WORKER,
    "type",
    "function",
)
LOOP_BLOCKED_TOTAL: Final = _counter(
    "gopher_worker_loop_blocked_seconds_total",
    "For how long the handler has blocked the worker's loop.",
    *_WORKER,
    "type",
    "function",
)

# --- of Redis ---
REDIS_UP: Final = _gauge("gopher_redis_up", "1 when Redis answered just now; without it there are no figures from it.")
REDIS_MEMORY: Final = _gauge("gopher_redis_used_memory_bytes", "Memory that Redis uses.")
REDIS_MAX_MEMORY: Final = _gauge("gopher_redis_max_memory_bytes", "Memory that Redis may use; 0 for no limit.")
REDIS_CLIENTS: Final = _gauge("gopher_redis_connected_clients", "Connections to Redis.")
REDIS_UPTIME: Final = _gauge("gopher_redis_uptime_seconds", "How long Redis has run.")

# --- of this server ---
RPC_DURATION: Final = _histogram(
    "gopher_rpc_duration_seconds", "How long calls over gRPC took, streams until their end.", "method", "code"
)
HTTP_DURATION: Final = _histogram(
    "gopher_http_request_duration_seconds",
    "How long requests over HTTP took until their answer began.",
    "method",
    "path",
    "status",
)
SCRIPT_DURATION: Final = _histogram(
    "gopher_store_script_duration_seconds", "How long this server waited for Redis to run a script.", "script"
)
BUILD: Final = _gauge("gopher_build_info", "Always 1; the label tells the version of Gopher.", "version")
