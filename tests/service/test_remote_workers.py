"""Workers on streams: what they are given, and what becomes of what they say. Plain frames, a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gopher_pb.v1 import admin_service_pb2
from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.errors import GopherError
from gopher.event import EventKind, LogLine, OutputChunk
from gopher.job import MAX_TRACEBACK_BYTES, JobState, Outcome
from gopher.wire.status import from_status
from tests.runtime.parts import WilfulLifecycle
from tests.service.remote_rig import MAX_RESULT_BYTES, credit, extend, hello, leave, settle
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from tests.service.remote_rig import Remote

UNKNOWN_ID: Final = "01998c2e-7a00-7000-8000-000000000000"


def failure(reason: str = "", *, code: int = code_pb2.UNAVAILABLE, retry_ms: int | None = None) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message="no")
    if reason:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="example.com"))
    if retry_ms is not None:
        advice = error_details_pb2.RetryInfo()
        advice.retry_delay.FromMilliseconds(retry_ms)
        status.details.add().Pack(advice)
    return status


async def test_job_is_assigned_whole_and_its_result_kept(remote: Remote) -> None:
    """An assignment says all that a worker needs; the result completes the job and is confirmed."""
    stream = await remote.connect()
    submitted = {"payload": b'{"to":"a"}', "labels": {"team": "x"}, "timeout": Duration(seconds=7)}

    given = await remote.assigned(stream, **submitted)
    stream.say(settle(given.lease, result=b'{"sent":true}'))
    answer = await stream.hear_settled()

    assert (given.type, given.queue, given.payload, given.attempt) == ("email", "default", b'{"to":"a"}', 1)
    assert (dict(given.labels), given.timeout.seconds, given.content_type) == ({"team": "x"}, 7, "application/json")
    assert answer == pb.Settled(lease=given.lease)
    job = await remote.job(given.lease.job_id)
    assert (job.state, job.result) == (JobState.COMPLETED, b'{"sent":true}')


async def test_welcome_tells_the_terms(remote: Remote) -> None:
    """A worker learns its id, its lease, and how large a result may be."""
    stream = remote.open()

    stream.say(hello(remote.namespace))
    welcome = await stream.hear_welcome()

    assert welcome.worker_id
    assert welcome.lease.seconds == 20
    assert welcome.max_result_bytes == MAX_RESULT_BYTES


async def test_worker_is_given_no_more_than_its_credit(remote: Remote) -> None:
    """Credit adds up and is used up, a job each."""
    stream = await remote.connect()
    for _ in range(5):
        await remote.submit()

    stream.say(credit(2), credit(1))
    given = [await stream.hear_assignment() for _ in range(3)]
    await stream.settle_stream()

    assert len({each.lease.job_id for each in given}) == 3
    stats = await remote.store.query.queue_stats(remote.namespace, "default")
    assert stats.counts[JobState.PROCESSING] == 3
    assert stats.counts[JobState.ENQUEUED] == 2


async def test_job_that_comes_later_wakes_the_session(remote: Remote) -> None:
    """Credit that no job was there for is used when one comes."""
    stream = await remote.connect()
    stream.say(credit())
    await stream.settle_stream()

    job_id = await remote.submit()
    given = await stream.hear_assignment()

    assert given.lease.job_id == job_id


async def test_queues_share_the_claims_by_their_weights(remote: Remote) -> None:
    """With one credit at a time, three of four jobs come from the queue that weighs three times as much."""
    for _ in range(8):
        await remote.submit(queue="heavy")
        await remote.submit(queue="light")
    stream = await remote.connect(queues={"heavy": 3, "light": 1})

    queues = []
    for _ in range(8):
        stream.say(credit())
        queues.append((await stream.hear_assignment()).queue)

    assert queues.count("heavy") == 6


async def test_claim_whose_reply_is_lost_is_made_again(remote: Remote) -> None:
    """Under the same id, so that what it took is assigned after all, each job once."""
    lifecycle = remote.store.lifecycle = WilfulLifecycle(remote.store)
    for _ in range(3):
        await remote.submit()
    stream = await remote.connect()

    lifecycle.lose = 1
    stream.say(credit(3))
    given = [await stream.hear_assignment() for _ in range(3)]

    assert len({each.lease.job_id for each in given}) == 3
    assert len({claim_id for _, claim_id in lifecycle.claims[:2]}) == 1


async def test_type_without_a_handler_is_left_to_others(remote: Remote) -> None:
    """A job that the worker has no handler for waits for another worker, unspent, and uses no credit."""
    stranger = await remote.submit(type="unknown")
    ours = await remote.submit()
    stream = await remote.connect()

    stream.say(credit())
    given = await stream.hear_assignment()

    assert given.lease.job_id == ours
    job = await remote.job(stranger)
    assert (job.state, job.attempt, job.parked_by) == (JobState.ENQUEUED, 0, "type:unknown")


async def test_types_of_a_worker_are_known(remote: Remote) -> None:
    """What a worker on a stream handles may be submitted, as with any other worker."""
    await remote.connect(types=["resize"])

    known = await remote.store.registry.is_known_type(remote.namespace, "resize")

    assert known


async def test_failure_is_retried_by_the_policy_and_then_kept(remote: Remote) -> None:
    """A failed attempt is followed by another until the policy says no; the status is kept whole."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(settle(given.lease, failure=failure("SMTP_DOWN")), credit())
    assert not (await stream.hear_settled()).HasField("error")
    again = await stream.hear_assignment()
    stream.say(settle(again.lease, failure=failure("SMTP_DOWN")))
    await stream.hear_settled()

    assert again.attempt == 2
    job = await remote.job(given.lease.job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert (job.failure.reason, job.failure.message, job.failure.code) == ("SMTP_DOWN", "no", code_pb2.UNAVAILABLE)
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.RAISED, Outcome.RAISED]


async def test_debug_info_of_a_failure_is_the_attempts_traceback(remote: Remote) -> None:
    """The standard detail for it: kept with the attempt, bounded, and not once more in the failure."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    status = failure("SMTP_DOWN")
    entries = ["at send (mail.js:3)", *(f"at frame{number} (mail.js:{number})" for number in range(1000))]
    status.details.add().Pack(error_details_pb2.DebugInfo(stack_entries=entries))

    stream.say(settle(given.lease, failure=status, is_final=True))
    await stream.hear_settled()

    job = await remote.job(given.lease.job_id)
    (attempt,) = job.attempts
    assert attempt.traceback is not None
    assert attempt.traceback.startswith("at send (mail.js:3)\nat frame0 (mail.js:0)")
    assert len(attempt.traceback.encode()) <= MAX_TRACEBACK_BYTES
    assert job.failure is not None
    assert (job.failure.reason, job.failure.details) == ("SMTP_DOWN", ())


async def test_final_failure_is_not_retried(remote: Remote) -> None:
    """A worker may say that no further attempt is of use."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(settle(given.lease, failure=failure(), is_final=True))
    await stream.hear_settled()

    job = await remote.job(given.lease.job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "HANDLER_RAISED"


async def test_failure_may_name_the_next_attempt_and_its_kind(remote: Remote) -> None:
    """RetryInfo sets the delay; TIMED_OUT is told apart from what a handler raised."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(settle(given.lease, failure=failure("TIMED_OUT", retry_ms=3_600_000)))
    await stream.hear_settled()

    job = await remote.job(given.lease.job_id)
    assert job.state is JobState.RETRYING
    assert job.run_ms is not None
    assert job.run_ms - job.submitted_ms > 3_000_000
    assert job.attempts[0].outcome is Outcome.TIMED_OUT


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ({"released": pb.Released()}, JobState.ENQUEUED),
        ({"snoozed": pb.Snoozed(delay=Duration(seconds=60))}, JobState.SCHEDULED),
    ],
)
async def test_job_may_be_given_back_unspent(remote: Remote, outcome: dict[str, object], state: JobState) -> None:
    """Released it may run at once, snoozed later; neither spends an attempt."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(settle(given.lease, **outcome))
    await stream.hear_settled()

    job = await remote.job(given.lease.job_id)
    assert (job.state, job.attempt) == (state, 0)


async def test_cancel_is_pushed_and_acknowledged(remote: Remote) -> None:
    """The worker is told at once, with reason and grace; the job is cancelled when the worker says that the tree is gone."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    job_id = given.lease.job_id

    await remote.store.lifecycle.cancel(remote.namespace, job_id, reason="not wanted any more", grace_ms=1500)
    told = (await stream.hear()).cancel
    before = await remote.state(job_id)
    stream.say(settle(given.lease, cancelled=pb.CancelAcknowledged()))
    await stream.hear_settled()

    assert told == pb.Cancel(lease=given.lease, reason="not wanted any more", grace=Duration(seconds=1, nanos=500_000_000))
    assert before is JobState.PROCESSING
    assert await remote.state(job_id) is JobState.CANCELLED


async def test_cancel_that_no_message_told_of_comes_with_the_next_extend_and_once(remote: Remote) -> None:
    """What the control channel lost is found by extend; the worker is not told again and again."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    key = f"gopher:{{{remote.namespace}:default}}:job:{given.lease.job_id}"
    await remote.store.link.call("HSET", key, "cancel_reason", "lost", "cancel_grace_ms", 0)

    stream.say(extend(given.lease), extend(given.lease))
    frames = [(await stream.hear()).WhichOneof("frame") for _ in range(3)]

    assert frames == ["cancel", "extended", "extended"]


async def test_progress_is_kept(remote: Remote) -> None:
    """What the handler reports stands in the job."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    said = pb.ReportedProgress(fraction=0.25, message="a quarter")
    stream.say(pb.ConnectRequest(report=pb.Report(lease=given.lease, number=1, progress=said)))
    await stream.settle_stream()

    job = await remote.job(given.lease.job_id)
    assert (job.progress, job.progress_message) == (0.25, "a quarter")


async def test_reports_come_to_those_who_watch_once_each(remote: Remote) -> None:
    """Progress, log and output stand in the job's history; one that is said again, as after a cut, does not."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    await remote.store.histories.open(remote.namespace, "default", given.lease.job_id)
    said: list[dict[str, object]] = [
        {"progress": pb.ReportedProgress(fraction=0.25, message="a quarter")},
        {"log": pb.ReportedLog(level="warning", message="two words")},
        {"output": pb.ReportedOutput(data=b"\0 \xff")},
        {"output": pb.ReportedOutput(data=b"[1]", content_type="application/json")},
    ]
    for number in (1, 2, 3, 4, 4, 1):
        report = pb.Report(lease=given.lease, number=number, **said[number - 1])  # type: ignore[arg-type]  # fields of Report
        stream.say(pb.ConnectRequest(report=report))
    await stream.settle_stream()

    events = await remote.store.histories.read(remote.namespace, "default", given.lease.job_id, after=0, count=100)
    told = [event.told or event.progress for event in events if event.kind is not EventKind.STATE]
    assert told == [
        0.25,
        LogLine("warning", "two words"),
        OutputChunk(b"\0 \xff", "application/octet-stream"),
        OutputChunk(b"[1]", "application/json"),
    ]


async def test_attempts_and_waits_are_counted(remote: Remote) -> None:
    """The figures tell of what workers on streams have done as of what others have, a resumed stream's too."""
    stream = await remote.connect()
    first, second = await remote.assigned(stream), await remote.assigned(stream)
    stream.say(settle(first.lease, result=b"1"))
    await stream.hear_settled()
    await stream.cut()
    again = remote.open()
    again.say(hello(remote.namespace, resume_token=stream.resume_token, leases=[second.lease], stream=2))
    await again.hear_welcome()
    again.say(settle(second.lease, failure=failure(), is_final=True))
    await again.hear_settled()

    async def are_counted() -> bool:
        stats = await remote.rig.admin.get_stats(admin_service_pb2.GetStatsRequest(namespace=remote.namespace))
        return [dict(each.attempts_total) for each in stats.types] == [{"succeeded": 1, "raised": 1}]

    await until_async(are_counted)


async def test_extend_moves_the_lease(remote: Remote) -> None:
    """An extended lease ends later than it would have."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    index = f"gopher:{{{remote.namespace}:default}}:processing"
    await remote.store.link.call("ZINCRBY", index, -10_000, given.lease.job_id)
    before = (await remote.job(given.lease.job_id)).lease_ms

    stream.say(extend(given.lease))
    frame = await stream.hear()

    after = (await remote.job(given.lease.job_id)).lease_ms
    assert frame.WhichOneof("frame") == "extended"
    assert before is not None
    assert after is not None
    assert after > before + 9_000


async def test_outcome_counts_once(remote: Remote) -> None:
    """Sent again it is confirmed, as written before; another one changes nothing."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(settle(given.lease, result=b"1"), settle(given.lease, result=b"1"), settle(given.lease, failure=failure()))
    answers = [await stream.hear_settled() for _ in range(3)]

    assert [(each.already, each.HasField("error")) for each in answers] == [(False, False), (True, False), (True, False)]
    assert (await remote.job(given.lease.job_id)).result == b"1"


async def test_outcome_of_a_lost_lease_is_refused(remote: Remote) -> None:
    """Whoever runs the job now has another token; the worker learns how far the job has come, and no token."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    job_id = given.lease.job_id
    await remote.store.link.call("ZADD", f"gopher:{{{remote.namespace}:default}}:processing", 1, job_id)
    await until_async(lambda: _is_enqueued(remote, job_id))
    await remote.rig.claim()

    stream.say(settle(given.lease, result=b"1"))
    answer = await stream.hear_settled()

    error = from_status(answer.error)
    assert (error.reason, error.metadata["attempt"]) == ("STALE_ATTEMPT", "2")
    assert set(error.metadata) == {"job_id", "attempt"}
    assert await remote.state(job_id) is JobState.PROCESSING


async def _is_enqueued(remote: Remote, job_id: str) -> bool:
    return await remote.state(job_id) is JobState.ENQUEUED


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"result": b"{"}, "BAD_JSON"),
        ({"result": b'"' + b"x" * MAX_RESULT_BYTES + b'"'}, "RESULT_TOO_LARGE"),
        ({"failure": status_pb2.Status()}, "OUT_OF_RANGE"),
        ({"failure": status_pb2.Status(code=99)}, "OUT_OF_RANGE"),
        ({"snoozed": pb.Snoozed(delay=Duration(seconds=-1))}, "OUT_OF_RANGE"),
        ({"cancelled": pb.CancelAcknowledged()}, "NOT_CANCELLED"),
        ({}, "REQUIRED"),
    ],
)
async def test_outcome_that_cannot_be_kept_is_refused_and_the_lease_stands(
    remote: Remote, outcome: dict[str, object], reason: str
) -> None:
    """The worker is told what is wrong and settles otherwise."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(settle(given.lease, **outcome), extend(given.lease), settle(given.lease, result=b""))
    refused = await stream.hear_settled()
    extended = await stream.hear()
    settled = await stream.hear_settled()

    error = from_status(refused.error)
    assert isinstance(error, GopherError)
    assert getattr(error, "violations")[0].reason == reason  # noqa: B009 - only one class of errors has it
    assert refused.error.code == code_pb2.INVALID_ARGUMENT
    assert extended.WhichOneof("frame") == "extended"
    assert not settled.HasField("error")
    assert (await remote.job(given.lease.job_id)).result == b"null"


async def test_worker_stands_in_the_register_and_leaves_it(remote: Remote) -> None:
    """ListWorkers tells of it as of any other; after its leave it is gone."""
    stream = await remote.connect(version="v7", slots=5, labels={"zone": "b"}, queues={"default": 2})
    await remote.assigned(stream)
    request = admin_service_pb2.ListWorkersRequest(namespace=remote.namespace)

    (before,) = (await remote.rig.admin.list_workers(request)).workers
    stream.say(leave())
    error = await stream.end()

    assert (before.version, before.slot_count, dict(before.labels), dict(before.queues)) == (
        "v7",
        5,
        {"zone": "b"},
        {"default": 2},
    )
    assert list(before.types) == ["email"]
    assert error is None
    assert not (await remote.rig.admin.list_workers(request)).workers


async def test_leave_gives_back_what_is_held(remote: Remote) -> None:
    """A worker that goes for good holds nothing; its jobs run elsewhere at once, unspent."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(leave())
    await stream.end()

    job = await remote.job(given.lease.job_id)
    assert (job.state, job.attempt) == (JobState.ENQUEUED, 0)


async def test_operator_drains_a_worker(remote: Remote) -> None:
    """It is told to finish, and is given nothing more."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    (worker,) = await remote.store.registry.workers(remote.namespace)
    request = admin_service_pb2.DrainWorkerRequest(namespace=remote.namespace, worker_id=worker.id, grace=Duration(seconds=9))

    await remote.rig.admin.drain_worker(request)
    told = (await stream.hear()).drain
    stream.say(credit())
    waiting = await remote.submit()
    stream.say(settle(given.lease, result=b"1"))
    await stream.hear_settled()
    await stream.settle_stream()

    assert told.grace.seconds == 9
    assert await remote.state(waiting) is JobState.ENQUEUED


async def test_queue_of_a_connected_worker_is_kept(remote: Remote) -> None:
    """Delayed jobs are promoted and ended leases reaped where no other worker would do it."""
    stream = await remote.connect()
    stream.say(credit(2))

    delayed = await remote.submit(delay=Duration(nanos=50_000_000))
    given = await stream.hear_assignment()
    await remote.store.link.call("ZADD", f"gopher:{{{remote.namespace}:default}}:processing", 1, delayed)
    again = await stream.hear_assignment()

    assert given.lease.job_id == again.lease.job_id == delayed
    assert again.attempt == 2


async def test_queue_is_kept_no_longer_than_its_workers_are_connected(remote: Remote) -> None:
    """The last one to go ends it."""
    first, second = await remote.connect(), await remote.connect()

    first.say(leave())
    await first.end()
    kept_by_second = len(remote.upkeep._kept)
    second.say(leave())
    await second.end()

    assert kept_by_second == 1
    await until(lambda: not remote.upkeep._kept)
