"""Nurseries of jobs: children that run on any worker, and a block that does not end before them.

    async with job.open_nursery() as nursery:
        for name in names:
            nursery.start_soon("thumbnail", {"name": name})

What is here is pure: what may be said of a nursery, and what the end of one child means for the others. `runtime.nurseries` runs the
nurseries of handlers, the server those of clients.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar, Unpack

from gopher.errors import GopherError, JobCancelledError, JobFailedError, invalid
from gopher.job import Failure, JobState

if TYPE_CHECKING:
    from gopher.job import Job, JsonValue
    from gopher.submission import JobOptions, Payload

ChoiceT = TypeVar("ChoiceT", bound=StrEnum)

MAX_WIDTH: Final = 10_000
"""Children of one nursery; chosen: a tree of two levels holds 100 million."""
MAX_DEPTH: Final = 100
"""Nurseries one within the other; chosen: what runs away is stopped before it has filled Redis."""
MAX_UNSENT_BYTES: Final = 16 << 20
"""Payloads of children that were started and are not yet in Redis; chosen."""

CHILD_FAILED: Final = "CHILD_FAILED"
"""Reason of the failure of a job whose handler let the error of a child pass."""
CAUSE_REASON: Final = "cause_reason"
"""Beside it: the reason of the job in which it began."""
DEFAULT_GRACE_SECONDS: Final = 10.0
"""How long a client's nursery stands when its client has vanished; chosen: longer than a server takes to restart."""
MIN_GRACE_SECONDS: Final = 1.0
MAX_GRACE_SECONDS: Final = 300.0


class NurseryPolicy(StrEnum):
    """When a nursery ends its children early, and what it raises."""

    ALL = "all"  # all must complete: the first that does not has the others cancelled, and the errors are raised
    ANY = "any"  # one must complete: it has the others cancelled; only if none does, the errors are raised
    COLLECT = "collect"  # none is cancelled for another's sake, and nothing is raised: look at each


class OnCrash(StrEnum):
    """What becomes of the children when their parent's attempt is lost, or given back by a worker that drains."""

    CANCEL = "cancel"  # they are cancelled; the next attempt begins with none
    ADOPT = "adopt"  # they go on; the next attempt takes over those that it starts in the same order, with the same input


class OnCancel(StrEnum):
    """What becomes of a child when its nursery is cancelled."""

    CANCEL = "cancel"
    DETACH = "detach"  # it goes on alone


class StartedChild(Protocol):
    """What can be known of a child."""

    @property
    def id(self) -> str | None:
        """Of the job; None until it is stored, a moment after `start_soon`."""

    @property
    def type(self) -> str:
        """Of the job."""

    @property
    def state(self) -> JobState | None:
        """How it has ended; None while it has not."""


class ChildJob(StartedChild, Protocol):
    """A child, as whoever started it sees it."""

    async def result(self) -> JsonValue:
        """Return what its handler returned, once it has ended.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            JobNotFoundError: It is kept no more.
            GopherError: It was refused.
        """


class JobNursery(Protocol):
    """A nursery of jobs, inside its block."""

    def start_soon(
        self,
        type: str,  # noqa: A002 - the field's name wherever a job is spoken of
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> ChildJob:
        """Have a child submitted soon.

        One that Redis or the store's rules refuse (an unknown type, a unique key that is held) counts as one that has failed.

        Args:
            type: Which handler.
            payload: See `gopher.submission.Payload`.
            on_cancel: See `OnCancel`.
            **options: See `gopher.submission.JobOptions`. Queue and priority are the parent's unless told; the deadline is at the latest
                the parent's.

        Raises:
            InvalidRequestError: It names every fault.
            TooManyChildrenError: The nursery has as many as one may.
            NurseryTooDeepError: The parent itself stands in 100 nurseries, one within the other.
            RuntimeError: The block has ended.
        """

    async def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> ChildJob:
        """Submit a child and return once it is stored, which also keeps many large payloads from gathering here.

        Raises:
            GopherError: It is refused; it is then no child.
        """

    def cancel(self) -> None:
        """Cancel all children that have not ended; those that are detached go on alone. The block goes on, and may start others."""


class SyncChildJob(StartedChild, Protocol):
    """A child, as a handler in a thread sees it; see `ChildJob`."""

    def result(self) -> JsonValue:
        """See `ChildJob.result`."""


class SyncJobNursery(Protocol):
    """A nursery of jobs, inside its block in a thread; see `JobNursery`."""

    def start_soon(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> SyncChildJob:
        """See `JobNursery.start_soon`."""

    def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> SyncChildJob:
        """See `JobNursery.start`."""

    def cancel(self) -> None:
        """See `JobNursery.cancel`."""


StartedT = TypeVar("StartedT", bound=StartedChild)


class ChildView(Generic[StartedT]):
    """A child as one kind of program sees it, which differs in how its result is waited for alone."""

    def __init__(self, child: StartedT) -> None:
        self._child = child

    @property
    def id(self) -> str | None:
        """Of the job; None until it is stored."""
        return self._child.id

    @property
    def type(self) -> str:
        """Of the job."""
        return self._child.type

    @property
    def state(self) -> JobState | None:
        """How it has ended; None while it has not."""
        return self._child.state


class Siblings:
    """What the end of one child means for the others, and for the block.

    Args:
        policy: Of the nursery.

    Attributes:
        is_decided: Whether the rest is to be cancelled: one has ended so that the others do not count any more.
    """

    def __init__(self, policy: NurseryPolicy) -> None:
        self._policy = policy
        self._has_completed = False
        self.is_decided = False

    def note_end(self, state: JobState, *, by_nursery: bool) -> bool:
        """Take in how a child has ended; tell whether the others are to be cancelled because of it.

        Args:
            state: In which; of one that was refused or is gone, failed.
            by_nursery: Whether the nursery itself had it cancelled.
        """
        has_completed = state is JobState.COMPLETED
        self._has_completed |= has_completed
        if self._policy is NurseryPolicy.ALL:
            decides = not has_completed and not (by_nursery and state is JobState.CANCELLED)
        else:
            decides = has_completed and self._policy is NurseryPolicy.ANY
        is_first = decides and not self.is_decided
        self.is_decided |= decides
        return is_first

    def raises(self, state: JobState, *, by_nursery: bool) -> bool:
        """Tell whether the block raises an error for a child that has ended so; asked when all have ended.

        Args:
            state: As for `note_end`.
            by_nursery: Likewise.
        """
        if self._policy is NurseryPolicy.COLLECT or (self._policy is NurseryPolicy.ANY and self._has_completed):
            return False
        return state is JobState.FAILED or (state is JobState.CANCELLED and not by_nursery)


def error_of(job: Job) -> GopherError | None:
    """Return the error that a final job's failure or cancel is to its parent; None for a completed one."""
    if job.state is JobState.FAILED:
        failure = job.failure or Failure(reason="UNKNOWN", message="no reason is known")
        text = f"job {job.id} of type {job.type!r} failed: {failure.reason}: {failure.message}"
        if failure.reason == CHILD_FAILED:
            # It names the job where it began: in a deep tree nothing else would be left of the text.
            text = failure.message
        cause = failure.metadata.get(CAUSE_REASON, failure.reason)
        return JobFailedError(text, job_id=job.id, job_type=job.type, failure_reason=failure.reason, **{CAUSE_REASON: cause})
    if job.state is JobState.CANCELLED:
        why = f": {job.cancel_reason}" if job.cancel_reason else ""
        return JobCancelledError(f"job {job.id} of type {job.type!r} was cancelled{why}", job_id=job.id, job_type=job.type)
    return None


def choice(field: str, value: str, kind: type[ChoiceT]) -> ChoiceT:
    """Return what a word chooses.

    Raises:
        InvalidRequestError: BAD_ENUM.
    """
    try:
        return kind(value)
    except ValueError:
        raise invalid(field, "BAD_ENUM", f"must be {', '.join(kind)}, got {value!r}") from None
