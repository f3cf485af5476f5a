"""Figures, workers, types, dead letters and the audit, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import admin_service_pb2 as pb

from gopher.errors import InvalidRequestError
from gopher.job import JobState
from gopher.store import keys

if TYPE_CHECKING:
    from tests.service.conftest import Rig


async def states(rig: Rig, ids: list[str]) -> list[JobState]:
    return [(await rig.store.query.get(rig.namespace, job_id)).state for job_id in ids]


async def test_stats_add_up(rig: Rig) -> None:
    """Queues, workers, slots and Redis in one answer."""
    await rig.submit()
    await rig.add_worker("w1", ["email"])
    await rig.add_worker("w2", ["report"])

    reply = await rig.admin.get_stats(pb.GetStatsRequest(namespace=rig.namespace))

    assert [queue.name for queue in reply.queues] == ["default"]
    assert (reply.worker_count, reply.slot_count, reply.busy_slot_count) == (2, 20, 6)
    assert int(reply.redis.version.partition(".")[0]) >= 7
    assert reply.redis.used_memory_bytes > 0


async def test_workers_tell_what_they_do(rig: Rig) -> None:
    """Everything a worker says of itself, by its id."""
    await rig.add_worker("w2", ["email"])
    await rig.add_worker("w1", ["email", "report"])

    workers = (await rig.admin.list_workers(pb.ListWorkersRequest(namespace=rig.namespace))).workers

    assert [worker.id for worker in workers] == ["w1", "w2"]
    first = workers[0]
    assert (first.host, first.pid, first.version, dict(first.queues)) == ("h", 7, "1", {"default": 2})
    assert (list(first.types), list(first.stuck_job_ids)) == (["email", "report"], ["j1"])
    assert (first.utilisation, first.attempts_per_second, first.cpu_cores) == (0.25, 12.5, 0.75)
    assert first.resident_bytes == 50_000_000
    assert (first.blocked.type, first.blocked.function, first.blocked.job_id) == ("email", "shop.send", "j2")
    assert first.blocked.blocked_time.ToMilliseconds() == 1500
    assert [(each.type, each.job_id, each.blocked_time.ToMilliseconds()) for each in first.blocked_totals] == [
        ("email", "", 4250)
    ]
    assert first.start_time.ToMilliseconds() == 1_000
    assert first.heartbeat_time.ToMilliseconds() > 1_600_000_000_000


async def test_types_stay_known_when_their_worker_has_gone(rig: Rig) -> None:
    """A type that no living worker handles is known, and not served."""
    await rig.add_worker("w1", ["email"])
    await rig.store.registry.add_types(rig.namespace, ["report"])

    types = (await rig.admin.list_job_types(pb.ListJobTypesRequest(namespace=rig.namespace))).types

    assert [(each.type, each.served) for each in types] == [("email", True), ("report", False)]


async def test_failed_jobs_are_listed_page_by_page(rig: Rig) -> None:
    """Dead letters only, with why each failed."""
    for _ in range(3):
        await rig.submit()
    failed = [await rig.fail() for _ in range(2)]
    request = pb.ListFailedJobsRequest(namespace=rig.namespace, page_size=1)

    first = await rig.admin.list_failed_jobs(request)
    request.page_token = first.next_page_token
    second = await rig.admin.list_failed_jobs(request)

    assert sorted(job.id for page in (first, second) for job in page.jobs) == sorted(failed)
    assert first.jobs[0].failure.message == "no"
    assert second.next_page_token == ""


async def test_requeue_of_all_that_match(rig: Rig) -> None:
    """Every dead letter of the type gets new attempts; the others stay."""
    for number in range(5):
        await rig.submit(type="email" if number < 3 else "report")
    failed = [await rig.fail() for _ in range(5)]

    reply = await rig.admin.requeue_failed_jobs(pb.RequeueFailedJobsRequest(namespace=rig.namespace, type="email"))

    assert reply.requeued_count == 3
    assert sorted(await states(rig, failed)) == [JobState.ENQUEUED] * 3 + [JobState.FAILED] * 2


async def test_requeue_of_one_queue(rig: Rig) -> None:
    """A queue that nobody has used has nothing to requeue."""
    await rig.submit()
    await rig.submit(queue="q2")
    failed = [await rig.fail(), await rig.fail("q2")]

    counts = []
    for queue in ("q2", "nope"):
        request = pb.RequeueFailedJobsRequest(namespace=rig.namespace, queue=queue)
        counts.append((await rig.admin.requeue_failed_jobs(request)).requeued_count)

    assert counts == [1, 0]
    assert await states(rig, failed) == [JobState.FAILED, JobState.ENQUEUED]


async def test_requeue_of_many_takes_several_batches(rig: Rig) -> None:
    """More dead letters than a batch holds are all moved, each once."""
    for _ in range(130):
        await rig.submit()
    for _ in range(130):
        await rig.fail()

    reply = await rig.admin.requeue_failed_jobs(pb.RequeueFailedJobsRequest(namespace=rig.namespace))

    assert reply.requeued_count == 130
    stats = await rig.store.query.queue_stats(rig.namespace, "default")
    assert (stats.counts[JobState.FAILED], stats.counts[JobState.ENQUEUED]) == (0, 130)


async def test_requeue_of_named_jobs_moves_dead_letters_only(rig: Rig) -> None:
    """An id of a job that has not failed, or of none, is passed over."""
    await rig.submit()
    failed = await rig.fail()
    waiting = await rig.submit()
    unknown = f"{waiting[:-6]}00{waiting[-4:]}"

    reply = await rig.admin.requeue_failed_jobs(
        pb.RequeueFailedJobsRequest(namespace=rig.namespace, job_ids=[failed, waiting, unknown])
    )

    assert reply.requeued_count == 1
    assert (await rig.store.query.get(rig.namespace, waiting)).generation == 0


async def test_faulty_requests_are_refused(rig: Rig) -> None:
    """A malformed id, too many ids, names that are none, a forged token."""
    namespace = rig.namespace
    requeues = [
        pb.RequeueFailedJobsRequest(namespace=namespace, job_ids=["x"]),
        pb.RequeueFailedJobsRequest(namespace=namespace, job_ids=["x"] * 1001),
        pb.RequeueFailedJobsRequest(namespace=namespace, queue="*"),
        pb.RequeueFailedJobsRequest(namespace="a:b"),
    ]
    lists = [
        pb.ListFailedJobsRequest(namespace=namespace, page_size=-1),
        pb.ListFailedJobsRequest(namespace=namespace, page_token="forged"),
        pb.ListFailedJobsRequest(namespace=namespace, type="A"),
    ]

    for requeue in requeues:
        with pytest.raises(InvalidRequestError):
            await rig.admin.requeue_failed_jobs(requeue)
    for listing in lists:
        with pytest.raises(InvalidRequestError):
            await rig.admin.list_failed_jobs(listing)


@pytest.mark.leaves_keys
async def test_audit_streams_what_it_finds_and_ends_with_the_totals(rig: Rig) -> None:
    """An index entry without a record is found; with `repair` it is gone afterwards."""
    await rig.submit()
    await rig.store.link.call("ZADD", keys.index(rig.namespace, "default", JobState.FAILED), 1, "nobody")
    messages: list[pb.AuditJobsResponse] = []

    async def send(message: pb.AuditJobsResponse) -> None:
        messages.append(message)
        await trio.lowlevel.checkpoint()

    await rig.admin.audit_jobs(pb.AuditJobsRequest(namespace=rig.namespace, repair=True), send)

    findings = [finding for message in messages for finding in message.findings]
    assert [(finding.kind, finding.job_id, finding.repaired) for finding in findings] == [("ORPHAN_ID", "nobody", True)]
    assert [message.done for message in messages] == [False] * (len(messages) - 1) + [True]
    assert (messages[-1].jobs_checked, messages[-1].finding_count) == (1, 1)
