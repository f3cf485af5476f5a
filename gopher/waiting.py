"""Why a job waits: the one explanation that every face of Gopher gives, as a value, a sentence and the command that would change it.

Pure, as `gopher.job` is: `gopher.store.waiting` reads the facts that `explain` decides by.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never

import msgspec


class WaitingKind(StrEnum):
    """What a job waits for; where several hold, the first of them."""

    SCHEDULED = "scheduled"  # its run time
    BACKING_OFF = "backing_off"  # the next attempt's moment
    QUEUE_PAUSED = "queue_paused"  # an operator's resume
    NO_WORKER = "no_worker"  # a worker that claims from its queue
    TYPE_NOT_SERVED = "type_not_served"  # a worker of its queue that has a handler for it
    LIMIT = "limit"  # room under a rate or concurrency limit
    BREAKER = "breaker"  # a circuit breaker to close
    BULKHEAD = "bulkhead"  # room in its handler's bulkhead
    SLOTS_BUSY = "slots_busy"  # a slot: those of all workers that could run it are taken
    IN_LINE = "in_line"  # its turn


class WaitingReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job waits, as it was when it was asked.

    Attributes:
        kind: What it waits for.
        queue: Of the job.
        type: Of the job.
        held_by: Of a limit, breaker or bulkhead, its name, as `Job.parked_by`; a limit of the whole queue is `KIND:*`. Else None.
        until_ms: When the wait ends or is looked at again, ms since the epoch; None where no moment is known.
        jobs_ahead: Jobs before it in its line, which is that of its priority, or of what holds it back.
        busy_slots: Of the workers that could run it, the slots that are taken.
        slots: And those that there are.
        message: All of it in a sentence, for people.
    """

    kind: WaitingKind
    queue: str
    type: str
    held_by: str | None = None
    until_ms: int | None = None
    jobs_ahead: int = 0
    busy_slots: int = 0
    slots: int = 0
    message: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an enqueued job's surroundings.

    Attributes:
        is_paused: Whether its queue is.
        claiming: Workers that claim from its queue.
        serving: Those of them that have a handler for its type.
        busy_slots: Slots of these that are taken.
        slots: Slots of these.
        held_by: What holds the job back; None for nothing.
        until_ms: When that is asked again; None where no moment is known.
        jobs_ahead: Jobs before it in its line.
    """

    is_paused: bool
    claiming: int
    serving: int
    busy_slots: int
    slots: int
    held_by: str | None
    until_ms: int | None
    jobs_ahead: int


_HELD_KINDS: Final = {"breaker": WaitingKind.BREAKER, "bulkhead": WaitingKind.BULKHEAD}


def wait_until(kind: WaitingKind, queue: str, job_type: str, run_ms: int) -> WaitingReason:
    """Return the reason of a job that waits for its run time, be it for its first attempt or for the next."""
    reason = WaitingReason(kind=kind, queue=queue, type=job_type, until_ms=run_ms)
    return msgspec.structs.replace(reason, message=_sentence(reason))


def explain(queue: str, job_type: str, facts: Facts) -> WaitingReason:
    """Return why an enqueued job of a queue and a type is not processing."""
    held_by, until_ms = None, None
    if facts.is_paused:
        kind = WaitingKind.QUEUE_PAUSED
    elif not facts.claiming:
        kind = WaitingKind.NO_WORKER
    elif not facts.serving:
        kind = WaitingKind.TYPE_NOT_SERVED
    elif facts.held_by is not None:
        held_by, until_ms = facts.held_by, facts.until_ms
        kind = _HELD_KINDS.get(held_by.partition(":")[0], WaitingKind.LIMIT)
    else:
        kind = WaitingKind.SLOTS_BUSY if 0 < facts.slots <= facts.busy_slots else WaitingKind.IN_LINE
    reason = WaitingReason(
        kind=kind,
        queue=queue,
        type=job_type,
        held_by=held_by,
        until_ms=until_ms,
        jobs_ahead=facts.jobs_ahead,
        busy_slots=facts.busy_slots,
        slots=facts.slots,
    )
    return msgspec.structs.replace(reason, message=_sentence(reason))


def _sentence(reason: WaitingReason) -> str:
    match reason.kind:
        case WaitingKind.SCHEDULED:
            return f"it is scheduled for {_moment(reason.until_ms)}"
        case WaitingKind.BACKING_OFF:
            return f"its last attempt failed, and the next one begins at {_moment(reason.until_ms)}"
        case WaitingKind.QUEUE_PAUSED:
            return f"queue {reason.queue!r} is paused"
        case WaitingKind.NO_WORKER:
            return f"no live worker claims from queue {reason.queue!r}"
        case WaitingKind.TYPE_NOT_SERVED:
            return f"no live worker of queue {reason.queue!r} serves type {reason.type!r}"
        case WaitingKind.LIMIT | WaitingKind.BREAKER | WaitingKind.BULKHEAD:
            return f"{_holder(reason)}{_line(reason)}"
        case WaitingKind.SLOTS_BUSY:
            return f"all {reason.slots} slots of the workers that serve type {reason.type!r} are busy{_line(reason)}"
        case WaitingKind.IN_LINE:
            return f"it waits for its turn{_line(reason)}"
        case _:
            assert_never(reason.kind)


def _holder(reason: WaitingReason) -> str:
    kind, _, name = (reason.held_by or "").partition(":")
    asked = "" if reason.until_ms is None else f" until {_moment(reason.until_ms)}"
    match reason.kind:
        case WaitingKind.BREAKER:
            return f"breaker {name!r} holds it back{asked}"
        case WaitingKind.BULKHEAD:
            return f"the bulkhead of type {name!r} is full"
        case _:
            return f"the {kind} limit of {_limited(name, reason.queue)} holds it back{asked}"


def _limited(name: str, queue: str) -> str:
    job_type, _, key = name.partition(":")
    if job_type == "*":
        return f"queue {queue!r}"
    return f"type {job_type!r} for key {key!r}" if key else f"type {job_type!r}"


def _line(reason: WaitingReason) -> str:
    match reason.jobs_ahead:
        case 0:
            return ", and it is the next in line"
        case 1:
            return ", with 1 job in line before it"
        case count:
            return f", with {count} jobs in line before it"


def _moment(ms: int | None) -> str:
    return "an unknown moment" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def remedy(job_id: str, reason: WaitingReason) -> str | None:
    """Return the command that would change what a job waits for; in capitals what is to be filled in."""
    kind, _, name = (reason.held_by or "").partition(":")
    match reason.kind:
        case WaitingKind.SCHEDULED | WaitingKind.BACKING_OFF:
            return f"gopher retry {job_id}"
        case WaitingKind.QUEUE_PAUSED:
            return f"gopher resume {reason.queue}"
        case WaitingKind.BREAKER:
            return f"gopher breakers {name} --control closed"
        case WaitingKind.LIMIT:
            return _new_limit(kind, name, reason.queue)
        case (
            WaitingKind.NO_WORKER
            | WaitingKind.TYPE_NOT_SERVED
            | WaitingKind.BULKHEAD
            | WaitingKind.SLOTS_BUSY
            | WaitingKind.IN_LINE
        ):
            return f"gopher-worker --app MODULE:REGISTRY --queues {reason.queue}"
        case _:
            assert_never(reason.kind)


def _new_limit(kind: str, name: str, queue: str) -> str:
    job_type, _, key = name.partition(":")
    option = ("--concurrency" if kind == "concurrency" else "--limit") + ("-per-key N" if key else " N")
    return (
        f"gopher update-queue {queue} {option}" if job_type == "*" else f"gopher rate-limit {job_type} --queue {queue} {option}"
    )
