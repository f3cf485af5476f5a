"""The work of a bulk operation in one queue: the indexes are walked by cursor, and what matches is moved, a step a script call.

Jobs move while they are looked for. Those that come into an index behind the cursor are found by another pass, which follows each
pass that found something, over the states that jobs leave by themselves. What the operation itself has touched, or what has come
since it was started, does not match, so that each job is done once and the walk ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gopher.bulk import BulkKind
from gopher.errors import StoreError
from gopher.store import keys
from gopher.store.bulk import KEPT_MS
from gopher.store.index_walk import IndexPlace, IndexWalk, state_of
from gopher.store.scripts import Script
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from gopher.store.bulk import ClaimedBulk
    from gopher.store.link import Link
    from gopher.store.resp import Argument

SCAN_LIMIT: Final = 1000
"""Records a step looks at, about; chosen: the lease is kept between steps, each some ms long."""
MOST_PASSES: Final = 5
_FIELDS: Final = ("state", "type", "labels", "submitted_ms", "enqueued_ms", "started_ms", "cancel_reason")
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode


class _Cursor(msgspec.Struct, array_like=True):
    """Where a walk stands.

    Attributes:
        name: Of the index; empty at the beginning of a pass, and at its end.
        score: Of the last entry read; empty at the beginning of an index.
        job_id: Of the last entry read.
        left: Entries to read of this index at most, since it may grow as fast as it is read; None at the beginning.
        has_ended: Whether the pass has.
        passes: How many came before.
        done_before: What was done here when the pass began.
        slice: As `IndexPlace` has it.
    """

    name: str = ""
    score: str = ""
    job_id: str = ""
    left: int | None = None
    has_ended: bool = False
    passes: int = 0
    done_before: int = 0
    slice: str = ""


_encode_cursor = msgspec.json.Encoder().encode
_decode_cursor = msgspec.json.Decoder(_Cursor).decode


class BulkWalk:
    """Takes the steps of one operation in one queue.

    Args:
        link: The way to Redis.
        claimed: The operation and the queue.
    """

    def __init__(self, link: Link, claimed: ClaimedBulk) -> None:
        self._link = link
        self._claimed = claimed
        self._plan = claimed.operation.plan
        self._step = Script.load("bulk")
        self._page = Script.load("page")
        self._settings = keys.settings(claimed.operation.namespace, claimed.queue)
        self._steps = 0
        self._done = 0
        self._cursor = _Cursor()
        self.is_over = False

    async def open(self) -> None:
        """Go to where the last step ended, whoever took it."""
        operation = self._claimed.operation
        progress = keys.bulk_progress(operation.namespace, self._claimed.queue, operation.id)
        steps, cursor, done = await self._link.call("HMGET", progress, "steps", "cursor", "done")
        if steps == b"closed":
            self.is_over = True
            return
        if steps is not None:
            self._steps, self._done, self._cursor = int(steps), int(done or 0), _decode_cursor(cursor)
        self._begin_walk()

    def _begin_walk(self) -> None:
        self._states = [state for state in self._plan.states if not (self._cursor.passes and state.is_final)]
        self._walk = IndexWalk(self._link, self._claimed.operation.namespace, self._claimed.queue, self._states)

    async def step(self) -> None:
        """Look at some records and move the jobs that match; sets `is_over` when there is nothing left to look at.

        Cancellation:
            The step may have been taken; `open` finds out.
        """
        if self._cursor.has_ended:
            self._begin_pass()
        if self.is_over:
            return
        first = self._cursor if self._cursor.name else await self._behind(self._cursor)
        ids, scanned, cursor = await self._collect(first)
        plan, state = self._plan, state_of(first.name).value
        args: list[Argument] = [self._claimed.operation.id, self._steps, _encode_cursor(cursor), plan.kind.value, state]
        args += [plan.reason, plan.grace_ms, scanned, KEPT_MS, *ids]
        word, *rest = await self._step(self._link, [self._settings], args)
        if word == b"STALE":
            # Another server has taken this step: its lease is newer, and ours will be found lost.
            await self.open()
            return
        self._cursor, self._done, self._steps = cursor, rest[0], self._steps + 1

    def _begin_pass(self) -> None:
        cursor = self._cursor
        passes = cursor.passes + 1
        if passes == MOST_PASSES or self._done == cursor.done_before:
            self.is_over = True
            return
        self._cursor = _Cursor(passes=passes, done_before=self._done)
        self._begin_walk()
        self.is_over = not self._states

    async def _collect(self, begin: _Cursor) -> tuple[list[str], int, _Cursor]:
        """Read on from a place; return the jobs that match, how many were looked at, and where that ended."""
        cursor = msgspec.structs.replace(begin)
        operation = self._claimed.operation
        ids: list[str] = []
        scanned = reads = 0
        while len(ids) < BATCH and reads < SCAN_LIMIT:
            name = cursor.name
            if cursor.left is None:
                size = await self._link.call("ZCARD", keys.queue(operation.namespace, self._claimed.queue) + name)
                cursor.left = 2 * size + SCAN_LIMIT
            count = BATCH - len(ids)
            flat = await self._page(self._link, [self._settings], [name, cursor.score, cursor.job_id, count])
            entries = [each.decode() for each in flat[::2]]
            ids += await self._matching(name, entries)
            scanned += len(entries)
            reads += len(entries) + 1
            cursor.left -= len(entries)
            if len(entries) == count and cursor.left > 0:
                cursor.score, cursor.job_id = flat[-1].decode(), entries[-1]
                continue
            behind = await self._behind(cursor)
            # Under per-key limits lines are many and short: a step takes several of them, since their jobs are all in one state.
            if not cursor.slice or not behind.slice:
                return ids, scanned, behind
            cursor = behind
        return ids, scanned, cursor

    async def _behind(self, cursor: _Cursor) -> _Cursor:
        """Return the beginning of the next index of the pass, or the end of the pass."""
        following = await self._walk.following(IndexPlace(cursor.name, cursor.slice) if cursor.name else None)
        name, where = following or IndexPlace("")
        return _Cursor(name=name, slice=where, has_ended=not name, passes=cursor.passes, done_before=cursor.done_before)

    async def _matching(self, name: str, ids: list[str]) -> list[str]:
        operation = self._claimed.operation
        commands = [("HMGET", keys.job(operation.namespace, self._claimed.queue, job_id), *_FIELDS) for job_id in ids]
        found = []
        for job_id, record in zip(ids, await self._link.call_many(commands), strict=True):
            if isinstance(record, StoreError):
                raise record
            if self._matches(name, record):
                found.append(job_id)
        return found

    def _matches(self, name: str, record: list[bytes | None]) -> bool:
        state, job_type, labels, submitted, enqueued, started, cancel_reason = record
        plan, created_ms = self._plan, self._claimed.operation.created_ms
        if state != state_of(name).value.encode() or int(submitted or 0) > created_ms:
            return False
        if plan.submitted_before_ms is not None and int(submitted or 0) >= plan.submitted_before_ms:
            return False
        if plan.type is not None and job_type != plan.type.encode():
            return False
        if plan.labels and not plan.labels.items() <= _decode_labels(labels or b"{}").items():
            return False
        if plan.kind is BulkKind.RETRY:
            # One that was started or enqueued since may be one that this very operation has retried.
            return max(int(enqueued or 0), int(started or 0)) <= created_ms
        return plan.kind is not BulkKind.CANCEL or cancel_reason is None
