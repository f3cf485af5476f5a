"""Bulk operations as messages and as JSON objects, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import bulk_pb2 as pb

from gopher.bulk import BulkKind, BulkOperation, BulkPlan, BulkState
from gopher.wire import convert
from gopher.wire.shape import moment

if TYPE_CHECKING:
    from gopher.job import JsonValue

ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
KIND_NUMBER: Final = {kind: pb.BulkKind.Value(f"BULK_KIND_{kind.name}") for kind in BulkKind}
KIND_OF: Final[dict[int, BulkKind]] = {number: kind for kind, number in KIND_NUMBER.items()}
_STATE_NUMBER: Final = {state: pb.BulkState.Value(f"BULK_STATE_{state.name}") for state in BulkState}
_STATE_OF: Final[dict[int, BulkState]] = {number: state for state, number in _STATE_NUMBER.items()}


def operation_to_message(operation: BulkOperation) -> pb.BulkOperation:
    """Return the operation as clients see it."""
    plan = operation.plan
    return pb.BulkOperation(
        id=operation.id,
        namespace=operation.namespace,
        kind=KIND_NUMBER[plan.kind],
        states=[convert.STATE_NUMBER[state] for state in plan.states],
        queue=plan.queue or "",
        type=plan.type or "",
        labels=plan.labels,
        submitted_before=convert.timestamp(plan.submitted_before_ms),
        reason=plan.reason,
        grace=convert.duration(plan.grace_ms),
        state=_STATE_NUMBER[operation.state],
        create_time=convert.timestamp(operation.created_ms),
        end_time=convert.timestamp(operation.ended_ms),
        total_count=operation.total,
        scanned_count=operation.scanned,
        matched_count=operation.matched,
        done_count=operation.done,
        skipped_count=operation.skipped,
        failed_count=operation.failed,
        fault=operation.fault,
    )


def operation_from_message(message: pb.BulkOperation) -> BulkOperation:
    """Return the operation that a message tells of."""
    plan = BulkPlan(
        kind=KIND_OF[message.kind],
        states=tuple(convert.STATE_OF[state] for state in message.states),
        queue=message.queue or None,
        type=message.type or None,
        labels=dict(message.labels),
        submitted_before_ms=convert.to_ms(message.submitted_before) if message.HasField("submitted_before") else None,
        reason=message.reason,
        grace_ms=convert.to_ms(message.grace),
    )
    return BulkOperation(
        id=message.id,
        namespace=message.namespace,
        plan=plan,
        state=_STATE_OF[message.state],
        created_ms=convert.to_ms(message.create_time),
        ended_ms=convert.to_ms(message.end_time) if message.HasField("end_time") else None,
        total=message.total_count,
        scanned=message.scanned_count,
        done=message.done_count,
        skipped=message.skipped_count,
        failed=message.failed_count,
        fault=message.fault,
    )


def operation_object(operation: BulkOperation) -> dict[str, JsonValue]:
    """Return the operation as a JSON object: what `gopher bulk ... --json` prints and what REST answers."""
    plan = operation.plan
    return {
        "id": operation.id,
        "namespace": operation.namespace,
        "kind": plan.kind.value,
        "states": [state.value for state in plan.states],
        "queue": plan.queue,
        "type": plan.type,
        "labels": dict(plan.labels),
        "submitted_before": moment(plan.submitted_before_ms),
        "reason": plan.reason,
        "grace_seconds": plan.grace_ms / 1000,
        "state": operation.state.value,
        "create_time": moment(operation.created_ms),
        "end_time": moment(operation.ended_ms),
        "total": operation.total,
        "scanned": operation.scanned,
        "matched": operation.matched,
        "done": operation.done,
        "skipped": operation.skipped,
        "failed": operation.failed,
        "fault": operation.fault or None,
    }
