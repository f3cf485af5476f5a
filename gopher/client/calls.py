"""The rpcs about jobs: how each request is built and how its reply is read. Pure: no channel, no waiting.

A `Call` holds bytes, and its reader takes bytes: what carries it (`sync`, `aio`, `trio_client`) needs to know nothing of messages.
The rpcs about queues and for operators are in `operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from gopher_pb.v1 import admin_service_pb2, job_event_pb2, job_pb2, job_service_pb2, job_stream_pb2

from gopher.client import values
from gopher.errors import GopherError, invalid
from gopher.event import EventKind
from gopher.job import Job, JobState
from gopher.wire import convert, status
from gopher.wire.events import KIND_NUMBER, KIND_OF, detail_of
from gopher.wire.task_tree import TaskTree, tree_from_message

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M", bound=Message)

JOBS: Final = "/gopher.v1.JobService/"
SUBMIT_STREAM: Final = JOBS + "SubmitJobStream"
RUN_NURSERY: Final = JOBS + "RunNursery"
ADMIN: Final = "/gopher.v1.AdminService/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T_co]):
    """One rpc to make.

    Attributes:
        path: Service and method.
        request: The message, serialised.
        read: From the bytes of a reply to what it means.
        is_repeatable: Whether making it twice is as good as once, so that it may be sent again when its outcome is unknown.
        deadline_seconds: How long it may take; None leaves it to the client, and for a stream means that it has none.
    """

    path: str
    request: bytes
    read: Callable[[bytes], T_co]
    is_repeatable: bool
    deadline_seconds: float | None = None


def call_of(path: str, request: Message, kind: type[M], read: Callable[[M], T], *, repeatable: bool = True) -> Call[T]:
    """Return the call that sends the request and reads the reply, a message of the given kind."""

    def read_bytes(data: bytes) -> T:
        return read(kind.FromString(data))

    return Call(path=path, request=request.SerializeToString(), read=read_bytes, is_repeatable=repeatable)


# --- jobs -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receipt:
    """The server's answer to a submit.

    Attributes:
        state: Where the job stands.
        is_duplicate: The request id was used before; the job is that one.
    """

    job_id: str
    state: JobState
    is_duplicate: bool


def submit(namespace: str, spec: job_pb2.JobSpec) -> Call[Receipt]:
    """Submit one job; repeatable when it has a request id."""
    request = job_service_pb2.SubmitJobRequest(namespace=namespace, job=spec)
    repeatable = bool(spec.request_id)
    return call_of(JOBS + "SubmitJob", request, job_service_pb2.SubmitJobResponse, receipt, repeatable=repeatable)


def submit_many(namespace: str, specs: Sequence[job_pb2.JobSpec]) -> Call[list[Receipt | GopherError]]:
    """Submit up to 1,000 jobs; the answer has an entry a job, in their order. Repeatable when all have a request id."""
    request = job_service_pb2.SubmitJobsRequest(namespace=namespace, jobs=specs)
    return call_of(
        JOBS + "SubmitJobs",
        request,
        job_service_pb2.SubmitJobsResponse,
        lambda reply: [status.from_status(each.error) if each.HasField("error") else receipt(each) for each in reply.results],
        repeatable=all(spec.request_id for spec in specs),
    )


def receipt(
    reply: job_service_pb2.SubmitJobResponse | job_service_pb2.SubmitJobsResult | job_stream_pb2.SubmitJobStreamResponse,
) -> Receipt:
    """Return what the server says of a job that it has accepted."""
    return Receipt(reply.job_id, convert.STATE_OF[reply.state], reply.deduplicated)


def get(namespace: str, job_id: str) -> Call[Job]:
    """Look at one job."""
    request = job_service_pb2.GetJobRequest(namespace=namespace, job_id=job_id)
    return call_of(JOBS + "GetJob", request, job_service_pb2.GetJobResponse, _job)


def tree(namespace: str, job_id: str) -> Call[TaskTree]:
    """Look at what a job does at this moment."""
    view = job_service_pb2.JobView.JOB_VIEW_TASK_TREE
    request = job_service_pb2.GetJobRequest(namespace=namespace, job_id=job_id, view=view)
    return call_of(JOBS + "GetJob", request, job_service_pb2.GetJobResponse, lambda reply: tree_from_message(reply.task_tree))


def wait(namespace: str, job_id: str) -> Call[Job]:
    """Wait until the job is final or the deadline of the call is over."""
    request = job_service_pb2.WaitJobRequest(namespace=namespace, job_id=job_id)
    return call_of(JOBS + "WaitJob", request, job_service_pb2.WaitJobResponse, _job)


def cancel(namespace: str, job_id: str, *, reason: str, actor: str, grace_seconds: float | None, wait_final: bool) -> Call[Job]:
    """Ask that the job end as cancelled."""
    grace = None if grace_seconds is None else convert.duration(round(grace_seconds * 1000))
    request = job_service_pb2.CancelJobRequest(
        namespace=namespace, job_id=job_id, reason=reason, actor=actor, grace=grace, wait=wait_final
    )
    return call_of(JOBS + "CancelJob", request, job_service_pb2.CancelJobResponse, _job)


def retry(namespace: str, job_id: str) -> Call[Job]:
    """Give the job new attempts; a second one would be refused, so its outcome is never guessed."""
    request = job_service_pb2.RetryJobRequest(namespace=namespace, job_id=job_id)
    return call_of(JOBS + "RetryJob", request, job_service_pb2.RetryJobResponse, _job, repeatable=False)


def delete(namespace: str, job_id: str) -> Call[None]:
    """Remove the job."""
    request = job_service_pb2.DeleteJobRequest(namespace=namespace, job_id=job_id)
    return call_of(JOBS + "DeleteJob", request, job_service_pb2.DeleteJobResponse, lambda _: None, repeatable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list; what is empty or None means any."""

    queue: str = ""
    state: JobState | None = None
    type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def job_filter(
    *, queue: str | None = None, state: str | None = None, job_type: str | None = None, labels: Mapping[str, str] | None = None
) -> JobFilter:
    """Return the filter.

    Raises:
        InvalidRequestError: There is no such state.
    """
    if state is not None and state not in set(JobState):
        raise invalid("state", "BAD_ENUM", f"expected one of {', '.join(JobState)}, got {state!r}")
    return JobFilter(
        queue=queue or "", state=None if state is None else JobState(state), type=job_type or "", labels=labels or {}
    )


Page: TypeAlias = tuple[list[Job], str]
"""Jobs, and the token of the next page; empty on the last."""

PageOf: TypeAlias = Callable[[int, str], Call[Page]]
"""From size and token of a page to the call that lists it."""


def pages(namespace: str, which: JobFilter) -> PageOf:
    """List jobs."""

    def page_of(page_size: int, page_token: str) -> Call[Page]:
        request = job_service_pb2.ListJobsRequest(
            namespace=namespace,
            queue=which.queue,
            state=job_pb2.JOB_STATE_UNSPECIFIED if which.state is None else convert.STATE_NUMBER[which.state],
            type=which.type,
            labels=which.labels,
            page_size=page_size,
            page_token=page_token,
        )
        return call_of(JOBS + "ListJobs", request, job_service_pb2.ListJobsResponse, _page)

    return page_of


def failed_pages(namespace: str, which: JobFilter) -> PageOf:
    """List dead letters, oldest first; of the filter, queue and type count."""

    def page_of(page_size: int, page_token: str) -> Call[Page]:
        request = admin_service_pb2.ListFailedJobsRequest(
            namespace=namespace, queue=which.queue, type=which.type, page_size=page_size, page_token=page_token
        )
        return call_of(ADMIN + "ListFailedJobs", request, admin_service_pb2.ListFailedJobsResponse, _page)

    return page_of


def _page(reply: job_service_pb2.ListJobsResponse | admin_service_pb2.ListFailedJobsResponse) -> Page:
    return [convert.job_from_message(job) for job in reply.jobs], reply.next_page_token


def requeue_failed(namespace: str, queue: str | None, job_type: str | None, job_ids: Sequence[str]) -> Call[int]:
    """Give dead letters new attempts and return how many."""
    request = admin_service_pb2.RequeueFailedJobsRequest(
        namespace=namespace, queue=queue or "", type=job_type or "", job_ids=job_ids
    )
    return call_of(
        ADMIN + "RequeueFailedJobs",
        request,
        admin_service_pb2.RequeueFailedJobsResponse,
        lambda reply: reply.requeued_count,
        repeatable=False,
    )


def watch(namespace: str, job_id: str, cursor: str) -> Call[values.JobEvent]:
    """Follow a job; a stream."""
    request = job_stream_pb2.WatchJobRequest(namespace=namespace, job_id=job_id, cursor=cursor)
    return call_of(JOBS + "WatchJob", request, job_stream_pb2.WatchJobResponse, lambda reply: _event(reply.event))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events `watch_jobs` is to tell; what is empty means any."""

    queue: str = ""
    type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    root_id: str = ""
    kinds: Sequence[EventKind] = ()


def event_filter(
    queue: str | None, job_type: str | None, labels: Mapping[str, str] | None, root_id: str | None, kinds: Iterable[str]
) -> EventFilter:
    """Return the filter.

    Raises:
        InvalidRequestError: There is no such kind.
    """
    wanted = list(kinds)
    for kind in wanted:
        if kind not in set(EventKind):
            raise invalid("kinds", "BAD_ENUM", f"expected some of {', '.join(EventKind)}, got {kind!r}")
    return EventFilter(
        queue=queue or "",
        type=job_type or "",
        labels=labels or {},
        root_id=root_id or "",
        kinds=[EventKind(each) for each in wanted],
    )


def watch_jobs(namespace: str, which: EventFilter, cursor: str) -> Call[values.JobEvent]:
    """Follow all jobs that match; a stream."""
    request = job_stream_pb2.WatchJobsRequest(
        namespace=namespace,
        queue=which.queue,
        type=which.type,
        labels=which.labels,
        root_id=which.root_id,
        kinds=[KIND_NUMBER[kind] for kind in which.kinds],
        cursor=cursor,
    )
    return call_of(JOBS + "WatchJobs", request, job_stream_pb2.WatchJobsResponse, lambda reply: _event(reply.event))


def run(request: job_stream_pb2.RunJobRequest) -> Call[values.JobEvent]:
    """Run a job that is attached to the call; a stream."""
    return call_of(JOBS + "RunJob", request, job_stream_pb2.RunJobResponse, lambda reply: _event(reply.event))


def _event(event: job_event_pb2.JobEvent) -> values.JobEvent:
    return values.JobEvent(
        job_id=event.job_id,
        kind=KIND_OF[event.kind],
        sequence=event.sequence,
        cursor=event.cursor,
        # Signs of life are of no job, and nobody is told them.
        state=convert.STATE_OF.get(event.state, JobState.ENQUEUED),
        attempt=event.attempt,
        event_ms=convert.to_ms(event.event_time),
        cancel_requested=event.cancel_requested,
        progress=event.progress,
        progress_message=event.progress_message,
        job=convert.job_from_message(event.job) if event.HasField("job") else None,
        detail=detail_of(event),
        queue=event.queue,
        type=event.type,
        failure=status.failure_from_status(event.failure) if event.HasField("failure") else None,
        waiting_reason=convert.reason_of(event),
    )


def _job(
    reply: job_service_pb2.GetJobResponse
    | job_service_pb2.WaitJobResponse
    | job_service_pb2.CancelJobResponse
    | job_service_pb2.RetryJobResponse,
) -> Job:
    return convert.job_from_message(reply.job)
