"""What a namespace knows: its queues and their numbers, its job types, its workers."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from gopher.errors import (
    JobNotFoundError,
    QueueNotFoundError,
    ScriptReplyError,
    StoreUnavailableError,
    TooManyQueuesError,
    WorkerNotFoundError,
)
from gopher.registration_errors import TooManyTypesError
from gopher.store import ids, keys
from gopher.store.scripts import Script
from gopher.store.submission import UNNAMED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gopher.store.link import Link
    from gopher.store.resp import Reply


class StuckAttempt(msgspec.Struct, frozen=True):
    """An attempt that has outlasted its end and the grace.

    Attributes:
        job_id: Of its job.
        type: Of its job.
        hangs_at: The innermost line of the handler's own code, `file:line in function`; '' where it is not known.
    """

    job_id: str
    type: str
    hangs_at: str


class LoopBlock(msgspec.Struct, frozen=True, kw_only=True):
    """That a worker's loop is blocked, or has been.

    Attributes:
        type: Of the job whose handler blocks it; empty where it is none.
        function: The handler, by module and name; else the Trio task.
        job_id: Of the job; empty where several blocks are summed up.
        seconds: For how long.
    """

    type: str
    function: str
    seconds: float
    job_id: str = ""


class WorkerDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself with every beat.

    Attributes:
        host: Name of its machine.
        pid: Of its process.
        version: Of Gopher.
        queues: Name -> weight.
        types: The handlers it has.
        slots: Attempts it runs at most at once, at present.
        busy: Attempts it runs now.
        started_ms: When it started, ms since the epoch by the clock of Redis.
        draining: Whether it claims no more.
        stuck: Jobs whose handler outlasts its cancel.
        utilisation: Of its slots' time since the beat before, the share in which a handler ran.
        attempts_per_second: Attempts that ended since the beat before.
        resident_bytes: Memory of its process; 0 where the system does not tell.
        cpu_cores: Processor time its process took since the beat before; 1.0 is one core.
        stuck_attempts: More about those that are stuck.
        blocked: What blocks its loop now; None when nothing does.
        blocked_totals: For how long its loop has been blocked since it started, by type and function.
        labels: Of a worker on a stream, as it has told them.
    """

    host: str
    pid: int
    version: str
    queues: dict[str, int]
    types: list[str]
    slots: int
    busy: int
    started_ms: int
    draining: bool
    stuck: list[str]
    # Unset in the beat of a worker of an older version.
    utilisation: float = 0.0
    attempts_per_second: float = 0.0
    resident_bytes: int = 0
    cpu_cores: float = 0.0
    stuck_attempts: list[StuckAttempt] = []
    blocked: LoopBlock | None = None
    blocked_totals: list[LoopBlock] = []
    labels: dict[str, str] = {}


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the register holds it.

    Attributes:
        id: Of the worker.
        heartbeat_ms: Moment of its last beat, ms since the epoch by the clock of Redis.
        description: What it said then.
    """

    id: str
    heartbeat_ms: int
    description: WorkerDescription


_ORDER: Final = b"!"
"""What the name of a worker's order to drain begins with, in the register."""
_ORDER_LIFE_MS: Final = 3600 * 1000
"""Chosen: many beats of the longest lease anybody would set."""
MOST_TYPES: Final = 10_000
"""Types that a namespace knows at most; chosen: one answer lists them all, some 1.3 MB."""
_TYPE_DAYS: Final = 100
TYPE_KEPT_MS: Final = _TYPE_DAYS * 24 * 3600 * 1000
"""How long a type is known that no worker has; chosen: what runs once a quarter stays."""
_TYPES_REMEMBERED_SECONDS: Final = 3600.0
"""Chosen: little beside how long Redis keeps them, and a look an hour a type costs nothing."""
_SLICE: Final = 500
"""Names looked at in one write; chosen: some 100 KB of commands."""
_decode_description = msgspec.json.Decoder(WorkerDescription).decode


class Registry:
    """Looks names up. It remembers types that are known, for an hour, and the numbers of queues.

    What is remembered may be out of date: Redis may have lost the name of a queue, or it was freed. A script that stores a job finds that
    out (`UNNAMED`), and its caller then calls `name_queue`.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._add_names = Script.load("add_names")
        self._add_types = Script.load("add_types")
        self._free_types = Script.load("free_types")
        self._name_queue = Script.load("name_queue")
        self._number_queue = Script.load("number_queue")
        self._make_once = Script.load("make_once")
        self._drain_worker = Script.load("drain_worker")
        self._numbers: dict[tuple[str, str], int] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._types: set[tuple[str, str]] = set()
        self._forget_types_at = 0.0
        self._page_secret: bytes | None = None

    async def queue_number(self, namespace: str, queue: str) -> int:
        """Return the number of a queue, 0 to 65,535, for ids; a new name gets one.

        Raises:
            TooManyQueuesError: All numbers of the namespace are taken.
        """
        number = self._numbers.get((namespace, queue))
        return await self.name_queue(namespace, queue) if number is None else number

    async def name_queue(self, namespace: str, queue: str, *, number: int | None = None) -> int:
        """Make a queue known, whatever is remembered of it, and return its number.

        Args:
            namespace: Of the queue.
            queue: Its name.
            number: That ids carry already; it is given if it is free. None for the one that is remembered.

        Raises:
            TooManyQueuesError: All numbers of the namespace are taken.
        """
        wanted = self._numbers.pop((namespace, queue), None) if number is None else number
        word, *rest = await self._name_queue(self._link, [keys.queues(namespace)], [queue, "" if wanted is None else wanted])
        if word != b"OK":
            raise TooManyQueuesError(queue)
        given = int(rest[0])
        await self.add_namespace(namespace)
        # After the name: cut off in between, the next submit names the queue again.
        await self._number_queue(self._link, [keys.settings(namespace, queue)], [ids.number_text(given)])
        self._numbers[namespace, queue] = given
        self._names[namespace, given] = queue
        return given

    async def add_namespace(self, namespace: str) -> None:
        """Make a namespace known to those that look after all of them."""
        await self._add_names(self._link, [keys.namespaces()], [namespace])

    async def numbered(self, namespace: str, queue: str, store: Callable[[int], Awaitable[Reply]]) -> Reply:
        """Store jobs under new ids, and once more where the number that is remembered is not that of the queue any more.

        Args:
            namespace: Of the queue.
            queue: Where they are stored.
            store: Runs a script that stores jobs, under ids that carry the given number, and returns its answer.

        Raises:
            TooManyQueuesError: All numbers of the namespace are taken.
            StoreUnavailableError: Redis has lost the name a second time.
        """
        reply = await store(await self.queue_number(namespace, queue))
        if reply[0] == UNNAMED:
            reply = await store(await self.name_queue(namespace, queue))
        if reply[0] == UNNAMED:
            raise StoreUnavailableError(f"redis has lost the name of queue {queue!r} again")
        return reply

    async def under_number(self, namespace: str, queue: str, job_id: str, store: Callable[[], Awaitable[Reply]]) -> Reply:
        """Store jobs whose ids are given out already; where their queue is not known by the number that those carry, name it first.

        Args:
            namespace: Of the queue.
            queue: Where they are stored.
            job_id: One of the ids.
            store: Runs a script that stores jobs, and returns its answer.

        Raises:
            ScriptReplyError: Another queue has the number by now, so that nothing would find the jobs.
        """
        reply = await store()
        if reply[0] != UNNAMED:
            return reply
        number = ids.queue_number(job_id)
        if await self.name_queue(namespace, queue, number=number) == number:
            reply = await store()
        if reply[0] == UNNAMED:
            raise ScriptReplyError(f"the queue {queue!r} has lost its number {number}")
        return reply

    async def recall_queues(self) -> None:
        """Make known again what Redis has forgotten of the queues that are remembered, and forget those that are no more.

        A queue whose jobs Redis still has keeps the number that their ids carry.

        Raises:
            StoreError: Some may have been left out.
        """
        self._names.clear()
        remembered = list(self._numbers.items())
        for start in range(0, len(remembered), _SLICE):
            batch = remembered[start : start + _SLICE]
            commands = [("HGET", keys.queues(namespace), queue) for (namespace, queue), _ in batch]
            commands += [("HGET", keys.settings(namespace, queue), "number") for (namespace, queue), _ in batch]
            replies = await self._link.call_all(commands)
            for (name, number), named, noted in zip(batch, replies, replies[len(batch) :], strict=False):
                if noted != ids.number_text(number).encode():
                    self._numbers.pop(name, None)
                elif named is None:
                    await self.name_queue(*name)
                elif int(named) != number:
                    self._numbers.pop(name, None)

    async def queue_of(self, namespace: str, job_id: str) -> str:
        """Return the queue that a job of this id stands in, if there is one.

        Raises:
            InvalidRequestError: BAD_ID.
            JobNotFoundError: The namespace has no queue of this number.
        """
        number = ids.queue_number(job_id)
        name = self._names.get((namespace, number))
        if name is None:
            reply = await self._link.call("HGET", keys.queues(namespace), f"#{number}")
            if reply is None:
                raise JobNotFoundError(job_id)
            name = reply.decode()
            self._names[namespace, number] = name
        return name

    async def queues(self, namespace: str) -> list[str]:
        """Return the names of the queues known, sorted."""
        names = await self._link.call("HKEYS", keys.queues(namespace))
        return sorted(name.decode() for name in names if name[:1] not in {b"#", b"~"})

    async def require_queue(self, namespace: str, queue: str) -> None:
        """Check that a queue exists.

        Raises:
            QueueNotFoundError: Nobody has used it.
        """
        if not await self._link.call("HEXISTS", keys.queues(namespace), queue):
            raise QueueNotFoundError(queue)

    async def add_types(self, namespace: str, types: Iterable[str]) -> None:
        """Make job types known, or known for longer, since a worker has them.

        Raises:
            TooManyTypesError: The namespace has no room for those that are new; none was added.
        """
        word, *rest = await self._add_types(self._link, _type_keys(namespace), [MOST_TYPES, *types])
        if word != b"OK":
            raise TooManyTypesError(rest[0].decode(), MOST_TYPES, _TYPE_DAYS)

    async def free_types(self, namespace: str) -> list[str]:
        """Forget types that no worker has had for long, some a call; their jobs stay. Returns which."""
        _, *freed = await self._free_types(self._link, _type_keys(namespace), [TYPE_KEPT_MS])
        return [name.decode() for name in freed]

    async def is_known_type(self, namespace: str, job_type: str) -> bool:
        """Tell whether any worker of the namespace has registered a type, and not too long ago."""
        now = trio.current_time()
        if now >= self._forget_types_at:
            self._types.clear()
            self._forget_types_at = now + _TYPES_REMEMBERED_SECONDS
        if (namespace, job_type) in self._types:
            return True
        known = bool(await self._link.call("SISMEMBER", keys.types(namespace), job_type))
        if known:
            self._types.add((namespace, job_type))
        return known

    async def types(self, namespace: str) -> list[str]:
        """Return the types known, sorted."""
        return sorted(name.decode() for name in await self._link.call("SMEMBERS", keys.types(namespace)))

    async def workers(self, namespace: str) -> list[WorkerInfo]:
        """Return the workers whose entry still stands, by id."""
        now_ms = await self.now_ms()
        entries = await self._link.call("HGETALL", keys.workers(namespace))
        found = []
        for worker, entry in entries.items():
            if not worker.startswith(_ORDER) and int(entry.split(b" ", 1)[0]) >= now_ms:
                found.append(_worker(worker.decode(), entry))
        return sorted(found, key=lambda worker: worker.id)

    async def drain_worker(self, namespace: str, worker: str, grace_ms: int | None) -> WorkerInfo:
        """Tell a worker to drain, by message and, should that be lost, by the register that it reads with its next beat.

        Args:
            namespace: Of the worker.
            worker: Its id.
            grace_ms: How long it lets attempts finish; None for as long as it was started with.

        Returns:
            The worker as it last described itself.

        Raises:
            WorkerNotFoundError: None of this id lives.
        """
        said_ms = -1 if grace_ms is None else grace_ms
        word, *rest = await self._drain_worker(self._link, [keys.workers(namespace)], [worker, said_ms, _ORDER_LIFE_MS])
        if word != b"OK":
            raise WorkerNotFoundError(worker)
        found = _worker(worker, rest[0])
        for queue in found.description.queues:
            await self._link.call("SPUBLISH", keys.control(namespace, queue), f"drain {worker} {said_ms}")
            break  # it hears each of its queues
        return found

    async def now_ms(self) -> int:
        """Return the moment by the clock of Redis, ms since the epoch."""
        seconds, micros = await self._link.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def page_secret(self, namespace: str) -> bytes:
        """Return the 32 bytes that sign the namespace's page tokens.

        They are derived from one secret of the whole Redis, which the first caller makes: so asking about a namespace leaves nothing there.
        Where Redis has lost it, it is made again as it was, so that clients can go on with the cursors that they have.
        """
        key = keys.page_secret()
        secret: bytes | None = await self._link.call("GET", key)
        if secret is None:
            _, secret = await self._make_once(self._link, [key], [self._page_secret or secrets.token_bytes(32)])
        assert secret is not None  # noqa: S101 - the script returns one
        self._page_secret = secret
        return hmac.digest(secret, namespace.encode(), "sha256")


def _type_keys(namespace: str) -> list[str]:
    return [keys.types(namespace), keys.types_declared(namespace)]


def _worker(worker: str, entry: bytes) -> WorkerInfo:
    _, heartbeat, description = entry.split(b" ", 2)
    return WorkerInfo(id=worker, heartbeat_ms=int(heartbeat), description=_decode_description(description))
