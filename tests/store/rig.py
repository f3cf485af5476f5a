"""A queue under test: the real scripts on a real Redis, a clock that the test turns, and the moves of a job by name."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import trio

from gopher.event import EventKind
from gopher.job import Failure, JobState, Move, NewJob, Outcome
from gopher.store import codec, keys
from gopher.store.history import Saying
from gopher.store.lifecycle import Bound, Settlement
from gopher.store.outbox import pack
from gopher.store.scripts import LUA_DIRECTORY, Script
from gopher.store.submission import SubmitReceipt
from gopher.store.type_set import ANY_TYPE, TypeSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gopher.errors import GopherError
    from gopher.job import Job
    from gopher.store.audit import AuditProgress, Finding
    from gopher.store.claims import Claim
    from gopher.store.codec import ClaimedJob
    from gopher.store.history import HistoryEvent
    from gopher.store.outbox import Child
    from gopher.store.resp import Reply
    from gopher.store.store import Store

START_MS: Final = 1_800_000_000_000
FIRST_TOKEN: Final = START_MS * 1024 + 1
"""That of a rig's first claim where its clock has not been turned."""
LEASE_MS: Final = 30_000
DELAY_MS: Final = 60_000
DEADLINE_MS: Final = 80_000
"""Longer than a delay; a lease that has ended by then is not yet one that the audit reports."""
FAILURE: Final = codec.encode_failure(Failure(reason="HANDLER_RAISED", message="no"))

BREAKER: Final = "breaker:smtp"
NOW: Final = (LUA_DIRECTORY / "lib" / "now.lua").read_text(encoding="utf-8").rstrip("\n")
TURNED_NOW: Final = """
local function now_ms()
  return tonumber(redis.call('get', KEYS[1] .. ':clock') or '1800000000000')
end"""

SET_CLOCK: Final = "#!lua flags=allow-oom\nreturn redis.call('set', KEYS[1], ARGV[1], 'ex', 600)"
"""A script, so that the clock goes on in a full Redis; for 600 s, since a test that fails leaves it behind."""

OUTCOMES: Final = {
    Move.COMPLETE: Outcome.SUCCEEDED,
    Move.RETRY: Outcome.RAISED,
    Move.BURY: Outcome.RAISED,
    Move.SNOOZE: Outcome.SUCCEEDED,
    Move.RELEASE: Outcome.CANCELLED,
    Move.ACKNOWLEDGE_CANCEL: Outcome.CANCELLED,
}


def with_turned_clock(script: Script) -> Script:
    """Return the script with `lib/now.lua` replaced: its time is what `Rig.advance` says."""
    return Script(script.name, script.text.replace(NOW, TURNED_NOW))


def turn_clocks(*owners: object) -> None:
    """Replace every script that these objects hold."""
    for owner in owners:
        for name, value in vars(owner).items():
            if isinstance(value, Script):
                setattr(owner, name, with_turned_clock(value))


class Rig:
    """One queue of a store whose scripts' clock stands still until `advance`.

    Attributes:
        store: With turned clocks.
        namespace: Of the test.
        queue: Name of the queue.
        settings: KEYS[1] of its scripts.
    """

    def __init__(self, store: Store, namespace: str, queue: str = "default") -> None:
        self.store = store
        self.namespace = namespace
        self.queue = queue
        self.settings = keys.settings(namespace, queue)
        self._extend = with_turned_clock(Script.load("extend"))
        self._bulk = with_turned_clock(Script.load("bulk"))
        self._claims = itertools.count()
        self._now_ms = START_MS

    @property
    def now_ms(self) -> int:
        return self._now_ms

    async def set_clock(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms
        await self.store.link.call("EVAL", SET_CLOCK, 1, self.settings + ":clock", now_ms)

    async def advance(self, ms: int) -> None:
        await self.set_clock(self._now_ms + ms)

    async def try_submit(self, **fields: object) -> SubmitReceipt | GopherError:
        job = NewJob(**{"type": "email", "queue": self.queue, **fields})  # type: ignore[arg-type] # the test names fields of NewJob
        (answer,) = await self.store.lifecycle.submit(self.namespace, [job])
        return answer

    async def submit(self, **fields: object) -> str:
        answer = await self.try_submit(**fields)
        assert isinstance(answer, SubmitReceipt), answer
        return answer.job_id

    async def claim(
        self,
        count: int = 1,
        *,
        worker: str = "worker",
        claim_id: str | None = None,
        lease_ms: int = LEASE_MS,
        types: TypeSet = ANY_TYPE,
        bounds: Sequence[Bound] = (),
    ) -> list[ClaimedJob]:
        return (
            await self.try_claim(count, worker=worker, claim_id=claim_id, lease_ms=lease_ms, types=types, bounds=bounds)
        ).jobs

    async def try_claim(
        self,
        count: int = 1,
        *,
        worker: str = "worker",
        claim_id: str | None = None,
        lease_ms: int = LEASE_MS,
        types: TypeSet = ANY_TYPE,
        bounds: Sequence[Bound] = (),
    ) -> Claim:
        claim = await self.store.lifecycle.claim(
            self.namespace,
            self.queue,
            worker=worker,
            count=count,
            lease_ms=lease_ms,
            claim_id=claim_id or f"claim-{next(self._claims)}",
            types=types,
            bounds=bounds,
        )
        assert claim is not None, "the queue is paused"
        return claim

    async def begin(self, job: ClaimedJob) -> bool:
        return await self.store.lifecycle.begin(self.namespace, self.queue, job.id, job.token)

    async def settle(
        self,
        job_id: str,
        token: int,
        move: Move,
        *,
        outcome: Outcome | None = None,
        delay_ms: int = 0,
        result: bytes = b"null",
        children: Iterable[Child] = (),
    ) -> str:
        outcome = outcome or OUTCOMES[move]
        failure = FAILURE if outcome is Outcome.RAISED else b""
        settlement = Settlement(job_id, token, move, outcome, delay_ms, b"", failure)
        if move is Move.COMPLETE:
            plain = await self._plain_attempt(job_id)
            settlement = settlement._replace(result=result, plain_attempt=plain, children=tuple(children))
        (word,) = await self.store.lifecycle.settle(self.namespace, self.queue, [settlement])
        return word

    async def child(self, parent_id: str, token: int, **fields: object) -> Child:
        """Return what an attempt has submitted; a job of the same queue unless the fields name another."""
        about = {"type": "email", "queue": self.queue, "parent_id": parent_id, "root_id": parent_id, **fields}
        job = NewJob(**about)  # type: ignore[arg-type] # the test names fields of NewJob
        return pack(parent_id, token, await self.store.outbox.reserve(self.namespace, job), job)

    async def deliver(self, children: Iterable[Child]) -> None:
        await self.store.outbox.deliver(self.namespace, self.queue, list(children))

    async def sweep_outbox(self) -> list[Child]:
        """Return what a walk over the outbox finds to deliver."""
        cursor, found = await self.store.outbox.sweep(self.namespace, self.queue, 0)
        while cursor:
            cursor, more = await self.store.outbox.sweep(self.namespace, self.queue, cursor)
            found += more
        return found

    async def kept(self) -> list[str]:
        """Return the ids in the outbox, sorted."""
        ids: list[bytes] = await self.call("HKEYS", "outbox")
        return sorted(job_id.decode() for job_id in ids)

    async def _plain_attempt(self, job_id: str) -> int:
        """Return what the runner says of a job whose record it had with the claim."""
        found = await self.call(
            "HMGET", f"job:{job_id}", "attempt", "deadline_ms", "unique_key", "retention_ms", "held", "family"
        )
        attempt, *rare = found
        return 0 if any(value is not None for value in rare) else int(attempt or 0)

    async def promote(self) -> int:
        return (await self.store.lifecycle.promote(self.namespace, self.queue)).moved

    async def reap(self) -> tuple[str, ...]:
        return (await self.store.lifecycle.reap(self.namespace, self.queue)).job_ids

    async def extend(self, leases: Iterable[tuple[str, int | str]], lease_ms: int = LEASE_MS) -> list[list[bytes]]:
        """Run extend.lua, which only the keeper calls and over a connection of its own."""
        words: list[str | int] = [word for lease in leases for word in lease]
        replies: list[list[bytes]] = await self._extend(self.store.link, [self.settings], [lease_ms, *words])
        return replies

    async def bulk(self, *args: str | int) -> list[bytes | int]:
        """Run bulk.lua, which a `BulkWalk` calls."""
        reply: list[bytes | int] = await self._bulk(self.store.link, [self.settings], args)
        return reply

    async def cancel(
        self, job_id: str, *, reason: str = "not wanted", actor: str = "ann@desk", grace_ms: int = 5000
    ) -> JobState:
        return await self.store.lifecycle.cancel(self.namespace, job_id, reason=reason, grace_ms=grace_ms, actor=actor)

    async def say(self, job_id: str, token: int | str, detail: str, kind: EventKind = EventKind.LOG, *, number: int = 1) -> str:
        """Have an attempt say something; its progress is 0.5."""
        progress = 0.5 if kind is EventKind.PROGRESS else ""
        saying = Saying(job_id, token, number, kind, progress, detail.encode())  # type: ignore[arg-type] # garbage on purpose
        (word,) = await self.store.histories.report(self.namespace, self.queue, [saying])
        return word

    async def history(self, job_id: str, after: int = 0) -> list[HistoryEvent]:
        """Return what is kept of a job's history."""
        return await self.store.histories.read(self.namespace, self.queue, job_id, after=after, count=100_000)

    async def open_history(self, job_id: str) -> int:
        return await self.store.histories.open(self.namespace, self.queue, job_id)

    async def requeue(self, job_id: str) -> None:
        (refusal,) = await self.store.lifecycle.requeue(self.namespace, [job_id])
        if refusal is not None:
            raise refusal

    async def get(self, job_id: str) -> Job:
        return await self.store.query.get(self.namespace, job_id)

    async def state(self, job_id: str) -> JobState:
        return (await self.get(job_id)).state

    async def job_in(self, state: JobState, **fields: object) -> str:
        """Bring a new job into a state by legal moves."""
        if state is JobState.SCHEDULED:
            return await self.submit(delay_ms=DELAY_MS, **fields)
        job_id = await self.submit(**fields)
        if state is JobState.ENQUEUED:
            return job_id
        if state is JobState.CANCELLED:
            await self.cancel(job_id)
            return job_id
        (job,) = await self.claim()
        assert job.id == job_id
        match state:
            case JobState.RETRYING:
                await self.settle(job_id, job.token, Move.RETRY, delay_ms=DELAY_MS)
            case JobState.COMPLETED:
                await self.settle(job_id, job.token, Move.COMPLETE)
            case JobState.FAILED:
                await self.settle(job_id, job.token, Move.BURY)
            case _:
                assert state is JobState.PROCESSING
        return job_id

    async def places(self, job_id: str) -> list[str]:
        """Return the names of the indexes that hold the id."""
        indexes = [*(key for _, _, key in keys.indexes(self.namespace, self.queue)), keys.deadlines(self.namespace, self.queue)]
        scores = await self.store.link.call_many([("ZSCORE", key, job_id) for key in indexes])
        prefix = keys.queue(self.namespace, self.queue)
        return [key.removeprefix(prefix) for key, score in zip(indexes, scores, strict=True) if score is not None]

    async def dump(self, leaving_out: Iterable[str] = ()) -> dict[str, bytes]:
        """Return every key of the queue but the clock with its value, byte for byte.

        Args:
            leaving_out: Names of keys, without the queue's prefix.
        """
        prefix = keys.queue(self.namespace, self.queue)
        names: list[bytes] = await self.store.link.call("KEYS", prefix + "*")
        values = await self.store.link.call_many([("DUMP", name) for name in names])
        found = {name.decode().removeprefix(prefix): value for name, value in zip(names, values, strict=True)}
        return {name: value for name, value in found.items() if name not in {"settings:clock", *leaving_out}}

    async def names(self, pattern: str) -> list[str]:
        """Return the names of the queue's keys that a pattern matches, without the queue's prefix."""
        prefix = keys.queue(self.namespace, self.queue)
        return [name.decode().removeprefix(prefix) for name in await self.store.link.call("KEYS", prefix + pattern)]

    async def clear(self) -> None:
        """Forget everything about the queue but its number."""
        names = await self.store.link.call("KEYS", keys.queue(self.namespace, self.queue) + "*")
        if names:
            await self.store.link.call("DEL", *names)

    async def call(self, command: str, name: str, *rest: str | int | bytes) -> Reply:
        """Send a command that changes a key of the queue behind the back of the scripts."""
        return await self.store.link.call(command, keys.queue(self.namespace, self.queue) + name, *rest)

    async def audit(self, *, repair: bool = False) -> list[Finding]:
        found: list[Finding] = []

        async def take(progress: AuditProgress) -> None:
            await trio.lowlevel.checkpoint()
            found.extend(progress.findings)

        await self.store.audit.run(self.namespace, repair=repair, report=take)
        return found
