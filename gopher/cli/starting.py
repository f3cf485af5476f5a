"""What the programs that run for long do alike: log and trace, connect to Redis, and not outlive a stop that hangs."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from gopher.cli import output
from gopher.errors import StartError, StoreError
from gopher.store.store import Store
from gopher.telemetry import log, tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from gopher.config import StoreConfig, TelemetryConfig

WATCHDOG_SPARE_SECONDS: Final = 10.0
"""How much longer than the grace a stop may take before the process ends itself."""
STUCK_EXIT_CODE: Final = 70  # EX_SOFTWARE of sysexits.h
_THREAD_SECONDS: Final = 1.0
"""Chosen: what a stopped worker gives the threads of its application; a drain may take 5 s beyond its grace."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


@contextmanager
def telemetry(settings: TelemetryConfig, program: str) -> Iterator[None]:
    """Log and, if asked to, trace while the block runs; at its end the spans are handed over.

    Args:
        settings: How.
        program: What the spans say they come from.
    """
    log.start(settings.log_level, settings.log_format)
    hand_over_spans = tracing.start(program, settings.trace_ratio) if settings.tracing else None
    try:
        yield
    finally:
        if hand_over_spans is not None:
            hand_over_spans()


def new_store(settings: StoreConfig, client_name: str, *, url: str | None = None) -> Store:
    """Return the store of a program; `connect` connects it.

    Args:
        settings: Where Redis is.
        client_name: What `CLIENT LIST` shows.
        url: Of Redis, where it is not that of the settings.
    """
    return Store(url or settings.url, client_name=client_name, timeout_seconds=settings.redis_timeout_seconds)


async def connect(nursery: trio.Nursery, store: Store, settings: StoreConfig) -> None:
    """Connect the store, which then runs in the nursery until that is cancelled.

    Raises:
        StartError: Redis cannot be used; the line says which Redis.
    """
    try:
        await nursery.start(store.run)
    except StoreError as error:
        raise StartError(f"redis at {settings.location}: {error}", exit_code=output.UNREACHABLE) from error


class Watchdog:
    """Ends the process when a stop takes too long: a thread inside of gRPC that hangs would otherwise keep it for ever.

    Args:
        grace_seconds: What the stop is given; the watchdog gives it a little more.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._timer = threading.Timer(grace_seconds + WATCHDOG_SPARE_SECONDS, self._bite)
        self._timer.daemon = True

    def arm(self) -> None:
        """Start the clock, once; the process is to be gone before it runs out."""
        self._timer.start()

    def _bite(self) -> None:
        _log.error("stop.stuck", exit_code=STUCK_EXIT_CODE)
        os._exit(STUCK_EXIT_CODE)


def leave_threads_behind(exit_code: int) -> None:
    """Let the process end soon though the application has left threads running: Python would wait for them at its end.

    Where there are none, what the application has registered with `atexit` may take some seconds more.
    """

    def leave() -> None:
        never = threading.Event()
        never.wait(_THREAD_SECONDS)
        left = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
        if left:
            _log.warning("stop.threads_left", threads=left, exit_code=exit_code)
        else:
            never.wait(WATCHDOG_SPARE_SECONDS)
            _log.error("stop.stuck", exit_code=exit_code)
        output.end_now(exit_code)

    threading.Thread(target=leave, name="gopher-leave", daemon=True).start()
