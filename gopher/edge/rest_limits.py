"""The operations of REST on what holds jobs back: limits, priority ratios, breakers. What they take and answer is declared here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gopher_pb.v1 import admin_service_pb2 as admin_pb
from gopher_pb.v1 import breaker_pb2
from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.breaker import BreakerState, Forced
from gopher.edge.rest_answers import QueueView, queue_view
from gopher.edge.rest_bodies import Name, NoBody, Query
from gopher.edge.rest_calls import DELETE, GET, PATCH, PUT, Call
from gopher.edge.rest_limit_views import Count, LimitsView, Rate
from gopher.limits import LARGEST_SHARE
from gopher.wire import check, convert
from gopher.wire import limits as wire
from gopher.wire.check import Faults
from gopher.wire.shape import breaker_object, limits_object, rule_object

if TYPE_CHECKING:
    from gopher.edge.rest_calls import Operation
    from gopher.service.limits import FlowControl

Control = Literal["automatic", "open", "closed"]
Share = Annotated[int, Meta(ge=1, le=LARGEST_SHARE)]
_FORCED: Final[dict[str, Forced | None]] = {"automatic": None, "open": Forced.OPEN, "closed": Forced.CLOSED}


class LimitsQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which queue."""

    queue: Annotated[Name, Meta(description="Limits hold in one queue.")] = "default"


class QueueLimitsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds a whole queue back; what is null or left out is not limited."""

    rate: Rate | None = None
    concurrency: Count | None = None

    def message(self) -> pb.Limits:
        """Return the message."""
        return pb.Limits(rate=None if self.rate is None else self.rate.message(), concurrency=self.concurrency or 0)


class LimitsBody(QueueLimitsBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds the jobs of a type back, whole; what is null or left out is not limited."""

    rate_per_key: Annotated[Rate | None, Meta(description="Of the jobs that have the same `limit_key`.")] = None
    concurrency_per_key: Annotated[Count | None, Meta(description="Of the jobs that have the same `limit_key`.")] = None

    def message(self) -> pb.Limits:
        """Return the message."""
        message = super().message()
        if self.rate_per_key is not None:
            message.rate_per_key.CopyFrom(self.rate_per_key.message())
        message.concurrency_per_key = self.concurrency_per_key or 0
        return message


class RatioBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of high + normal + low claims, how many go to each priority while all three have jobs."""

    high: Share
    normal: Share
    low: Share


class QueueBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a queue; what is left out stays. `limits` are whole: `{}` for none."""

    priority_ratio: RatioBody | None = None
    limits: QueueLimitsBody | None = None


class BreakerBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who decides whether a breaker is open: the attempts, or this order."""

    control: Control


class RuleView(Struct, frozen=True, kw_only=True):
    """The limits of a type in a queue: those that hold, those that an operator has set, those that its handler declares."""

    type: str
    queue: str
    limits: LimitsView
    set: LimitsView | None
    declared: LimitsView | None


class RuleList(Struct, frozen=True, kw_only=True):
    """What is limited in a queue."""

    rules: list[RuleView]
    queue_limits: LimitsView | None


class BreakerView(Struct, frozen=True, kw_only=True):
    """A breaker."""

    name: str
    state: BreakerState
    control: Control
    failures: int
    reopen_time: str | None
    permits: int
    opened_total: int
    types: list[str]


class BreakerList(Struct, frozen=True):
    """The breakers that handlers have declared, by name."""

    breakers: list[BreakerView]


class LimitCalls:
    """Answers them.

    Args:
        flow: The service.
    """

    def __init__(self, flow: FlowControl) -> None:
        self._flow = flow

    def operations(self) -> list[Operation]:
        """Return the operations."""
        rules, rule, breakers = "/api/v1/rate-limits", "/api/v1/rate-limits/{type}", "/api/v1/breakers"
        return [
            Call(GET, rules, "List what is limited.", self._list, query=LimitsQuery, body=NoBody, answer=RuleList),
            Call(GET, rule, "Look at a type's limits.", self._get, query=LimitsQuery, body=NoBody, answer=RuleView),
            Call(PUT, rule, "Set a type's limits.", self._put, query=LimitsQuery, body=LimitsBody, answer=RuleView),
            Call(
                DELETE,
                rule,
                "Let the limits that a type's handler declares hold again.",
                self._delete,
                query=LimitsQuery,
                body=NoBody,
                answer=RuleView,
            ),
            Call(
                PATCH,
                "/api/v1/queues/{queue}",
                "Change a queue's priority ratio or limits.",
                self._update,
                query=Query,
                body=QueueBody,
                answer=QueueView,
            ),
            Call(GET, breakers, "List the breakers.", self._breakers, query=Query, body=NoBody, answer=BreakerList),
            Call(
                PATCH,
                breakers + "/{name}",
                "Hold a breaker open or closed, or let attempts decide.",
                self._steer,
                query=Query,
                body=BreakerBody,
                answer=BreakerView,
            ),
        ]

    async def _list(self, _name: str, query: LimitsQuery, _body: NoBody) -> RuleList:
        reply = await self._flow.list_rate_limits(pb.ListRateLimitsRequest(namespace=query.namespace, queue=query.queue))
        whole = wire.limits_from_message(reply.queue_limits) if reply.HasField("queue_limits") else None
        return RuleList(
            rules=[_rule(each, query.queue) for each in reply.rules],
            queue_limits=msgspec.convert(limits_object(whole), LimitsView | None),
        )

    async def _get(self, job_type: str, query: LimitsQuery, body: NoBody) -> RuleView:
        faults = Faults()
        check.name(faults, "type", job_type)
        faults.refuse()
        faults = Faults()
        check.name(faults, "type", job_type)
        faults.refuse()
        found = (await self._list("", query, body)).rules
        unlimited = _rule(pb.LimitRule(type=job_type), query.queue)
        return next((rule for rule in found if rule.type == job_type), unlimited)

    async def _put(self, job_type: str, query: LimitsQuery, body: LimitsBody) -> RuleView:
        request = pb.SetRateLimitRequest(namespace=query.namespace, queue=query.queue, type=job_type, limits=body.message())
        return _rule((await self._flow.set_rate_limit(request)).rule, query.queue)

    async def _delete(self, job_type: str, query: LimitsQuery, _body: NoBody) -> RuleView:
        request = pb.SetRateLimitRequest(namespace=query.namespace, queue=query.queue, type=job_type)
        return _rule((await self._flow.set_rate_limit(request)).rule, query.queue)

    async def _update(self, queue: str, query: Query, body: QueueBody) -> QueueView:
        request = pb.UpdateQueueRequest(namespace=query.namespace, queue=queue)
        if body.priority_ratio is not None:
            ratio = body.priority_ratio
            request.priority_ratio.CopyFrom(pb.PriorityRatio(high=ratio.high, normal=ratio.normal, low=ratio.low))
        if body.limits is not None:
            request.limits.CopyFrom(body.limits.message())
        return queue_view((await self._flow.update_queue(request)).queue)

    async def _breakers(self, _name: str, query: Query, _body: NoBody) -> BreakerList:
        reply = await self._flow.list_breakers(admin_pb.ListBreakersRequest(namespace=query.namespace))
        return BreakerList([_breaker(each) for each in reply.breakers])

    async def _steer(self, name: str, query: Query, body: BreakerBody) -> BreakerView:
        control = wire.CONTROL_NUMBER[_FORCED[body.control]]
        request = admin_pb.UpdateBreakerRequest(namespace=query.namespace, name=name, control=control)
        return _breaker((await self._flow.update_breaker(request)).breaker)


def _rule(message: pb.LimitRule, queue: str) -> RuleView:
    set_limits = wire.limits_from_message(message.set) if message.HasField("set") else None
    declared = wire.limits_from_message(message.declared) if message.HasField("declared") else None
    return msgspec.convert(rule_object(message.type, queue, set_limits, declared), RuleView)


def _breaker(message: breaker_pb2.Breaker) -> BreakerView:
    shape = breaker_object(
        name=message.name,
        state=wire.breaker_state_of(message.state),
        forced=wire.forced_of(message.control),
        failures=message.failure_count,
        reopen_ms=convert.to_ms(message.reopen_time) if message.HasField("reopen_time") else None,
        permits=message.permit_count,
        opened_total=message.opened_total,
        types=message.types,
    )
    return msgspec.convert(shape, BreakerView)
