"""What QueueService and AdminService say of limits, priority ratios and breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher_pb.v1 import admin_service_pb2 as admin_pb
from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.job import DEFAULT_QUEUE
from gopher.limits import Limits
from gopher.store.limits import WHOLE_QUEUE, LimitRule
from gopher.wire import check
from gopher.wire import limits as wire
from gopher.wire.check import Faults

if TYPE_CHECKING:
    from gopher.service.queues import Queues
    from gopher.store.store import Store


class FlowControl:
    """Answers the rpcs.

    Args:
        store: Where the rules are.
        queues: Tells of queues.
    """

    def __init__(self, store: Store, queues: Queues) -> None:
        self._store = store
        self._queues = queues

    async def update_queue(self, request: pb.UpdateQueueRequest) -> pb.UpdateQueueResponse:
        """Set how claims are shared, and the limits of a queue as a whole."""
        namespace, queue = check.namespace(request.namespace), check.queue(request.queue)
        faults = Faults()
        ratio = wire.new_ratio(faults, "priority_ratio", request.priority_ratio) if request.HasField("priority_ratio") else None
        limits = wire.new_limits(faults, "limits", request.limits, has_keys=False) if request.HasField("limits") else None
        if ratio is None and limits is None:
            faults.add("priority_ratio", "REQUIRED", "priority_ratio or limits must be set: there is nothing to update")
        faults.refuse()
        if ratio is not None:
            await self._store.limits.set_ratio(namespace, queue, ratio)
        if limits is not None:
            await self._store.limits.set_limits(namespace, queue, WHOLE_QUEUE, limits or None)
        return pb.UpdateQueueResponse(queue=await self._queues.queue(namespace, queue))

    async def set_rate_limit(self, request: pb.SetRateLimitRequest) -> pb.SetRateLimitResponse:
        """Set the limits of a type in a queue."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        queue = check.queue_or_default(faults, "queue", request.queue)
        job_type = check.name(faults, "type", request.type)
        limits = wire.new_limits(faults, "limits", request.limits, has_keys=True) if request.HasField("limits") else None
        faults.refuse()
        if limits is None:
            await self._store.registry.require_queue(namespace, queue)
        await self._store.limits.set_limits(namespace, queue, job_type, limits)
        rules = await self._store.limits.rules(namespace, queue)
        none = LimitRule(type=job_type, set_limits=None, declared=None)
        return pb.SetRateLimitResponse(rule=_message(next((rule for rule in rules if rule.type == job_type), none)))

    async def list_rate_limits(self, request: pb.ListRateLimitsRequest) -> pb.ListRateLimitsResponse:
        """Return the types that are limited in a queue, by name, and the limits of the queue as a whole."""
        namespace = check.namespace(request.namespace)
        rules = await self._store.limits.rules(namespace, check.queue(request.queue or DEFAULT_QUEUE))
        of_queue = next((rule.set_limits for rule in rules if rule.type == WHOLE_QUEUE), Limits())
        return pb.ListRateLimitsResponse(
            rules=[_message(rule) for rule in rules if rule.type != WHOLE_QUEUE],
            queue_limits=wire.limits_to_message(of_queue or None),
        )

    async def list_breakers(self, request: admin_pb.ListBreakersRequest) -> admin_pb.ListBreakersResponse:
        """Return the breakers that handlers have declared, by name."""
        found = await self._store.breakers.list_breakers(check.namespace(request.namespace))
        return admin_pb.ListBreakersResponse(breakers=map(wire.breaker_to_message, found))

    async def update_breaker(self, request: admin_pb.UpdateBreakerRequest) -> admin_pb.UpdateBreakerResponse:
        """Hold a breaker open or closed, or let attempts decide again."""
        namespace = check.namespace(request.namespace)
        faults = Faults()
        name = check.name(faults, "name", request.name)
        forced = wire.forced(faults, "control", request.control)
        faults.refuse()
        status = await self._store.breakers.force(namespace, name, forced)
        return admin_pb.UpdateBreakerResponse(breaker=wire.breaker_to_message(status))


def _message(rule: LimitRule) -> pb.LimitRule:
    return pb.LimitRule(
        type=rule.type, set=wire.limits_to_message(rule.set_limits), declared=wire.limits_to_message(rule.declared)
    )
