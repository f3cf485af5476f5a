"""What a client's nursery says and when: bounds, order, and what is said again after a cut. No server, no clock."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.client.nursery_stream import MAX_UNANSWERED, MAX_UNANSWERED_BYTES, NurseryStream
from gopher.errors import (
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    NurseryGoneError,
    StoreUnavailableError,
    TooManyChildrenError,
    UnknownTypeError,
)
from gopher.job import JobState
from gopher.nursery import MAX_UNSENT_BYTES, MAX_WIDTH
from gopher.wire import convert
from gopher.wire.status import SlowReaderError, to_status

if TYPE_CHECKING:
    from gopher.client.nursery import Child

CUT = StoreUnavailableError("cut")


class Desk:
    """A nursery and the server that it talks to, which is the test."""

    def __init__(self, policy: str = "all", grace_seconds: float = 10.0) -> None:
        self.time = 0.0
        self.ended = threading.Event()
        self.decided = 0
        self.stream = NurseryStream("ns", policy, grace_seconds, self.ended, lambda: self.time)
        self.stream.on_decided = self._note_decision

    def _note_decision(self) -> None:
        self.decided += 1

    def add(self, count: int = 1, payload: object = None) -> list[Child]:
        return [self.stream.add("echo", payload, "cancel", {}) for _ in range(count)]

    def said(self) -> list[pb.RunNurseryRequest]:
        """Return what the client has to say now."""
        found = []
        while (request := self.stream.next_request()) is not None:
            found.append(pb.RunNurseryRequest.FromString(request))
        return found

    def words(self) -> list[str]:
        return [_word(request) for request in self.said()]

    def connect(self) -> list[str]:
        """Begin a call, open the nursery, and return what the client says then."""
        self.stream.begin_call()
        assert self.words() == ["open"]
        self.tell(opened=pb.NurseryOpened(nursery_id="n", resume_token="t"))
        return self.words()

    def tell(self, **message: object) -> None:
        self.stream.take(pb.RunNurseryResponse(**message).SerializeToString())  # type: ignore[arg-type]  # the test names a message

    def started(self, *numbers: int) -> None:
        for number in numbers:
            self.tell(started=pb.ChildStarted(number=number, job_id=f"j{number}"))

    def end(self, number: int, state: JobState, *, by_nursery: bool = False) -> None:
        job = job_pb2.Job(
            id=f"j{number}", type="echo", queue="default", state=convert.STATE_NUMBER[state], priority=job_pb2.PRIORITY_NORMAL
        )
        self.tell(ended=pb.ChildEnded(number=number, job=job, cancelled_by_nursery=by_nursery))


def _word(request: pb.RunNurseryRequest) -> str:
    match request.WhichOneof("message"):
        case "start":
            return f"start {request.start.number}"
        case "cancel":
            return f"cancel {request.cancel.through_number}"
        case word:
            return str(word)


def test_first_call_opens_where_the_first_child_is_to_run() -> None:
    """Policy, grace, namespace and queue are said, and no child before the nursery stands."""
    desk = Desk("any", 2.5)
    desk.stream.add("echo", 1, "cancel", {"queue": "here"})
    desk.stream.begin_call()

    (opening,) = desk.said()

    assert (opening.open.namespace, opening.open.queue) == ("ns", "here")
    assert opening.open.policy == pb.NURSERY_POLICY_ANY
    assert opening.open.grace.ToMilliseconds() == 2_500
    assert opening.open.resume_token == ""


def test_no_more_children_are_on_their_way_than_the_bound() -> None:
    """The others wait until some are answered."""
    desk = Desk()
    desk.add(MAX_UNANSWERED + 10)

    first = desk.connect()
    desk.started(1, 2, 3)
    following = desk.words()

    assert len(first) == MAX_UNANSWERED
    assert following == [f"start {MAX_UNANSWERED + number}" for number in (1, 2, 3)]


def test_no_more_bytes_are_on_their_way_than_the_bound() -> None:
    """Large payloads are few at a time; one that is larger than the bound goes alone."""
    desk = Desk()
    desk.add(5, b"x" * (MAX_UNANSWERED_BYTES // 2 - 100))
    desk.add(1, b"x" * (MAX_UNANSWERED_BYTES + 1))

    first = desk.connect()
    desk.started(1, 2)
    second = desk.words()
    desk.started(3, 4)
    third = desk.words()
    desk.started(5)

    assert first == ["start 1", "start 2"]
    assert second == ["start 3", "start 4"]
    assert third == ["start 5"]
    assert desk.words() == ["start 6"]


def test_what_waits_here_is_bounded() -> None:
    """Neither more children than a nursery may have, nor more bytes than the bound, are taken in."""
    wide, heavy = Desk(), Desk()
    wide.add(MAX_WIDTH)

    with pytest.raises(TooManyChildrenError):
        wide.add()
    with pytest.raises(TooManyChildrenError):
        heavy.add(3, b"x" * (MAX_UNSENT_BYTES // 2 - 100))


def test_after_a_cut_the_unanswered_are_said_again_in_order() -> None:
    """Those that were answered are not; the right to resume is shown; then come those that were never sent."""
    desk = Desk()
    desk.add(4)
    desk.connect()
    desk.started(1, 3)
    assert desk.stream.pause_seconds(CUT) is not None
    desk.add(1)

    desk.stream.begin_call()
    (opening,) = desk.said()
    desk.tell(opened=pb.NurseryOpened(nursery_id="n", resume_token="t"))

    assert opening.open.resume_token == "t"
    assert desk.words() == ["start 2", "start 4", "start 5"]


def test_answer_that_comes_before_it_is_said_again_spares_that() -> None:
    """A server that tells all once more has stored it already."""
    desk = Desk()
    desk.add(2)
    desk.connect()
    desk.stream.pause_seconds(CUT)
    desk.stream.begin_call()
    desk.said()
    desk.started(1)

    desk.tell(opened=pb.NurseryOpened(nursery_id="n", resume_token="t"))

    assert desk.words() == ["start 2"]


def test_cancel_goes_before_what_follows_it_and_is_said_again_after_a_cut() -> None:
    """It means the children that were started before it; those that were never sent need no server."""
    desk = Desk()
    (first,) = desk.add()
    desk.connect()
    (unsent,) = desk.add()
    desk.stream.cancel()
    (later,) = desk.add()

    said = desk.words()
    desk.stream.pause_seconds(CUT)
    again = desk.connect()

    assert said == ["cancel 2", "start 3"]
    assert again == ["start 1", "cancel 2", "start 3"]
    assert (first.state, unsent.state, later.state) == (None, JobState.CANCELLED, None)


def test_close_comes_last_and_leave_when_all_have_ended() -> None:
    """The block may end with the last child, and says so."""
    desk = Desk()
    desk.add()
    desk.connect()
    desk.stream.close()
    closing = desk.words()
    before = desk.ended.is_set()
    desk.end(1, JobState.COMPLETED)

    assert closing == ["close"]
    assert (before, desk.ended.is_set()) == (False, True)
    assert desk.words() == ["leave"]
    assert desk.stream.is_over
    desk.stream.raise_errors(None)


def test_first_failure_decides_once_and_is_said_to_the_server() -> None:
    """The server has decided the same; another one after a cut would not know of a refusal."""
    desk = Desk()
    desk.add(3)
    desk.connect()
    desk.tell(started=pb.ChildStarted(number=1, error=to_status(UnknownTypeError("echo"))))
    said = desk.words()
    (late,) = desk.add()
    desk.end(2, JobState.CANCELLED, by_nursery=True)
    desk.end(3, JobState.FAILED)
    desk.stream.close()

    assert desk.decided == 1
    assert said == ["cancel 3"]
    assert (late.state, late.by_nursery) == (JobState.CANCELLED, True)
    with pytest.RaisesGroup(UnknownTypeError, JobFailedError):
        desk.stream.raise_errors(None)


def test_what_is_told_twice_counts_once() -> None:
    """After a cut all is told once more; an end that says otherwise changes nothing."""
    desk = Desk("collect")
    (child,) = desk.add()
    desk.connect()
    desk.end(1, JobState.COMPLETED)
    desk.end(1, JobState.FAILED)
    desk.started(1)
    desk.tell(ended=pb.ChildEnded(number=7))
    desk.tell(heartbeat=pb.Heartbeat())

    assert child.state is JobState.COMPLETED


def test_child_that_is_kept_no_more_is_an_error() -> None:
    """Nobody knows how it has ended."""
    desk = Desk()
    (child,) = desk.add()
    desk.connect()
    desk.started(1)
    desk.tell(ended=pb.ChildEnded(number=1))

    with pytest.raises(JobNotFoundError):
        child.outcome()
    with pytest.RaisesGroup(JobNotFoundError):
        desk.stream.raise_errors(None)


def test_cut_is_mended_within_the_grace_and_not_after() -> None:
    """Then the children are lost: the block ends with the error, and whoever waits for an answer is told."""
    desk = Desk(grace_seconds=5.0)
    answered = threading.Event()
    waiting = desk.stream.add("echo", 1, "cancel", {}, answered)
    desk.connect()

    assert desk.stream.pause_seconds(CUT) is not None
    desk.time = 4.0
    assert desk.stream.pause_seconds(SlowReaderError()) is not None
    assert desk.stream.pause_seconds(None) is not None
    desk.time = 5.1
    assert desk.stream.pause_seconds(CUT) is None
    desk.stream.close()

    assert waiting.error is CUT
    assert answered.is_set()
    assert desk.ended.is_set()
    assert desk.decided == 1
    with pytest.RaisesGroup(StoreUnavailableError):
        desk.stream.raise_errors(None)


def test_nursery_that_is_gone_is_not_asked_for_again() -> None:
    """A refusal is final, at any time."""
    desk = Desk()
    desk.add()
    desk.connect()

    assert desk.stream.pause_seconds(NurseryGoneError("n")) is None
    with pytest.RaisesGroup(NurseryGoneError):
        desk.stream.raise_errors(None)


def test_own_error_of_the_block_comes_first_and_a_cancel_goes_on_as_it_is() -> None:
    """So that `except*` sees both, and a program that is told to end ends."""
    desk = Desk()
    desk.add()
    desk.connect()
    desk.end(1, JobState.FAILED)

    with pytest.raises(KeyboardInterrupt):
        desk.stream.raise_errors(KeyboardInterrupt())
    with pytest.RaisesGroup(KeyError, JobFailedError):
        desk.stream.raise_errors(KeyError("own"))


def test_block_that_has_ended_takes_no_children() -> None:
    """Nor does one that is lost send any."""
    desk = Desk()
    desk.stream.close()

    with pytest.raises(RuntimeError):
        desk.add()
    assert desk.ended.is_set()


@pytest.mark.parametrize(("policy", "grace"), [("most", 10.0), ("all", 0.9), ("all", 300.1), ("all", float("nan"))])
def test_nursery_that_cannot_be_is_refused(policy: str, grace: float) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequestError):
        Desk(policy, grace)


def test_thread_that_sends_waits_for_what_there_is_to_say() -> None:
    """It is woken by a child, and ends when all is said or another call begins."""
    desk = Desk()
    requests = desk.stream.requests()
    first = next(requests)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.extend(requests))
    thread.start()
    desk.tell(opened=pb.NurseryOpened(nursery_id="n", resume_token="t"))
    desk.add()
    while len(got) < 1:
        thread.join(0.01)
    desk.stream.begin_call()
    thread.join(30)

    assert pb.RunNurseryRequest.FromString(first).HasField("open")
    assert [_word(pb.RunNurseryRequest.FromString(each)) for each in got] == ["start 1"]
    assert not thread.is_alive()
