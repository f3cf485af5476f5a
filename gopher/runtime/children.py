"""The jobs that running attempts submit: checked as the server checks a submit, given an id, and kept until the outcome is written.

Nothing of them is in Redis before. An attempt that does not complete its job leaves none, and the next one begins with none.
"""

from __future__ import annotations

import math
import re
from datetime import datetime  # noqa: TC003 - msgspec reads the fields of `_Options` at run time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from gopher.errors import TooManyChildrenError, invalid
from gopher.job import BYTES_CONTENT_TYPE, JSON_CONTENT_TYPE, NewJob, Priority
from gopher.retry import MAX_ATTEMPTS_LIMIT
from gopher.store.outbox import pack
from gopher.submission import (
    DEFAULT_MAX_PAYLOAD_BYTES,
    MAX_BACKOFF_MS,
    MAX_BACKOFF_MULTIPLIER,
    MAX_DELAY_MS,
    MAX_RETENTION_MS,
    MAX_TIMEOUT_MS,
    encode_payload,
    moment_ms,
)
from gopher.telemetry import tracing
from gopher.wire import check
from gopher.wire.check import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.codec import ClaimedJob
    from gopher.store.outbox import Child, Outbox
    from gopher.submission import JobOptions, Payload

MAX_CHILDREN: Final = 1_000
MAX_CHILDREN_BYTES: Final = 1 << 20
"""Of an attempt, both; chosen: as a SubmitJobs call may have. Measured: an outcome with 1,000 small ones holds Redis for 1.8 ms, one with
4 MiB for 12 ms."""


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    """The options of a submit, as `JobOptions` has them, so that what is of the wrong type is told by name."""

    type: str
    queue: str = ""
    priority: Priority = Priority.NORMAL
    content_type: str = ""
    labels: dict[str, str] = {}
    max_attempts: int | None = None
    backoff_initial_seconds: float | None = None
    backoff_max_seconds: float | None = None
    backoff_multiplier: float | None = None
    non_retryable_reasons: list[str] = []
    timeout_seconds: float | None = None
    delay_seconds: float | None = None
    run_at: datetime | None = None
    deadline: datetime | None = None
    unique_key: str = ""
    limit_key: str = ""
    retention_seconds: float | None = None


def new_child(job_type: str, payload: Payload, options: JobOptions) -> NewJob:
    """Return the job that a handler describes.

    Raises:
        InvalidRequestError: It names every fault, by option.
    """
    said = _read(job_type, options)
    faults = Faults()
    default_type = BYTES_CONTENT_TYPE if isinstance(payload, bytes | bytearray | memoryview) else JSON_CONTENT_TYPE
    content_type = check.content_type(faults, "content_type", said.content_type or default_type)
    if said.delay_seconds is not None and said.run_at is not None:
        faults.add("delay_seconds", "CONFLICT", "must not be set together with run_at")
    initial_ms = _ms(faults, "backoff_initial_seconds", said.backoff_initial_seconds, 1, MAX_BACKOFF_MS)
    max_ms = _ms(faults, "backoff_max_seconds", said.backoff_max_seconds, 1, MAX_BACKOFF_MS)
    if initial_ms is not None and max_ms is not None and max_ms < initial_ms:
        faults.add("backoff_max_seconds", "OUT_OF_RANGE", "must be at least backoff_initial_seconds")
    job = NewJob(
        type=check.name(faults, "type", said.type),
        payload=check.payload(faults, "payload", encode_payload(payload), content_type, DEFAULT_MAX_PAYLOAD_BYTES),
        queue=check.queue_or_default(faults, "queue", said.queue),
        priority=said.priority,
        content_type=content_type,
        labels=check.labels(faults, "labels", said.labels),
        max_attempts=_number(faults, "max_attempts", said.max_attempts, 1, MAX_ATTEMPTS_LIMIT),
        backoff_initial_ms=initial_ms,
        backoff_max_ms=max_ms,
        backoff_multiplier=_number(faults, "backoff_multiplier", said.backoff_multiplier, 1, MAX_BACKOFF_MULTIPLIER),
        non_retryable_reasons=check.reasons(faults, "non_retryable_reasons", said.non_retryable_reasons),
        timeout_ms=_ms(faults, "timeout_seconds", said.timeout_seconds, 1, MAX_TIMEOUT_MS),
        delay_ms=_ms(faults, "delay_seconds", said.delay_seconds, 0, MAX_DELAY_MS),
        run_ms=_moment_ms(faults, "run_at", said.run_at),
        deadline_ms=_moment_ms(faults, "deadline", said.deadline),
        unique_key=check.text(faults, "unique_key", said.unique_key),
        limit_key=check.text(faults, "limit_key", said.limit_key),
        retention_ms=_ms(faults, "retention_seconds", said.retention_seconds, 0, MAX_RETENTION_MS),
    )
    faults.refuse()
    return job


_PATH_OF: Final = re.compile(r"(?:Object contains unknown field `(\w+)`)|.* - at `\$\.(\w+).*`", re.DOTALL)
ValueT = TypeVar("ValueT", int, float)


def _read(job_type: str, options: Mapping[str, object]) -> _Options:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return msgspec.convert({**given, "type": job_type}, _Options)
    except msgspec.ValidationError as error:
        found = _PATH_OF.match(str(error))
        unknown, field = found.groups() if found is not None else (None, None)
        if unknown is not None:
            known = ", ".join(_Options.__struct_fields__)
            raise invalid(unknown, "UNKNOWN_FIELD", f"is not known; expected {known}") from error
        raise invalid(field or "options", "BAD_VALUE", str(error).partition(" - at ")[0]) from error


def _number(faults: Faults, field: str, value: ValueT | None, low: int, high: int) -> ValueT | None:
    # Asked this way round, since NaN is not below anything either.
    if value is not None and not low <= value <= high:
        faults.add(field, "OUT_OF_RANGE", f"must be {low} to {high}, got {value}")
    return value


def _ms(faults: Faults, field: str, seconds: float | None, low_ms: int, high_ms: int) -> int | None:
    """Check a length of time; a part of a ms counts as a whole one, so that nothing ends early."""
    if seconds is None:
        return None
    if not low_ms <= seconds * 1000 <= high_ms:
        faults.add(field, "OUT_OF_RANGE", f"must be {low_ms / 1000:g} to {high_ms / 1000:g} s, got {seconds:g}")
        return None
    return math.ceil(round(seconds * 1000, 3))


def _moment_ms(faults: Faults, field: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    try:
        found = moment_ms(moment)
    except ValueError as error:
        faults.add(field, "BAD_VALUE", f"{error}, got {moment}")
        return None
    if not 0 <= found <= check.LAST_MOMENT_MS:
        faults.add(field, "OUT_OF_RANGE", f"must lie between 1970-01-01 and 2200-01-01, got {moment}")
    return found


class Brood:
    """What one attempt has submitted so far.

    Attributes:
        children: In order.
    """

    def __init__(self) -> None:
        self.children: list[Child] = []
        self._size = 0

    def add(self, child: Child) -> None:
        """Take in one more.

        Raises:
            TooManyChildrenError: There is no room for it.
        """
        if len(self.children) == MAX_CHILDREN:
            raise TooManyChildrenError(f"{MAX_CHILDREN:,} jobs")
        if self._size + len(child.entry) > MAX_CHILDREN_BYTES:
            raise TooManyChildrenError(f"{MAX_CHILDREN_BYTES >> 20} MiB of jobs")
        self.children.append(child)
        self._size += len(child.entry)


class Children:
    """Takes in what the attempts of a worker submit.

    Args:
        outbox: Gives the ids.
        namespace: Of the attempts, and of their children.
    """

    def __init__(self, outbox: Outbox, *, namespace: str) -> None:
        self._outbox = outbox
        self._namespace = namespace

    async def submit(self, attempt: RunningAttempt, job_type: str, payload: Payload, options: JobOptions) -> str:
        """Take in a job as a handler describes it; see `JobContext.submit`."""
        return await self.add(attempt, new_child(job_type, payload, options))

    async def add(self, attempt: RunningAttempt, described: NewJob) -> str:
        """Take in a job and return the id that it will have.

        Raises:
            UnknownTypeError: No worker of the namespace has registered its type.
            TooManyQueuesError: Its queue cannot be created.
            TooManyChildrenError: The attempt has submitted as much as one may.
            StoreError: Redis failed.
            RuntimeError: The attempt has ended.

        Cancellation:
            The job is not taken in.
        """
        # Nearly always all is known, and nothing else here would let others run.
        await trio.lowlevel.checkpoint()
        parent = attempt.job
        job = descended(parent, described)
        job_id = await self._outbox.reserve(self._namespace, job)
        if attempt.is_over:
            raise RuntimeError(f"the attempt of job {parent.id} has ended: what it submits now would be lost")
        if attempt.brood is None:
            attempt.brood = Brood()
        attempt.brood.add(pack(parent.id, parent.token, job_id, job))
        return job_id


def descended(parent: ClaimedJob, described: NewJob) -> NewJob:
    """Return a job as the child of another: of its tree and its trace, and bound by its deadline."""
    return msgspec.structs.replace(
        described,
        parent_id=parent.id,
        root_id=parent.root_id,
        trace=tracing.current() or parent.trace,
        deadline_ms=_earlier(described.deadline_ms, parent.number(b"deadline_ms")),
    )


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
