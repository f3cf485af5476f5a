"""How the clients wait: for minutes, through cuts and restarts; time is the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from gopher_pb.v1 import admin_service_pb2, bulk_pb2

from gopher.client import bulk, dialogues
from gopher.client.channel import ServerUnreachableError
from gopher.errors import CallExpiredError, WaitTimeoutError
from gopher.job import JobState
from gopher.wire import status
from tests.client.test_dialogues import DOWN, JOB, Server, server, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.client.test_dialogues import Answer

RUNNING = told(msgspec.structs.replace(JOB, state=JobState.PROCESSING))
DONE = told(msgspec.structs.replace(JOB, state=JobState.COMPLETED))
ENDED = told(msgspec.structs.replace(JOB, state=JobState.CANCELLED))


class Hours:
    """A clock that the answers set: each is given at its moment."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def server(self, *answers: tuple[float, Answer]) -> Server:
        def play() -> Iterator[Answer]:
            for moment, answer in answers:
                self.now = moment
                yield answer

        return Server(play())


def test_wait_goes_on_while_there_is_time() -> None:
    """A wait longer than the server allows for a call is made of several."""
    hours = Hours()
    there = hours.server((240, CallExpiredError("over")), (480, CallExpiredError("over")), (500, DONE))

    job = there.drive(dialogues.wait("ns", "j1", 600.0, hours))

    assert job.state is JobState.COMPLETED
    assert there.deadlines == [240.0, 240.0, 120.0]


def test_wait_tells_when_its_time_is_over() -> None:
    """The job goes on, and the error says where it stands."""
    hours = Hours()
    there = hours.server((5, CallExpiredError("over")), (5, RUNNING))

    with pytest.raises(WaitTimeoutError, match="job j1 is processing after 5 s; it goes on") as caught:
        there.drive(dialogues.wait("ns", "j1", 5.0, hours))

    assert caught.value.metadata == {"job_id": "j1", "state": "processing"}


def test_wait_of_no_time_is_a_look() -> None:
    """With 0 seconds a final job is returned and any other is too late."""
    assert server(DONE).drive(dialogues.wait("ns", "j1", 0)).state is JobState.COMPLETED
    with pytest.raises(WaitTimeoutError):
        server(told(JOB)).drive(dialogues.wait("ns", "j1", 0))


def test_wait_survives_a_server_that_is_away_for_a_while() -> None:
    """All repeats of one call may fail; while not yet a minute has passed, the wait goes on."""
    hours = Hours()
    there = hours.server(*((0.1 * turn, DOWN) for turn in range(6)), (40, DOWN), (59, DONE))

    job = there.drive(dialogues.wait("ns", "j1", None, hours))

    assert job.state is JobState.COMPLETED


def test_wait_goes_on_after_a_cut_however_long_it_has_lasted() -> None:
    """A call that is cut after minutes is one that was answered until then: a look tells so, and the wait goes on."""
    hours = Hours()
    there = hours.server(
        (100, DOWN), (101, told(JOB)), (220, status.ServerStoppingError()), (221, DOWN), (223, told(JOB)), (400, DONE)
    )

    job = there.drive(dialogues.wait("ns", "j1", None, hours))

    assert job.state is JobState.COMPLETED
    assert there.paths == ["WaitJob", "GetJob", "WaitJob", "GetJob", "GetJob", "WaitJob"]


def test_wait_returns_a_job_that_has_ended_while_it_was_cut() -> None:
    """What the look finds final needs no other wait."""
    hours = Hours()
    there = hours.server((100, DOWN), (105, DOWN), (159, DONE))

    assert there.drive(dialogues.wait("ns", "j1", None, hours)).state is JobState.COMPLETED
    assert there.paths == ["WaitJob", "GetJob", "GetJob"]


def test_wait_gives_up_when_nothing_answers_for_long() -> None:
    """A minute after it was cut even a wait without an end ends."""
    hours = Hours()
    there = hours.server((100, DOWN), (101, DOWN), (130, CallExpiredError("hung")), (161, DOWN))

    with pytest.raises(ServerUnreachableError):
        there.drive(dialogues.wait("ns", "j1", None, hours))


def test_wait_gives_up_at_its_end_when_nothing_answers() -> None:
    """One that has an end does not outlast it by more than a try."""
    hours = Hours()
    there = hours.server((8, DOWN), (13, DOWN))

    with pytest.raises(ServerUnreachableError):
        there.drive(dialogues.wait("ns", "j1", 10.0, hours))


def test_cancel_waits_for_the_end_as_any_wait_does() -> None:
    """However long the handler's cleanup takes, and through cuts; what has ended at once is not waited for."""
    hours = Hours()
    there = hours.server((0, RUNNING), (240, CallExpiredError("over")), (300, DOWN), (301, RUNNING), (500, ENDED))
    asked = {"reason": "", "actor": "", "grace_seconds": 600.0, "wait_final": True, "now": hours}

    job = there.drive(dialogues.cancel("ns", "j1", **asked))  # type: ignore[arg-type]  # the options of a cancel
    at_once = server(ENDED)

    assert job.state is JobState.CANCELLED
    assert there.paths == ["CancelJob", "WaitJob", "WaitJob", "GetJob", "WaitJob"]
    assert at_once.drive(dialogues.cancel("ns", "j1", **asked)).state is JobState.CANCELLED  # type: ignore[arg-type]  # likewise
    assert at_once.paths == ["CancelJob"]


def test_wait_for_a_bulk_operation_survives_a_server_that_is_away_for_a_while() -> None:
    """It has no end that a restart could cut short, as the wait for a job."""
    hours = Hours()
    operation = bulk_pb2.BulkOperation(id="b1", kind=bulk_pb2.BULK_KIND_CANCEL, state=bulk_pb2.BULK_STATE_RUNNING)
    runs = admin_service_pb2.GetBulkOperationResponse(operation=operation).SerializeToString()
    operation.state = bulk_pb2.BULK_STATE_COMPLETED
    done = admin_service_pb2.GetBulkOperationResponse(operation=operation).SerializeToString()
    there = hours.server((0, runs), *((0.1 * turn, DOWN) for turn in range(6)), (50, done))

    assert there.drive(bulk.wait("ns", "b1", None, bulk.nobody, hours)).id == "b1"
