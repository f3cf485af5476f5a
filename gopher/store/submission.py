"""Submits as `submit.lua` takes them, and what it answers."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from gopher.errors import (
    GopherError,
    JobNotFoundError,
    JobStateError,
    RequestIdConflictError,
    ScriptReplyError,
    UniqueKeyHeldError,
)
from gopher.job import JobState, NewJob
from gopher.store import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gopher.store.resp import Reply

BATCH: Final = 100
"""Jobs a script call at most. Measured: 100 keep a call near 1 ms, 10,000 block Redis for 58 ms."""
BATCH_BYTES: Final = 1 << 20
REQUEST_TTL_MS: Final = 24 * 3600 * 1000
UNNAMED: Final = b"UNNAMED"
"""The answer of a script that stores jobs to ids whose number is not that of the queue; nothing was stored."""
_read_rare = attrgetter("run_ms", "delay_ms", "deadline_ms", "unique_key", "request_id")
_ALL_UNSET: Final = (None,) * 5
_STATES: Final = {state.value.encode(): state for state in JobState}


class SubmitReceipt(msgspec.Struct, frozen=True):
    """The answer to a submit that was accepted.

    Attributes:
        job_id: Of the new job, or of the first one with this request id.
        state: Scheduled or enqueued; the present one of a job that was there before.
        is_duplicate: Whether the request id was used before, with the same body.
    """

    job_id: str
    state: JobState
    is_duplicate: bool


Batch: TypeAlias = list[tuple[int, NewJob]]
"""Jobs of one script call, each with its place in the caller's list."""
Answers: TypeAlias = dict[int, SubmitReceipt | GopherError]
"""By place."""


def batched(jobs: Sequence[NewJob], places: Iterable[int]) -> Iterator[Batch]:
    """Cut so that neither the count nor the bytes of a script call grow without bound."""
    batch: Batch = []
    size = 0
    for place in places:
        job = jobs[place]
        if batch and (len(batch) == BATCH or size + len(job.payload) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((place, job))
        size += len(job.payload)
    yield batch


def add_submission(args: list[codec.Field], job_id: str, job: NewJob) -> None:
    """Append the arguments that stand for one job."""
    fields = codec.to_fields(job)
    rare = _read_rare(job)
    if rare == _ALL_UNSET:
        args += (job_id, job.priority.value, "", len(fields))
    else:
        run_ms, delay_ms, deadline_ms, unique_key, request_id = ("" if value is None else value for value in rare)
        digest = codec.fingerprint(job) if request_id else ""
        args += (job_id, job.priority.value, "x", run_ms, delay_ms, deadline_ms, unique_key, request_id, digest, len(fields))
    args += fields


def whole(words: Sequence[codec.Field]) -> list[codec.Field]:
    """Return the arguments that stand for a job, with a place for every part, also for those that are unset."""
    job_id, priority, kind, *rest = words
    return [job_id, priority, "x", *rest] if kind else [job_id, priority, "x", *[""] * 6, *rest]


def guarded(words: Sequence[codec.Field]) -> list[codec.Field]:
    """Return the arguments that stand for a job without a request id, so that its own id is remembered as one.

    The job can then be submitted again after its record is gone; what is remembered is not kept with the job.
    """
    job_id, priority, kind, *rest = whole(words)
    return [job_id, priority, kind, *rest[:4], job_id, "", *rest[6:]]


def read_answer(job_id: str, job: NewJob, reply: Reply) -> SubmitReceipt | GopherError:
    """Return what a reply says of one job: its state alone when it was stored, else a word and what follows."""
    state = _STATES.get(reply) if type(reply) is bytes else None
    if state is not None:
        return SubmitReceipt(job_id, state, is_duplicate=False)
    word, first_id = reply[0], reply[1].decode()
    match word:
        case b"DUPLICATE":
            return SubmitReceipt(first_id, _STATES[reply[2]], is_duplicate=True)
        case b"REQUEST_ID_CONFLICT":
            return RequestIdConflictError(job.request_id or "", first_id)
        case b"UNIQUE_HELD":
            return UniqueKeyHeldError(job.unique_key or "", first_id)
        case _:
            raise ScriptReplyError(f"submit answered {word!r}")


def read_requeue_answer(job_id: str, reply: list[bytes]) -> GopherError | None:
    """Return what a reply of `requeue.lua` says of one job; None when it was requeued."""
    match reply[0]:
        case b"OK":
            return None
        case b"STATE":
            return JobStateError(job_id, reply[1].decode(), "only failed, cancelled, scheduled and retrying jobs are retried")
        case b"UNIQUE_HELD":
            return UniqueKeyHeldError(reply[1].decode(), reply[2].decode())
        case _:
            return JobNotFoundError(job_id)
