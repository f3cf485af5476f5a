"""Limits, ratios and breakers as operators steer them, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from gopher_pb.v1 import admin_service_pb2 as admin_pb
from gopher_pb.v1 import breaker_pb2
from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.breaker import Breaker
from gopher.errors import BreakerNotFoundError, InvalidRequestError, QueueNotFoundError
from gopher.limits import Limits, PriorityRatio, RateLimit
from gopher.service.limits import FlowControl

if TYPE_CHECKING:
    from tests.service.conftest import Rig

ONE_A_DAY = pb.Limits(rate=pb.RateLimit(count=1, period=Duration(seconds=86_400)))


@pytest.fixture
def flow(rig: Rig) -> FlowControl:
    """The service."""
    return FlowControl(rig.store, rig.queues)


async def rules_of(rig: Rig, flow: FlowControl) -> pb.ListRateLimitsResponse:
    return await flow.list_rate_limits(pb.ListRateLimitsRequest(namespace=rig.namespace))


async def test_limit_that_is_set_holds_at_the_next_claim(rig: Rig, flow: FlowControl) -> None:
    """One starts; the other is parked, and counted as such, until the limit is taken away."""
    await rig.submit()
    await rig.submit()
    await flow.set_rate_limit(pb.SetRateLimitRequest(namespace=rig.namespace, type="email", limits=ONE_A_DAY))

    claimed = await rig.claim(count=2)
    held = (await rig.queues.get_queue(pb.GetQueueRequest(namespace=rig.namespace, queue="default"))).queue
    await flow.set_rate_limit(pb.SetRateLimitRequest(namespace=rig.namespace, type="email"))
    freed = await rig.claim(count=2)

    assert [len(claimed), len(freed)] == [1, 1]
    assert (held.parked, held.enqueued_normal) == (1, 0)


async def test_limits_set_and_empty_overrule_those_declared(rig: Rig, flow: FlowControl) -> None:
    """With none set the handler's hold again."""
    await rig.store.limits.declare(rig.namespace, "default", {"email": Limits(rate=RateLimit(5))})
    ask = pb.SetRateLimitRequest(namespace=rig.namespace, type="email", limits=pb.Limits())

    overruled = (await flow.set_rate_limit(ask)).rule
    (rule,) = await rig.store.limits.rules(rig.namespace, "default")
    ask.ClearField("limits")
    restored = (await flow.set_rate_limit(ask)).rule

    assert overruled.HasField("set")
    assert not overruled.set.ListFields()
    assert overruled.declared.rate.count == 5
    assert rule.limits == Limits()
    assert not restored.HasField("set")
    assert restored.declared.rate.count == 5


async def test_list_tells_types_and_the_whole_queue_apart(rig: Rig, flow: FlowControl) -> None:
    """By name; the queue's own limits are no type's."""
    for name in ("sms", "email"):
        await flow.set_rate_limit(pb.SetRateLimitRequest(namespace=rig.namespace, type=name, limits=ONE_A_DAY))
    before = await rules_of(rig, flow)
    whole = pb.UpdateQueueRequest(namespace=rig.namespace, queue="default", limits=pb.Limits(concurrency=3))
    await flow.update_queue(whole)

    found = await rules_of(rig, flow)

    assert not before.HasField("queue_limits")
    assert [rule.type for rule in found.rules] == ["email", "sms"]
    assert found.queue_limits.concurrency == 3


async def test_update_changes_only_what_is_given(rig: Rig, flow: FlowControl) -> None:
    """Limits stay when the ratio is set, and the ratio when limits are; empty ones take them away."""
    ask = pb.UpdateQueueRequest(namespace=rig.namespace, queue="default", limits=pb.Limits(concurrency=1))
    await flow.update_queue(ask)
    ratio = pb.PriorityRatio(high=5, normal=2, low=1)
    told = await flow.update_queue(pb.UpdateQueueRequest(namespace=rig.namespace, queue="default", priority_ratio=ratio))
    limited = await rules_of(rig, flow)
    await flow.update_queue(pb.UpdateQueueRequest(namespace=rig.namespace, queue="default", limits=pb.Limits()))
    stats = await rig.store.query.queue_stats(rig.namespace, "default")

    assert told.queue.priority_ratio == ratio
    assert limited.queue_limits.concurrency == 1
    assert not (await rules_of(rig, flow)).HasField("queue_limits")
    assert stats.ratio == PriorityRatio(high=5, normal=2, low=1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": ""}, "REQUIRED"),
        ({"type": "*"}, "BAD_NAME"),
        ({"type": "declared:email"}, "BAD_NAME"),
        ({"queue": "a}b"}, "BAD_NAME"),
        ({"limits": pb.Limits(concurrency=-1)}, "OUT_OF_RANGE"),
        ({"limits": pb.Limits(rate=pb.RateLimit(count=2_000_000))}, "OUT_OF_RANGE"),
        ({"limits": pb.Limits(rate=pb.RateLimit())}, "REQUIRED"),
    ],
)
async def test_limits_that_cannot_work_change_nothing(
    rig: Rig, flow: FlowControl, fields: dict[str, object], reason: str
) -> None:
    """Those set before still hold, and no queue is made."""
    good = pb.SetRateLimitRequest(namespace=rig.namespace, type="email", limits=ONE_A_DAY)
    await flow.set_rate_limit(good)
    asked = {"namespace": rig.namespace, "type": "email", "limits": pb.Limits(concurrency=1), **fields}

    with pytest.raises(InvalidRequestError) as caught:
        await flow.set_rate_limit(pb.SetRateLimitRequest(**asked))  # type: ignore[arg-type]  # the test names its fields

    assert [each.reason for each in caught.value.violations] == [reason]
    assert [(each.type, each.set) for each in (await rules_of(rig, flow)).rules] == [("email", ONE_A_DAY)]
    assert await rig.store.query.queues(rig.namespace) == ["default"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "REQUIRED"),
        ({"priority_ratio": pb.PriorityRatio(high=1, normal=1)}, "OUT_OF_RANGE"),
        ({"limits": pb.Limits(concurrency_per_key=1)}, "CONFLICT"),
        # The good half is not carried out either.
        ({"priority_ratio": pb.PriorityRatio(high=1, normal=1, low=1), "limits": pb.Limits(concurrency=-1)}, "OUT_OF_RANGE"),
    ],
)
async def test_update_that_cannot_work_changes_nothing(
    rig: Rig, flow: FlowControl, fields: dict[str, object], reason: str
) -> None:
    """No queue is made by it."""
    asked = {"namespace": rig.namespace, "queue": "default", **fields}

    with pytest.raises(InvalidRequestError) as caught:
        await flow.update_queue(pb.UpdateQueueRequest(**asked))  # type: ignore[arg-type]  # the test names its fields

    assert [each.reason for each in caught.value.violations] == [reason]
    assert await rig.store.query.queues(rig.namespace) == []


async def test_queue_that_nobody_has_used_has_no_limits_to_show_or_remove(rig: Rig, flow: FlowControl) -> None:
    """Neither question makes it."""
    with pytest.raises(QueueNotFoundError):
        await rules_of(rig, flow)
    with pytest.raises(QueueNotFoundError):
        await flow.set_rate_limit(pb.SetRateLimitRequest(namespace=rig.namespace, type="email"))

    assert await rig.store.query.queues(rig.namespace) == []


async def test_breaker_is_listed_held_and_let_go(rig: Rig, flow: FlowControl) -> None:
    """What it is told to be it is, until attempts decide again."""
    await rig.store.breakers.declare(rig.namespace, "smtp", Breaker(), ["email"])
    ask = admin_pb.UpdateBreakerRequest(namespace=rig.namespace, name="smtp", control=breaker_pb2.BREAKER_CONTROL_FORCED_OPEN)

    held = (await flow.update_breaker(ask)).breaker
    (listed,) = (await flow.list_breakers(admin_pb.ListBreakersRequest(namespace=rig.namespace))).breakers
    ask.control = breaker_pb2.BREAKER_CONTROL_AUTOMATIC
    freed = (await flow.update_breaker(ask)).breaker

    assert held == listed
    assert (held.state, list(held.types)) == (breaker_pb2.BREAKER_STATE_OPEN, ["email"])
    assert freed.state == breaker_pb2.BREAKER_STATE_CLOSED
    assert freed.control == breaker_pb2.BREAKER_CONTROL_AUTOMATIC


@pytest.mark.parametrize(
    ("name", "control", "reason"),
    [("smtp", 0, "REQUIRED"), ("smtp", 9, "BAD_ENUM"), ("", 2, "REQUIRED"), ("a:b", 2, "BAD_NAME")],
)
async def test_order_that_cannot_work_changes_no_breaker(
    rig: Rig, flow: FlowControl, name: str, control: int, reason: str
) -> None:
    """Nor is one made that no handler has declared."""
    await rig.store.breakers.declare(rig.namespace, "smtp", Breaker(), ["email"])
    ask = admin_pb.UpdateBreakerRequest(namespace=rig.namespace, name=name)
    ask.control = control  # type: ignore[assignment]  # any number crosses the wire

    with pytest.raises(InvalidRequestError) as caught:
        await flow.update_breaker(ask)
    with pytest.raises(BreakerNotFoundError):
        await flow.update_breaker(
            admin_pb.UpdateBreakerRequest(namespace=rig.namespace, name="imap", control=breaker_pb2.BREAKER_CONTROL_AUTOMATIC)
        )

    assert [each.reason for each in caught.value.violations] == [reason]
    (kept,) = await rig.store.breakers.list_breakers(rig.namespace)
    assert (kept.name, kept.forced) == ("smtp", None)
