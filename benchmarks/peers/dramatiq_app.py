"""dramatiq's side of the benchmark: the broker and its two actors, as the worker and the client load them.

Settings: the Redis broker with dramatiq's defaults (a larger prefetch made no difference), 32 threads in one process.
"""

from __future__ import annotations

import os
import time
from typing import Final

import dramatiq
from dramatiq.brokers.redis import RedisBroker

STANDARD_OUTPUT: Final = 1
"""Written to directly: dramatiq sends `sys.stdout` of a worker process through its log."""


class SayReady(dramatiq.Middleware):
    """Says on standard output when the worker process takes jobs."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002 - dramatiq's signature
        """Write the ready line."""
        os.write(STANDARD_OUTPUT, b"ready\n")


broker = RedisBroker(url=os.environ["REDIS_URL"])  # type: ignore[no-untyped-call] # dramatiq leaves it untyped
broker.add_middleware(SayReady())
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(payload: dict[str, str]) -> None:
    """Do nothing."""


@dramatiq.actor
def stamp(sequence: int) -> None:
    """Say when the handler ran."""
    moment = time.monotonic_ns()
    os.write(STANDARD_OUTPUT, f"ran {sequence} {moment}\n".encode())
