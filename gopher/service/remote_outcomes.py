"""Takes what a worker on a stream says of its attempts: how far they have come, and how they ended.

An outcome is written under its lease token, so it counts once however often it is sent. One of an attempt that this session does not
know, as after a cut, is looked up: the job's record says whose it was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from gopher.contexts import LOG_LEVELS, MAX_LOG_BYTES, MAX_OUTPUT_BYTES
from gopher.errors import JobNotFoundError, RequestError, invalid
from gopher.event import EventKind
from gopher.handlers import LONGEST_DELAY_SECONDS
from gopher.job import BYTES_CONTENT_TYPE, JSON_CONTENT_TYPE, Move, Outcome
from gopher.service import remote_frames as frames
from gopher.service.remote_holdings import HeldAttempt
from gopher.store import settlements
from gopher.store.history import Saying
from gopher.store.lifecycle import Settlement
from gopher.wire import check
from gopher.wire.check import Faults
from gopher.wire.status import foreign_failure
from gopher.wire.worker_errors import StaleAttemptError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher_pb.v1 import worker_service_pb2 as pb

    from gopher.retry import RetryPolicy
    from gopher.service.remote_holdings import Holdings, Meter
    from gopher.service.remote_line import FrameLine
    from gopher.store.assignments import AttemptRecord
    from gopher.store.store import Store

_LAST_CODE: Final = 16
"""Of google/rpc/code.proto."""
_LAST_NUMBER: Final = 2**53
"""What a number of Lua tells from the next."""
_TIMED_OUT: Final = "TIMED_OUT"
_LONGEST_DELAY_MS: Final = round(LONGEST_DELAY_SECONDS * 1000)


class Outcomes:
    """Writes the outcomes of a worker's attempts.

    Args:
        store: Where to.
        holdings: Of the worker.
        line: To the worker.
        meters: By queue.
        namespace: Of the queues.
        worker: Its id.
        policy: For jobs whose submitter has set none.
        max_result_bytes: A larger result is refused.
    """

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        line: FrameLine,
        meters: Mapping[str, Meter],
        *,
        namespace: str,
        worker: str,
        policy: RetryPolicy,
        max_result_bytes: int,
    ) -> None:
        self._store = store
        self._holdings = holdings
        self._line = line
        self._meters = meters
        self._namespace = namespace
        self._worker = worker
        self._policy = policy
        self._max_result_bytes = max_result_bytes

    async def settle(self, frame: pb.Settle) -> None:
        """Write an outcome and answer it.

        Raises:
            StoreError: Redis failed; the outcome may have been written.
        """
        try:
            is_written = await self._settle(frame)
        except RequestError as error:
            await self._line.put(frames.settled(frame.lease, error=error))
        else:
            await self._line.put(frames.settled(frame.lease, already=not is_written))

    async def _settle(self, frame: pb.Settle) -> bool:
        """Write an outcome; return False if it had been written before.

        Raises:
            RequestError: It is refused.
        """
        job_id, token = frame.lease.job_id, frame.lease.token
        held = self._holdings.get(job_id, token)
        if held is None or not held.type:
            held = await self._look_up(job_id, token)
            if held is None:
                self._holdings.remove(job_id, token)
                return False
        settlement = await self._settlement(frame, held)
        (word,) = await self._store.lifecycle.settle(self._namespace, held.queue, [settlement])
        self._holdings.remove(job_id, token)
        await self._store.assignments.note_settled(self._namespace, held.queue, self._worker, [job_id])
        if word in {"STALE_LEASE", "NOT_FOUND"}:
            raise await self._stale(held.queue, job_id)
        if word == "failed":
            settlements.log_dead_letter(settlement, held.queue, held.type)
        if word != "ALREADY":
            self._meters[held.queue].count_attempt(held.type, settlement.outcome, time.monotonic() - held.began_at)
        return word != "ALREADY"

    async def _look_up(self, job_id: str, token: int) -> HeldAttempt | None:
        """Return an attempt that was this worker's before this stream; None when its outcome is written.

        Raises:
            RequestError: It is not this worker's.
        """
        queue = await self._store.registry.queue_of(self._namespace, job_id)
        record = await self._store.assignments.record(self._namespace, queue, job_id)
        if record is None:
            raise JobNotFoundError(job_id)
        if record.worker != self._worker or record.job.token != token:
            raise StaleAttemptError(job_id, record.job.attempt)
        if queue not in self._meters:
            raise StaleAttemptError(job_id, record.job.attempt)
        if not record.is_processing:
            return None
        ran_ms = record.job.claimed_ms - (record.job.number(b"started_ms") or record.job.claimed_ms)
        return HeldAttempt(queue, record.job.type, token, 0.0, time.monotonic() - ran_ms / 1000)

    async def _stale(self, queue: str, job_id: str) -> RequestError:
        record = await self._store.assignments.record(self._namespace, queue, job_id)
        return JobNotFoundError(job_id) if record is None else StaleAttemptError(job_id, record.job.attempt)

    async def _settlement(self, frame: pb.Settle, held: HeldAttempt) -> Settlement:
        job_id, token = frame.lease.job_id, frame.lease.token
        match frame.WhichOneof("outcome"):
            case "result":
                result = self._read_result(frame.result)
                return Settlement(job_id, token, Move.COMPLETE, Outcome.SUCCEEDED, 0, result, b"", held.plain_attempt)
            case "failure":
                return self._failed(frame, await self._record(held.queue, job_id, token))
            case "cancelled":
                if not (await self._record(held.queue, job_id, token)).is_cancelled:
                    raise invalid("cancelled", "NOT_CANCELLED", "nobody has asked for a cancel: settle otherwise")
                return Settlement(job_id, token, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)
            case "released":
                return Settlement(job_id, token, Move.RELEASE, Outcome.CANCELLED)
            case "snoozed":
                faults = Faults()
                delay_ms = check.duration_ms(faults, "snoozed.delay", frame.snoozed.delay, 0, _LONGEST_DELAY_MS)
                faults.refuse()
                return Settlement(job_id, token, Move.SNOOZE, Outcome.CANCELLED, delay_ms)
            case _:
                raise invalid("outcome", "REQUIRED", "must be set")

    def _read_result(self, result: bytes) -> bytes:
        if len(result) > self._max_result_bytes:
            raise invalid("result", "RESULT_TOO_LARGE", f"must be at most {self._max_result_bytes} bytes, got {len(result)}")
        faults = Faults()
        result = check.payload(faults, "result", result, JSON_CONTENT_TYPE, self._max_result_bytes)
        faults.refuse()
        return result

    def _failed(self, frame: pb.Settle, record: AttemptRecord) -> Settlement:
        if not 1 <= frame.failure.code <= _LAST_CODE:
            raise invalid("failure.code", "OUT_OF_RANGE", f"must be 1 to {_LAST_CODE}, got {frame.failure.code}")
        status, traceback = frames.without_traceback(frame.failure)
        failure = foreign_failure(status)
        outcome = Outcome.TIMED_OUT if failure.reason == _TIMED_OUT else Outcome.RAISED
        advised_ms = failure.retry_after_ms
        after_seconds = None if advised_ms is None else advised_ms / 1000
        if frame.is_final:
            settlement = settlements.bury(record.job, outcome, failure)
        else:
            settlement = settlements.retry_or_bury(record.job, self._policy, outcome, failure, after_seconds=after_seconds)
        return settlement._replace(result=traceback.encode())

    async def _record(self, queue: str, job_id: str, token: int) -> AttemptRecord:
        record = await self._store.assignments.record(self._namespace, queue, job_id)
        if record is None:
            raise JobNotFoundError(job_id)
        if record.job.token != token:
            raise StaleAttemptError(job_id, record.job.attempt)
        return record

    async def report(self, frame: pb.Report) -> None:
        """Keep what an attempt says.

        Raises:
            InvalidRequestError: It says nothing that can be kept.
            StoreError: Redis failed.
        """
        kind, progress, detail = _read_report(frame)
        job_id, token = frame.lease.job_id, frame.lease.token
        held = self._holdings.get(job_id, token)
        word = "NOT_FOUND"
        if held is not None:
            saying = Saying(job_id, token, frame.number, kind, progress, detail)
            (word,) = await self._store.histories.report(self._namespace, held.queue, [saying])
        if word != "OK":
            await self._holdings.lose(job_id, token)


def _read_report(frame: pb.Report) -> tuple[EventKind, float | str, bytes]:
    """Return what is said, as `Saying` has it.

    Raises:
        InvalidRequestError: It names every fault.
    """
    faults = Faults("report.")
    if not 1 <= frame.number <= _LAST_NUMBER:
        faults.add("number", "OUT_OF_RANGE", f"must count the reports of the attempt, from 1, got {frame.number}")
    kind, progress, detail = EventKind.OUTPUT, 0.0, b""
    match frame.WhichOneof("said"):
        case "progress":
            kind = EventKind.PROGRESS
            progress = check.number(faults, "progress.fraction", frame.progress.fraction, 0.0, 1.0) or 0.0
            detail = (check.text(faults, "progress.message", frame.progress.message) or "").encode()
        case "log":
            kind, detail = EventKind.LOG, f"{_level(faults, frame.log.level)} {frame.log.message}".encode()
            _check_size(faults, "log.message", frame.log.message.encode(), MAX_LOG_BYTES)
        case "output":
            content_type = frame.output.content_type or BYTES_CONTENT_TYPE
            check.content_type(faults, "output.content_type", content_type)
            _check_size(faults, "output.data", frame.output.data, MAX_OUTPUT_BYTES)
            detail = content_type.encode() + b" " + frame.output.data
        case _:
            faults.add("said", "REQUIRED", "must be set")
    faults.refuse()
    return kind, progress if kind is EventKind.PROGRESS else "", detail


def _level(faults: Faults, level: str) -> str:
    if level not in LOG_LEVELS:
        faults.add("log.level", "BAD_ENUM", f"must be one of {', '.join(LOG_LEVELS)}, got {level[:64]!r}")
    return level


def _check_size(faults: Faults, field: str, data: bytes, most: int) -> None:
    if len(data) > most:
        faults.add(field, "OUT_OF_RANGE", f"must be at most {most} bytes, got {len(data)}")
