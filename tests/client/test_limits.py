"""Limits, priority ratios and breakers by each of the clients, against a real server and a real worker."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, cast

import pytest

from gopher.breaker import BreakerState, Forced
from gopher.errors import BreakerNotFoundError, InvalidRequestError, QueueNotFoundError
from gopher.limits import Limits, PriorityRatio, RateLimit

if TYPE_CHECKING:
    from gopher.client.values import Breaker, LimitRule, Queue, QueueLimits
    from tests.client.faces import Face


@pytest.fixture
def queue() -> str:
    """A queue that nobody has used."""
    return f"q-{uuid.uuid4().hex[:12]}"


def test_limits_are_set_listed_and_removed(face: Face, queue: str) -> None:
    """Values go out and come back."""
    wanted = Limits(rate=RateLimit.parse("10/m", burst=5), concurrency_per_key=2)

    rule = cast("LimitRule", face.set_limits("echo", wanted, queue=queue))
    listed = cast("QueueLimits", face.limits(queue=queue))
    removed = cast("LimitRule", face.set_limits("echo", None, queue=queue))

    assert (rule.type, rule.set_limits, rule.declared) == ("echo", wanted, None)
    assert (listed.rules, listed.whole_queue) == ((rule,), None)
    assert (removed.set_limits, cast("QueueLimits", face.limits(queue=queue)).rules) == (None, ())


def test_empty_limits_are_not_none(face: Face, queue: str) -> None:
    """They overrule what a handler declares."""
    rule = cast("LimitRule", face.set_limits("echo", Limits(), queue=queue))

    assert rule.set_limits == Limits()
    assert rule.set_limits is not None


def test_queue_is_updated_by_what_is_given(face: Face, queue: str) -> None:
    """The ratio stays when limits are set, and the other way round."""
    ratio, whole = PriorityRatio(high=5, normal=2, low=1), Limits(concurrency=7)

    first = cast("Queue", face.update_queue(queue, priority_ratio=ratio))
    second = cast("Queue", face.update_queue(queue, limits=whole))
    limited = cast("QueueLimits", face.limits(queue=queue))
    face.update_queue(queue, limits=Limits())

    assert (first.priority_ratio, second.priority_ratio, second.parked) == (ratio, ratio, 0)
    assert limited.whole_queue == whole
    assert cast("QueueLimits", face.limits(queue=queue)).whole_queue is None


def test_breaker_is_held_and_let_go(face: Face) -> None:
    """The one that a handler of the worker declares."""
    held = cast("Breaker", face.update_breaker("dependency", "open"))
    listed = {each.name: each for each in cast("list[Breaker]", face.breakers())}
    face.update_breaker("dependency", "closed")
    freed = cast("Breaker", face.update_breaker("dependency", "automatic"))

    assert (held.state, held.forced, held.types) == (BreakerState.OPEN, Forced.OPEN, ("guarded",))
    assert listed["dependency"] == held
    assert freed.forced is None


def test_what_cannot_work_is_refused_and_changes_nothing(face: Face, queue: str) -> None:
    """Each with its error; the queue is not made."""
    with pytest.raises(InvalidRequestError, match="must be one of"):
        face.update_breaker("dependency", "half_open")
    with pytest.raises(BreakerNotFoundError):
        face.update_breaker("unheard-of", "open")
    with pytest.raises(InvalidRequestError, match="nothing to update"):
        face.update_queue(queue)
    with pytest.raises(InvalidRequestError, match="no limits per key"):
        face.update_queue(queue, limits=Limits(concurrency_per_key=1))
    with pytest.raises(InvalidRequestError, match="type"):
        face.set_limits("*", Limits(concurrency=1), queue=queue)
    with pytest.raises(QueueNotFoundError):
        face.set_limits("echo", None, queue=queue)
    with pytest.raises(QueueNotFoundError):
        face.limits(queue=queue)
