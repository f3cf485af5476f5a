"""What a handler sees of its attempt: what it may know, and what it may say."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, Unpack

from gopher.event import EventKind
from gopher.job import BYTES_CONTENT_TYPE, JSON_CONTENT_TYPE, JsonValue
from gopher.nursery import JobNursery, NurseryPolicy, OnCrash, SyncJobNursery
from gopher.submission import JobOptions, Payload, encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

PROGRESS_MESSAGE_LENGTH: Final = 255
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MAX_LOG_BYTES: Final = 4 * 1024
"""A line of a job's log; a longer one is cut."""
MAX_OUTPUT_BYTES: Final = 64 * 1024
"""A chunk of a job's output; a larger one is refused."""

ContextT = TypeVar("ContextT", bound="AttemptInfo")
Saying: TypeAlias = tuple[EventKind, float | str, bytes]
"""What a handler says: its kind, of progress how far, and what is told beside it, as `gopher.store.history.Saying` has it."""
Say: TypeAlias = Callable[[EventKind, float | str, bytes], Awaitable[None]]
Enlist: TypeAlias = Callable[[str, Payload, JobOptions], Awaitable[str]]


class AttemptCancelled(BaseException):
    """Ends a handler in a thread whose attempt is to end: raised by what it says through its context.

    Let it pass. Like Trio's `Cancelled` it is no `Exception`, so that it ends the attempt as cancelled, or as out of time, and is no
    failure of the handler's.
    """


class Ending(Protocol):
    """Whoever knows whether an attempt is to end."""

    def must_end(self) -> bool:
        """Tell whether it is to end now. Safe in any thread."""


class AttemptInfo:
    """What a handler can know of its attempt.

    Attributes:
        id: Of the job.
        type: Of the job.
        queue: Of the job.
        namespace: Of the queue.
        attempt: Number of this attempt, from 1.
        token: Lease token: grows with every claim in the queue, so that what the handler writes elsewhere can be fenced by it.
        labels: As submitted.
        deadline_ms: Moment at which the attempt is ended because the job's deadline is over, ms since the epoch; None without one.
    """

    __slots__ = (
        "_is_draining",
        "_resources",
        "attempt",
        "deadline_ms",
        "ending",
        "id",
        "labels",
        "namespace",
        "queue",
        "token",
        "type",
    )

    _resources: object
    """Unset where there are none."""

    ending: Ending
    """Set by whoever runs the handler; unset where nobody ends it."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the field's name wherever a job is spoken of
        type: str,  # noqa: A002 - likewise
        queue: str,
        namespace: str,
        attempt: int,
        token: int,
        labels: Mapping[str, str],
        deadline_ms: int | None,
        is_draining: Callable[[], bool],
    ) -> None:
        self.id = id
        self.type = type
        self.queue = queue
        self.namespace = namespace
        self.attempt = attempt
        self.token = token
        self.labels = labels
        self.deadline_ms = deadline_ms
        self._is_draining = is_draining

    @property
    def deadline(self) -> datetime | None:
        """`deadline_ms` as a moment in UTC."""
        return None if self.deadline_ms is None else datetime.fromtimestamp(self.deadline_ms / 1000, UTC)

    @property
    def shutdown_requested(self) -> bool:
        """Whether the worker drains: finish soon, or raise `Snooze(0)` to be run elsewhere."""
        return self._is_draining()

    @property
    def cancel_requested(self) -> bool:
        """Whether the attempt is to end now: its job was cancelled, its time is over, or the worker has lost it."""
        ending = getattr(self, "ending", None)
        return ending is not None and ending.must_end()

    @property
    def resources(self) -> Any:  # type: ignore[explicit-any]  # only the author of the lifespan knows what it yields
        """What the registry's lifespan yields to handlers of this kind.

        Raises:
            RuntimeError: There is no such lifespan, or the handler runs in a subprocess, which none reaches.
        """
        try:
            return self._resources
        except AttributeError:
            raise RuntimeError(
                f"the handler of {self.type!r} has no job.resources: the registry has no lifespan for this kind of handler, and "
                "for one marked process=True there is none: open there what it needs"
            ) from None

    def give(self, resources: object) -> None:
        """Set `resources`; for whoever runs the handler."""
        self._resources = resources

    def copy_as(self, kind: type[ContextT]) -> ContextT:
        """Return what is known of this attempt as another kind of context; its callbacks and resources are still to be set."""
        other = kind.__new__(kind)
        for name in _KNOWN:
            setattr(other, name, getattr(self, name))
        return other


_KNOWN: Final = tuple(name for name in AttemptInfo.__slots__ if name not in {"_resources", "ending"})


class JobContext(AttemptInfo):
    """One attempt, as a coroutine handler sees it."""

    __slots__ = ("enlist", "nurse", "say")

    say: Say
    enlist: Enlist
    nurse: Callable[[str, str], AbstractAsyncContextManager[JobNursery]]
    """Set, all, by whoever runs the handler."""

    async def progress(self, fraction: float, message: str = "") -> None:
        """Tell the job's watchers how far it has come.

        Args:
            fraction: 0 to 1; what lies outside counts as the nearer end.
            message: For people; cut after 255 characters.

        Raises:
            ValueError: The fraction is not a number.
        """
        await self.say(*_progress(fraction, message))

    async def log(self, message: str, level: str = "info") -> None:
        """Say a line to the job's watchers, who read it in order with all else; returns once it is kept.

        Args:
            message: For people; cut after 4 KiB.
            level: debug, info, warning or error.

        Raises:
            ValueError: The level is none of these.
        """
        await self.say(*_log(message, level))

    async def emit(self, data: JsonValue | bytes) -> None:
        """Give a chunk of output to the job's watchers; returns once it is kept.

        Args:
            data: Bytes, which stay bytes, or anything that JSON can hold; at most 64 KiB.

        Raises:
            ValueError: It is larger, or not JSON.
        """
        await self.say(*_output(data))

    async def submit(self, type: str, payload: Payload = None, **options: Unpack[JobOptions]) -> str:  # noqa: A002 - as above
        """Submit a child: a job that comes to be when this attempt completes its job, and not otherwise; return its id.

        Args:
            type: Which handler; one that a worker of the namespace has registered.
            payload: See `gopher.submission.Payload`.
            **options: See `gopher.submission.JobOptions`.

        Raises:
            RequestError: It is refused; the message says why.
            StoreError: Redis failed; the handler may go on, and try again.
            RuntimeError: The attempt has ended.
        """
        return await self.enlist(type, payload, options)

    def open_nursery(
        self, *, policy: str = NurseryPolicy.ALL, on_crash: str = OnCrash.CANCEL
    ) -> AbstractAsyncContextManager[JobNursery]:
        """Open a nursery of jobs: children that run on any worker, and a block, `async with`, that ends when all of them have.

        While it waits for its children at the end of the block, the attempt has no slot: the worker runs others meanwhile. The time
        limit of the attempt goes on, and so do limits of how many run at once.

        Args:
            policy: See `NurseryPolicy`; what it raises for children is an `ExceptionGroup`.
            on_crash: See `OnCrash`.

        Raises:
            RuntimeError: The handler runs in a subprocess.
        """
        return self.nurse(policy, on_crash)


class SyncJobContext(AttemptInfo):
    """One attempt, as a handler in a thread, or a plain `def` in a subprocess, sees it."""

    __slots__ = ("enlist", "nurse", "say")

    say: Callable[[EventKind, float | str, bytes], None]
    enlist: Callable[[str, Payload, JobOptions], str]
    nurse: Callable[[str, str], AbstractContextManager[SyncJobNursery]]
    """Set, all, by whoever runs the handler."""

    def check_cancelled(self) -> None:
        """Call it now and then in long work, so that a cancel ends it.

        Raises:
            AttemptCancelled: The attempt is to end; `progress` and `submit` raise it as well.
        """
        if self.cancel_requested:
            raise AttemptCancelled

    def progress(self, fraction: float, message: str = "") -> None:
        """See `JobContext.progress`."""
        self.say(*_progress(fraction, message))

    def log(self, message: str, level: str = "info") -> None:
        """See `JobContext.log`."""
        self.say(*_log(message, level))

    def emit(self, data: JsonValue | bytes) -> None:
        """See `JobContext.emit`."""
        self.say(*_output(data))

    def submit(self, type: str, payload: Payload = None, **options: Unpack[JobOptions]) -> str:  # noqa: A002 - as above
        """See `JobContext.submit`."""
        return self.enlist(type, payload, options)

    def open_nursery(
        self, *, policy: str = NurseryPolicy.ALL, on_crash: str = OnCrash.CANCEL
    ) -> AbstractContextManager[SyncJobNursery]:
        """See `JobContext.open_nursery`; the block is a `with`, and the end of a child does not cancel it.

        Raises:
            RuntimeError: The handler runs in a subprocess.
        """
        return self.nurse(policy, on_crash)


def _progress(fraction: float, message: str) -> Saying:
    if math.isnan(fraction):
        raise ValueError("the fraction of a progress must be 0 to 1, not nan")
    return EventKind.PROGRESS, min(max(fraction, 0.0), 1.0), _text(message[:PROGRESS_MESSAGE_LENGTH])


def _log(message: str, level: str) -> Saying:
    if level not in LOG_LEVELS:
        raise ValueError(f"the level of a log line must be {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, not {level!r}")
    # A character that the end would cut in two goes.
    line = _text(message)[:MAX_LOG_BYTES].decode("utf-8", "ignore").encode()
    return EventKind.LOG, "", b"%b %b" % (level.encode(), line)


def _output(data: JsonValue | bytes) -> Saying:
    if isinstance(data, bytes):
        kind, chunk = BYTES_CONTENT_TYPE, data
    else:
        try:
            kind, chunk = JSON_CONTENT_TYPE, encode_json(data)
        except ValueError as error:
            raise ValueError(f"a chunk of output must be bytes or what JSON can hold: {error}") from error
    if len(chunk) > MAX_OUTPUT_BYTES:
        raise ValueError(f"a chunk of output holds at most {MAX_OUTPUT_BYTES} bytes, not {len(chunk)}: give it in pieces")
    return EventKind.OUTPUT, "", b"%b %b" % (kind.encode(), chunk)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")
