"""The frames of workers on streams: what each must hold, and how what is told to a worker is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.rpc import error_details_pb2, status_pb2

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.errors import InvalidRequestError, invalid
from gopher.job import MAX_TRACEBACK_BYTES
from gopher.wire import check, convert
from gopher.wire.check import Faults
from gopher.wire.status import clip, to_status, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gopher.errors import RequestError
    from gopher.store.codec import ClaimedJob

MOST_JOBS: Final = 1000
"""That a worker holds and may take, together; chosen: more are for more streams."""
MOST_QUEUES: Final = 64
MOST_TYPES: Final = 1000
MOST_WEIGHT: Final = 1000
MOST_STREAMS: Final = 2**53
"""What a number of Lua tells from the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """A hello, checked.

    Attributes:
        namespace: Of the queues.
        queues: Name -> weight.
        types: What the worker has handlers for.
        labels: For people.
        version: Of its program.
        slots: Jobs that it runs at most at once.
        resume_token: Empty for a new worker.
        leases: Job id -> token, of what it holds.
        stream: Number of the worker's stream.
    """

    namespace: str
    queues: dict[str, int]
    types: frozenset[str]
    labels: dict[str, str]
    version: str
    slots: int
    resume_token: str
    leases: dict[str, int]
    stream: int


def read_greeting(frame: pb.ConnectRequest) -> Greeting:
    """Check the first frame of a stream.

    Raises:
        InvalidRequestError: It names every fault.
    """
    if frame.WhichOneof("frame") != "hello":
        raise out_of_order(f"the first frame must be a hello, got {frame.WhichOneof('frame') or 'an empty one'}")
    hello = frame.hello
    faults = Faults("hello.")
    namespace = check.optional_name(faults, "namespace", hello.namespace)
    _check_size(faults, "queues", len(hello.queues), 1, MOST_QUEUES)
    _check_size(faults, "types", len(hello.types), 1, MOST_TYPES)
    _check_size(faults, "leases", len(hello.leases), 0, MOST_JOBS)
    # Before each is looked at: what is too much is not looked through.
    faults.refuse()
    for queue, weight in hello.queues.items():
        check.name(faults, "queues", queue)
        if not 1 <= weight <= MOST_WEIGHT:
            faults.add(f"queues[{queue[:64]!r}]", "OUT_OF_RANGE", f"the weight must be 1 to {MOST_WEIGHT}, got {weight}")
    for job_type in hello.types:
        check.name(faults, "types", job_type)
    version = check.text(faults, "version", hello.version) or ""
    if hello.leases and not hello.resume_token:
        faults.add("leases", "OUT_OF_RANGE", "a new worker holds none: with leases the resume token must be set")
    if not 1 <= hello.stream <= MOST_STREAMS:
        faults.add("stream", "OUT_OF_RANGE", f"must count the worker's streams, from 1, got {hello.stream}")
    slots = check.integer(faults, "slots", hello.slots, 1, MOST_JOBS) or 0
    labels = check.labels(faults, "labels", hello.labels)
    faults.refuse()
    return Greeting(
        namespace=check.namespace(namespace or ""),
        queues=dict(hello.queues),
        types=frozenset(hello.types),
        labels=labels,
        version=version,
        slots=slots,
        resume_token=hello.resume_token,
        leases={lease.job_id: lease.token for lease in hello.leases},
        stream=hello.stream,
    )


def _check_size(faults: Faults, field: str, size: int, low: int, high: int) -> None:
    if not low <= size <= high:
        faults.add(field, "OUT_OF_RANGE", f"must be {low} to {high}, got {size}")


def out_of_order(description: str) -> InvalidRequestError:
    """Return the error for a frame that has no place where it came."""
    return invalid("frame", "OUT_OF_ORDER", description)


def check_extend(frame: pb.Extend) -> dict[str, int]:
    """Return the leases of an extend, job id -> token.

    Raises:
        InvalidRequestError: OUT_OF_RANGE, they are too many.
    """
    faults = Faults("extend.")
    _check_size(faults, "leases", len(frame.leases), 0, MOST_JOBS)
    faults.refuse()
    return {lease.job_id: lease.token for lease in frame.leases}


def lease_message(job_id: str, token: int) -> pb.Lease:
    """Return a lease as the worker knows it."""
    return pb.Lease(job_id=job_id, token=token)


def lease_lost(leases: Iterable[tuple[str, int]]) -> list[pb.ConnectResponse]:
    """Return the frames that tell of lost leases."""
    return [pb.ConnectResponse(lease_lost=pb.LeaseLost(lease=lease_message(*lease))) for lease in leases]


def settled(lease: pb.Lease, *, already: bool = False, error: RequestError | None = None) -> pb.ConnectResponse:
    """Return the answer to an outcome."""
    status = None if error is None else to_status(error)
    return pb.ConnectResponse(settled=pb.Settled(lease=lease, already=already, error=status))


def assignment(job: ClaimedJob, queue: str) -> pb.ConnectResponse:
    """Return the frame that gives a job to a worker."""
    return pb.ConnectResponse(
        assignment=pb.Assignment(
            lease=lease_message(job.id, job.token),
            queue=queue,
            type=job.type,
            payload=job.payload,
            content_type=job.content_type,
            labels=job.labels,
            attempt=job.attempt,
            timeout=convert.duration(job.number(b"timeout_ms")),
            deadline=convert.timestamp(job.number(b"deadline_ms")),
            traceparent=job.trace or "",
        )
    )


def without_traceback(status: status_pb2.Status) -> tuple[status_pb2.Status, str]:
    """Return the status of a failed attempt without its `DebugInfo`, and what that holds, the first 8 KiB of it; '' for none.

    In most languages a stack begins with where the error was raised, so the beginning is what is kept.
    """
    bare, text = status_pb2.Status(code=status.code, message=status.message), ""
    for detail in status.details:
        debug = error_details_pb2.DebugInfo()
        if unpack(detail, debug):
            text = text or "\n".join(filter(None, (*debug.stack_entries, debug.detail)))
        else:
            bare.details.append(detail)
    return bare, clip(text, MAX_TRACEBACK_BYTES)
