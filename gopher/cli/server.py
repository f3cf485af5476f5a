"""`gopher-server`: builds the server from its settings and runs it until told to stop."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher import config
from gopher.cli import options, output, starting
from gopher.config import WorkerConfig
from gopher.edge import methods
from gopher.edge.grpc_server import GrpcServer, Limits
from gopher.edge.health import Health
from gopher.edge.methods import Services
from gopher.edge.metrics import Exposition
from gopher.edge.rest import RestServer, operations
from gopher.edge.rest_calls import Bounds
from gopher.errors import StartError
from gopher.kin.carrier import Carrier
from gopher.retry import RetryPolicy
from gopher.runtime.queue_sweeper import QueueSweeper
from gopher.runtime.signals import watch_signals
from gopher.runtime.upkeep import Upkeep
from gopher.service.admin import Admin
from gopher.service.bulk import Bulk
from gopher.service.bulk_runner import BulkRunner
from gopher.service.jobs import Jobs
from gopher.service.limits import FlowControl
from gopher.service.nurseries import Nurseries
from gopher.service.pages import Pages
from gopher.service.queues import Queues
from gopher.service.readiness import Readiness
from gopher.service.remote_session import Terms
from gopher.service.remote_workers import RemoteWorkers
from gopher.service.run import Runs
from gopher.service.schedules import Schedules
from gopher.service.stats import read_stats
from gopher.service.watch import Watch
from gopher.service.watch_jobs import WatchJobs
from gopher.telemetry.histogram import Durations

if TYPE_CHECKING:
    from gopher.config import ServerConfig, Settings
    from gopher.store.store import Store

REMOTE_POLL_SECONDS: Final = 5.0
LONGEST_SWEEP_SECONDS: Final = 5.0
"""Both as a worker of ours has them."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server serves.

    Attributes:
        grpc: `HOST:PORT`.
        http: The same; None when it serves none.
    """

    grpc: str
    http: str | None

    def __str__(self) -> str:
        """Return them as the ready line has them."""
        return f"grpc={self.grpc}" + (f" http={self.http}" if self.http else "")


class Server:
    """Everything that serves, on a store that is connected.

    Args:
        settings: What to listen on and what to accept.
        store: Where the jobs are.
    """

    def __init__(self, settings: ServerConfig, store: Store) -> None:
        self._health = Health(methods.SERVICES)
        self._readiness = Readiness(store, self._health.report)
        self._declarations = store.declarations
        self._bulk_runner = BulkRunner(store)
        self._attachments = store.attachments
        self._carrier = Carrier(store, accept_unknown_types=settings.accept_unknown_types)
        self._upkeep = Upkeep(
            store, poll_seconds=REMOTE_POLL_SECONDS, sweep_seconds=min(LONGEST_SWEEP_SECONDS, settings.remote_lease_seconds / 3)
        )
        self._sweeper = QueueSweeper(store, sweep_seconds=LONGEST_SWEEP_SECONDS)
        services = _services(settings, store, self._carrier, self._health, self._upkeep)
        rpcs = Durations()
        exposition = Exposition(
            partial(read_stats, store), rpcs=rpcs, requests=Durations(), scripts=store.link.script_durations
        )
        self._grpc = GrpcServer(
            settings.grpc_address,
            services.methods,
            limits=Limits(message_bytes=settings.max_message_bytes),
            grace_seconds=settings.grace_seconds,
            reflected=[*methods.SERVICES, methods.HEALTH] if settings.reflection else [],
            channelz=settings.channelz,
            on_stop=self._health.stop,
            durations=rpcs,
        )
        self._rest = _rest(settings.http_address, settings, services, exposition) if settings.http_address else None
        self._grace_seconds = settings.grace_seconds
        self._aborting = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[Addresses] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until told to stop; report the addresses once everything serves.

        Raises:
            StartError: Redis may throw jobs away, or an address cannot be used.
        """
        fault = await self._readiness.fault()
        if fault is not None:
            raise StartError(fault)
        # While the server serves.
        with self._aborting:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._declarations.run)
                nursery.start_soon(self._readiness.run)
                nursery.start_soon(self._bulk_runner.run)
                await nursery.start(self._upkeep.run)
                nursery.start_soon(self._sweeper.run)
                nursery.start_soon(self._attachments.run)
                nursery.start_soon(self._carrier.run)
                async with trio.open_nursery() as answering:
                    http = await answering.start(self._rest.run) if self._rest else None
                    async with trio.open_nursery() as serving:
                        task_status.started(Addresses(await serving.start(self._grpc.run), http))
                    # HTTP goes last: until here it has told that the server stops.
                    if self._rest:
                        self._rest.stop()
                nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin to stop; `run` returns when every call has ended, at the latest when the grace has."""
        _log.info("server.draining", grace_seconds=self._grace_seconds)
        self._grpc.stop()

    def abort(self) -> None:
        """Stop without the grace."""
        _log.warning("server.aborted")
        self._aborting.cancel(reason="told to abort")


def _rest(address: str, settings: ServerConfig, services: Services, exposition: Exposition) -> RestServer:
    bounds = Bounds(body_bytes=settings.max_message_bytes)
    return RestServer(address, operations(services), services.health, bounds, exposition)


def _services(settings: ServerConfig, store: Store, carrier: Carrier, health: Health, upkeep: Upkeep) -> Services:
    pages = Pages(store.registry)
    queues = Queues(store)
    jobs = Jobs(
        store,
        pages,
        accept_unknown_types=settings.accept_unknown_types,
        max_payload_bytes=settings.max_payload_bytes,
    )
    schedules = Schedules(
        store,
        pages,
        accept_unknown_types=settings.accept_unknown_types,
        max_payload_bytes=settings.max_payload_bytes,
    )
    admin = Admin(store, queues, pages)
    watch = Watch(store)
    return Services(
        jobs=jobs,
        watch=watch,
        watch_jobs=WatchJobs(store),
        runs=Runs(store, jobs, watch),
        nurseries=Nurseries(store, carrier, max_payload_bytes=settings.max_payload_bytes),
        queues=queues,
        flow=FlowControl(store, queues),
        schedules=schedules,
        admin=admin,
        bulk=Bulk(store),
        workers=RemoteWorkers(store, upkeep, _terms(settings)),
        health=health,
    )


def _terms(settings: ServerConfig) -> Terms:
    """Return what workers on streams are offered: but for the lease, what a worker of ours has unless told otherwise."""
    worker = WorkerConfig()
    return Terms(
        lease_seconds=settings.remote_lease_seconds,
        poll_seconds=REMOTE_POLL_SECONDS,
        max_result_bytes=worker.max_result_bytes,
        policy=RetryPolicy(max_attempts=worker.max_retries + 1),
    )


def main() -> None:
    """Run the program."""
    sys.exit(options.run_program(config.SERVER, run))


def run(settings: Settings) -> None:
    """Run a server until told to stop.

    Raises:
        StartError: Redis cannot be used, or an address cannot.
    """
    with starting.telemetry(settings.telemetry, "gopher-server"):
        trio.run(_serve, settings)


async def _serve(settings: Settings) -> None:
    store = starting.new_store(settings.store, "gopher-server")
    # While the program runs.
    async with trio.open_nursery() as nursery:
        await starting.connect(nursery, store, settings.store)
        server = Server(settings.server, store)
        watchdog = starting.Watchdog(settings.server.grace_seconds)

        def drain() -> None:
            watchdog.arm()
            server.stop()

        await nursery.start(lambda task_status: watch_signals(drain=drain, abort=server.abort, task_status=task_status))
        async with trio.open_nursery() as serving:
            addresses = await serving.start(server.run)
            # What was made until now lives as long as the process: looking through it again and again costs pauses (measured: 78 ms
            # a full collection), and once more at the end.
            gc.collect()
            gc.freeze()
            output.line(f"ready {addresses}")
            _log.info("server.ready", grpc=addresses.grpc, http=addresses.http)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
