"""The children of a client's nursery: what is known of each, and what their ends mean for the block. Pure: no channel, no waiting."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.client.dialogues import result_of
from gopher.client.submission import job_spec
from gopher.errors import GopherError, JobCancelledError, JobNotFoundError, TooManyChildrenError
from gopher.job import JobState
from gopher.nursery import MAX_UNSENT_BYTES, MAX_WIDTH, NurseryPolicy, OnCancel, Siblings, choice, error_of
from gopher.wire import convert, status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gopher.job import Job, JsonValue
    from gopher.submission import Payload

CLEANUP_SECONDS: Final = 15.0
"""How long a block that is cancelled from outside waits for its children's end; chosen: three times what their cleanup may take."""


class Signal(Protocol):
    """An event of Trio, asyncio or threading."""

    def set(self) -> None:
        """Wake who waits."""


class Child:
    """A child of a client's nursery, as the block sees it.

    Attributes:
        number: In its nursery, from 1.
        type: Of the job.
        id: Of the job; None until it is stored.
        state: How it has ended; None while it has not.
        error: Why it was refused, or is not known any more.
        job: Once it has ended, without its payload.
        by_nursery: Whether the nursery has had it cancelled.
        is_alone: Whether nobody waits for it any more: it is detached, and its nursery was cancelled.
        on_cancel: What becomes of it when the nursery is cancelled.
        request: What starts it, serialised; empty once it is answered.
        size: Of the request, in bytes.
        was_sent: Whether a server may know it.
        answered: Set when it is stored or refused; made where somebody waits for that.
    """

    __slots__ = (
        "answered",
        "by_nursery",
        "error",
        "id",
        "is_alone",
        "job",
        "number",
        "on_cancel",
        "request",
        "size",
        "state",
        "type",
        "was_sent",
    )

    def __init__(self, number: int, job_type: str, on_cancel: OnCancel, request: bytes) -> None:
        self.number = number
        self.type = job_type
        self.id: str | None = None
        self.state: JobState | None = None
        self.error: GopherError | None = None
        self.job: Job | None = None
        self.by_nursery = False
        self.is_alone = False
        self.on_cancel = on_cancel
        self.request = request
        self.size = len(request)
        self.was_sent = False
        self.answered: Signal | None = None

    def outcome(self) -> JsonValue:
        """Return what its handler returned; see `gopher.nursery.ChildJob.result`."""
        if self.error is not None:
            raise self.error
        if self.state is None:
            raise RuntimeError(f"job {self.id} has not ended: ask for its result after the nursery's block")
        if self.job is not None:
            return result_of(self.job)
        if self.state is JobState.CANCELLED:
            raise JobCancelledError(f"child {self.number} was cancelled by its nursery", job_id=self.id or "")
        raise JobNotFoundError(self.id or f"number {self.number}")

    def fault(self) -> GopherError | None:
        """Return what is wrong with it, once it has ended; None when it has completed."""
        return self.error or (JobNotFoundError(self.id or f"number {self.number}") if self.job is None else error_of(self.job))


class Children(ABC):
    """The children of a nursery.

    Args:
        policy: See `gopher.nursery.NurseryPolicy`.
        ended: Set when the block may end.

    Attributes:
        on_first: Called with the first child: from then on there must be calls.
        on_request: Called when there may be something to send.
        on_decided: Called when the end of a child decides that the block is to end.

    Raises:
        InvalidRequestError: There is no such policy.
    """

    def __init__(self, policy: str, ended: Signal) -> None:
        self.on_first: Callable[[], None] = lambda: None
        self.on_request: Callable[[], None] = lambda: None
        self.on_decided: Callable[[], None] = lambda: None
        self._policy = choice("policy", policy, NurseryPolicy)
        self._ended = ended
        self._siblings = Siblings(self._policy)
        self._children: list[Child] = []
        self._queue = ""
        self._unsent_bytes = 0
        self._open_count = 0
        self._cancelled_through = 0
        self._is_closed = False
        self._lost: GopherError | None = None
        self._changed = threading.Condition()

    def add(
        self, job_type: str, payload: Payload, on_cancel: str, options: Mapping[str, object], answered: Signal | None = None
    ) -> Child:
        """Take in a child, to be sent soon; see `gopher.nursery.JobNursery.start_soon`.

        Args:
            job_type: Which handler.
            payload: The job's input.
            on_cancel: See `OnCancel`.
            options: See `gopher.submission.JobOptions`.
            answered: Set when it is stored or refused, which is then no failure.
        """
        kind = choice("on_cancel", on_cancel, OnCancel)
        spec = job_spec(job_type, payload, options)
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the nursery's block has ended: it takes no more children")
            if len(self._children) == MAX_WIDTH:
                raise TooManyChildrenError(f"{MAX_WIDTH:,} children in one nursery")
            number = len(self._children) + 1
            start = pb.StartChild(
                number=number, job=spec, may_be_refused=answered is not None, detached=kind is OnCancel.DETACH
            )
            child = Child(number, job_type, kind, pb.RunNurseryRequest(start=start).SerializeToString())
            if self._unsent_bytes + len(child.request) > MAX_UNSENT_BYTES:
                raise TooManyChildrenError(f"{MAX_UNSENT_BYTES >> 20} MiB of children at once: wait for start() of large ones")
            child.answered = answered
            self._queue = self._queue or spec.queue
            self._children.append(child)
            self._open_count += 1
            if self._siblings.is_decided or self._lost is not None:
                child.by_nursery = True
                self._end(child, JobState.CANCELLED)
                return child
            self._queue_up(child)
        if number == 1:
            self.on_first()
        self._tell()
        return child

    def cancel(self) -> None:
        """Cancel all children that have not ended; see `gopher.nursery.JobNursery.cancel`."""
        with self._changed:
            self._cancelled_through = len(self._children)
            for child in self._children:
                if child.state is None and not child.by_nursery:
                    child.by_nursery = True
                    if child.on_cancel is OnCancel.DETACH:
                        self._leave_alone(child)
                    elif not child.was_sent:
                        self._end(child, JobState.CANCELLED)
        self._tell()

    def close(self) -> None:
        """Take no more children: the block may end when all have."""
        with self._changed:
            self._is_closed = True
            self._look_for_end()
        self._tell()

    def abandon(self) -> None:
        """Cancel the children and take no more: the block may end when all have but those that go on alone."""
        self.cancel()
        self.close()

    @property
    def was_used(self) -> bool:
        """Whether there is or was any child."""
        return bool(self._children)

    def raise_errors(self, failure: BaseException | None) -> None:
        """End the block.

        Args:
            failure: What has left it.

        Raises:
            ExceptionGroup: The failure and the errors of the children; only a cancel, of whichever kind, goes on as it is.
        """
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        errors = [] if self._lost is None else [self._lost]
        for child in self._children:
            if (
                child.state is not None
                and not child.is_alone
                and self._siblings.raises(child.state, by_nursery=child.by_nursery)
            ):
                fault = child.fault()
                if fault is not None:
                    errors.append(fault)
        if failure is not None:
            raise ExceptionGroup("a nursery of jobs has failed", [failure, *errors]) from None
        if errors:
            raise ExceptionGroup("children of a nursery did not complete", errors)

    def _end(self, child: Child, state: JobState) -> None:
        """Note how a child has ended; told twice, the first counts."""
        self._note_answer(child)
        if child.state is not None:
            return
        child.state = state
        if child.is_alone:
            return
        self._open_count -= 1
        if self._siblings.note_end(state, by_nursery=child.by_nursery):
            # Said to the server too: it has decided the same, but may be another one after a cut.
            self.cancel()
            self.on_decided()
        self._look_for_end()

    def _leave_alone(self, child: Child) -> None:
        """Wait no more for a child that is detached, once it is stored."""
        if child.id is not None and child.state is None and not child.is_alone:
            child.is_alone = True
            self._open_count -= 1
            self._look_for_end()

    def _look_for_end(self) -> None:
        if self._is_done:
            self._ended.set()

    @property
    def _is_done(self) -> bool:
        return self._is_closed and (self._open_count == 0 or self._lost is not None)

    @abstractmethod
    def _queue_up(self, child: Child) -> None:
        """Have a child sent."""

    def _note_answer(self, child: Child) -> None:
        child.request = b""
        if child.answered is not None:
            child.answered.set()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self.on_request()

    # --- what is told of them ---------------------------------------------------------------------------------------------------

    def _take_started(self, started: pb.ChildStarted) -> None:
        child = self._child(started.number)
        if child is None or child.state is not None:
            return
        if started.HasField("error"):
            child.error = status.from_status(started.error)
            # Whoever waits for it to be stored is told there, and the block need not end of it.
            child.by_nursery = child.answered is not None
            self._end(child, JobState.CANCELLED if child.by_nursery else JobState.FAILED)
        else:
            child.id = started.job_id
            self._note_answer(child)
            if child.by_nursery and child.on_cancel is OnCancel.DETACH:
                self._leave_alone(child)

    def _take_ended(self, ended: pb.ChildEnded) -> None:
        child = self._child(ended.number)
        if child is None or child.state is not None:
            return
        state = JobState.CANCELLED if ended.cancelled_by_nursery else JobState.FAILED
        if ended.HasField("job"):
            ended.job.ClearField("payload")
            child.job = convert.job_from_message(ended.job)
            child.id, state = child.job.id, child.job.state
        child.by_nursery |= ended.cancelled_by_nursery
        self._end(child, state)

    def _child(self, number: int) -> Child | None:
        return self._children[number - 1] if 1 <= number <= len(self._children) else None
