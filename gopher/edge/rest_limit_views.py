"""Limits as REST takes and shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gopher_pb.v1 import queue_service_pb2 as pb

from gopher.limits import LARGEST_COUNT, PERIOD_NAMES
from gopher.wire import convert

Per = Literal["second", "minute", "hour", "day"]
Count = Annotated[int, Meta(ge=1, le=LARGEST_COUNT)]


class Rate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Starts in any stretch of time as long as the period, all workers together; a burst makes it a token bucket of that size."""

    count: Count
    per: Per = "second"
    burst: Annotated[int, Meta(ge=0, le=LARGEST_COUNT)] = 0

    def message(self) -> pb.RateLimit:
        """Return the message."""
        return pb.RateLimit(count=self.count, period=convert.duration(PERIOD_NAMES[self.per]), burst=self.burst)


class LimitsView(Struct, frozen=True, kw_only=True):
    """Limits; null where there is none."""

    rate: Rate | None
    rate_per_key: Rate | None
    concurrency: int | None
    concurrency_per_key: int | None
