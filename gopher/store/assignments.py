"""What was claimed for workers on a stream: their leases, and how a worker goes on in a new session, maybe on another server.

A worker on a stream has a session a stream, by the number that the worker has given it; they grow. `claim.lua` notes what it gives to
a session, and gives nothing to one that a later one has replaced. What is noted outlives the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gopher.store import keys
from gopher.store.codec import ClaimedJob
from gopher.store.leases import LeaseFinding, read_findings, read_order
from gopher.store.scripts import Script
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gopher.store.leases import DrainOrder
    from gopher.store.link import Link
    from gopher.store.resp import Reply

_LEASES_KEPT: Final = 2
"""As in lib/assigned.lua: what was assigned is known for as long as a lease may stand, and once more."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a worker goes on in one queue.

    Attributes:
        findings: Of the leases that it holds, those that are lost, and those whose job is to be cancelled; the others were extended.
        settled: Ids of those whose outcome had been written; they are not among the findings.
        again: Jobs claimed for it that have not reached it, each with its new token.
    """

    findings: list[LeaseFinding]
    settled: set[str]
    again: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A job that has been claimed, as its record stands.

    Attributes:
        job: As a claim gives it.
        worker: Who claimed it last.
        is_processing: Whether that attempt has not been settled.
        is_cancelled: Whether a cancel was asked for.
    """

    job: ClaimedJob
    worker: str
    is_processing: bool
    is_cancelled: bool


class Assignments:
    """Keeps what workers on streams hold."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._extend = Script.load("extend")
        self._beat = Script.load("beat")
        self._resume = Script.load("resume_worker")

    async def resume(
        self, namespace: str, queue: str, *, worker: str, session: int, lease_ms: int, leases: Sequence[tuple[str, int]]
    ) -> Resumption | None:
        """Let a worker begin, or go on with what it was assigned of a queue; its older sessions claim nothing more, and hear of it.

        Args:
            namespace: Of the queue.
            queue: Of the jobs.
            worker: Id of the worker.
            session: Number of the new session.
            lease_ms: From now on.
            leases: Job id and token of what the worker holds, of this queue; an id once.

        Returns:
            What was found; None where there is a session of this number or a later one: then nothing was changed.
        """
        args: list[str | int] = [worker, session, lease_ms]
        for lease in leases:
            args += lease
        word, *rest = await self._resume(self._link, [keys.settings(namespace, queue)], args)
        if word == b"REPLACED":
            return None
        replies, again = rest
        return Resumption(
            read_findings(leases, [reply for reply in replies if reply[0] != b"SETTLED"]),
            {reply[1].decode() for reply in replies if reply[0] == b"SETTLED"},
            [(job_id.decode(), token) for job_id, token in again],
        )

    async def extend(self, namespace: str, queue: str, leases: Sequence[tuple[str, int]], lease_ms: int) -> list[LeaseFinding]:
        """Move the expiry of any number of leases forward; return those that are lost or whose job is to be cancelled."""
        findings: list[LeaseFinding] = []
        for start in range(0, len(leases), BATCH):
            batch = leases[start : start + BATCH]
            args: list[str | int] = [lease_ms]
            for lease in batch:
                args += lease
            findings += read_findings(batch, await self._extend(self._link, [keys.settings(namespace, queue)], args))
        return findings

    async def keep(self, namespace: str, queues: Iterable[str], worker: str, lease_ms: int) -> None:
        """Keep what is known of a worker's assignments for longer than its leases."""
        life_ms = _LEASES_KEPT * lease_ms
        await self._link.call_many([("PEXPIRE", keys.assigned(namespace, each, worker), life_ms) for each in queues])

    async def note_settled(self, namespace: str, queue: str, worker: str, job_ids: Sequence[str]) -> None:
        """Forget assignments whose outcome is written; a later session would find out by itself."""
        await self._link.call("HDEL", keys.assigned(namespace, queue, worker), *job_ids)

    async def forget(self, namespace: str, queues: Iterable[str], worker: str) -> None:
        """Forget a worker that holds nothing and will not come back, and take it out of the register."""
        await self._link.call_many([("DEL", keys.assigned(namespace, each, worker)) for each in queues])
        await self._beat(self._link, [keys.workers(namespace)], [worker, 0, b"{}"])

    async def beat(self, namespace: str, worker: str, description: bytes, life_ms: int) -> DrainOrder | None:
        """Keep a worker's entry in the register; see `Leases.beat`."""
        return read_order(await self._beat(self._link, [keys.workers(namespace)], [worker, life_ms, description]))

    async def record(self, namespace: str, queue: str, job_id: str) -> AttemptRecord | None:
        """Return a job that has been claimed at least once; None when there is no such job."""
        # With the moment of Redis, as a claim has it.
        reply, (seconds, micros) = await self._link.call_many([("HGETALL", keys.job(namespace, queue, job_id)), ("TIME",)])
        return _read_record(job_id, dict(reply), int(seconds) * 1000 + int(micros) // 1000)


def _read_record(job_id: str, record: dict[bytes, bytes], now_ms: int) -> AttemptRecord | None:
    if b"token" not in record or b"type" not in record or b"payload" not in record:
        return None
    flat: list[Reply] = [word for pair in record.items() for word in pair]
    try:
        job = ClaimedJob([job_id.encode(), int(record[b"token"]), int(record.get(b"attempt", b"0")), flat], now_ms)
    except ValueError:
        # Damaged since it was claimed: the next claim buries it, once its lease has ended.
        return None
    return AttemptRecord(
        job,
        record.get(b"worker", b"").decode(),
        is_processing=record.get(b"state") == b"processing",
        is_cancelled=b"cancel_reason" in record,
    )
