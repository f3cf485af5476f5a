"""One stream of a worker in another language, from its welcome to its end.

    reader     takes the worker's frames, one after another
    claims     takes jobs for its credit
    line       sends, in order, all that is said to it
    beat       keeps its entry in the register, and notices when it falls silent

A session holds nothing that may be lost with its server: what the worker holds stands in Redis, under its leases.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.errors import GopherError, RequestError, StoreError
from gopher.job import Move, Outcome
from gopher.service import remote_frames as frames
from gopher.service.remote_claims import Claims
from gopher.service.remote_holdings import Holdings
from gopher.service.remote_line import FrameLine
from gopher.service.remote_outcomes import Outcomes
from gopher.store.lifecycle import Settlement
from gopher.store.registry import WorkerDescription
from gopher.store.submission import BATCH
from gopher.wire import convert
from gopher.wire.worker_errors import WorkerReplacedError, WorkerSilentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gopher.retry import RetryPolicy
    from gopher.service.remote_frames import Greeting
    from gopher.service.remote_holdings import Meter
    from gopher.service.remote_line import Send
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BEATS_A_LEASE: Final = 3
_LONGEST_BEAT_SECONDS: Final = 10.0
"""Chosen: a ping comes at least every 15 s."""
_QUIET: Final = 0.6
"""Of a lease: whoever was not heard of for so long is given nothing, until it is. Chosen: an extend should have come, and time for it."""
_GIVE_BACK_SECONDS: Final = 1.0
"""Chosen: what a session that ends may take to give back what it has not assigned; what is left waits for its lease's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a server offers workers on streams.

    Attributes:
        lease_seconds: Lease.
        poll_seconds: Safety net of claims.
        max_result_bytes: Largest result.
        policy: When a failed attempt is followed by another, where the submitter does not say.
    """

    lease_seconds: float = 30.0
    poll_seconds: float = 5.0
    max_result_bytes: int = 64 * 1024
    policy: RetryPolicy


class Session:
    """Serves a worker.

    Args:
        store: Where the jobs are.
        terms: What is offered.
        greeting: What the worker has said.
        meters: By queue.
        worker: Its id.
    """

    def __init__(self, store: Store, terms: Terms, greeting: Greeting, meters: Mapping[str, Meter], *, worker: str) -> None:
        self._store = store
        self._terms = terms
        self._greeting = greeting
        self._worker = worker
        self._lease_ms = round(terms.lease_seconds * 1000)
        self._line = FrameLine()
        self._holdings = Holdings(
            store.assignments, self._line, namespace=greeting.namespace, lease_seconds=terms.lease_seconds
        )
        self._claims = Claims(
            store,
            greeting,
            self._holdings,
            self._line,
            meters,
            worker=worker,
            lease_seconds=terms.lease_seconds,
            poll_seconds=terms.poll_seconds,
            is_quiet=partial(self._is_silent, terms.lease_seconds * _QUIET),
        )
        self._outcomes = Outcomes(
            store,
            self._holdings,
            self._line,
            meters,
            namespace=greeting.namespace,
            worker=worker,
            policy=terms.policy,
            max_result_bytes=terms.max_result_bytes,
        )
        self._drain_told = trio.Event()
        self._drain_grace_seconds: float | None = None
        self._replaced = trio.Event()
        self._started_ms = 0
        self._heard_at = trio.current_time()
        self._is_busy = False
        self._has_left = False

    async def run(self, requests: AsyncIterator[pb.ConnectRequest], send: Send, resume_token: str) -> None:
        """Serve until the worker leaves, or its stream ends.

        Raises:
            RequestError: The worker erred, was silent, or has a later stream.
            StoreError: Redis failed.
        """
        async with AsyncExitStack() as stack:
            for queue in self._greeting.queues:
                receive = partial(self._hear, queue)
                namespace, control = self._greeting.namespace, self._store.control
                await stack.enter_async_context(control.hear(namespace, queue, receive))
                ring = partial(self._claims.wake, queue)
                await stack.enter_async_context(control.hear_rings(namespace, queue, self._worker, ring))
            hooks = self._store.link.on_reconnect
            hooks.append(self._claims.wake_all)
            stack.callback(hooks.remove, self._claims.wake_all)
            try:
                await self._serve(requests, send, resume_token)
            except BaseExceptionGroup as group:
                raise _sole(group) from None
            finally:
                await self._give_back()  # noqa: ASYNC102 - it is shielded, and bounded

    async def _serve(self, requests: AsyncIterator[pb.ConnectRequest], send: Send, resume_token: str) -> None:
        self._started_ms = await self._store.registry.now_ms()
        # While the stream lasts.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._line.run, send)
            nursery.start_soon(self._end_when_replaced)
            # Before the welcome: whoever is welcomed stands in the register.
            await self._beat()
            await self._line.put(self._welcome(resume_token))
            await self._resume()
            nursery.start_soon(self._claims.run)
            nursery.start_soon(self._keep_beating)
            nursery.start_soon(self._obey_drain)
            if await self._read(requests):
                await self._leave()
                await self._line.wait_empty()
            nursery.cancel_scope.cancel(reason="the worker has gone")

    def _welcome(self, resume_token: str) -> pb.ConnectResponse:
        welcome = pb.Welcome(
            worker_id=self._worker,
            resume_token=resume_token,
            lease=convert.duration(self._lease_ms),
            max_result_bytes=self._terms.max_result_bytes,
        )
        return pb.ConnectResponse(welcome=welcome)

    async def _resume(self) -> None:
        """Take over what the worker holds, and what was claimed for it and has not reached it."""
        leases: dict[str, list[tuple[str, int]]] = {queue: [] for queue in self._greeting.queues}
        foreign: list[tuple[str, int]] = []
        for job_id, token in self._greeting.leases.items():
            queue = await self._queue_of(job_id)
            leases.get(queue, foreign).append((job_id, token))
        await self._line.put(*frames.lease_lost(foreign))
        for queue, held in leases.items():
            resumption = await self._store.assignments.resume(
                self._greeting.namespace,
                queue,
                worker=self._worker,
                session=self._greeting.stream,
                lease_ms=self._lease_ms,
                leases=held,
            )
            if resumption is None:
                raise WorkerReplacedError(self._worker)
            for job_id, token in held:
                if job_id in resumption.settled:
                    await self._line.put(frames.settled(frames.lease_message(job_id, token), already=True))
                else:
                    self._holdings.take_over(job_id, token, queue)
            await self._holdings.take(resumption.findings)
            self._claims.assign_again(queue, resumption.again)

    async def _queue_of(self, job_id: str) -> str:
        """Return the queue of a job that the worker names; empty for what is no job's id."""
        try:
            return await self._store.registry.queue_of(self._greeting.namespace, job_id)
        except RequestError:
            return ""

    # --- what comes from the worker ---

    async def _read(self, requests: AsyncIterator[pb.ConnectRequest]) -> bool:
        """Take frames until the stream ends; tell whether the worker has left."""
        async for frame in requests:
            self._is_busy = True
            kind = frame.WhichOneof("frame")
            match kind:
                case "credit":
                    self._claims.add_credit(frame.credit.jobs)
                case "extend":
                    await self._holdings.extend(frames.check_extend(frame.extend))
                case "report":
                    await self._outcomes.report(frame.report)
                case "settle":
                    await self._outcomes.settle(frame.settle)
                case "leave":
                    return True
                case _:
                    raise frames.out_of_order(f"a later frame must not be {'empty' if kind is None else f'a {kind}'}")
            self._is_busy = False
            self._heard_at = trio.current_time()
            self._claims.note_heard()
        return False

    async def _leave(self) -> None:
        """Give back all that the worker holds or was to get, and forget it."""
        self._has_left = True
        await self._claims.stop()
        for queue, leases in self._holdings.leases().items():
            for start in range(0, len(leases), BATCH):
                released = [
                    Settlement(job_id, token, Move.RELEASE, Outcome.CANCELLED)
                    for job_id, token in leases[start : start + BATCH]
                ]
                await self._store.lifecycle.settle(self._greeting.namespace, queue, released)
        await self._store.assignments.forget(self._greeting.namespace, self._greeting.queues, self._worker)

    async def _give_back(self) -> None:
        # Shielded, so that jobs nobody was told of need not wait for their leases to end; bounded, since the stream is gone.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GIVE_BACK_SECONDS), suppress(StoreError):
            await self._claims.give_back()

    # --- what comes from Redis ---

    def _hear(self, queue: str, word: str, rest: list[str]) -> None:
        match word, rest:
            case "wake", _:
                self._claims.wake(queue)
            case "cancel", [job_id, token, grace_ms, *reason]:
                self._holdings.request_cancel(job_id, int(token), int(grace_ms) / 1000, " ".join(reason))
            case "drain", [worker, grace_ms, *_] if worker == self._worker:
                self._drain(None if int(grace_ms) < 0 else int(grace_ms) / 1000)
            case "session", [worker, number, *_] if worker == self._worker and int(number) > self._greeting.stream:
                self._replaced.set()
            case _:
                # Meant for others.
                pass

    def _drain(self, grace_seconds: float | None) -> None:
        if not self._drain_told.is_set():
            self._drain_grace_seconds = grace_seconds
            self._drain_told.set()

    async def _obey_drain(self) -> None:
        await self._drain_told.wait()
        grace_seconds = self._drain_grace_seconds
        drain = pb.Drain(grace=None if grace_seconds is None else convert.duration(round(grace_seconds * 1000)))
        await self._line.put(pb.ConnectResponse(drain=drain))
        _log.info("worker.draining", worker=self._worker, running=len(self._holdings))
        await self._claims.stop()

    async def _end_when_replaced(self) -> None:
        await self._replaced.wait()
        raise WorkerReplacedError(self._worker)

    # --- what the clock says ---

    async def _keep_beating(self) -> None:
        while not self._has_left:
            await trio.sleep(min(self._terms.lease_seconds / _BEATS_A_LEASE, _LONGEST_BEAT_SECONDS))
            await self._line.put(pb.ConnectResponse(ping=pb.Ping()))
            try:
                await self._beat()
            except StoreError as error:
                _log.warning("beat.delayed", worker=self._worker, error=str(error))

    async def _beat(self) -> None:
        """Tell the register of the worker, keep what was assigned to it, and end with one that is silent.

        Raises:
            WorkerSilentError: Nothing was heard for a lease.
        """
        if self._is_silent(self._terms.lease_seconds):
            raise WorkerSilentError(self._terms.lease_seconds)
        if self._has_left:
            # It would stand in the register again.
            return
        namespace, assignments = self._greeting.namespace, self._store.assignments
        order = await assignments.beat(namespace, self._worker, msgspec.json.encode(self._describe()), self._lease_ms)
        if order is not None:
            self._drain(order.grace_seconds)
        await assignments.keep(namespace, self._greeting.queues, self._worker, self._lease_ms)
        await self._claims.keep_waiting()
        await self._holdings.drop_expired()

    def _is_silent(self, seconds: float) -> bool:
        """Tell whether nothing was heard of the worker for so long, while it was listened to."""
        return not self._is_busy and trio.current_time() - self._heard_at > seconds

    def _describe(self) -> WorkerDescription:
        greeting = self._greeting
        return WorkerDescription(
            host=greeting.labels.get("host", ""),
            pid=0,
            version=greeting.version,
            queues=greeting.queues,
            types=sorted(greeting.types),
            slots=greeting.slots,
            busy=len(self._holdings),
            started_ms=self._started_ms,
            draining=self._drain_told.is_set(),
            stuck=[],
            labels=greeting.labels,
        )


def _sole(group: BaseExceptionGroup) -> BaseException:
    """Return why a session ended: where several tasks have found out, the first."""
    found, rest = group.split(GopherError)
    while rest is None and isinstance(found, BaseExceptionGroup):
        error = found.exceptions[0]
        if not isinstance(error, BaseExceptionGroup):
            return error
        found = error
    return group
