"""The rpcs of AdminService about bulk operations: many jobs cancelled, retried or deleted by a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher_pb.v1 import admin_service_pb2 as pb

from gopher.bulk import ALLOWED_STATES, DEFAULT_STATES, BulkKind, BulkPlan
from gopher.errors import ConfirmationError
from gopher.service.jobs import DEFAULT_GRACE_MS, MAX_GRACE_MS
from gopher.wire import bulk, check, convert
from gopher.wire.check import Faults

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gopher.job import JobState
    from gopher.store.store import Store


class Bulk:
    """Answers the rpcs.

    Args:
        store: Where the operations are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def start_bulk_operation(self, request: pb.StartBulkOperationRequest) -> pb.StartBulkOperationResponse:
        """Start an operation and return it."""
        namespace = check.namespace(request.namespace)
        plan = _plan(request)
        name = plan.queue or namespace
        is_vast = plan.kind is BulkKind.CANCEL and not plan.is_narrow
        if (plan.kind is BulkKind.DELETE or is_vast) and request.confirm != name:
            raise ConfirmationError(name)
        operation = await self._store.bulk.start(namespace, plan)
        return pb.StartBulkOperationResponse(operation=bulk.operation_to_message(operation))

    async def get_bulk_operation(self, request: pb.GetBulkOperationRequest) -> pb.GetBulkOperationResponse:
        """Return one operation."""
        operation = await self._store.bulk.get(check.namespace(request.namespace), _id(request.operation_id))
        return pb.GetBulkOperationResponse(operation=bulk.operation_to_message(operation))

    async def list_bulk_operations(self, request: pb.ListBulkOperationsRequest) -> pb.ListBulkOperationsResponse:
        """Return the operations of a namespace, the last one first."""
        operations = await self._store.bulk.list_all(check.namespace(request.namespace))
        return pb.ListBulkOperationsResponse(operations=map(bulk.operation_to_message, operations))

    async def cancel_bulk_operation(self, request: pb.CancelBulkOperationRequest) -> pb.CancelBulkOperationResponse:
        """End an operation that runs."""
        operation = await self._store.bulk.cancel(check.namespace(request.namespace), _id(request.operation_id))
        return pb.CancelBulkOperationResponse(operation=bulk.operation_to_message(operation))


def _id(text: str) -> str:
    faults = Faults()
    if bulk.ID.fullmatch(text) is None:
        faults.add("operation_id", "BAD_ID", f"{text[:64]!r} is no id of a bulk operation: it must be a UUIDv7 in lower case")
    faults.refuse()
    return text


def _plan(request: pb.StartBulkOperationRequest) -> BulkPlan:
    """Check a request."""
    faults = Faults()
    kind = bulk.KIND_OF.get(request.kind)
    if kind is None:
        known = ", ".join(f"{number} ({each})" for each, number in bulk.KIND_NUMBER.items())
        faults.add("kind", "BAD_ENUM" if request.kind else "REQUIRED", f"must be {known}, got {request.kind}")
    states = _states(faults, kind, request.states)
    queue = check.optional_name(faults, "queue", request.queue)
    job_type = check.optional_name(faults, "type", request.type)
    labels = check.labels(faults, "labels", request.labels)
    before_ms = grace_ms = None
    if request.HasField("submitted_before"):
        before_ms = check.moment_ms(faults, "submitted_before", request.submitted_before)
    reason = check.text(faults, "reason", request.reason) or ""
    if request.HasField("grace"):
        grace_ms = check.duration_ms(faults, "grace", request.grace, 0, MAX_GRACE_MS)
    faults.refuse()
    assert kind is not None  # noqa: S101 - for mypy: it was refused
    return BulkPlan(
        kind=kind,
        states=states,
        queue=queue,
        type=job_type,
        labels=labels,
        submitted_before_ms=before_ms,
        reason=reason,
        grace_ms=DEFAULT_GRACE_MS if grace_ms is None else grace_ms,
    )


def _states(faults: Faults, kind: BulkKind | None, numbers: Iterable[int]) -> tuple[JobState, ...]:
    found = []
    for place, number in enumerate(numbers):
        state = convert.STATE_OF.get(number)
        if kind is not None and state not in ALLOWED_STATES[kind]:
            known = ", ".join(f"{convert.STATE_NUMBER[each]} ({each})" for each in ALLOWED_STATES[kind])
            said = number if state is None else state
            faults.add(f"states[{place}]", "BAD_ENUM", f"must be one that a {kind} can act on: {known}; got {said}")
        elif state is not None:
            found.append(state)
    return tuple(dict.fromkeys(found)) or (() if kind is None else DEFAULT_STATES[kind])
