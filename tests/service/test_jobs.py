"""Submit, get, list, cancel, retry, delete, on a real Redis."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import (
    GopherError,
    InvalidRequestError,
    JobAlreadyFinalError,
    JobNotFoundError,
    JobStateError,
    RequestIdConflictError,
    UniqueKeyHeldError,
    UnknownTypeError,
)
from gopher.job import JobState, Move
from gopher.telemetry import tracing
from gopher.wire.status import from_status
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.service.conftest import Rig

UNKNOWN = "01a20c6c-0282-7492-ab17-767f938b0000"


def submit_request(namespace: str, **fields: object) -> pb.SubmitJobRequest:
    spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec
    return pb.SubmitJobRequest(namespace=namespace, job=spec)


async def test_submitted_job_is_found_as_it_was_described(rig: Rig) -> None:
    """Every field of the spec is in the job that GetJob tells."""
    spec = job_pb2.JobSpec(
        type="email",
        payload=b'{"n": 9007199254740993, "empty": []}',
        queue="mail",
        priority=job_pb2.PRIORITY_HIGH,
        labels={"tenant": "a"},
        retry_policy=job_pb2.RetryPolicy(max_attempts=7, backoff_multiplier=1.5),
        unique_key="u",
        request_id="r",
    )
    spec.timeout.FromMilliseconds(1500)
    spec.retention.FromMilliseconds(60_000)
    spec.retry_policy.initial_backoff.FromMilliseconds(250)
    spec.deadline.FromMilliseconds(4_000_000_000_000)

    reply = await rig.lax_jobs.submit_job(pb.SubmitJobRequest(namespace=rig.namespace, job=spec))
    job = (await rig.jobs.get_job(pb.GetJobRequest(namespace=rig.namespace, job_id=reply.job_id))).job

    assert reply.state == job.state == job_pb2.JOB_STATE_ENQUEUED
    for name in ("type", "payload", "queue", "priority", "labels", "retry_policy", "unique_key", "request_id"):
        assert getattr(job, name) == getattr(spec, name), name
    for name in ("timeout", "retention", "deadline"):
        assert getattr(job, name) == getattr(spec, name), name
    assert job.content_type == "application/json"
    assert job.namespace == rig.namespace


async def test_delayed_job_is_scheduled(rig: Rig) -> None:
    """A job with a delay waits for its time."""
    spec = job_pb2.JobSpec(type="email")
    spec.delay.FromMilliseconds(60_000)

    reply = await rig.lax_jobs.submit_job(pb.SubmitJobRequest(namespace=rig.namespace, job=spec))

    assert reply.state == job_pb2.JOB_STATE_SCHEDULED


async def test_refused_submit_stores_nothing(rig: Rig) -> None:
    """A job with a fault makes no queue and no key."""
    with pytest.raises(InvalidRequestError) as caught:
        await rig.lax_jobs.submit_job(submit_request(rig.namespace, payload=b"{", queue="*"))

    assert [each.field for each in caught.value.violations] == ["job.payload", "job.queue"]
    assert await rig.store.query.queues(rig.namespace) == []


async def test_type_that_no_worker_has_registered_is_refused(rig: Rig) -> None:
    """Until a worker has registered the type; after that it stays known."""
    with pytest.raises(UnknownTypeError):
        await rig.jobs.submit_job(submit_request(rig.namespace))

    await rig.store.registry.add_types(rig.namespace, ["email"])
    reply = await rig.jobs.submit_job(submit_request(rig.namespace))

    assert reply.job_id


async def test_repeated_submit_gives_the_first_answer(rig: Rig) -> None:
    """The same request id with the same body is the same job; with another body it is refused."""
    first = await rig.lax_jobs.submit_job(submit_request(rig.namespace, request_id="r", payload=b"1"))
    second = await rig.lax_jobs.submit_job(submit_request(rig.namespace, request_id="r", payload=b"1"))
    with pytest.raises(RequestIdConflictError):
        await rig.lax_jobs.submit_job(submit_request(rig.namespace, request_id="r", payload=b"2"))

    assert second.job_id == first.job_id
    assert (first.deduplicated, second.deduplicated) == (False, True)


async def test_unique_key_is_held_by_one_job(rig: Rig) -> None:
    """A second job with the key is refused while the first is not final."""
    first = await rig.submit(unique_key="u")

    with pytest.raises(UniqueKeyHeldError) as caught:
        await rig.submit(unique_key="u")

    assert caught.value.metadata["job_id"] == first


async def test_batch_answers_each_item_by_itself(rig: Rig) -> None:
    """One bad item of a hundred leaves the others alone, and its path names it."""
    specs = [job_pb2.JobSpec(type="email") for _ in range(100)]
    specs[42].type = "../x"

    reply = await rig.lax_jobs.submit_jobs(pb.SubmitJobsRequest(namespace=rig.namespace, jobs=specs))

    assert len({each.job_id for each in reply.results}) == 100
    errors = [(at, from_status(each.error)) for at, each in enumerate(reply.results) if each.HasField("error")]
    ((at, error),) = errors
    assert at == 42
    assert error.metadata["field"] == "jobs[42].type"


@pytest.mark.parametrize("count", [0, 1001])
async def test_batch_of_a_wrong_size_is_refused(rig: Rig, count: int) -> None:
    """No item, or more than 1,000."""
    with pytest.raises(InvalidRequestError) as caught:
        await rig.lax_jobs.submit_jobs(pb.SubmitJobsRequest(namespace=rig.namespace, jobs=[job_pb2.JobSpec()] * count))

    assert caught.value.violations[0].reason == "BATCH_SIZE"


async def test_group_commit_answers_each_call_by_itself(rig: Rig, namespace: str) -> None:
    """Calls of several namespaces, good and bad, in one batch."""
    requests = [
        submit_request(rig.namespace),
        submit_request("Bad:name"),
        submit_request(f"{namespace}-other"),
        submit_request(rig.namespace, type=""),
        submit_request(rig.namespace, queue="q2"),
    ]

    answers = await rig.lax_jobs.submit_job_batch(requests)

    kinds = [type(answer).__name__ for answer in answers]
    response, refusal = "SubmitJobResponse", "InvalidRequestError"
    assert kinds == [response, refusal, response, refusal, response]
    other = answers[2]
    assert isinstance(other, pb.SubmitJobResponse)
    await rig.jobs.delete_job(pb.DeleteJobRequest(namespace=f"{namespace}-other", job_id=other.job_id))


async def test_traced_submit_gives_the_job_its_context(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceparent of the submit's span is kept with the job."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    monkeypatch.setattr(tracing, "submit_span", lambda _type, _queue, _count: nullcontext(traceparent))
    job_id = await rig.submit()

    assert (await rig.store.query.get(rig.namespace, job_id)).trace == traceparent


@pytest.mark.parametrize(
    ("job_id", "error"), [(UNKNOWN, JobNotFoundError), ("x", InvalidRequestError), ("", InvalidRequestError)]
)
async def test_unknown_and_malformed_ids_are_told_apart(rig: Rig, job_id: str, error: type[GopherError]) -> None:
    """NOT_FOUND for an id that is one, BAD_ID for text that is none, in every rpc that takes one."""
    namespace = rig.namespace
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: rig.jobs.get_job(pb.GetJobRequest(namespace=namespace, job_id=job_id)),
        lambda: rig.jobs.cancel_job(pb.CancelJobRequest(namespace=namespace, job_id=job_id)),
        lambda: rig.jobs.retry_job(pb.RetryJobRequest(namespace=namespace, job_id=job_id)),
        lambda: rig.jobs.delete_job(pb.DeleteJobRequest(namespace=namespace, job_id=job_id)),
        lambda: rig.watch.wait_job(pb.WaitJobRequest(namespace=namespace, job_id=job_id)),
    ]

    for call in calls:
        with pytest.raises(error):
            await call()


async def test_list_gives_every_job_once(rig: Rig) -> None:
    """Page by page, with the size of the reader's choice, all jobs that match are told."""
    ids = {await rig.submit(labels={"tenant": "a"}) for _ in range(7)}
    await rig.submit(labels={"tenant": "b"})
    request = pb.ListJobsRequest(namespace=rig.namespace, labels={"tenant": "a"}, page_size=3)

    seen: list[str] = []
    while True:
        page = await rig.jobs.list_jobs(request)
        seen += [job.id for job in page.jobs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        request.page_size = 2

    assert sorted(seen) == sorted(ids)


async def test_list_looks_at_state_queue_and_type(rig: Rig) -> None:
    """Each filter narrows the list."""
    await rig.submit()
    await rig.submit(queue="q2")
    await rig.submit(type="report", queue="q2")
    finished = await rig.complete()

    async def listed(**fields: object) -> int:
        request = pb.ListJobsRequest(namespace=rig.namespace, **fields)  # type: ignore[arg-type]  # fields of the request
        return len((await rig.jobs.list_jobs(request)).jobs)

    assert await listed() == 3
    assert await listed(queue="q2") == 2
    assert await listed(type="report") == 1
    assert await listed(state=job_pb2.JOB_STATE_COMPLETED) == 1
    assert finished


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"page_size": -1}, "OUT_OF_RANGE"),
        ({"page_size": 1_000_000}, "OUT_OF_RANGE"),
        ({"state": 99}, "BAD_ENUM"),
        ({"queue": "a}b"}, "BAD_NAME"),
        ({"type": "A"}, "BAD_NAME"),
        ({"labels": {"": "x"}}, "LABELS"),
        ({"page_token": "forged"}, "BAD_PAGE_TOKEN"),
        ({"page_token": "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "BAD_PAGE_TOKEN"),
        ({"page_token": "\u00e4"}, "BAD_PAGE_TOKEN"),
    ],
)
async def test_faulty_list_is_refused(rig: Rig, fields: dict[str, object], reason: str) -> None:
    """Each fault has its reason."""
    request = pb.ListJobsRequest(namespace=rig.namespace, **fields)  # type: ignore[arg-type]  # fields of the request

    with pytest.raises(InvalidRequestError) as caught:
        await rig.jobs.list_jobs(request)

    assert caught.value.violations[0].reason == reason


async def test_page_token_serves_only_the_list_it_was_made_for(rig: Rig, namespace: str) -> None:
    """Another filter, another namespace, another rpc: the token is refused."""
    for _ in range(3):
        await rig.submit()
    request = pb.ListJobsRequest(namespace=rig.namespace, page_size=1)
    token = (await rig.jobs.list_jobs(request)).next_page_token
    others = [
        pb.ListJobsRequest(namespace=rig.namespace, queue="default", page_token=token),
        pb.ListJobsRequest(namespace=f"{namespace}-other", page_token=token),
    ]

    for other in others:
        with pytest.raises(InvalidRequestError, match="page_token"):
            await rig.jobs.list_jobs(other)
    request.page_token = token
    assert len((await rig.jobs.list_jobs(request)).jobs) == 1


async def test_cancel_ends_a_waiting_job_and_may_be_repeated(rig: Rig) -> None:
    """The answer holds the job, with who asked and why; a second cancel is OK, and changes neither."""
    job_id = await rig.submit()
    request = pb.CancelJobRequest(namespace=rig.namespace, job_id=job_id, reason="no longer wanted", actor="ann@desk")

    first = (await rig.jobs.cancel_job(request)).job
    request.actor, request.reason = "bob@desk", "me neither"
    second = (await rig.jobs.cancel_job(request)).job

    assert first.state == second.state == job_pb2.JOB_STATE_CANCELLED
    assert first.cancel_requested
    assert (first.cancel_reason, first.cancel_actor) == ("no longer wanted", "ann@desk")
    assert second == first


async def test_cancel_of_a_completed_job_is_refused(rig: Rig) -> None:
    """TERMINAL, with the state."""
    await rig.submit()
    job_id = await rig.complete()

    with pytest.raises(JobAlreadyFinalError) as caught:
        await rig.jobs.cancel_job(pb.CancelJobRequest(namespace=rig.namespace, job_id=job_id))

    assert caught.value.metadata["state"] == "completed"


async def test_cancel_that_waits_answers_at_the_jobs_end(rig: Rig) -> None:
    """With `wait` the answer comes when the worker has ended the task tree, not before."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim()
    replies: list[job_pb2.Job] = []

    async def cancel() -> None:
        request = pb.CancelJobRequest(namespace=rig.namespace, job_id=job_id, wait=True)
        replies.append((await rig.jobs.cancel_job(request)).job)

    async def is_marked() -> bool:
        return (await rig.store.query.get(rig.namespace, job_id)).cancel_reason == ""

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await until_async(is_marked)
            before = list(replies)
            await rig.settle(claimed, Move.ACKNOWLEDGE_CANCEL)

    assert before == []
    assert [job.state for job in replies] == [job_pb2.JOB_STATE_CANCELLED]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": "x" * 256}, "reason"),
        ({"reason": "a\nb"}, "reason"),
        ({"actor": "x" * 256}, "actor"),
        ({"actor": "\x1b[2J"}, "actor"),
        ({"grace": 301}, "grace"),
        ({"grace": -1}, "grace"),
    ],
)
async def test_faulty_cancel_is_refused(rig: Rig, fields: dict[str, object], field: str) -> None:
    """A reason or an actor that is too long or steers a terminal, a grace over five minutes or below nothing; the job goes on."""
    job_id = await rig.submit()
    request = pb.CancelJobRequest(
        namespace=rig.namespace, job_id=job_id, reason=str(fields.get("reason", "")), actor=str(fields.get("actor", ""))
    )
    if "grace" in fields:
        request.grace.FromSeconds(int(str(fields["grace"])))

    with pytest.raises(InvalidRequestError) as caught:
        await rig.jobs.cancel_job(request)

    assert caught.value.violations[0].field == field
    assert caught.value.violations[0].reason == "OUT_OF_RANGE"
    assert (await rig.store.query.get(rig.namespace, job_id)).state is JobState.ENQUEUED


async def test_retry_gives_a_failed_job_new_attempts(rig: Rig) -> None:
    """It is enqueued again, in a new generation; a job that is enqueued is refused."""
    await rig.submit()
    job_id = await rig.fail()
    request = pb.RetryJobRequest(namespace=rig.namespace, job_id=job_id)

    job = (await rig.jobs.retry_job(request)).job
    with pytest.raises(JobStateError):
        await rig.jobs.retry_job(request)

    assert job.state == job_pb2.JOB_STATE_ENQUEUED
    assert job.generation == 1


async def test_deleted_job_is_gone(rig: Rig) -> None:
    """A job that is processing is not deleted, any other is."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim()
    request = pb.DeleteJobRequest(namespace=rig.namespace, job_id=job_id)

    with pytest.raises(JobStateError):
        await rig.jobs.delete_job(request)
    await rig.settle(claimed, Move.COMPLETE)
    await rig.jobs.delete_job(request)
    with pytest.raises(JobNotFoundError):
        await rig.jobs.delete_job(request)
