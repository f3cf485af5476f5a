"""What a claim gives. A job whose record is damaged is set apart: it becomes a dead letter alone, and its worker goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gopher.job import Failure
from gopher.store.codec import ClaimedJob, DamagedRecordError, encode_failure

if TYPE_CHECKING:
    from gopher.store.resp import Reply

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CODE_DATA_LOSS: Final = 15


class Claim(NamedTuple):
    """What a claim gave.

    Attributes:
        jobs: In the order in which to start them; without those whose records are damaged.
        refused: Names of the claim's own bounds that held jobs back.
        taken: How many jobs it took from the queue, damaged ones included.
        is_cut_short: Whether there may be more to take, though it gave less than was asked for.
    """

    jobs: list[ClaimedJob]
    refused: tuple[str, ...]
    taken: int
    is_cut_short: bool = False

    def may_leave_more(self, count: int) -> bool:
        """Tell whether the queue may hold more, after a claim of so many jobs."""
        return self.taken >= count or self.is_cut_short


class Damaged(NamedTuple):
    """A claimed job whose record cannot be read.

    Attributes:
        job_id: Of the job.
        token: Of its lease.
        failure: Encoded; says what is wrong.
    """

    job_id: str
    token: int
    failure: bytes


REPLACED: Final = Claim([], (), 0)
"""The answer to a session that claims no more."""


def read_claim(queue: str, reply: Reply) -> tuple[Claim | None, list[Damaged]]:
    """Return what `claim.lua` has given, None of a paused queue, and the jobs whose records are damaged."""
    if reply[0] != b"OK":
        return (REPLACED if reply[0] == b"REPLACED" else None), []
    _, now_ms, by, is_cut_short, *taken = reply
    refused = tuple(by.decode().split()) if by else ()
    try:
        return Claim([ClaimedJob(entry, now_ms) for entry in taken], refused, len(taken), bool(is_cut_short)), []
    except DamagedRecordError:
        jobs, damaged = _sort_out(queue, taken, now_ms)
        return Claim(jobs, refused, len(taken), bool(is_cut_short)), damaged


def _sort_out(queue: str, taken: list[Reply], now_ms: int) -> tuple[list[ClaimedJob], list[Damaged]]:
    jobs: list[ClaimedJob] = []
    damaged: list[Damaged] = []
    for entry in taken:
        try:
            jobs.append(ClaimedJob(entry, now_ms))
        except DamagedRecordError as error:
            job_id, token = entry[0].decode(), entry[1]
            failure = Failure(reason="DAMAGED_RECORD", message=f"the record in Redis is damaged: {error}", code=_CODE_DATA_LOSS)
            damaged.append(Damaged(job_id, token, encode_failure(failure)))
            _log.error("job.damaged", job_id=job_id, queue=queue, error=str(error))
    return jobs, damaged
