"""Limits, priority ratios and breakers as they cross the wire: checked, they become values; values become messages, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gopher_pb.v1 import breaker_pb2, queue_service_pb2

from gopher.breaker import BreakerState, Forced
from gopher.limits import LARGEST_COUNT, LARGEST_SHARE, PERIODS, Limits, PriorityRatio, RateLimit
from gopher.wire import check, convert

if TYPE_CHECKING:
    from gopher.breaker import BreakerStatus
    from gopher.wire.check import Faults

STATE_NUMBER: Final = {each: breaker_pb2.BreakerState.Value(f"BREAKER_STATE_{each.name}") for each in BreakerState}
CONTROL_NUMBER: Final[dict[Forced | None, breaker_pb2.BreakerControl.ValueType]] = {
    None: breaker_pb2.BREAKER_CONTROL_AUTOMATIC,
    Forced.OPEN: breaker_pb2.BREAKER_CONTROL_FORCED_OPEN,
    Forced.CLOSED: breaker_pb2.BREAKER_CONTROL_FORCED_CLOSED,
}
_STATE_OF: Final[dict[int, BreakerState]] = {number: each for each, number in STATE_NUMBER.items()}
_FORCED_OF: Final[dict[int, Forced | None]] = {number: each for each, number in CONTROL_NUMBER.items()}


def new_limits(faults: Faults, field: str, message: queue_service_pb2.Limits, *, has_keys: bool) -> Limits:
    """Check limits; those of a whole queue have no keys."""
    if not has_keys:
        for name in ("rate_per_key", "concurrency_per_key"):
            if name in {descriptor.name for descriptor, _ in message.ListFields()}:
                faults.add(f"{field}.{name}", "CONFLICT", "a whole queue has no limits per key: set them for a type")
    return Limits(
        rate=_rate(faults, f"{field}.rate", message.rate) if message.HasField("rate") else None,
        rate_per_key=_rate(faults, f"{field}.rate_per_key", message.rate_per_key) if message.HasField("rate_per_key") else None,
        concurrency=_count(faults, f"{field}.concurrency", message.concurrency),
        concurrency_per_key=_count(faults, f"{field}.concurrency_per_key", message.concurrency_per_key),
    )


def _count(faults: Faults, field: str, value: int) -> int | None:
    """Check a number of jobs; one that is refused gives None, since no value can be made of it."""
    found = check.integer(faults, field, value, 1, LARGEST_COUNT)
    return found if found is not None and 1 <= found <= LARGEST_COUNT else None


def _rate(faults: Faults, field: str, message: queue_service_pb2.RateLimit) -> RateLimit | None:
    if not message.count:
        faults.add(f"{field}.count", "REQUIRED", f"must be 1 to {LARGEST_COUNT}; leave the rate out for no limit")
    count = _count(faults, f"{field}.count", message.count)
    burst = _count(faults, f"{field}.burst", message.burst)
    period = message.period
    period_ms = convert.to_ms(period) if message.HasField("period") else PERIODS["s"]
    if period_ms not in PERIODS.values() or period.nanos:
        faults.add(f"{field}.period", "OUT_OF_RANGE", "must be a second, a minute, an hour or a day")
        return None
    return None if count is None else RateLimit(count, period_ms, burst or 0)


def new_ratio(faults: Faults, field: str, message: queue_service_pb2.PriorityRatio) -> PriorityRatio:
    """Check a priority ratio."""
    shares = {}
    for name in ("high", "normal", "low"):
        share = getattr(message, name)
        if not 1 <= share <= LARGEST_SHARE:
            faults.add(
                f"{field}.{name}", "OUT_OF_RANGE", f"must be 1 to {LARGEST_SHARE}, so that no priority starves, got {share}"
            )
            share = 1
        shares[name] = share
    return PriorityRatio(**shares)


def forced(faults: Faults, field: str, value: int) -> Forced | None:
    """Check who is to decide; None for the attempts."""
    if not value:
        faults.add(field, "REQUIRED", "must be set: automatic, forced open or forced closed")
    elif value not in _FORCED_OF:
        faults.add(field, "BAD_ENUM", "must be 1 (automatic), 2 (forced open) or 3 (forced closed), got " + str(value))
    return _FORCED_OF.get(value)


def limits_to_message(limits: Limits | None) -> queue_service_pb2.Limits | None:
    """Return limits as a message; None for None."""
    if limits is None:
        return None
    return queue_service_pb2.Limits(
        rate=_rate_to_message(limits.rate),
        rate_per_key=_rate_to_message(limits.rate_per_key),
        concurrency=limits.concurrency or 0,
        concurrency_per_key=limits.concurrency_per_key or 0,
    )


def _rate_to_message(rate: RateLimit | None) -> queue_service_pb2.RateLimit | None:
    if rate is None:
        return None
    return queue_service_pb2.RateLimit(count=rate.count, period=convert.duration(rate.period_ms), burst=rate.burst)


def limits_from_message(message: queue_service_pb2.Limits) -> Limits:
    """Return the limits that a server has told."""
    return Limits(
        rate=_rate_from_message(message.rate) if message.HasField("rate") else None,
        rate_per_key=_rate_from_message(message.rate_per_key) if message.HasField("rate_per_key") else None,
        concurrency=message.concurrency or None,
        concurrency_per_key=message.concurrency_per_key or None,
    )


def _rate_from_message(message: queue_service_pb2.RateLimit) -> RateLimit:
    return RateLimit(message.count, convert.to_ms(message.period), message.burst)


def ratio_to_message(ratio: PriorityRatio) -> queue_service_pb2.PriorityRatio:
    """Return a ratio as a message."""
    return queue_service_pb2.PriorityRatio(high=ratio.high, normal=ratio.normal, low=ratio.low)


def ratio_from_message(message: queue_service_pb2.PriorityRatio) -> PriorityRatio:
    """Return the ratio that a server has told; one of an older version tells none."""
    return PriorityRatio(high=message.high, normal=message.normal, low=message.low) if message.high else PriorityRatio()


def breaker_to_message(status: BreakerStatus) -> breaker_pb2.Breaker:
    """Return a breaker as a message."""
    return breaker_pb2.Breaker(
        name=status.name,
        state=STATE_NUMBER[status.state],
        control=CONTROL_NUMBER[status.forced],
        failure_count=status.failures,
        reopen_time=convert.timestamp(status.reopen_ms),
        permit_count=status.permits,
        opened_total=status.opened_total,
        types=status.types,
    )


def breaker_state_of(number: int) -> BreakerState:
    """Return the state that a server has told."""
    return _STATE_OF[number]


def forced_of(number: int) -> Forced | None:
    """Return the order that a server has told."""
    return _FORCED_OF[number]
