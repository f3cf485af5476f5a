"""The bulk operations: started, looked at, taken up by a server with a lease, ended.

The record of an operation stands under a hash tag of its own, since its jobs may lie in many queues: it says what to do, in which
queue the work is, and what was done in the queues before. How far the work has come in a queue stands with the queue: one script
moves jobs, counts them and moves the cursor on (`gopher.store.bulk_walk`), so that neither a killed server nor two that work at
once do a step twice. The lease only keeps servers from racing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from gopher.bulk import BulkOperation, BulkPlan, BulkState
from gopher.errors import BulkOperationEndedError, BulkOperationNotFoundError, TooManyBulkOperationsError
from gopher.job import JobState
from gopher.store import keys
from gopher.store.ids import IdSource
from gopher.store.index_walk import fixed_names
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Argument

MOST_RUNNING: Final = 10
"""Of a namespace, chosen: each is served in turn, and people start them."""
MOST_KEPT: Final = 100
"""Of a namespace, chosen: a list reads them all at once."""
KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""Chosen: a week, in which a namespace's servers may all be down, or somebody may want to know what was done."""
COUNTS: Final = ("scanned", "done", "skipped", "failed")

_encode = msgspec.json.Encoder().encode
_decode_plan = msgspec.json.Decoder(BulkPlan).decode


class ClaimedBulk(NamedTuple):
    """An operation in the hands of a server.

    Attributes:
        operation: As its record has it.
        queue: Where the work is; empty when there is no queue.
        token: Of the lease.
    """

    operation: BulkOperation
    queue: str
    token: int

    @property
    def member(self) -> str:
        """Return the operation's entry among those that run."""
        return f"{self.operation.namespace} {self.operation.id}"

    @property
    def record(self) -> str:
        """Return the key of the record."""
        return keys.bulk_operation(self.operation.namespace, self.operation.id)


class BulkOperations:
    """Keeps the bulk operations of every namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._ids = IdSource()
        self._start = Script.load("start_bulk")
        self._claim = Script.load("claim_bulk")
        self._keep = Script.load("keep_bulk")
        self._close = Script.load("close_bulk")
        self._advance = Script.load("advance_bulk")
        self._end = Script.load("end_bulk")

    async def start(self, namespace: str, plan: BulkPlan) -> BulkOperation:
        """Make an operation; a server takes it up at once.

        Raises:
            TooManyBulkOperationsError: As many run in the namespace as may.
        """
        queues = await self._queues(namespace, plan)
        sizes: list[tuple[Argument, ...]] = []
        parked: list[tuple[Argument, ...]] = []
        for name in queues:
            sizes += [("ZCARD", keys.queue(namespace, name) + each) for each in fixed_names(plan.states)]
            if JobState.ENQUEUED in plan.states:
                parked.append(("HGET", keys.counters(namespace, name), "parked"))
        total = sum(int(size or 0) for size in await self._link.call_all(sizes + parked))
        operation_id = self._ids.new(0)
        fields: list[Argument] = ["plan", _encode(plan), "total", total, "at_queue", queues[0] if queues else ""]
        (word,) = await self._start(
            self._link,
            [keys.bulk_running(), keys.bulk_operations(namespace), keys.bulk_operation(namespace, operation_id)],
            [f"{namespace} {operation_id}", operation_id, MOST_RUNNING, MOST_KEPT, KEPT_MS, *fields],
        )
        if word == b"TOO_MANY":
            raise TooManyBulkOperationsError(MOST_RUNNING)
        return await self.get(namespace, operation_id)

    async def get(self, namespace: str, operation_id: str) -> BulkOperation:
        """Return an operation as it stands.

        Raises:
            BulkOperationNotFoundError: There is none of this id.
        """
        found = await self._read(namespace, operation_id)
        if found is None:
            raise BulkOperationNotFoundError(operation_id)
        return found

    async def list_all(self, namespace: str) -> list[BulkOperation]:
        """Return the operations kept of a namespace, the last one first."""
        ids = await self._link.call("ZRANGE", keys.bulk_operations(namespace), 0, -1, "REV")
        found = [await self._read(namespace, each.decode()) for each in ids]
        return [each for each in found if each is not None]

    async def cancel(self, namespace: str, operation_id: str) -> BulkOperation:
        """End an operation that runs; what it has done stays done.

        Raises:
            BulkOperationNotFoundError: There is none of this id.
            BulkOperationEndedError: It is completed or failed.
        """
        reply = await self._end(
            self._link,
            [keys.bulk_running(), keys.bulk_operation(namespace, operation_id)],
            [f"{namespace} {operation_id}", BulkState.CANCELLED.value, ""],
        )
        if reply[0] == b"NOT_FOUND":
            raise BulkOperationNotFoundError(operation_id)
        if reply[0] == b"STATE":
            raise BulkOperationEndedError(operation_id, reply[1].decode())
        return await self.get(namespace, operation_id)

    async def listen(self, receive: Callable[[bytes], None]) -> None:
        """Have `receive` called when an operation is started in any namespace, until the link closes."""
        await self._link.subscribe(keys.bulk_started().encode(), receive)
        self._link.on_reconnect.append(lambda: receive(b""))

    async def claim(self, lease_ms: int) -> ClaimedBulk | float | None:
        """Take up the operation that has waited longest.

        Returns:
            It; or how many seconds until one may be taken up that another server has; or None when none runs.
        """
        word, *rest = await self._claim(self._link, [keys.bulk_running()], [lease_ms, KEPT_MS])
        if word == b"NONE":
            return None if rest[0] < 0 else rest[0] / 1000
        namespace, operation_id, token, flat = rest
        record = dict(zip(flat[::2], flat[1::2], strict=True))
        operation = _operation(namespace.decode(), operation_id.decode(), record)
        return ClaimedBulk(operation, record[b"at_queue"].decode(), token)

    async def keep(self, claimed: ClaimedBulk, lease_ms: int) -> bool:
        """Keep the lease; 0 gives it up. False when the operation has ended, or another server has it."""
        args: list[Argument] = [claimed.member, claimed.token, lease_ms]
        (word,) = await self._keep(self._link, [keys.bulk_running(), claimed.record], args)
        return bool(word == b"OK")

    async def advance(self, claimed: ClaimedBulk) -> ClaimedBulk | None:
        """Close the queue in which the work was; return the operation in the next, None when it is completed or lost."""
        operation = claimed.operation
        names = await self._queues(operation.namespace, operation.plan)
        following = next((name for name in names if name > claimed.queue), "")
        progress = keys.bulk_progress(operation.namespace, claimed.queue, operation.id)
        counts: list[bytes | None] = [None] * len(COUNTS)
        if claimed.queue:
            # First, so that the counts are the last ones, and no server that was overtaken works here any more.
            await self._close(self._link, [keys.settings(operation.namespace, claimed.queue)], [operation.id, KEPT_MS])
            counts = await self._link.call("HMGET", progress, *COUNTS)
        args: list[Argument] = [claimed.member, claimed.queue, following, KEPT_MS]
        for name, count in zip(COUNTS, counts, strict=True):
            args += [name, count or 0]
        (word,) = await self._advance(self._link, [keys.bulk_running(), claimed.record], args)
        if word != b"OK":
            return None
        return claimed._replace(queue=following) if following else None

    async def fail(self, claimed: ClaimedBulk, fault: str) -> None:
        """End an operation that cannot go on."""
        args = [claimed.member, BulkState.FAILED.value, fault]
        await self._end(self._link, [keys.bulk_running(), claimed.record], args)

    async def _queues(self, namespace: str, plan: BulkPlan) -> list[str]:
        names = await self._registry.queues(namespace)
        return names if plan.queue is None else [name for name in names if name == plan.queue]

    async def _read(self, namespace: str, operation_id: str) -> BulkOperation | None:
        record = await self._link.call("HGETALL", keys.bulk_operation(namespace, operation_id))
        if not record:
            return None
        queue = record[b"at_queue"].decode()
        counts = await self._link.call("HMGET", keys.bulk_progress(namespace, queue, operation_id), *COUNTS) if queue else ()
        return _operation(namespace, operation_id, record, dict(zip(COUNTS, counts, strict=False)))


def _operation(
    namespace: str, operation_id: str, record: Mapping[bytes, bytes], here: Mapping[str, bytes | None] | None = None
) -> BulkOperation:
    """Return the operation that a record holds, with what was done in the queue where the work is."""
    counts = {name: int(record.get(name.encode(), 0)) + int((here or {}).get(name) or 0) for name in COUNTS}
    return BulkOperation(
        id=operation_id,
        namespace=namespace,
        plan=_decode_plan(record[b"plan"]),
        state=BulkState(record[b"state"].decode()),
        created_ms=int(record[b"created_ms"]),
        ended_ms=int(record[b"ended_ms"]) if b"ended_ms" in record else None,
        total=int(record[b"total"]),
        fault=record.get(b"fault", b"").decode(),
        **counts,
    )
