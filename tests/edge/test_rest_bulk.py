"""Bulk operations over HTTP, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gopher.job import Move
from tests.waiting import until_async

if TYPE_CHECKING:
    from tests.edge.rest_rig import Rest

PATH: Final = "/api/v1/bulk-operations"


async def ended(rest: Rest, operation_id: object) -> dict[str, object]:
    """Wait until an operation has ended and return it."""
    found: dict[str, object] = {}

    async def has_ended() -> bool:
        answer = (await rest.get(f"{PATH}/{operation_id}")).json
        assert isinstance(answer, dict)
        found.update(answer)
        return answer["state"] != "running"

    await until_async(has_ended)
    return found


async def test_bulk_operation_is_started_watched_and_listed(rest: Rest) -> None:
    """202 with the operation; then it tells how far it has come, and in the end what it did."""
    for tenant in ("a", "a", "b"):
        await rest.submit(queue="mail", labels={"tenant": tenant})

    started = await rest.post(PATH, {"kind": "cancel", "queue": "mail", "labels": {"tenant": "a"}, "reason": "not wanted"})
    operation = await ended(rest, started["id"])
    cancelled = await rest.get("/api/v1/jobs", state="cancelled")
    listed = await rest.get(PATH)

    assert (started.status, started["kind"]) == (202, "cancel")
    assert (operation["state"], operation["done"], operation["total"]) == ("completed", 2, 3)
    assert [each["cancel_reason"] for each in cancelled.list("jobs")] == ["not wanted"] * 2
    assert [each["id"] for each in listed.list("operations")] == [started["id"]]


async def test_dead_letters_are_purged_once_confirmed(rest: Rest) -> None:
    """Without the name of the queue, or of the namespace where no queue is named, nothing is removed."""
    await rest.submit(queue="mail")
    await rest.settle(await rest.claim("mail"), Move.BURY, queue="mail")
    path = "/api/v1/failed/purge"

    refused = [await rest.post(path, body) for body in ({}, {"confirm": "mail"}, {"queue": "mail", "confirm": "x"})]
    kept = await rest.get("/api/v1/failed")
    purged = await rest.post(path, {"confirm": rest.namespace})
    operation = await ended(rest, purged["id"])

    assert [(each.status, each.reason) for each in refused] == [(400, "CONFIRM")] * 3
    assert len(kept.list("jobs")) == 1
    assert (purged.status, operation["done"]) == (202, 1)
    assert (await rest.get("/api/v1/failed")).list("jobs") == []


async def test_operation_that_has_ended_cannot_be_cancelled(rest: Rest) -> None:
    """The refusal says how it stands; one that is unknown is not found, and an id that none can have is refused."""
    started = await rest.post(PATH, {"kind": "retry"})
    await ended(rest, started["id"])

    late = await rest.post(f"{PATH}/{started['id']}/cancel")
    unknown = await rest.get(f"{PATH}/{str(started['id'])[:-1]}f")
    bad = await rest.get(f"{PATH}/x")

    assert (late.status, late.reason) == (400, "BULK_OPERATION_ENDED")
    assert (unknown.status, unknown.reason) == (404, "BULK_OPERATION_NOT_FOUND")
    assert (bad.status, bad.reason) == (400, "BAD_ID")


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({}, "kind", "REQUIRED"),
        ({"kind": "purge"}, "kind", "BAD_ENUM"),
        ({"kind": "retry", "states": ["dead"]}, "states[0]", "BAD_ENUM"),
        ({"kind": "cancel", "states": ["completed"]}, "states[0]", "BAD_ENUM"),
        ({"kind": "retry", "queue": "a}b"}, "queue", "BAD_NAME"),
        ({"kind": "retry", "submitted_before": "yesterday"}, "submitted_before", "BAD_TIME"),
        ({"kind": "cancel", "grace_seconds": -1}, "grace_seconds", "OUT_OF_RANGE"),
        ({"kind": "retry", "labels": {"": "x"}}, "labels['']", "LABELS"),
        ({"kind": "retry", "filter": {}}, "filter", "UNKNOWN_FIELD"),
    ],
)
async def test_operation_that_cannot_work_is_refused(rest: Rest, body: object, field: str, reason: str) -> None:
    """Each fault is named, and nothing is started."""
    refused = await rest.post(PATH, body)

    assert refused.status == 400
    details = refused.error["details"]
    assert isinstance(details, list)
    assert [(each["field"], each["reason"]) for each in details if isinstance(each, dict)] == [(field, reason)]
    assert (await rest.get(PATH)).list("operations") == []
