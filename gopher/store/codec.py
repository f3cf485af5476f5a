"""A job as the fields of a Redis hash, and back. `redis-cli HGETALL` shows a record that a person can read.

What is unset, or at its default, has no field: a waiting job costs Redis little more than its payload. Of the record,
`submit.lua`, `claim.lua` and `lib/final.lua` read the fields named there.
"""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from gopher.job import (
    JSON_CONTENT_TYPE,
    MAX_CRASHES,
    Attempt,
    Failure,
    Job,
    JobState,
    NewJob,
    Outcome,
    Priority,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gopher.store.resp import Reply

Field = bytes | str | int | float

_OPTIONAL = (
    "max_attempts",
    "backoff_initial_ms",
    "backoff_max_ms",
    "backoff_multiplier",
    "timeout_ms",
    "deadline_ms",
    "unique_key",
    "limit_key",
    "request_id",
    "retention_ms",
    "parent_id",
    "root_id",
    "trace",
    "depth",
)
_read_optional = attrgetter(*_OPTIONAL)
_ALL_UNSET = (None,) * len(_OPTIONAL)
_encode_json = msgspec.json.Encoder(order="sorted").encode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
decode_failure = msgspec.json.Decoder(Failure).decode


def to_fields(job: NewJob) -> list[Field]:
    """Return the record of a new job: field, value, field, value; without what the submit script writes itself."""
    fields: list[Field] = ["type", job.type, "payload", job.payload]
    if job.priority is not Priority.NORMAL:
        fields += ("priority", job.priority.value)
    if job.content_type != JSON_CONTENT_TYPE:
        fields += ("content_type", job.content_type)
    if job.labels:
        fields += ("labels", _encode_json(job.labels))
    if job.non_retryable_reasons:
        fields += ("non_retryable_reasons", " ".join(job.non_retryable_reasons))
    optional = _read_optional(job)
    if optional != _ALL_UNSET:
        for name, value in zip(_OPTIONAL, optional, strict=True):
            if value is not None:
                fields += (name, value)
    return fields


def fingerprint(job: NewJob) -> str:
    """Return a digest of all that a submitter said, but the trace, which differs from call to call: 32 hexadecimal digits."""
    said = (*to_fields(msgspec.structs.replace(job, trace=None)), job.run_ms, job.delay_ms)
    digest = hashlib.blake2b(digest_size=16)
    for value in said:
        part = value if isinstance(value, bytes) else str(value).encode()
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()


def encode_failure(failure: Failure) -> bytes:
    """Return a failure as the JSON kept in a record."""
    return _encode_json(failure)


def read_labels(text: bytes) -> dict[str, str]:
    """Return the labels of a record; none where they cannot be read."""
    try:
        return _decode_labels(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def from_record(namespace: str, queue: str, job_id: str, record: Mapping[bytes, bytes], lease_ms: int | None) -> Job:
    """Return the job that a record holds.

    Args:
        namespace: Of the queue.
        queue: Of the job.
        job_id: Of the job.
        record: The whole hash, with a state; what cannot be read of a damaged one counts as unset.
        lease_ms: End of the lease, from the index of processing jobs; None when it stands there no more.
    """
    state = JobState(record[b"state"].decode())
    reader = _Reader(record)
    # A completed job may have failed before: that failure is in its attempts.
    failure = reader.failure(record.get(b"failure")) if state is not JobState.COMPLETED else None
    return Job(
        id=job_id,
        namespace=namespace,
        queue=queue,
        type=reader.text("type") or "",
        payload=record.get(b"payload", b""),
        priority=reader.priority(),
        content_type=reader.text("content_type") or JSON_CONTENT_TYPE,
        labels=reader.labels(),
        max_attempts=reader.number("max_attempts"),
        backoff_initial_ms=reader.number("backoff_initial_ms"),
        backoff_max_ms=reader.number("backoff_max_ms"),
        backoff_multiplier=reader.decimal("backoff_multiplier"),
        non_retryable_reasons=tuple((reader.text("non_retryable_reasons") or "").split()),
        timeout_ms=reader.number("timeout_ms"),
        run_ms=reader.number("run_ms"),
        deadline_ms=reader.number("deadline_ms"),
        unique_key=reader.text("unique_key"),
        limit_key=reader.text("limit_key"),
        request_id=reader.text("request_id"),
        retention_ms=reader.number("retention_ms"),
        parent_id=reader.text("parent_id"),
        root_id=reader.text("root_id"),
        trace=reader.text("trace"),
        depth=reader.number("depth"),
        state=state,
        submitted_ms=reader.number("submitted_ms") or 0,
        enqueued_ms=_enqueued_ms(reader),
        started_ms=reader.number("started_ms"),
        finished_ms=reader.number("finished_ms"),
        attempt=reader.number("attempt") or 0,
        crashes=reader.number("crashes") or 0,
        token=reader.number("token") or 0,
        worker=reader.text("worker"),
        lease_ms=lease_ms if state is JobState.PROCESSING else None,
        cancel_reason=reader.text("cancel_reason"),
        cancel_actor=reader.text("cancel_actor") or None,
        parked_by=reader.text("parked_by"),
        progress=reader.decimal("progress"),
        progress_message=reader.text("progress_message"),
        result=record.get(b"result"),
        failure=failure,
        attempts=_attempts(state, reader),
        generation=reader.number("generation") or 0,
    )


class _Reader:
    """Reads typed values from a record; None where there is no such field, or where it cannot be read."""

    def __init__(self, record: Mapping[bytes, bytes]) -> None:
        self.record = record

    def text(self, name: str) -> str | None:
        value = self.record.get(name.encode())
        return None if value is None else value.decode(errors="replace")

    def number(self, name: str) -> int | None:
        try:
            return int(self.record[name.encode()])
        except (KeyError, ValueError):
            return None

    def decimal(self, name: str) -> float | None:
        try:
            return float(self.record[name.encode()])
        except (KeyError, ValueError):
            return None

    def priority(self) -> Priority:
        try:
            return Priority(self.text("priority") or "normal")
        except ValueError:
            return Priority.NORMAL

    def labels(self) -> dict[str, str]:
        return read_labels(self.record.get(b"labels", b"{}"))

    def failure(self, value: bytes | None) -> Failure | None:
        try:
            return decode_failure(value) if value else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def _enqueued_ms(reader: _Reader) -> int | None:
    """A job that was enqueued by its submit has no field of its own for that: it had no run time, until an attempt gave it one."""
    enqueued = reader.number("enqueued_ms")
    if enqueued is None and (reader.number("token") or reader.number("run_ms") is None):
        return reader.number("submitted_ms")
    return enqueued


def _attempts(state: JobState, reader: _Reader) -> tuple[Attempt, ...]:
    """The attempts kept one by one are those that did not succeed; the one that did is told by the record itself."""
    kept = []
    for name, value in reader.record.items():
        if not name.startswith(b"attempt:"):
            continue
        try:
            outcome, worker, started, finished, failure = value.split(b" ", 4)
            kept.append(
                Attempt(
                    number=int(name[8:]),
                    outcome=Outcome(outcome.decode()),
                    worker=worker.decode(),
                    started_ms=int(started),
                    finished_ms=int(finished),
                    failure=reader.failure(failure),
                    traceback=reader.text(f"traceback:{name[8:].decode()}"),
                )
            )
        except ValueError:
            # Of a damaged record; the other attempts are shown.
            continue
    kept.sort(key=lambda attempt: attempt.number)
    if state is JobState.COMPLETED:
        kept.append(
            Attempt(
                number=reader.number("attempt") or 0,
                outcome=Outcome.SUCCEEDED,
                worker=reader.text("worker") or "",
                started_ms=reader.number("started_ms") or 0,
                finished_ms=reader.number("finished_ms") or 0,
            )
        )
    return tuple(kept)


FAILURE_FIELDS = ("state", "attempt", "failure")
"""Of a record, what `failure_after` reads beside what is kept of the attempt."""


def failure_after(state: JobState, number: int, reply: Sequence[bytes | None]) -> Failure | None:
    """Return why a job was retrying or failed after an attempt; None where that is kept no more.

    Args:
        state: Where the job stood then.
        number: Of the attempt.
        reply: Of the record as it is now, `FAILURE_FIELDS`, then what is kept of the attempt; None for each that is unset.
    """
    now, last, failure, kept = reply
    # A job may have failed otherwise than by its last attempt: its deadline has passed.
    if not (state is JobState.FAILED and now == b"failed" and last == b"%d" % number):
        failure = None if kept is None else kept.split(b" ", 4)[4]
    return decode_failure(failure) if failure else None


_FEWEST_FIELDS = 4
_NUMBERS = frozenset(
    b"attempt backoff_initial_ms backoff_max_ms crashes deadline_ms depth enqueued_ms family history max_attempts spent started_ms "
    b"timeout_ms".split()
)
_TEXTS = frozenset(b"content_type non_retryable_reasons root_id trace".split())
_RARE = frozenset({b"deadline_ms", b"unique_key", b"retention_ms", b"held", b"family"})


class DamagedRecordError(ValueError):
    """A record does not hold what every record holds, or a value that cannot be read."""


class ClaimedJob:
    """A job in the hands of a worker: what the claim script gave, decoded as far as every attempt needs it.

    Raises:
        DamagedRecordError: What is decoded later, or now, cannot be.

    Attributes:
        id: Of the job.
        token: Lease token; every write of the attempt carries it.
        attempt: Number of this attempt, from 1.
        type: Name of the handler.
        payload: Bytes of `content_type`.
        claimed_ms: Redis time of the claim, ms since the epoch.
        priority: Of the line it stood in, as the record has it.
        enqueued_ms: When it was put there, ms since the epoch, as the record has it; None in a damaged one.
        is_plain: Whether its end concerns nothing but itself: no deadline, unique key, retention, place under a limit, or family.
    """

    __slots__ = ("_record", "attempt", "claimed_ms", "enqueued_ms", "id", "is_plain", "payload", "priority", "token", "type")

    def __init__(self, reply: Reply, claimed_ms: int) -> None:
        job_id, self.token, self.attempt, flat = reply
        self.claimed_ms = claimed_ms
        self.id: str = job_id.decode()
        pairs = iter(flat)
        self._record: dict[bytes, bytes] = dict(zip(pairs, pairs, strict=True))
        record = self._record
        try:
            self.type: str = record[b"type"].decode()
            self.payload: bytes = record[b"payload"]
        except (KeyError, UnicodeDecodeError) as error:
            raise DamagedRecordError(_damage(error)) from error
        self.is_plain = True
        self.priority: bytes = b"normal"
        # Decoded by whoever counts, once for all jobs that were enqueued together.
        self.enqueued_ms: bytes | None = record.get(b"submitted_ms")
        # Nearly every job has only what all have: state, type, payload, and when it was submitted.
        if len(record) > _FEWEST_FIELDS or self.enqueued_ms is None:
            self.is_plain = record.keys().isdisjoint(_RARE)
            self.priority = record.get(b"priority", b"normal")
            self.enqueued_ms = record.get(b"enqueued_ms") or self.enqueued_ms
            _check_rest(record)

    @property
    def content_type(self) -> str:
        """Of the payload."""
        value = self._record.get(b"content_type")
        return JSON_CONTENT_TYPE if value is None else value.decode()

    @property
    def labels(self) -> dict[str, str]:
        """As submitted."""
        value = self._record.get(b"labels")
        return {} if value is None else _decode_labels(value)

    @property
    def root_id(self) -> str:
        """First ancestor; the job itself where nobody's handler submitted it."""
        value = self._record.get(b"root_id")
        return self.id if value is None else value.decode()

    @property
    def trace(self) -> str | None:
        """W3C traceparent of the submitter."""
        value = self._record.get(b"trace")
        return None if value is None else value.decode()

    @property
    def non_retryable_reasons(self) -> list[str]:
        """Failures that end the job."""
        value = self._record.get(b"non_retryable_reasons")
        return [] if value is None else value.decode().split()

    @property
    def is_suspect(self) -> bool:
        """Whether the next crash would be the job's last."""
        crashes = self.number(b"crashes")
        return crashes is not None and crashes >= MAX_CRASHES - 1

    def number(self, name: bytes) -> int | None:
        """Return a whole number of the record, by its field's name; None where it is unset."""
        value = self._record.get(name)
        return None if value is None else int(value)

    def decimal(self, name: bytes) -> float | None:
        """Return a number of the record, by its field's name; None where it is unset."""
        value = self._record.get(name)
        return None if value is None else float(value)


def _check_rest(record: Mapping[bytes, bytes]) -> None:
    """Raise what decoding the rest of a record would raise in the midst of an attempt."""
    name = b""
    try:
        for name, value in record.items():
            if name in _NUMBERS:
                int(value)
            elif name in _TEXTS:
                value.decode()
            elif name == b"backoff_multiplier":
                float(value)
            elif name == b"priority":
                Priority(value.decode())
            elif name == b"labels":
                _decode_labels(value)
    except (ValueError, msgspec.MsgspecError) as error:
        raise DamagedRecordError(f"its field {name.decode()} cannot be read") from error


def _damage(error: Exception) -> str:
    return f"it has no {error.args[0].decode()}" if isinstance(error, KeyError) else "its field type cannot be read"
