"""The keeper's way to Redis: a synchronous connection of its own, for a thread that must not wait for the Trio loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis import Redis

from gopher.job import Move, Outcome
from gopher.store import keys
from gopher.store.scripts import Script, execute_sync

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.resp import Reply


@dataclass(frozen=True, slots=True)
class LeaseFinding:
    """A lease that needs attention.

    Attributes:
        job_id: Of the job.
        token: Of the lease.
        is_lost: Whether the job is somebody else's or nobody's; nothing was extended.
        grace_seconds: When it is not lost, a cancel was asked for: how long cleanup may take.
        reason: Of the cancel.
    """

    job_id: str
    token: int
    is_lost: bool
    grace_seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """An operator's order to drain.

    Attributes:
        grace_seconds: How long attempts may go on; None: as long as the worker was started with.
    """

    grace_seconds: float | None


class Leases:
    """Extends leases and beats. Every method blocks, for at most the socket's time-out.

    Args:
        url: As for `Link`.
        namespace: Of the queues.
        reply_seconds: Time-out of the socket.
    """

    def __init__(self, url: str, *, namespace: str, reply_seconds: float) -> None:
        # Retries off: a command that got no answer may have been carried out, and the next beat comes anyway.
        self._client = Redis.from_url(
            url,
            retry=None,
            socket_timeout=reply_seconds,
            socket_connect_timeout=reply_seconds,
            client_name="gopher-keeper",
        )
        self._namespace = namespace
        self._extend = Script.load("extend")
        self._beat = Script.load("beat")
        self._settle = Script.load("settle")

    def extend(self, queue: str, leases: Sequence[tuple[str, int]], lease_ms: int) -> list[LeaseFinding]:
        """Move the expiry of at most 100 leases forward.

        Args:
            queue: Of the jobs.
            leases: Job id and token.
            lease_ms: From now on.

        Returns:
            The leases that are lost, and those whose job is to be cancelled; the others were extended.

        Raises:
            StoreError: Redis failed; leases may have been extended.
        """
        args: list[str | int] = [lease_ms]
        for lease in leases:
            args += lease
        return read_findings(leases, self._extend.call_sync(self._client, [keys.settings(self._namespace, queue)], args))

    def claimed(self, queue: str, worker: str, claim_id: str) -> list[tuple[str, int]]:
        """Return id and lease token of each job that a claim took; none once the worker has claimed again.

        Raises:
            StoreError: Redis failed.
        """
        record = execute_sync(self._client, "GET", keys.last_claim(self._namespace, queue, worker))
        taken_by, *words = (record or b"").decode().split(" ")
        return list(zip(words[::2], map(int, words[1::2]), strict=True)) if taken_by == claim_id else []

    def release(self, queue: str, leases: Sequence[tuple[str, int]]) -> None:
        """Give at most 100 jobs back unspent, those whose lease is still the one given.

        Args:
            queue: Of the jobs.
            leases: Job id and token.

        Raises:
            StoreError: Redis failed; jobs may have been given back.
        """
        args: list[str | int] = []
        for lease in leases:
            args += [*lease, Move.RELEASE.value, Outcome.CANCELLED.value, 0, "", "", ""]
        self._settle.call_sync(self._client, [keys.settings(self._namespace, queue)], args)

    def beat(self, worker: str, description: bytes, life_ms: int) -> DrainOrder | None:
        """Keep a worker's entry in the register; return an operator's order to drain, if there is one.

        Args:
            worker: Id of the worker.
            description: A `WorkerDescription` as JSON.
            life_ms: How long the entry stands without a further beat; 0 removes it.

        Raises:
            StoreError: Redis failed.
        """
        return read_order(self._beat.call_sync(self._client, [keys.workers(self._namespace)], [worker, life_ms, description]))

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def read_findings(leases: Sequence[tuple[str, int]], replies: Sequence[Reply]) -> list[LeaseFinding]:
    """Return what `extend.lua` has found of some leases."""
    tokens = dict(leases)
    findings = []
    for word, name, *rest in replies:
        job_id = name.decode()
        if word == b"LOST":
            findings.append(LeaseFinding(job_id, tokens[job_id], is_lost=True))
        else:
            grace_ms, reason = rest
            findings.append(
                LeaseFinding(job_id, tokens[job_id], is_lost=False, grace_seconds=grace_ms / 1000, reason=reason.decode())
            )
    return findings


def read_order(reply: Reply) -> DrainOrder | None:
    """Return the order that `beat.lua` tells of."""
    word, *rest = reply
    return DrainOrder(None if rest[0] < 0 else rest[0] / 1000) if word == b"DRAIN" else None
