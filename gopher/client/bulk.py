"""The rpcs about bulk operations, built and read as in `calls`, and how the end of one is waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from gopher_pb.v1 import admin_service_pb2 as pb

from gopher.bulk import BulkKind
from gopher.client import dialogues
from gopher.client.calls import ADMIN, Call, call_of
from gopher.errors import WaitTimeoutError, invalid
from gopher.job import JobState
from gopher.wire import bulk, convert

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from gopher.bulk import BulkOperation

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
"""Between two looks; chosen: a bar on a screen moves, and a server hardly notices."""

_Answer: TypeAlias = pb.StartBulkOperationResponse | pb.GetBulkOperationResponse | pb.CancelBulkOperationResponse


class BulkFilter(TypedDict, total=False):
    """Which jobs a bulk operation acts on: those that match all that is given and were submitted before it.

    `states` defaults to `failed` for a retry, else to all that the kind can act on.
    """

    states: Sequence[str]
    queue: str | None
    type: str | None
    labels: Mapping[str, str] | None
    submitted_before: datetime | None


def start(
    namespace: str, kind: str, which: BulkFilter, *, reason: str, grace_seconds: float | None, confirm: str | None
) -> Call[BulkOperation]:
    """Start an operation; a second one would act again, so its outcome is never guessed.

    Raises:
        InvalidRequestError: A word is none that is known, or a moment has no time zone.
    """
    request = pb.StartBulkOperationRequest(
        namespace=namespace,
        queue=which.get("queue") or "",
        type=which.get("type") or "",
        labels=which.get("labels"),
        reason=reason,
        grace=None if grace_seconds is None else convert.duration(round(grace_seconds * 1000)),
        confirm=confirm or "",
    )
    try:
        request.kind = bulk.KIND_NUMBER[BulkKind(kind)]
    except ValueError:
        raise invalid("kind", "BAD_ENUM", f"must be one of {', '.join(BulkKind)}, got {kind!r}") from None
    for place, state in enumerate(which.get("states", ())):
        try:
            request.states.append(convert.STATE_NUMBER[JobState(state)])
        except ValueError:
            raise invalid(f"states[{place}]", "BAD_ENUM", f"must be one of {', '.join(JobState)}, got {state!r}") from None
    before = which.get("submitted_before")
    if before is not None:
        if before.tzinfo is None:
            raise invalid("submitted_before", "BAD_VALUE", f"has no time zone, got {before!r}")
        request.submitted_before.FromDatetime(before)
    return call_of(ADMIN + "StartBulkOperation", request, pb.StartBulkOperationResponse, _operation, repeatable=False)


def get(namespace: str, operation_id: str) -> Call[BulkOperation]:
    """Look at one operation."""
    request = pb.GetBulkOperationRequest(namespace=namespace, operation_id=operation_id)
    return call_of(ADMIN + "GetBulkOperation", request, pb.GetBulkOperationResponse, _operation)


def list_all(namespace: str) -> Call[list[BulkOperation]]:
    """List the operations, the last one first."""
    request = pb.ListBulkOperationsRequest(namespace=namespace)
    return call_of(
        ADMIN + "ListBulkOperations",
        request,
        pb.ListBulkOperationsResponse,
        lambda reply: [bulk.operation_from_message(each) for each in reply.operations],
    )


def cancel(namespace: str, operation_id: str) -> Call[BulkOperation]:
    """End an operation that runs."""
    request = pb.CancelBulkOperationRequest(namespace=namespace, operation_id=operation_id)
    return call_of(ADMIN + "CancelBulkOperation", request, pb.CancelBulkOperationResponse, _operation)


def wait(
    namespace: str,
    operation_id: str,
    wait_seconds: float | None,
    tell: Callable[[BulkOperation], None],
    now: Callable[[], float] = time.monotonic,
) -> dialogues.Dialogue[BulkOperation]:
    """Return the operation once it has ended.

    Args:
        namespace: Where it is.
        operation_id: Which.
        wait_seconds: How long to wait; None: as long as it takes.
        tell: Called with how it stands, each time it was looked at.
        now: The clock, in seconds.

    Raises:
        WaitTimeoutError: It had not ended by then; it goes on.
    """
    end = None if wait_seconds is None else now() + wait_seconds
    pause_seconds = _FIRST_PAUSE_SECONDS
    look = get(namespace, operation_id)
    # Where no server answers the first look, there is none: only a wait that has begun outlasts a restart.
    operation = yield from dialogues.ask(look, now)
    while True:
        tell(operation)
        if operation.has_ended:
            return operation
        left_seconds = pause_seconds if end is None else end - now()
        if left_seconds <= 0:
            said = f"bulk operation {operation_id} is {operation.state} after {wait_seconds:g} s; it goes on"
            raise WaitTimeoutError(said, operation_id=operation_id, state=operation.state)
        yield dialogues.Pause(min(pause_seconds, left_seconds))
        pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 1.5)
        operation = yield from dialogues.keep_asking(look, end, now)


def nobody(_operation: BulkOperation) -> None:
    """Take how an operation stands, for whoever does not want to know."""


def _operation(reply: _Answer) -> BulkOperation:
    return bulk.operation_from_message(reply.operation)
