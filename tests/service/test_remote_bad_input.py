"""Workers on streams that lie or err: a clear status each, nothing changed, and no harm to anybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.errors import CallExpiredError, InvalidRequestError
from gopher.job import JobState
from gopher.service import remote_workers
from gopher.service.remote_frames import MOST_JOBS, MOST_QUEUES, MOST_TYPES
from gopher.wire.status import from_status
from gopher.wire.worker_errors import ServerBusyError, WorkerSilentError
from tests.service.remote_rig import credit, extend, hello, serving_workers, settle

if TYPE_CHECKING:
    from tests.service.conftest import Rig
    from tests.service.remote_rig import Remote

UNKNOWN_ID: Final = "01998c2e-7a00-7000-8000-000000000000"
FOREIGN: Final = pb.Lease(job_id=UNKNOWN_ID, token=1)


def reason_of(error: BaseException | None) -> str:
    assert isinstance(error, InvalidRequestError), error
    return error.violations[0].reason


@pytest.mark.parametrize(
    "first",
    [pb.ConnectRequest(), credit(), extend(), settle(FOREIGN, result=b"1"), pb.ConnectRequest(leave=pb.Leave())],
    ids=["empty", "credit", "extend", "settle", "leave"],
)
async def test_first_frame_must_be_a_hello(remote: Remote, first: pb.ConnectRequest) -> None:
    """Whatever else comes first ends the stream."""
    stream = remote.open()

    stream.say(first)

    assert reason_of(await stream.end()) == "OUT_OF_ORDER"


async def test_stream_that_ends_before_a_hello_is_told_so(remote: Remote) -> None:
    """A client that says nothing at all learns what was missing."""
    stream = remote.open()

    stream.hang_up()

    assert reason_of(await stream.end()) == "OUT_OF_ORDER"


async def test_hello_must_come_in_time(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream with no hello does not stay."""
    monkeypatch.setattr(remote_workers, "HELLO_SECONDS", 0.05)

    error = await remote.open().end()

    assert isinstance(error, CallExpiredError)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"queues": {}}, "OUT_OF_RANGE"),
        ({"queues": {f"q{at}": 1 for at in range(MOST_QUEUES + 1)}}, "OUT_OF_RANGE"),
        ({"queues": {"No Name": 1}}, "BAD_NAME"),
        ({"queues": {"default": 0}}, "OUT_OF_RANGE"),
        ({"queues": {"default": -1}}, "OUT_OF_RANGE"),
        ({"types": []}, "OUT_OF_RANGE"),
        ({"types": [f"t{at}" for at in range(10_000)]}, "OUT_OF_RANGE"),
        ({"types": ["ok", "Not OK"]}, "BAD_NAME"),
        ({"types": [""]}, "REQUIRED"),
        ({"slots": -1}, "OUT_OF_RANGE"),
        ({"slots": MOST_JOBS + 1}, "OUT_OF_RANGE"),
        ({"labels": {"": "x"}}, "LABELS"),
        ({"version": "x" * 300}, "OUT_OF_RANGE"),
        ({"stream": 0}, "OUT_OF_RANGE"),
        ({"stream": -1}, "OUT_OF_RANGE"),
        ({"stream": 2**63 - 1}, "OUT_OF_RANGE"),
        ({"version": "a\nb"}, "OUT_OF_RANGE"),
        ({"leases": [FOREIGN]}, "OUT_OF_RANGE"),
        ({"leases": [FOREIGN] * (MOST_JOBS + 1)}, "OUT_OF_RANGE"),
        ({"resume_token": "forged"}, "BAD_RESUME_TOKEN"),
        ({"resume_token": "\N{SNOWMAN}"}, "BAD_RESUME_TOKEN"),
        ({"resume_token": "AAAA" * 20}, "BAD_RESUME_TOKEN"),
    ],
)
async def test_faulty_hello_is_refused_and_leaves_no_trace(remote: Remote, fields: dict[str, object], reason: str) -> None:
    """Its queues do not come to be, its types are not known, and no worker stands in the register."""
    stream = remote.open()

    stream.say(hello(remote.namespace, **fields))  # type: ignore[arg-type]  # the test names fields of Hello
    error = await stream.end()

    assert reason_of(error) == reason
    registry = remote.store.registry
    assert await registry.queues(remote.namespace) == []
    assert await registry.types(remote.namespace) == []
    assert await registry.workers(remote.namespace) == []


async def test_hello_with_the_most_there_may_be_is_taken(remote: Remote) -> None:
    """The bounds themselves are allowed."""
    queues = {f"q{at}": 1 for at in range(MOST_QUEUES)}

    stream = await remote.connect(queues=queues, types=[f"t{at}" for at in range(MOST_TYPES)], slots=MOST_JOBS)
    stream.say(credit(MOST_JOBS))
    await stream.settle_stream()

    assert not stream.ended.is_set()


@pytest.mark.parametrize("fields", [{"queues": {"other": 1}}, {"queues": {"default": 1, "other": 1}}])
async def test_resume_token_is_for_the_queues_it_was_given_for(remote: Remote, fields: dict[str, object]) -> None:
    """What was assigned is looked for in the queues of the hello, so they must be the same."""
    token = (await remote.connect()).resume_token
    stream = remote.open()

    stream.say(hello(remote.namespace, resume_token=token, **fields))  # type: ignore[arg-type]  # as above

    assert reason_of(await stream.end()) == "BAD_RESUME_TOKEN"


async def test_server_serves_no_more_queues_than_it_may(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """One queue too many is refused; what others use already is none more, and what they leave is free again."""
    monkeypatch.setattr(remote_workers, "MOST_SERVED", 2)
    first = await remote.connect(queues={"a": 1, "b": 1})
    same = await remote.connect(queues={"b": 1})
    refused = remote.open()
    refused.say(hello(remote.namespace, queues={"c": 1}))
    error = await refused.end()
    for stream in (first, same):
        stream.say(pb.ConnectRequest(leave=pb.Leave()))
        await stream.end()

    later = await remote.connect(queues={"c": 1, "d": 1})

    assert isinstance(error, ServerBusyError)
    assert not later.ended.is_set()


@pytest.mark.parametrize("jobs", [0, -1, -(2**31), MOST_JOBS + 1, 2**31 - 1])
async def test_credit_must_be_within_bounds(remote: Remote, jobs: int) -> None:
    """No credit that is none, and none that is huge, is taken."""
    waiting = await remote.submit()
    stream = await remote.connect()

    stream.say(credit(jobs))

    assert reason_of(await stream.end()) == "OUT_OF_RANGE"
    assert await remote.state(waiting) is JobState.ENQUEUED


async def test_credit_must_not_add_up_to_more_than_the_most(remote: Remote) -> None:
    """Nor does it help to say it in parts; what is held counts too."""
    stream = await remote.connect()
    await remote.assigned(stream)

    stream.say(credit(MOST_JOBS - 1), credit(1))

    assert reason_of(await stream.end()) == "OUT_OF_RANGE"


@pytest.mark.parametrize("frame", [hello("default"), pb.ConnectRequest()], ids=["hello", "empty"])
async def test_later_frame_that_has_no_place_ends_the_stream(remote: Remote, frame: pb.ConnectRequest) -> None:
    """A second hello, or a frame that holds nothing."""
    stream = await remote.connect()

    stream.say(frame)

    assert reason_of(await stream.end()) == "OUT_OF_ORDER"


async def test_leases_that_are_not_the_workers_are_told_lost(remote: Remote) -> None:
    """Whatever it claims to hold, as the job of another worker whose token it has guessed, it can neither extend nor report on."""
    await remote.submit()
    (foreign,) = await remote.rig.claim()
    guessed = pb.Lease(job_id=foreign.id, token=foreign.token)
    garbage = pb.Lease(job_id="no id at all", token=-1)
    stream = await remote.connect()
    before = await remote.job(foreign.id)

    stream.say(extend(guessed, garbage))
    lost = [(await stream.hear()).lease_lost.lease for _ in range(2)]
    await stream.hear()
    stream.say(pb.ConnectRequest(report=pb.Report(lease=guessed, number=1, progress=pb.ReportedProgress(fraction=0.5))))
    lost_report = (await stream.hear()).lease_lost.lease

    assert lost == [guessed, garbage]
    assert lost_report == guessed
    assert await remote.job(foreign.id) == before


@pytest.mark.parametrize(
    "outcome",
    [{"result": b"1"}, {"released": pb.Released()}, {"cancelled": pb.CancelAcknowledged()}],
    ids=lambda each: next(iter(each)),
)
async def test_outcome_of_another_workers_job_is_refused(remote: Remote, outcome: dict[str, object]) -> None:
    """Even under the right token: the job is not this worker's."""
    await remote.submit()
    (foreign,) = await remote.rig.claim()
    stream = await remote.connect()

    stream.say(settle(pb.Lease(job_id=foreign.id, token=foreign.token), **outcome))
    answer = await stream.hear_settled()

    assert from_status(answer.error).reason == "STALE_ATTEMPT"
    assert await remote.state(foreign.id) is JobState.PROCESSING


@pytest.mark.parametrize(
    ("job_id", "reason"), [(UNKNOWN_ID, "JOB_NOT_FOUND"), ("no id at all", "BAD_ID"), ("", "BAD_ID"), ("x" * 1000, "BAD_ID")]
)
async def test_outcome_of_no_job_is_refused(remote: Remote, job_id: str, reason: str) -> None:
    """The answer says so and the stream goes on."""
    stream = await remote.connect()

    stream.say(settle(pb.Lease(job_id=job_id, token=1), result=b"1"))
    answer = await stream.hear_settled()
    await stream.settle_stream()

    error = from_status(answer.error)
    assert reason in {error.reason, *(each.reason for each in getattr(error, "violations", ()))}


@pytest.mark.parametrize(
    "said",
    [
        {"progress": pb.ReportedProgress(fraction=float("nan"))},
        {"progress": pb.ReportedProgress(fraction=1.5)},
        {"progress": pb.ReportedProgress(fraction=0.5, message="x" * 300)},
        {"log": pb.ReportedLog(level="loud", message="x")},
        {"log": pb.ReportedLog(level="info", message="x" * 5000)},
        {"output": pb.ReportedOutput(data=b"x" * 65_537)},
        {"output": pb.ReportedOutput(data=b"x", content_type="text/html")},
        {},
        {"number": 0, "progress": pb.ReportedProgress(fraction=0.5)},
    ],
    ids=["nan", "too much", "too long", "no level", "long line", "large chunk", "no such type", "nothing", "no number"],
)
async def test_faulty_report_ends_the_stream(remote: Remote, said: dict[str, object]) -> None:
    """It is a defect of the worker's program, which is told; its lease stands."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.say(pb.ConnectRequest(report=pb.Report(lease=given.lease, **{"number": 1, **said})))  # type: ignore[arg-type]  # fields of Report
    error = await stream.end()

    assert reason_of(error) in {"OUT_OF_RANGE", "BAD_ENUM", "REQUIRED", "UNSUPPORTED_CONTENT_TYPE"}
    job = await remote.job(given.lease.job_id)
    assert (job.state, job.progress) == (JobState.PROCESSING, None)


async def test_extend_must_not_name_more_leases_than_there_may_be(remote: Remote) -> None:
    """A frame that would keep Redis busy is refused."""
    stream = await remote.connect()

    stream.say(extend(*[FOREIGN] * (MOST_JOBS + 1)))

    assert reason_of(await stream.end()) == "OUT_OF_RANGE"


async def test_worker_that_does_not_read_costs_the_others_nothing(remote: Remote) -> None:
    """A flood of frames whose answers nobody reads is not taken in; another worker is served meanwhile."""
    deaf, other = await remote.connect(), await remote.connect()
    deaf.may_read = type(deaf.may_read)()
    deaf.say(*[extend(FOREIGN)] * 900)

    given = await remote.assigned(other)
    other.say(settle(given.lease, result=b"1"))
    await other.hear_settled()

    unread = deaf._said.statistics().current_buffer_used
    assert unread > 800
    assert await remote.state(given.lease.job_id) is JobState.COMPLETED


async def test_silent_worker_is_let_go(rig: Rig) -> None:
    """Nothing heard for a whole lease: the stream ends, and what it held is run elsewhere."""
    async with serving_workers(rig, lease_seconds=1.0) as remote:
        stream = await remote.connect()
        given = await remote.assigned(stream)
        error = await stream.end()
        other = await remote.connect()
        other.say(credit())
        again = await other.hear_assignment()

    assert isinstance(error, WorkerSilentError)
    assert again.lease.job_id == given.lease.job_id
    assert again.attempt == 2


async def test_worker_that_has_gone_quiet_is_given_nothing_until_it_speaks(rig: Rig) -> None:
    """What would be assigned to one that may have gone would be stuck until its lease ends."""
    async with serving_workers(rig, lease_seconds=2.0, poll_seconds=0.05) as remote:
        stream = await remote.connect()
        stream.say(credit())
        await stream.settle_stream()
        await trio.sleep(1.3)
        job_id = await remote.submit()
        await trio.sleep(0.2)
        before = await remote.state(job_id)
        stream.say(extend())
        await stream.hear()
        given = await stream.hear_assignment()

    assert before is JobState.ENQUEUED
    assert given.lease.job_id == job_id


async def test_attempt_that_is_not_extended_any_more_is_told_lost(rig: Rig) -> None:
    """A worker that lives and forgets an attempt does not hold it for ever."""
    async with serving_workers(rig, lease_seconds=1.0) as remote:
        stream = await remote.connect()
        given = await remote.assigned(stream)
        frame = extend()
        told = pb.ConnectResponse()
        while told.WhichOneof("frame") != "lease_lost":
            stream.say(frame)
            told = await stream.hear(pings=True)

    assert told.lease_lost.lease == given.lease
