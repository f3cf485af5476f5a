from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest

from gopher_pb.v1 import admin_service_pb2, job_pb2, job_service_pb2, job_stream_pb2

from gopher.client import calls, dialogues, operations
from gopher.client.channel import ServerUnreachableError
from gopher.client.dialogues import Dialogue, Pause, SubmitManyError, Watching
from gopher.client.values import JobEvent
from gopher.errors import (
    GopherError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    StoreFullError,
    StoreUnavailableError,
    UnknownTypeError,
)
from gopher.event import EventKind, Truncation
from gopher.job import Failure, Job, JobState
from gopher.wire import convert, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

JOB = Job(id="j1", namespace="ns", type="email", state=JobState.ENQUEUED, submitted_ms=1)
DOWN = ServerUnreachableError("nobody there")
Answer = bytes | GopherError


@dataclass
class Server:
    """Answers the steps of a dialogue, and notes them."""

    answers: Iterator[Answer]
    paths: list[str] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def drive(self, dialogue: Dialogue[T]) -> T:
        try:
            step = next(dialogue)
            while True:
                try:
                    answer = self.take(step)
                except GopherError as error:
                    step = dialogue.throw(error)
                else:
                    step = dialogue.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returns

    def take(self, step: dialogues.Step) -> object:
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            return None
        self.paths.append(step.path.rpartition("/")[2])
        self.deadlines.append(step.deadline_seconds)
        self.requests.append(step.request)
        answer = next(self.answers)
        if isinstance(answer, GopherError):
            raise answer
        return step.read(answer)


def server(*answers: Answer) -> Server:
    return Server(iter(answers))


def told(job: Job) -> bytes:
    """Return the reply that tells the job; it has one shape in all rpcs that tell one."""
    return job_service_pb2.GetJobResponse(job=convert.job_to_message(job)).SerializeToString()


def clock(*moments: float) -> Callable[[], float]:
    return iter(moments).__next__


def test_ask_repeats_a_repeatable_call_until_somebody_answers() -> None:
    """A call that finds no server is made again, after a pause each time."""
    there = server(DOWN, DOWN, told(JOB))

    job = there.drive(dialogues.ask(calls.get("ns", "j1")))

    assert job.id == "j1"
    assert there.paths == ["GetJob"] * 3
    assert len(there.pauses) == 2
    assert max(there.pauses) < 0.2


def test_ask_gives_up_after_its_repeats() -> None:
    """The last error is the caller's, after six tries in about three seconds at most."""
    there = server(*[DOWN] * 6)

    with pytest.raises(ServerUnreachableError):
        there.drive(dialogues.ask(calls.get("ns", "j1")))

    assert len(there.paths) == 6
    assert sum(there.pauses) < 3.2


def test_ask_gives_up_soon_on_a_server_that_waits_for_redis() -> None:
    """Where each answer takes 5 s, as long as the server waits for its Redis, the first one is told."""
    there = server(StoreUnavailableError("redis does not serve now"))

    with pytest.raises(StoreUnavailableError):
        there.drive(dialogues.ask(calls.get("ns", "j1"), clock(0, 5)))

    assert there.paths == ["GetJob"]


@pytest.mark.parametrize(
    "call",
    [
        calls.retry("ns", "j1"),
        calls.delete("ns", "j1"),
        calls.requeue_failed("ns", None, None, ()),
        operations.purge("ns", "q", "q"),
    ],
)
def test_ask_never_repeats_what_is_not_as_good_twice(call: calls.Call[object]) -> None:
    """A call whose outcome is unknown is left to its caller when a second one would not do the same."""
    there = server(DOWN)

    with pytest.raises(ServerUnreachableError):
        there.drive(dialogues.ask(call))

    assert len(there.paths) == 1


def test_ask_does_not_repeat_a_refusal() -> None:
    """What the server has refused it would refuse again."""
    there = server(JobNotFoundError("j1"))

    with pytest.raises(JobNotFoundError):
        there.drive(dialogues.ask(calls.get("ns", "j1")))

    assert there.pauses == []


def test_submit_with_a_request_id_is_repeated() -> None:
    """A submit that got no answer goes out again with the same request id: at most one job comes of it."""
    reply = job_service_pb2.SubmitJobResponse(job_id="j1", state=job_pb2.JOB_STATE_ENQUEUED).SerializeToString()
    there = server(DOWN, reply)

    receipt = there.drive(dialogues.submit("ns", "email", {}, {"request_id": "mine"}))

    first, second = (job_service_pb2.SubmitJobRequest.FromString(each) for each in there.requests)
    assert receipt == calls.Receipt("j1", JobState.ENQUEUED, is_duplicate=False)
    assert first.job.request_id == "mine"
    assert first == second


def test_submit_without_a_request_id_is_not_repeated() -> None:
    """Where a repeat might make a second job, the caller is told instead."""
    there = server(DOWN)

    with pytest.raises(ServerUnreachableError):
        there.drive(dialogues.submit("ns", "email", {}, {}))

    assert len(there.requests) == 1


class Accepting(Server):
    """Accepts every job of every batch, but those of the type `nope`; full from a batch on."""

    def __init__(self, full_from: int = 1_000_000) -> None:
        super().__init__(iter(()))
        self.batches: list[int] = []
        self._full_from = full_from

    def take(self, step: dialogues.Step) -> object:
        assert isinstance(step, calls.Call)
        request = job_service_pb2.SubmitJobsRequest.FromString(step.request)
        self.batches.append(len(request.jobs))
        if len(self.batches) > self._full_from:
            raise StoreFullError("full")
        reply = job_service_pb2.SubmitJobsResponse()
        for job in request.jobs:
            if job.type == "nope":
                reply.results.add(error=status.to_status(UnknownTypeError("nope")))
            else:
                reply.results.add(job_id=f"id-{job.payload.decode()}", state=job_pb2.JOB_STATE_ENQUEUED)
        assert len(step.request) < 1024 * 1024
        return step.read(reply.SerializeToString())


def test_submit_many_sends_batches_and_keeps_the_order() -> None:
    """Any number of jobs goes out, at most 1,000 a call, and the ids come back in order."""
    there = Accepting()

    ids = there.drive(dialogues.submit_many("ns", ({"type": "email", "payload": n} for n in range(2500))))

    assert ids == [f"id-{n}" for n in range(2500)]
    assert there.batches == [1000, 1000, 500]


def test_submit_many_sends_no_batch_that_is_too_large() -> None:
    """Large payloads make batches small: no message is over 1 MiB."""
    there = Accepting()

    ids = there.drive(dialogues.submit_many("ns", [{"type": "x", "payload": b"7" * 250_000} for _ in range(10)]))

    assert len(ids) == 10
    assert there.batches == [3, 3, 3, 1]


def test_submit_many_of_nothing_calls_nobody() -> None:
    """No items, no ids and no rpc."""
    there = Accepting()

    assert there.drive(dialogues.submit_many("ns", [])) == []
    assert there.batches == []


def test_submit_many_tells_refused_items_beside_the_ids_of_the_others() -> None:
    """What server or client refuse stands at its place; the rest is submitted all the same."""
    there = Accepting()
    items: list[dict[str, object]] = [
        {"type": "email", "payload": 0},
        {"type": "nope", "payload": 1},
        {"type": "email", "payload": object()},
        {"type": "email", "payload": 3},
    ]

    with pytest.raises(SubmitManyError, match=r"2 of 4 jobs were not stored; the first, jobs\[1\]: no worker") as caught:
        there.drive(dialogues.submit_many("ns", items))

    results = caught.value.results
    assert (results[0], results[3]) == ("id-0", "id-3")
    assert isinstance(results[1], UnknownTypeError)
    assert "jobs[2].payload" in str(results[2])


def test_submit_many_that_fails_part_way_keeps_the_ids_it_has() -> None:
    """A call that fails after others have stored jobs stands at its items, and at those that were not sent any more."""
    there = Accepting(full_from=1)

    with pytest.raises(SubmitManyError, match=r"1500 of 2500 jobs were not stored; the first, jobs\[1000\]: full") as caught:
        there.drive(dialogues.submit_many("ns", ({"type": "email", "payload": n} for n in range(2500))))

    results = caught.value.results
    assert results[:1000] == [f"id-{n}" for n in range(1000)]
    assert {type(each) for each in results[1000:]} == {StoreFullError}
    assert there.batches == [1000, 1000]


def test_submit_many_that_stored_nothing_raises_what_failed() -> None:
    """There is no id to keep."""
    there = Accepting(full_from=0)

    with pytest.raises(StoreFullError):
        there.drive(dialogues.submit_many("ns", ({"type": "email"} for _ in range(2500))))

    assert there.batches == [1000]


def test_list_all_takes_pages_until_the_last() -> None:
    """Short and empty pages do not end the list; an empty token does."""
    pages = [
        job_service_pb2.ListJobsResponse(jobs=[convert.job_to_message(JOB)], next_page_token="a"),
        job_service_pb2.ListJobsResponse(next_page_token="b"),
        job_service_pb2.ListJobsResponse(jobs=[convert.job_to_message(JOB)] * 2),
    ]
    there = server(*(page.SerializeToString() for page in pages))

    jobs = there.drive(dialogues.list_all(calls.pages("ns", calls.job_filter(state="failed")), None))

    requests = [job_service_pb2.ListJobsRequest.FromString(each) for each in there.requests]
    assert len(jobs) == 3
    assert [request.page_token for request in requests] == ["", "a", "b"]
    assert {request.state for request in requests} == {job_pb2.JOB_STATE_FAILED}


def test_list_all_asks_for_no_more_than_the_limit() -> None:
    """The last page is as small as what is missing, and nothing is asked for at limit 0."""
    page = admin_service_pb2.ListFailedJobsResponse(jobs=[convert.job_to_message(JOB)] * 100, next_page_token="a")
    rest = admin_service_pb2.ListFailedJobsResponse(jobs=[convert.job_to_message(JOB)] * 20, next_page_token="b")
    there = server(page.SerializeToString(), rest.SerializeToString())

    jobs = there.drive(dialogues.list_all(calls.failed_pages("ns", calls.job_filter()), 120))

    sizes = [admin_service_pb2.ListFailedJobsRequest.FromString(each).page_size for each in there.requests]
    assert len(jobs) == 120
    assert sizes == [100, 20]
    assert server().drive(dialogues.list_all(calls.pages("ns", calls.job_filter()), 0)) == []


@pytest.mark.parametrize(
    ("raw", "value"), [(b'{"n":9007199254740993}', {"n": 9007199254740993}), (b"null", None), (None, None)]
)
def test_result_of_a_completed_job_is_what_the_handler_returned(raw: bytes | None, value: object) -> None:
    """The result is decoded without loss; none is None."""
    assert dialogues.result_of(msgspec.structs.replace(JOB, state=JobState.COMPLETED, result=raw)) == value


def test_result_of_a_failed_job_tells_why() -> None:
    """The error names job, reason and message."""
    failure = Failure(reason="TIMED_OUT", message="after 30 s", code=4)

    with pytest.raises(JobFailedError, match="job j1 failed: TIMED_OUT: after 30 s") as caught:
        dialogues.result_of(msgspec.structs.replace(JOB, state=JobState.FAILED, failure=failure))

    assert caught.value.metadata["failure_reason"] == "TIMED_OUT"


def test_result_of_a_cancelled_job_tells_the_reason() -> None:
    """The reason that was given with the cancel is in the error."""
    with pytest.raises(JobCancelledError, match="job j1 was cancelled: not wanted"):
        dialogues.result_of(msgspec.structs.replace(JOB, state=JobState.CANCELLED, cancel_reason="not wanted"))


EVENT = JobEvent(
    job_id="j1",
    kind=EventKind.PROGRESS,
    sequence=3,
    cursor="c3",
    state=JobState.PROCESSING,
    attempt=1,
    event_ms=5,
    cancel_requested=False,
    progress=0.5,
    progress_message="half",
    job=None,
    detail=None,
)


def test_watching_goes_on_behind_the_last_event() -> None:
    """Each stream asks for what follows; a sign of life is kept from the reader."""
    watching = Watching("ns", "j1", "c2", clock(*range(10)))
    cursors = [cursor_of(watching)]

    news = []
    for event in (EVENT, replace(EVENT, kind=EventKind.HEARTBEAT, sequence=0)):
        news.append(watching.is_news(event))
        cursors.append(cursor_of(watching))

    assert news == [True, False]
    assert cursors == ["c2", "c3", "c3"]


def cursor_of(watching: Watching) -> str:
    return job_stream_pb2.WatchJobRequest.FromString(watching.call.request).cursor


@pytest.mark.parametrize(
    ("cursor", "last", "has_ended"),
    [
        (None, None, False),
        ("c9", None, True),
        (None, EVENT, False),
        (None, replace(EVENT, state=JobState.COMPLETED), True),
    ],
)
def test_watching_has_ended_with_the_final_event(cursor: str | None, last: JobEvent | None, has_ended: bool) -> None:
    """A stream that ends well without one has told all only to a reader who knew the end."""
    watching = Watching("ns", "j1", cursor, clock(*range(10)))
    if last is not None:
        watching.is_news(last)

    assert watching.has_ended is has_ended


def test_watching_tells_what_was_lost_while_it_was_cut() -> None:
    """Events that are kept no more when the stream is taken up again are told as such, and the rest follows."""
    watching = Watching("ns", "j1", None, clock(*range(10)))
    error = status.CursorTooOldError("j1", 10, "c9")
    at_the_start = watching.skipped(error)
    watching.is_news(EVENT)

    lost = watching.skipped(error)

    assert at_the_start is None
    assert lost is not None
    assert (lost.kind, lost.truncation) == (EventKind.TRUNCATED, Truncation(oldest_sequence=10, dropped_count=6))
    assert cursor_of(watching) == "c9"
    assert watching.skipped(DOWN) is None


@pytest.mark.parametrize("cut", [None, DOWN, status.ServerStoppingError(), status.SlowReaderError()])
def test_watching_calls_again_after_a_cut(cut: GopherError | None) -> None:
    """No server, a server that stops, a reader cut off and a stream that ended early are worth another call, after a pause."""
    watching = Watching("ns", "j1", now=clock(0, 1))

    assert 0 <= watching.pause_seconds(cut) < 0.1


def test_watching_raises_a_refusal() -> None:
    """A job that is gone ends the watch."""
    watching = Watching("ns", "j1", now=clock(0, 1))

    with pytest.raises(JobNotFoundError):
        watching.pause_seconds(JobNotFoundError("j1"))


def test_watching_gives_up_soon_where_nobody_has_ever_answered() -> None:
    """A wrong address is told after as many tries as any other call makes."""
    watching = Watching("ns", "j1")

    for _ in range(5):
        watching.pause_seconds(DOWN)

    with pytest.raises(ServerUnreachableError):
        watching.pause_seconds(DOWN)


def test_watching_gives_up_soon_on_a_server_that_waits_for_redis() -> None:
    """One that has never told an event, and took 5 s to say so, is not asked again."""
    watching = Watching("ns", "j1", now=clock(0, 5))

    with pytest.raises(StoreUnavailableError):
        watching.pause_seconds(StoreUnavailableError("redis does not serve now"))


def test_watching_gives_up_when_nobody_answers_for_long() -> None:
    """A minute after the last event the error is the reader's; an event starts the minute anew."""
    watching = Watching("ns", "j1", now=clock(0, 50, 100, 111))
    watching.is_news(EVENT)

    watching.pause_seconds(DOWN)

    with pytest.raises(ServerUnreachableError):
        watching.pause_seconds(DOWN)
