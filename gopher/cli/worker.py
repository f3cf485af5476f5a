"""`gopher-worker`: builds a worker from its settings and runs it, or the parent of several."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher import config
from gopher.cli import options, output, starting
from gopher.errors import StartError
from gopher.runtime import heartbeat
from gopher.runtime.apps import EXIT_BAD_APP, load_registry
from gopher.runtime.failures import sole
from gopher.runtime.machine import usable_cpus
from gopher.runtime.plan import WorkerPlan
from gopher.runtime.processes import CHILD_VARIABLE, EXIT_DISMISSED, Processes
from gopher.runtime.signals import watch_signals
from gopher.runtime.supervisor import Supervisor
from gopher.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.config import Settings
    from gopher.handlers import Registry

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

NOT_READ_AGAIN: Final = frozenset(
    {options.CONFIG_VARIABLE, "GOPHER_REDIS_PASSWORD", "REDIS_PASSWORD", "GOPHER_REDIS_DB", "REDIS_DB"}
)
"""What the one process of several is not told twice: the URL says all, and its other settings are flags."""


def main() -> None:
    """Run the program."""
    sys.exit(options.run_program(config.WORKER, run))


def run(settings: Settings) -> None:
    """Run a worker, or as many processes as the settings say, until drained.

    Raises:
        StartError: The application cannot be imported, or Redis cannot be reached.
    """
    if _process_count(settings) > 1:
        log.start(settings.telemetry.log_level, settings.telemetry.log_format)
        processes = processes_for(settings, settings.store.url, on_ready=lambda served: output.line(f"ready {served}"))
        trio.run(processes.run)
        return
    code = 1
    try:
        with starting.telemetry(settings.telemetry, "gopher-worker"):
            code = trio.run(_work, settings, load_registry(settings.worker.app))
    except BaseException as error:
        fault = sole(error)  # a nursery may have put groups around it
        code = fault.exit_code if isinstance(fault, StartError) else code
        raise
    finally:
        starting.leave_threads_behind(code)
    sys.exit(code)


async def _work(settings: Settings, registry: Registry) -> int:
    """Work until drained; return the exit code."""
    # Not for the programs that handlers start.
    has_parent = os.environ.pop(CHILD_VARIABLE, None) is not None
    heartbeat.start_beating(os.environ)
    store = starting.new_store(settings.store, "gopher-worker")
    supervisor = Supervisor(
        store,
        settings.store.url,
        registry,
        _plan(settings),
        abandon=lambda: output.end_now(exit_code()),
    )

    def exit_code() -> int:
        return EXIT_DISMISSED if has_parent and supervisor.is_dismissed else output.DONE

    async with trio.open_nursery() as nursery:
        await starting.connect(nursery, store, settings.store)
        await nursery.start(
            lambda task_status: watch_signals(drain=supervisor.drain, abort=supervisor.abort, task_status=task_status)
        )
        async with trio.open_nursery() as working:
            await working.start(supervisor.run)
            if not supervisor.is_draining:
                output.line(f"ready {_served(registry, settings)}")
        nursery.cancel_scope.cancel()
    return exit_code()


def _served(registry: Registry, settings: Settings) -> str:
    """Return what the line `ready` says of a worker."""
    return f"types={','.join(registry.types)} queues={','.join(sorted(settings.worker.queues))}"


def _process_count(settings: Settings) -> int:
    """Return how many worker processes there are to be."""
    count = settings.worker.processes
    return usable_cpus() if count == "auto" else count


def _subprocess_count(settings: Settings) -> int:
    """Return how many subprocesses one of them may run at once; left to us, together no more than there are CPUs for."""
    count = settings.worker.subprocesses
    return max(1, usable_cpus() // _process_count(settings)) if count == "auto" else count


def _plan(settings: Settings) -> WorkerPlan:
    worker = settings.worker
    return WorkerPlan(
        app=worker.app,
        namespace=worker.namespace,
        queues=worker.queues,
        slots=worker.slots,
        subprocesses=_subprocess_count(settings),
        lease_seconds=worker.lease_seconds,
        poll_seconds=worker.poll_interval_seconds,
        grace_seconds=worker.grace_seconds,
        max_attempts=worker.max_retries + 1,
        max_result_bytes=worker.max_result_bytes,
        keep_tracebacks=worker.tracebacks,
        version=version("gopher-jobs"),
    )


def processes_for(
    settings: Settings,
    url: str,
    *,
    on_ready: Callable[[str], None],
    on_stop: Callable[[], None] = lambda: None,
    on_abort: Callable[[], None] = lambda: None,
) -> Processes:
    """Return the processes that together are the worker of these settings.

    Args:
        settings: Theirs; those that no flag should show go by the environment.
        url: Of Redis. It may hold a password, which a command line would show to everybody on the machine.
        on_stop: Called when they are told to drain.
        on_abort: Called when they are told to stop at once.
        on_ready: Called once all of them claim jobs, with the types and queues that they serve.
    """
    count = _process_count(settings)
    _log.info("worker.spawning", processes=count, usable_cpus=usable_cpus(), concurrency=settings.worker.concurrency)
    worker = replace(settings.worker, processes=1, subprocesses=_subprocess_count(settings))
    sections = (worker, settings.telemetry)
    kept = {name: value for name, value in os.environ.items() if name not in NOT_READ_AGAIN}
    told = {"GOPHER_REDIS_URL": url, "GOPHER_REDIS_TIMEOUT": str(settings.store.redis_timeout_seconds)}
    return Processes(
        [argument for section in sections for argument in config.arguments_for(section)],
        kept | told,
        count=count,
        grace_seconds=settings.worker.grace_seconds,
        lease_seconds=settings.worker.lease_seconds,
        is_hopeless=lambda status: status == EXIT_BAD_APP,
        on_ready=on_ready,
        on_stop=on_stop,
        on_abort=on_abort,
    )


if __name__ == "__main__":
    main()
