"""Limits, ratios and breakers on the wire: every fault is named at once, and what is sent is what arrives."""

from __future__ import annotations

from typing import Final

import pytest
from google.protobuf.duration_pb2 import Duration

from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.breaker import BreakerState, BreakerStatus, Forced
from gopher.errors import InvalidRequestError
from gopher.limits import LARGEST_COUNT, PERIODS, Limits, PriorityRatio, RateLimit
from gopher.wire import limits
from gopher.wire.check import Faults
from gopher.wire.shape import breaker_object, limits_object, rule_object

FULL: Final = Limits(
    rate=RateLimit(100, PERIODS["m"], 20), rate_per_key=RateLimit(1, PERIODS["d"]), concurrency=7, concurrency_per_key=1
)


def faults_of(message: pb.Limits, *, has_keys: bool = True) -> list[tuple[str, str]]:
    faults = Faults()
    limits.new_limits(faults, "limits", message, has_keys=has_keys)
    with pytest.raises(InvalidRequestError) as caught:
        faults.refuse()
    return [(each.field, each.reason) for each in caught.value.violations]


@pytest.mark.parametrize("given", [FULL, Limits(), Limits(rate=RateLimit(LARGEST_COUNT)), Limits(concurrency=1)])
def test_limits_arrive_as_they_were_sent(given: Limits) -> None:
    """The server takes what a client sends, and the client reads what the server tells."""
    message = limits.limits_to_message(given)
    assert message is not None
    faults = Faults()

    taken = limits.new_limits(faults, "limits", message, has_keys=True)

    faults.refuse()
    assert taken == limits.limits_from_message(message) == given


def test_rate_without_a_period_is_of_a_second() -> None:
    """As the proto says."""
    taken = limits.new_limits(Faults(), "limits", pb.Limits(rate=pb.RateLimit(count=3)), has_keys=True)

    assert taken == Limits(rate=RateLimit(3, PERIODS["s"]))


@pytest.mark.parametrize(
    ("rate", "field", "reason"),
    [
        (pb.RateLimit(), "count", "REQUIRED"),
        (pb.RateLimit(burst=5), "count", "REQUIRED"),
        (pb.RateLimit(count=-1), "count", "OUT_OF_RANGE"),
        (pb.RateLimit(count=LARGEST_COUNT + 1), "count", "OUT_OF_RANGE"),
        (pb.RateLimit(count=1, burst=-1), "burst", "OUT_OF_RANGE"),
        (pb.RateLimit(count=1, burst=LARGEST_COUNT + 1), "burst", "OUT_OF_RANGE"),
        (pb.RateLimit(count=1, period=Duration()), "period", "OUT_OF_RANGE"),
        (pb.RateLimit(count=1, period=Duration(seconds=2)), "period", "OUT_OF_RANGE"),
        (pb.RateLimit(count=1, period=Duration(seconds=1, nanos=1)), "period", "OUT_OF_RANGE"),
        (pb.RateLimit(count=1, period=Duration(seconds=-1)), "period", "OUT_OF_RANGE"),
    ],
)
def test_rate_that_cannot_work_is_refused(rate: pb.RateLimit, field: str, reason: str) -> None:
    """Of a type and of its keys alike."""
    assert faults_of(pb.Limits(rate=rate)) == [(f"limits.rate.{field}", reason)]
    assert faults_of(pb.Limits(rate_per_key=rate)) == [(f"limits.rate_per_key.{field}", reason)]


def test_all_faults_are_named_at_once() -> None:
    """Nothing raises before the last field was looked at."""
    message = pb.Limits(rate=pb.RateLimit(count=-1, burst=-1), concurrency=-1, concurrency_per_key=LARGEST_COUNT + 1)

    assert faults_of(message) == [
        ("limits.rate.count", "OUT_OF_RANGE"),
        ("limits.rate.burst", "OUT_OF_RANGE"),
        ("limits.concurrency", "OUT_OF_RANGE"),
        ("limits.concurrency_per_key", "OUT_OF_RANGE"),
    ]


def test_whole_queue_has_no_limits_per_key() -> None:
    """Each of the two is named."""
    message = pb.Limits(rate_per_key=pb.RateLimit(count=1), concurrency_per_key=1, concurrency=1)

    assert faults_of(message, has_keys=False) == [
        ("limits.rate_per_key", "CONFLICT"),
        ("limits.concurrency_per_key", "CONFLICT"),
    ]


def test_ratio_starves_no_priority() -> None:
    """A share of none is refused, as is one that is too large."""
    faults = Faults()
    good = limits.new_ratio(faults, "ratio", limits.ratio_to_message(PriorityRatio(high=100, normal=1, low=1)))
    faults.refuse()
    limits.new_ratio(faults, "ratio", pb.PriorityRatio(high=101, normal=1, low=0))

    with pytest.raises(InvalidRequestError) as caught:
        faults.refuse()

    assert good == PriorityRatio(high=100, normal=1, low=1)
    assert [(each.field, each.reason) for each in caught.value.violations] == [
        ("ratio.high", "OUT_OF_RANGE"),
        ("ratio.low", "OUT_OF_RANGE"),
    ]


@pytest.mark.parametrize(("number", "reason"), [(0, "REQUIRED"), (4, "BAD_ENUM"), (-1, "BAD_ENUM")])
def test_control_must_be_one_that_is_known(number: int, reason: str) -> None:
    """Unset is no order, and least of all one to let attempts decide."""
    faults = Faults()
    limits.forced(faults, "control", number)

    with pytest.raises(InvalidRequestError) as caught:
        faults.refuse()

    assert [each.reason for each in caught.value.violations] == [reason]


@pytest.mark.parametrize("order", [None, *Forced])
def test_breaker_arrives_as_it_was_sent(order: Forced | None) -> None:
    """State, order and figures."""
    status = BreakerStatus(
        name="smtp", state=BreakerState.OPEN, forced=order, failures=5, reopen_ms=1500, is_free=False, permits=2,
        opened_total=9, types=("a", "b"),
    )  # fmt: skip

    message = limits.breaker_to_message(status)

    assert limits.forced(Faults(), "control", message.control) == limits.forced_of(message.control) == order
    assert limits.breaker_state_of(message.state) is BreakerState.OPEN
    assert (message.name, message.failure_count, message.permit_count, message.opened_total) == ("smtp", 5, 2, 9)
    assert (message.reopen_time.ToMilliseconds(), list(message.types)) == (1500, ["a", "b"])


def test_shapes_say_what_is_not_limited_as_null() -> None:
    """The limits that hold are those set, even when they limit nothing."""
    shown = rule_object("email", "mail", Limits(), FULL)
    nothing = {"rate": None, "rate_per_key": None, "concurrency": None, "concurrency_per_key": None}

    assert shown["limits"] == shown["set"] == nothing
    assert shown["declared"] == limits_object(FULL)
    assert limits_object(FULL) == {
        "rate": {"count": 100, "per": "minute", "burst": 20},
        "rate_per_key": {"count": 1, "per": "day", "burst": 0},
        "concurrency": 7,
        "concurrency_per_key": 1,
    }
    breaker = breaker_object(
        name="smtp", state=BreakerState.CLOSED, forced=None, failures=0, reopen_ms=None, permits=0, opened_total=0, types=()
    )
    assert (breaker["control"], breaker["reopen_time"], breaker["types"]) == ("automatic", None, [])
