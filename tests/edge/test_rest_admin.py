"""Queues, dead letters, workers, types and figures over HTTP, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gopher_pb.v1 import queue_service_pb2

from gopher.cli.queues import queue_object
from gopher.cli.stats import stats_object
from gopher.client import TrioClient, operations
from gopher.edge.rest_answers import queue_view
from gopher.job import Move
from tests.edge.metrics_rig import let_everything_happen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher.job import JsonValue
    from tests.edge.rest_rig import Rest

V1: Final = "/api/v1"


async def test_queue_is_shown_paused_and_resumed(rest: Rest) -> None:
    """Each step answers with the queue as it then is."""
    await rest.submit(queue="mail", priority="high")

    steps = [
        await rest.get(f"{V1}/queues/mail"),
        await rest.post(f"{V1}/queues/mail/pause"),
        await rest.post(f"{V1}/queues/mail/resume", {}),
    ]

    assert [each["paused"] for each in steps] == [False, True, False]
    assert [each["enqueued"] for each in steps] == [{"high": 1, "normal": 0, "low": 0}] * 3
    listed = await rest.get(f"{V1}/queues")
    assert [each["name"] for each in listed.list("queues")] == ["mail"]


def test_queue_has_the_shape_of_the_command_line() -> None:
    """`gopher queues --json` and REST show a queue alike."""
    queue = queue_service_pb2.Queue(name="mail", paused=True, enqueued_high=1, enqueued_low=2, failed=3, submitted_total=4)
    queue.oldest_wait.FromMilliseconds(1500)
    limited = queue_service_pb2.Queue(name="mail", limits=queue_service_pb2.Limits(concurrency=3))
    limited.limits.rate.count = 5
    limited.limits.rate.period.FromMilliseconds(1000)

    for each in (queue, limited):
        assert msgspec.to_builtins(queue_view(each)) == queue_object(operations.queue_of(each))


async def test_purge_wants_the_name_again(rest: Rest) -> None:
    """Without the queue's name nothing is removed; with it the waiting jobs are."""
    await rest.submit(queue="mail")

    refused = [await rest.post(f"{V1}/queues/mail/purge", body) for body in (None, {}, {"confirm": "other"})]
    purged = await rest.post(f"{V1}/queues/mail/purge", {"confirm": "mail"})

    assert [(each.status, each.reason) for each in refused] == [(400, "CONFIRM")] * 3
    assert (purged.status, purged.json) == (200, {"queue": "mail", "purged": 1})


async def test_unknown_queue_is_not_found(rest: Rest) -> None:
    """A queue that nobody has used is told to be none, and a name that none can have is refused."""
    unknown, bad = await rest.get(f"{V1}/queues/nope"), await rest.get(f"{V1}/queues/a%7Db")

    assert (unknown.status, unknown.reason) == (404, "QUEUE_NOT_FOUND")
    assert (bad.status, bad.reason) == (400, "BAD_NAME")


async def test_dead_letters_are_listed_and_requeued(rest: Rest) -> None:
    """The failed jobs are listed with why; those named, or all that match, get new attempts."""
    job_ids = [await rest.submit(queue="mail") for _ in range(3)]
    for place in range(3):
        await rest.settle(await rest.claim("mail", f"claim-{place}"), Move.BURY, queue="mail")

    listed = await rest.get(f"{V1}/failed", queue="mail", type="email", page_size="2")
    other = await rest.post(f"{V1}/failed/retry", {"queue": "other"})
    one = await rest.post(f"{V1}/failed/retry", {"job_ids": job_ids[:1]})
    rest_of_all = await rest.post(f"{V1}/failed/retry")

    assert len(listed.list("jobs")) == 2
    assert listed["next_page_token"] is not None
    assert listed.list("jobs")[0]["failure"] == {
        "code": "UNKNOWN",
        "reason": "HANDLER_RAISED",
        "message": "no",
        "metadata": {},
        "retry_after_seconds": None,
    }
    assert [each["requeued"] for each in (other, one, rest_of_all)] == [0, 1, 2]


async def test_workers_and_types_are_listed(rest: Rest) -> None:
    """A worker that lives is shown, and the types it has registered are served."""
    await rest.add_worker("w1", ["email"])

    workers, types = await rest.get(f"{V1}/workers"), await rest.get(f"{V1}/jobs/types")

    (worker,) = workers.list("workers")
    assert (worker["id"], worker["slot_count"], worker["busy_slot_count"]) == ("w1", 10, 3)
    assert (worker["start_time"], worker["stuck_job_ids"]) == ("1970-01-01T00:00:01.000Z", ["j1"])
    assert worker["stuck_attempts"] == [{"job_id": "j1", "type": "email", "hangs_at": "app.py:7 in work"}]
    assert worker["blocked"] == {"type": "email", "function": "shop.send", "job_id": "j2", "seconds": 1.5}
    assert worker["blocked_totals"] == [
        {"type": "email", "function": "shop.send", "job_id": "", "seconds": 4.25},
        {"type": "report", "function": "shop.report", "job_id": "", "seconds": 2.5},
    ]
    assert types.json == {"types": [{"type": "email", "served": True}]}


async def test_worker_is_told_to_drain(rest: Rest) -> None:
    """The worker that is named is answered with; one that does not live is not found."""
    await rest.add_worker("w1", ["email"])

    told = await rest.post(f"{V1}/workers/w1/drain", {"grace_seconds": 0.5})
    unknown = await rest.post(f"{V1}/workers/w2/drain")
    bad = await rest.post(f"{V1}/workers/w1/drain", {"grace_seconds": -1})
    listed = await rest.get(f"{V1}/workers")

    assert (told.status, told["id"]) == (200, "w1")
    assert (unknown.status, unknown.reason) == (404, "WORKER_NOT_FOUND")
    assert (bad.status, bad.reason) == (400, "OUT_OF_RANGE")
    assert [each["id"] for each in listed.list("workers")] == ["w1"]


async def test_stats_tell_queues_workers_and_redis(rest: Rest) -> None:
    """The figures are those of the namespace, and of Redis."""
    await rest.add_worker("w1", ["email"])
    await rest.submit()

    stats = await rest.get(f"{V1}/queue/stats")

    assert [each["name"] for each in stats.list("queues")] == ["default"]
    assert (stats["worker_count"], stats["slot_count"], stats["busy_slot_count"]) == (1, 10, 3)
    redis = stats["redis"]
    assert isinstance(redis, dict)
    assert set(redis) == {"version", "used_memory_bytes", "max_memory_bytes", "connected_clients", "uptime_seconds"}


async def test_stats_have_the_shape_of_the_command_line(rest: Rest) -> None:
    """`gopher stats --json` and REST tell the same, whatever was measured."""
    await let_everything_happen(rest)
    async with TrioClient(rest.grpc_address, namespace=rest.namespace) as client:
        told = stats_object(await client.stats())

    answer = await rest.get(f"{V1}/queue/stats")

    assert isinstance(answer.json, dict)
    assert _without_the_moment(answer.json) == _without_the_moment(msgspec.to_builtins(told))
    assert [(each["type"], each["queue"]) for each in answer.list("types")] == [("email", "default")]
    assert [each["priority"] for each in answer.list("waits")] == ["normal"]


def _without_the_moment(stats: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the figures that do not change from one moment to the next."""
    kept = {
        name: value for name, value in stats.items() if not name.endswith("_per_second") and name not in {"redis", "queues"}
    }
    assert isinstance(kept["types"], list)
    rates = {"succeeded_per_second", "failed_per_second"}
    kept["types"] = [
        {name: each[name] for name in each if name not in rates} for each in kept["types"] if isinstance(each, dict)
    ]
    return kept
