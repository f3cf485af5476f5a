"""The rpcs about limits, priority ratios and breakers, built and read as in `calls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import admin_service_pb2, breaker_pb2, queue_service_pb2

from gopher.breaker import Forced
from gopher.client import values
from gopher.client.calls import ADMIN, Call, call_of
from gopher.client.operations import QUEUES, queue_of
from gopher.errors import invalid
from gopher.wire import convert
from gopher.wire import limits as wire

if TYPE_CHECKING:
    from gopher.limits import Limits, PriorityRatio

_CONTROLS: Final = {"open": Forced.OPEN, "closed": Forced.CLOSED, "automatic": None}


def update_queue(namespace: str, queue: str, ratio: PriorityRatio | None, limits: Limits | None) -> Call[values.Queue]:
    """Set how a queue's claims are shared, and its limits as a whole."""
    request = queue_service_pb2.UpdateQueueRequest(
        namespace=namespace,
        queue=queue,
        priority_ratio=None if ratio is None else wire.ratio_to_message(ratio),
        limits=wire.limits_to_message(limits),
    )
    return call_of(QUEUES + "UpdateQueue", request, queue_service_pb2.UpdateQueueResponse, lambda reply: queue_of(reply.queue))


def set_limits(namespace: str, queue: str | None, job_type: str, limits: Limits | None) -> Call[values.LimitRule]:
    """Set the limits of a type."""
    request = queue_service_pb2.SetRateLimitRequest(
        namespace=namespace, queue=queue or "", type=job_type, limits=wire.limits_to_message(limits)
    )
    return call_of(QUEUES + "SetRateLimit", request, queue_service_pb2.SetRateLimitResponse, lambda reply: _rule(reply.rule))


def limits(namespace: str, queue: str | None) -> Call[values.QueueLimits]:
    """Tell what is limited in a queue."""
    request = queue_service_pb2.ListRateLimitsRequest(namespace=namespace, queue=queue or "")
    return call_of(
        QUEUES + "ListRateLimits",
        request,
        queue_service_pb2.ListRateLimitsResponse,
        lambda reply: values.QueueLimits(
            rules=tuple(map(_rule, reply.rules)),
            whole_queue=wire.limits_from_message(reply.queue_limits) if reply.HasField("queue_limits") else None,
        ),
    )


def breakers(namespace: str) -> Call[list[values.Breaker]]:
    """List the breakers."""
    request = admin_service_pb2.ListBreakersRequest(namespace=namespace)
    return call_of(
        ADMIN + "ListBreakers",
        request,
        admin_service_pb2.ListBreakersResponse,
        lambda reply: [_breaker(each) for each in reply.breakers],
    )


def update_breaker(namespace: str, name: str, control: str) -> Call[values.Breaker]:
    """Hold a breaker open or closed, or let attempts decide.

    Raises:
        InvalidRequestError: The control is none.
    """
    if control not in _CONTROLS:
        raise invalid("control", "BAD_ENUM", f"must be one of {', '.join(_CONTROLS)}, got {control!r}")
    request = admin_service_pb2.UpdateBreakerRequest(
        namespace=namespace, name=name, control=wire.CONTROL_NUMBER[_CONTROLS[control]]
    )
    return call_of(
        ADMIN + "UpdateBreaker", request, admin_service_pb2.UpdateBreakerResponse, lambda reply: _breaker(reply.breaker)
    )


def _rule(rule: queue_service_pb2.LimitRule) -> values.LimitRule:
    return values.LimitRule(
        type=rule.type,
        set_limits=wire.limits_from_message(rule.set) if rule.HasField("set") else None,
        declared=wire.limits_from_message(rule.declared) if rule.HasField("declared") else None,
    )


def _breaker(message: breaker_pb2.Breaker) -> values.Breaker:
    return values.Breaker(
        name=message.name,
        state=wire.breaker_state_of(message.state),
        forced=wire.forced_of(message.control),
        failures=message.failure_count,
        reopen_ms=convert.to_ms(message.reopen_time) if message.HasField("reopen_time") else None,
        permits=message.permit_count,
        opened_total=message.opened_total,
        types=tuple(message.types),
    )
