"""The jobs that an attempt has submitted, its children: written with its outcome, and handed to their queues.

A script reaches one queue only. So `settle.lua` writes, with the outcome of an attempt that completed its job, all its children
into the outbox of the parent's queue, and stores at once those that are of the same queue. The others are delivered right after by
the worker that settled, or in the end by the sweep of any worker of that queue: they are submitted under the ids that they have
already, then taken out of the outbox. Whatever dies between two of these steps, each child comes to be once: until its entry is
gone, and for a minute more, its queue remembers its id as a request id. A delivery counts for half of that after its entries were
seen in the outbox, so that one by a process that was suspended meanwhile is refused.

An entry is one text: parent, lease token, queue and the lengths of what follows; a line end; the arguments of `submit.lua` that
stand for the child.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gopher.errors import StoreUnavailableError, UnknownTypeError
from gopher.store import keys
from gopher.store.ids import IdSource
from gopher.store.scripts import Script
from gopher.store.submission import BATCH, BATCH_BYTES, REQUEST_TTL_MS, add_submission, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gopher.job import NewJob
    from gopher.store.codec import Field
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Reply

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SWEEP: Final = 25
"""Entries a call, about; chosen: each may hold the largest payload."""
_LAST_CALL_MS: Final = 60_000
"""Chosen: how long ids are remembered once their entries are gone from the outbox."""
_DELIVERY_MS: Final = 30_000
"""How long after its entries were seen in the outbox a delivery counts; less than the above, for two deliver at once."""


_LATE: Final = b"LATE"


class Child(NamedTuple):
    """A job that an attempt has submitted.

    Attributes:
        id: Of the job that it will be.
        queue: Where it goes.
        entry: What the outbox holds of it.
    """

    id: str
    queue: str
    entry: bytes


def pack(parent_id: str, token: int, job_id: str, job: NewJob) -> Child:
    """Return the child that an attempt has submitted."""
    args: list[Field] = []
    add_submission(args, job_id, job)
    words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
    head = f"{parent_id} {token} {job.queue} {' '.join(str(len(word)) for word in words)}\n"
    return Child(job_id, job.queue, head.encode() + b"".join(words))


def _words_of(entry: bytes) -> list[bytes]:
    head, _, text = entry.partition(b"\n")
    words, at = [], 0
    for length in map(int, head.split(b" ")[3:]):
        words.append(text[at : at + length])
        at += length
    return words


def parted(children: Sequence[Child], queue: str) -> tuple[list[Child], list[Child]]:
    """Return which children a parent's queue stores at once, at most 100, and which are left to deliver."""
    direct: list[Child] = []
    rest: list[Child] = []
    for child in children:
        (direct if child.queue == queue and len(direct) < BATCH else rest).append(child)
    return direct, rest


def add_children(args: list[Field], children: Sequence[Child], queue: str) -> None:
    """End the settlement that stands last in the arguments of `settle.lua` with the children, where there are any."""
    if not children:
        args.append("")
        return
    direct, rest = parted(children, queue)
    args += ("children", len(direct), len(children))
    for child in (*direct, *rest):
        args += (child.id, child.entry)


def log_dropped(queue: str, job_id: bytes, reason: bytes, holder: bytes) -> None:
    """Tell of a child that its queue has refused, which is its end."""
    _log.warning("child.dropped", job_id=job_id.decode(), queue=queue, reason=reason.decode(), held_by=holder.decode())


class Outbox:
    """Takes in children and hands them to their queues, for any queue of any namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._ids = IdSource()
        self._standing = Script.load("standing_children")
        self._deliver = Script.load("deliver_children")
        self._sweep_outbox = Script.load("sweep_outbox")

    async def reserve(self, namespace: str, job: NewJob) -> str:
        """Return the id of a job to be; its queue is created if it is new.

        Raises:
            UnknownTypeError: No worker of the namespace has registered its type.
            TooManyQueuesError: As for a submit.
        """
        if not await self._registry.is_known_type(namespace, job.type):
            raise UnknownTypeError(job.type)
        return self._ids.new(await self._registry.queue_number(namespace, job.queue))

    async def deliver(self, namespace: str, queue: str, children: Sequence[Child]) -> None:
        """Hand children whose parents have completed to their queues, in order, and forget them.

        What is not in the outbox any more was delivered before. One that its queue refuses, since its unique key is held, is dropped.

        Args:
            namespace: Of the queues.
            queue: Of the parents.
            children: Any number.

        Raises:
            StoreError: Some may have been delivered; all may be delivered again.

        Cancellation:
            The same.
        """
        for target, group in groupby(sorted(children, key=attrgetter("queue")), key=attrgetter("queue")):
            for batch in _batched(group):
                await self._deliver_batch(namespace, queue, target, batch)

    async def _deliver_batch(self, namespace: str, queue: str, target: str, batch: Sequence[Child]) -> None:
        _, now_ms, *stand = await self._standing(self._link, [keys.settings(namespace, queue)], [child.id for child in batch])
        batch = [child for child, stands in zip(batch, stand, strict=True) if stands]
        if not batch:
            return
        args: list[Field] = [now_ms + _DELIVERY_MS, REQUEST_TTL_MS]
        for child in batch:
            args += guarded(_words_of(child.entry))
        deliver = partial(self._deliver, self._link, [keys.settings(namespace, target)], args)
        replies: list[Reply] = await self._registry.under_number(namespace, target, batch[0].id, deliver)
        if replies[0] == _LATE:
            raise StoreUnavailableError(f"a delivery to the queue {target!r} came more than {_DELIVERY_MS // 1000} s late")
        for child, reply in zip(batch, replies, strict=True):
            if isinstance(reply, list) and reply[0] != b"DUPLICATE":
                log_dropped(target, child.id.encode(), reply[0], reply[1])
        ids = [child.id for child in batch]
        await self._link.call("HDEL", keys.outbox(namespace, queue), *ids)
        # Not before: until then they may be delivered again, when the jobs themselves are long gone.
        await self._link.call_many([("PEXPIRE", keys.request(namespace, target, job_id), _LAST_CALL_MS) for job_id in ids])

    async def sweep(self, namespace: str, queue: str, cursor: int) -> tuple[int, list[Child]]:
        """Return some of the children that have still to be delivered, and where to go on; 0 begins the walk, and ends it."""
        _, following, *rows = await self._sweep_outbox(self._link, [keys.settings(namespace, queue)], [cursor, _SWEEP])
        children: list[Child] = []
        for job_id, *entries in rows:
            # One that its reply had no room for is read by itself.
            entry = entries[0] if entries else await self._link.call("HGET", keys.outbox(namespace, queue), job_id)
            if entry is not None:
                children.append(Child(job_id.decode(), entry.split(b" ", 3)[2].decode(), entry))
        return int(following), children


def _batched(children: Iterator[Child]) -> Iterator[list[Child]]:
    """Cut so that neither the count nor the bytes of a script call grow without bound."""
    batch: list[Child] = []
    size = 0
    for child in children:
        if batch and (len(batch) == BATCH or size + len(child.entry) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(child)
        size += len(child.entry)
    yield batch
