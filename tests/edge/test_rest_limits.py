"""Limits, priority ratios and breakers over HTTP, on a real Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from gopher.breaker import Breaker
from tests.edge.rest_rig import send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.edge.rest_rig import Answer, Rest

EMAIL: Final = "/api/v1/rate-limits/email"
NOTHING: Final = {"rate": None, "rate_per_key": None, "concurrency": None, "concurrency_per_key": None}
RATE: Final = {"count": 10, "per": "minute", "burst": 5}


async def change(
    rest: Rest, method: str, path: str, body: object, headers: Mapping[str, str] | None = None, **query: str
) -> Answer:
    return await send(rest.address, method, rest.path(path, **query), json.dumps(body).encode(), headers)


async def test_limits_are_set_shown_listed_and_removed(rest: Rest) -> None:
    """They hold in one queue; what is left out is null."""
    put = await change(rest, "PUT", EMAIL, {"rate": RATE, "concurrency_per_key": 2}, queue="mail")
    shown = await rest.get(EMAIL, queue="mail")
    other = await rest.get("/api/v1/rate-limits/sms", queue="mail")
    listed = await rest.get("/api/v1/rate-limits", queue="mail")
    elsewhere = await rest.get(EMAIL)
    removed = await send(rest.address, "DELETE", rest.path(EMAIL, queue="mail"))

    wanted = {**NOTHING, "rate": RATE, "concurrency_per_key": 2}
    assert (put.status, put["limits"], put["set"], put["declared"]) == (200, wanted, wanted, None)
    assert shown.json == put.json
    assert (other["limits"], other["set"]) == (NOTHING, None)
    assert (listed.list("rules"), listed["queue_limits"]) == ([put.json], None)
    assert (elsewhere.status, elsewhere.reason) == (404, "QUEUE_NOT_FOUND")
    assert (removed.status, removed["limits"], removed["set"]) == (200, NOTHING, None)


async def test_type_that_can_have_no_limits_is_refused(rest: Rest) -> None:
    """No job can have such a type, so that "unlimited" would mislead."""
    await change(rest, "PUT", EMAIL, {})

    refused = await rest.get("/api/v1/rate-limits/E%C3%A4")

    assert (refused.status, refused.reason) == (400, "BAD_NAME")


async def test_empty_limits_are_set_too(rest: Rest) -> None:
    """`{}` is not the same as no limits set: it overrules what the handler declares."""
    put = await change(rest, "PUT", EMAIL, {})

    assert (put["set"], put["limits"]) == (NOTHING, NOTHING)


async def test_queue_is_changed_by_what_is_given(rest: Rest) -> None:
    """The ratio stays when limits are set; `{}` takes the limits away."""
    queue = "/api/v1/queues/mail"
    ratio = {"high": 5, "normal": 2, "low": 1}

    first = await change(rest, "PATCH", queue, {"priority_ratio": ratio})
    await change(rest, "PATCH", queue, {"limits": {"rate": {"count": 3}, "concurrency": 7}})
    limited = await rest.get("/api/v1/rate-limits", queue="mail")
    last = await change(rest, "PATCH", queue, {"limits": {}})
    unlimited = await rest.get("/api/v1/rate-limits", queue="mail")

    assert (first.status, first["priority_ratio"], last["priority_ratio"]) == (200, ratio, ratio)
    assert limited["queue_limits"] == {**NOTHING, "rate": {"count": 3, "per": "second", "burst": 0}, "concurrency": 7}
    assert unlimited["queue_limits"] is None


async def test_parked_jobs_are_enqueued_but_in_no_line(rest: Rest) -> None:
    """The state counts them; the lines do not."""
    await change(rest, "PUT", EMAIL, {"rate": {"count": 1, "per": "day"}})
    await rest.submit()
    await rest.submit()
    await rest.claim()
    await rest.store.lifecycle.claim(rest.namespace, "default", worker="w1", count=1, lease_ms=60_000, claim_id="second")

    queue = await rest.get("/api/v1/queues/default")

    assert (queue["parked"], queue["enqueued"]) == (1, {"high": 0, "normal": 0, "low": 0})
    assert isinstance(queue["jobs"], dict)
    assert queue["jobs"]["enqueued"] == 1


async def test_breaker_is_held_and_let_go(rest: Rest) -> None:
    """As the list then tells."""
    await rest.store.breakers.declare(rest.namespace, "smtp", Breaker(), ["email"])

    held = await change(rest, "PATCH", "/api/v1/breakers/smtp", {"control": "open"})
    listed = await rest.get("/api/v1/breakers")
    freed = await change(rest, "PATCH", "/api/v1/breakers/smtp", {"control": "automatic"})

    assert (held.status, held["state"], held["control"], held["types"]) == (200, "open", "open", ["email"])
    assert listed.list("breakers") == [held.json]
    assert (freed["state"], freed["control"]) == ("closed", "automatic")


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "reason"),
    [
        ("PUT", EMAIL, {"rate": {"count": 0}}, "rate.count", "OUT_OF_RANGE"),
        ("PUT", EMAIL, {"rate": {"count": 1_000_001}}, "rate.count", "OUT_OF_RANGE"),
        ("PUT", EMAIL, {"rate": {}}, "rate.count", "REQUIRED"),
        ("PUT", EMAIL, {"rate": {"count": 1, "burst": -1}}, "rate.burst", "OUT_OF_RANGE"),
        ("PUT", EMAIL, {"rate": {"count": 1, "per": "week"}}, "rate.per", "BAD_ENUM"),
        ("PUT", EMAIL, {"rate": "10/s"}, "rate", "BAD_TYPE"),
        ("PUT", EMAIL, {"concurrency": 0}, "concurrency", "OUT_OF_RANGE"),
        ("PUT", EMAIL, {"limit": 10}, "limit", "UNKNOWN_FIELD"),
        ("PUT", "/api/v1/rate-limits/A b", {}, "type", "BAD_NAME"),
        ("GET", "/api/v1/rate-limits/A b", None, "type", "BAD_NAME"),
        ("PATCH", "/api/v1/queues/default", {}, "priority_ratio", "REQUIRED"),
        ("PATCH", "/api/v1/queues/default", {"priority_ratio": {"high": 1, "normal": 1}}, "priority_ratio.low", "REQUIRED"),
        (
            "PATCH",
            "/api/v1/queues/default",
            {"priority_ratio": {"high": 1, "normal": 1, "low": 0}},
            "priority_ratio.low",
            "OUT_OF_RANGE",
        ),
        (
            "PATCH",
            "/api/v1/queues/default",
            {"limits": {"concurrency_per_key": 1}},
            "limits.concurrency_per_key",
            "UNKNOWN_FIELD",
        ),
        ("PATCH", "/api/v1/queues/A b", {"limits": {}}, "queue", "BAD_NAME"),
        ("PATCH", "/api/v1/breakers/smtp", {}, "control", "REQUIRED"),
        ("PATCH", "/api/v1/breakers/smtp", {"control": "half_open"}, "control", "BAD_ENUM"),
    ],
)
async def test_change_that_cannot_work_is_refused(
    rest: Rest, method: str, path: str, body: object, field: str, reason: str
) -> None:
    """The field is named; the limits, the queue and the breaker are as they were."""
    await rest.store.breakers.declare(rest.namespace, "smtp", Breaker(), ["email"])
    await change(rest, "PUT", EMAIL, {"concurrency": 7})
    places = ("/api/v1/rate-limits", "/api/v1/breakers", "/api/v1/queues")
    before = [(await rest.get(place)).json for place in places]

    raw = b"" if body is None else json.dumps(body).encode()
    refused = await send(rest.address, method, rest.path(path.replace(" ", "%20")), raw)

    assert refused.status == 400
    details = refused.error["details"]
    assert isinstance(details, list)
    assert [(each["field"], each["reason"]) for each in details if isinstance(each, dict)] == [(field, reason)]
    assert [(await rest.get(place)).json for place in places] == before


async def test_unknown_word_is_answered_with_the_known_ones(rest: Rest) -> None:
    """So that the caller sees what to say."""
    per = await change(rest, "PUT", EMAIL, {"rate": {"count": 1, "per": "week"}})
    control = await change(rest, "PATCH", "/api/v1/breakers/smtp", {"control": "shut"})

    assert "must be one of second, minute, hour, day" in str(per.error["message"])
    assert "must be one of automatic, open, closed" in str(control.error["message"])


async def test_breaker_that_no_handler_declares_is_not_found(rest: Rest) -> None:
    """An order makes none."""
    refused = await change(rest, "PATCH", "/api/v1/breakers/imap", {"control": "open"})

    assert (refused.status, refused.reason) == (404, "BREAKER_NOT_FOUND")
    assert (await rest.get("/api/v1/breakers")).list("breakers") == []


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"Origin": "https://evil.example"}, 403, "CSRF"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "CSRF"),
        ({"Content-Type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
async def test_guards_hold_for_put_and_patch(rest: Rest, headers: dict[str, str], status: int, reason: str) -> None:
    """A page of another origin changes nothing, nor does a body that is not said to be JSON."""
    ratio = {"priority_ratio": {"high": 9, "normal": 1, "low": 1}}

    put = await change(rest, "PUT", EMAIL, {"concurrency": 1}, headers)
    patch = await change(rest, "PATCH", "/api/v1/queues/default", ratio, headers)

    assert [(each.status, each.reason) for each in (put, patch)] == [(status, reason)] * 2
    assert (await rest.get("/api/v1/queues")).list("queues") == []
