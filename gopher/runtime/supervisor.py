"""The worker's root: owns the nursery, starts all that a worker is made of, and drains.

While it serves:

    listener, promoter, scheduler, reaper     for each queue, hear and keep time
    claimer -> runner -> settler -> relay     take jobs, run them, write their outcomes, hand on what they submitted
    reporter                                  writes what running attempts say to the watchers of their jobs
    keeper (an OS thread)                     keeps the leases
    cutter                                    ends what outlasts its grace
    watchdog (an OS thread)                   names a handler that blocks the loop
    recorder                                  brings what was measured to Redis

Drain: stop claiming; let attempts finish until the grace ends; cancel the rest and give their jobs back unspent; write what is
left to write; go.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.job import JobState, Move, Outcome
from gopher.kin.carrier import Carrier
from gopher.runtime import machine
from gopher.runtime.children import Children
from gopher.runtime.claimer import Claimer, QueueSource
from gopher.runtime.cutter import Cutter
from gopher.runtime.executors import Executors
from gopher.runtime.gates import Gates
from gopher.runtime.inspector import Inspector
from gopher.runtime.keeper import Keeper
from gopher.runtime.lifespans import Lifespans
from gopher.runtime.listener import Listener
from gopher.runtime.meter import QueueMeter, Usage, resident_bytes
from gopher.runtime.nurseries import Nurseries
from gopher.runtime.orphans import Orphans
from gopher.runtime.promoter import Promoter
from gopher.runtime.reaper import Reaper
from gopher.runtime.recorder import Recorder
from gopher.runtime.relay import Relay
from gopher.runtime.relief import Relief
from gopher.runtime.reporter import Reporter
from gopher.runtime.runner import Runner
from gopher.runtime.scheduler import Scheduler
from gopher.runtime.scopes import CancelReason, Scopes
from gopher.runtime.settler import Settler
from gopher.runtime.sizing import Sizer, Sizing
from gopher.runtime.slots import Slots
from gopher.runtime.watchdog import Watchdog
from gopher.store.leases import Leases
from gopher.store.lifecycle import Settlement
from gopher.store.registry import StuckAttempt, WorkerDescription
from gopher.store.type_set import TypeSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.event import EventKind
    from gopher.handlers import Registry
    from gopher.kin.kin import Sibling
    from gopher.runtime.plan import WorkerPlan
    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LAST_SECONDS: Final = 3.0
"""Chosen: what a drain may take beyond its grace to end handlers and write outcomes; RELIABILITY allows 5 s."""
_CLEANUP_SECONDS: Final = 2.0
"""Chosen: of these, what cancelled handlers are given; then SIGKILL follows for subprocesses, and nothing for threads."""
_WRITE_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 0.3
"""Chosen: what a lifespan may take to close at the least; all that is left of the drain's time is its own."""
_LONGEST_SWEEP_SECONDS: Final = 5.0


class Supervisor:
    """A worker. `run()` it, `drain()` it.

    Args:
        store: Already connected.
        url: Of Redis, for the keeper's own connection.
        registry: The handlers.
        plan: What to do.
        abandon: Ends the process, once nothing can be done for handlers that will not end (threads): their jobs are given back
            and they must not run on.
    """

    def __init__(self, store: Store, url: str, registry: Registry, plan: WorkerPlan, *, abandon: Callable[[], None]) -> None:
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._store = store
        self._registry = registry
        self._plan = plan
        self._scopes = Scopes()
        self._draining = trio.Event()
        self.is_dismissed = False
        """Whether an operator has ordered the drain."""
        self._grace = trio.CancelScope()
        self._abandon = abandon
        self._settlers: dict[str, Settler] = {}
        self._reporters: dict[str, Reporter] = {}
        self._relays: list[Relay] = []
        children = Children(store.outbox, namespace=plan.namespace)
        self._sizing = Sizing(*plan.slots, cpus=machine.cpu_share())
        self._lifespans = Lifespans(registry, on_end=self.abort)
        self._recorders: list[Recorder] = []
        self._usage = Usage(lambda: self._sizing.slots, self._scopes.snapshot)
        self._gates = Gates(
            store,
            registry,
            namespace=plan.namespace,
            queues=list(plan.queues),
            worker=self.worker_id,
            lease_seconds=plan.lease_seconds,
            on_room=self._note_room,
        )
        self._claimer = Claimer(
            store.lifecycle,
            self._scopes,
            self._gates,
            types=TypeSet([*registry.types, *self._gates.breakers]),
            namespace=plan.namespace,
            worker=self.worker_id,
            slots=self._sizing.slots,
            lease_seconds=plan.lease_seconds,
            poll_seconds=plan.poll_seconds,
        )
        self._carrier = Carrier(store)
        nurseries = Nurseries(
            store,
            self._carrier,
            namespace=plan.namespace,
            rests=self._claimer.rests,
            on_lost=self._scopes.lose_lease,
            on_change=self._tell_of_child,
        )
        self._executors = Executors(
            app=plan.app,
            subprocesses=plan.subprocesses,
            max_result_bytes=plan.max_result_bytes,
            children=children,
            nurseries=nurseries,
            middleware=registry.middlewares,
            lifespans=self._lifespans,
        )
        self._runner = Runner(
            registry,
            self._executors,
            namespace=plan.namespace,
            max_result_bytes=plan.max_result_bytes,
            say=self._say,
            children=children,
            nurseries=nurseries,
            is_draining=self._draining.is_set,
            max_attempts=plan.max_attempts,
            keep_tracebacks=plan.keep_tracebacks,
        )
        leases = Leases(url, namespace=plan.namespace, reply_seconds=plan.lease_seconds / 4)
        self._keeper = Keeper(
            leases,
            self._scopes,
            worker=self.worker_id,
            lease_seconds=plan.lease_seconds,
            describe=self._describe,
            on_lost=self._scopes.lose_lease,
            on_cancel=self._scopes.request_cancel,
            on_drain=self._obey,
            is_blocked=lambda: self._watchdog.is_blocked,
            relief=Relief(leases, self._scopes, worker=self.worker_id, under_way=lambda: self._claimer.under_way),
        )
        self._watchdog = Watchdog(
            registry,
            charged=self._lifespans.charged,
            on_change=self._keeper.hasten,
            notice=self._notice,
            lease_seconds=plan.lease_seconds,
        )
        self._started_ms = 0

    @property
    def is_draining(self) -> bool:
        """Whether it ends."""
        return self._draining.is_set()

    def drain(self, grace_seconds: float | None = None) -> None:
        """Stop claiming and end when all is done, at the latest when the grace is over, which begins now.

        Args:
            grace_seconds: In place of the plan's; None for that.
        """
        if not self._draining.is_set():
            _log.info("worker.draining", worker=self.worker_id, running=len(self._scopes))
            grace_seconds = self._plan.grace_seconds if grace_seconds is None else grace_seconds
            self._grace.deadline = trio.current_time() + grace_seconds
            self._claimer.stop()
            self._draining.set()
            self._scopes.release_waiting()
            self._lifespans.stop_opening()

    def _obey(self, grace_seconds: float | None) -> None:
        """Drain because an operator wants it: whoever started this worker is not to start it again."""
        if not self._draining.is_set():
            self.is_dismissed = True
        self.drain(grace_seconds)

    def _hear_drain(self, worker: str, grace_seconds: float | None) -> None:
        if worker == self.worker_id:
            self._obey(grace_seconds)

    def abort(self) -> None:
        """End all attempts now and give their jobs back."""
        self.drain()
        self._grace.deadline = trio.current_time()
        self._grace.cancel(reason="abort")
        self._scopes.cancel_all(CancelReason.SHUTDOWN, _CLEANUP_SECONDS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until drained. Started once the types are registered and jobs are claimed, or when drained before that.

        Raises:
            StartError: A lifespan cannot be opened, or has ended too early.
        """
        async with self._lifespans.keep_open(self._latest_close) as are_open:
            if are_open:
                await self._work(task_status.started)
            else:
                task_status.started()
        _log.info("worker.stopped", worker=self.worker_id)

    async def _work(self, note_ready: Callable[[], None]) -> None:
        self._started_ms = await self._store.registry.now_ms()
        async with trio.open_nursery() as services:
            await services.start(self._store.declarations.run)
            await self._store.declarations.declare(self._declare)
            await services.start(self._keeper.run)
            await services.start(self._watchdog.run)
            await self._gates.start()
            await services.start(self._gates.run)
            await services.start(self._carrier.run)
            for queue, weight in self._plan.queues.items():
                await self._serve_queue(services, queue, weight)
            if not self._sizing.is_fixed:
                await services.start(Sizer(self._sizing, self._claimer, self._scopes).run)
            await services.start(Cutter(self._scopes, self._registry, self._notice).run)
            async with trio.open_nursery() as attempts:
                async with self._claimer.hear_rings(self._store.control), trio.open_nursery() as claiming:
                    await claiming.start(self._claimer.run, Slots(self._runner, attempts))
                    note_ready()
                    await self._draining.wait()
                    claiming.cancel_scope.cancel()
                await self._finish()
                await self._record()
                attempts.cancel_scope.cancel()
            with trio.move_on_after(_WRITE_SECONDS):
                await self.wait_idle()
            services.cancel_scope.cancel()

    async def _declare(self) -> None:
        """Make known what this worker serves, and how."""
        plan, registry = self._plan, self._store.registry
        await registry.add_types(plan.namespace, self._registry.types)
        for queue in plan.queues:
            await registry.name_queue(plan.namespace, queue)
        await self._gates.declare()
        self._keeper.hasten()

    def _latest_close(self) -> float:
        begun = self._grace.deadline if self._draining.is_set() else trio.current_time()
        return begun + _LAST_SECONDS + _WRITE_SECONDS + _CLOSE_SECONDS

    async def wait_idle(self) -> None:
        """Wait until nothing runs here, every outcome is written, and all children are in their queues."""
        await self._scopes.wait_empty()
        for relay in self._relays:
            await relay.wait_empty()

    async def _serve_queue(self, services: trio.Nursery, queue: str, weight: int) -> None:
        plan, lifecycle = self._plan, self._store.lifecycle
        sweep_seconds = min(_LONGEST_SWEEP_SECONDS, plan.lease_seconds / 3)
        relay = Relay(self._store.outbox, namespace=plan.namespace, queue=queue, sweep_seconds=sweep_seconds)
        self._relays.append(relay)
        meter = QueueMeter()
        settler = Settler(
            lifecycle,
            self._scopes,
            namespace=plan.namespace,
            queue=queue,
            relay=relay,
            on_change=self._claimer.note_room,
            meter=meter,
        )
        self._settlers[queue] = settler
        reporter = Reporter(self._store.histories, self._scopes, namespace=plan.namespace, queue=queue)
        self._reporters[queue] = reporter
        recorder = Recorder(self._store.figures, meter, namespace=plan.namespace, queue=queue, worker=self.worker_id)
        self._recorders.append(recorder)
        self._usage.add_meter(meter)
        promoter = Promoter(lifecycle, namespace=plan.namespace, queue=queue, poll_seconds=plan.poll_seconds)
        reaper = Reaper(lifecycle, namespace=plan.namespace, queue=queue, sweep_seconds=sweep_seconds, on_lost=meter.count_lost)
        scheduler = Scheduler(self._store.schedules, namespace=plan.namespace, queue=queue)
        orphans = Orphans(self._store.families, lifecycle, namespace=plan.namespace, queue=queue, sweep_seconds=sweep_seconds)
        inspector = Inspector(self._store.trees, self._registry, self._scopes, namespace=plan.namespace, queue=queue)
        listener = Listener(
            control=self._store.control,
            namespace=plan.namespace,
            queue=queue,
            claimer=self._claimer,
            promoter=promoter,
            scheduler=scheduler,
            scopes=self._scopes,
            orphans=orphans,
            inspector=inspector,
            drain=self._hear_drain,
        )
        await listener.start()
        self._store.link.on_reconnect.append(listener.reread)
        self._claimer.add_source(QueueSource(queue, weight, settler, meter))
        await services.start(relay.run)
        await services.start(settler.run)
        await services.start(reporter.run)
        await services.start(promoter.run)
        await services.start(scheduler.run)
        await services.start(reaper.run)
        await services.start(orphans.run)
        await services.start(inspector.run)
        await services.start(recorder.run)

    async def _finish(self) -> None:
        with self._grace:
            await self._scopes.wait_empty()
        self._scopes.cancel_all(CancelReason.SHUTDOWN, _CLEANUP_SECONDS)
        with trio.move_on_after(_LAST_SECONDS):
            await self._scopes.wait_empty()
            return
        left = self._scopes.snapshot()
        _log.warning("worker.abandoned", worker=self.worker_id, job_ids=[attempt.job.id for attempt in left])
        for attempt in left:
            self._settlers[attempt.queue].put_nowait(
                attempt, Settlement(attempt.job.id, attempt.job.token, Move.RELEASE, Outcome.CANCELLED)
            )
        with trio.move_on_after(_WRITE_SECONDS):
            await self._scopes.wait_empty()
        await self._record()
        self._executors.kill()
        self._abandon()

    async def _record(self) -> None:
        """Bring what was measured last; bounded, for nobody's job waits for it."""
        with trio.move_on_after(_WRITE_SECONDS):
            for recorder in self._recorders:
                await recorder.tick()

    def _note_room(self, queue: str) -> None:
        self._claimer.wake(queue)

    async def _say(self, attempt: RunningAttempt, kind: EventKind, progress: float | str, detail: bytes) -> None:
        await self._reporters[attempt.queue].say(attempt, kind, progress, detail)

    def _tell_of_child(self, attempt: RunningAttempt, child: Sibling) -> None:
        # Whom nobody watches pays nothing for his children.
        if attempt.is_heard and child.id is not None:
            waits = child.job.delay_ms is not None or child.job.run_ms is not None
            state = child.state or (JobState.SCHEDULED if waits else JobState.ENQUEUED)
            self._reporters[attempt.queue].child_nowait(attempt, child.id, child.type, state)

    def _notice(self, attempt: RunningAttempt, reason: str, message: str) -> None:
        """Tell of an attempt, in the log and to its watchers; never blocks, never raises."""
        job = attempt.job
        _log.warning("attempt.notice", job_id=job.id, type=job.type, attempt=job.attempt, reason=reason, message=message)
        self._reporters[attempt.queue].note_nowait(attempt, reason, message)

    def _describe(self) -> WorkerDescription:
        self._usage.look()
        stuck = [StuckAttempt(attempt.job.id, attempt.job.type, attempt.hangs_at) for attempt in self._scopes.stuck()]
        return WorkerDescription(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._plan.version,
            queues=self._plan.queues,
            types=self._registry.types,
            slots=self._claimer.slots,
            busy=len(self._scopes) - self._claimer.rests.count,
            started_ms=self._started_ms,
            draining=self._draining.is_set(),
            stuck=[each.job_id for each in stuck],
            stuck_attempts=stuck,
            utilisation=self._usage.utilisation,
            attempts_per_second=self._usage.attempts_per_second,
            resident_bytes=resident_bytes(),
            cpu_cores=self._usage.cpu_cores,
            blocked=self._watchdog.block,
            blocked_totals=self._watchdog.totals,
        )
