"""What the three clients do against a real server: the same calls, the same answers, the same errors."""

from __future__ import annotations

import inspect
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pytest

from gopher.client import Client, JobEvent, ServerUnreachableError, SubmitManyError, TaskTree
from gopher.client.asynchronous import AsyncMethods
from gopher.errors import (
    BulkOperationEndedError,
    ConfirmationError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobStateError,
    QueueNotFoundError,
    RequestIdConflictError,
    UnknownTypeError,
    WaitTimeoutError,
)
from gopher.event import LogLine
from gopher.job import Job, JobState
from tests.client.faces import FACES, Face

NO_JOB: Final = "01920000-0000-7000-8000-000000000000"
PATIENCE: Final = 60


@dataclass
class Point:
    x: int
    y: int


def fresh(word: str) -> str:
    """Return a name that no other test has."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def test_clients_have_the_same_methods() -> None:
    """What one client can do the others can, with the same arguments."""

    def face_of(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(each).parameters) for name, each in methods if not name.startswith("_")}

    sync, awaited = face_of(Client), face_of(AsyncMethods)

    assert sync.pop("close") == awaited.pop("aclose")
    assert sync == awaited


@pytest.mark.parametrize("payload", [{"a": [1, 2.5, None]}, 9007199254740993, "text", [], Point(1, 2)])
def test_submit_and_result_bring_a_value_there_and_back(face: Face, payload: object) -> None:
    """What the handler returns is what was submitted, without loss."""
    job_id = face.submit("echo", payload)

    result = face.result(job_id, wait=PATIENCE)

    assert result == ({"x": 1, "y": 2} if isinstance(payload, Point) else payload)


def test_submit_carries_opaque_bytes(face: Face) -> None:
    """Bytes reach a handler that wants bytes."""
    assert face.result(face.submit("size", b"\xff" * 1000), wait=PATIENCE) == 1000


def test_get_returns_the_job_as_submitted(face: Face) -> None:
    """Every option can be read back."""
    queue = fresh("q")
    job_id = face.submit(
        "echo", {"a": 1}, queue=queue, priority="low", labels={"k": "v"}, max_attempts=7, delay_seconds=3600, unique_key="u"
    )

    job = face.get(job_id)

    assert isinstance(job, Job)
    assert (job.id, job.type, job.queue, job.priority, job.state) == (job_id, "echo", queue, "low", JobState.SCHEDULED)
    assert (job.labels, job.max_attempts, job.payload, job.unique_key) == ({"k": "v"}, 7, b'{"a":1}', "u")
    assert job.run_ms is not None
    assert 3_590_000 < job.run_ms - job.submitted_ms < 3_610_000


def test_tree_shows_what_a_job_does(face: Face) -> None:
    """While it runs, its handler and what that awaits; afterwards that it does not run."""
    job_id = face.submit("steps", "endless")
    deadline = time.monotonic() + PATIENCE
    while (running := face.tree(job_id)).task is None or running.task.awaits != "trio.sleep_forever":  # type: ignore[attr-defined]  # a TaskTree
        assert time.monotonic() < deadline, running

    face.cancel(job_id, wait=True)
    ended = face.tree(job_id)

    assert isinstance(running, TaskTree)
    assert running.task is not None
    assert (running.task.name, running.task.awaits) == ("tests.client.app.steps", "trio.sleep_forever")
    assert (ended.task, ended.note) == (None, "it does not run: it is cancelled")  # type: ignore[attr-defined]  # a TaskTree


def test_submit_is_repeatable_by_its_request_id(face: Face) -> None:
    """The same submit again is the same job; another body is refused."""
    request_id = fresh("r")

    first = face.submit("echo", 1, request_id=request_id)

    assert face.submit("echo", 1, request_id=request_id) == first
    assert face.submit_for_receipt("echo", 1, request_id=request_id).is_duplicate  # type: ignore[attr-defined]  # a Receipt
    with pytest.raises(RequestIdConflictError) as caught:
        face.submit("echo", 2, request_id=request_id)
    assert caught.value.metadata["job_id"] == first


def test_submit_many_returns_ids_in_order(face: Face) -> None:
    """More jobs than one call takes are submitted, and each id is that of its item."""
    queue = fresh("q")

    ids = face.submit_many({"type": "echo", "payload": n, "queue": queue} for n in range(1200))

    assert isinstance(ids, list)
    assert len(set(ids)) == 1200
    assert [face.get(ids[n]).payload for n in (0, 999, 1199)] == [b"0", b"999", b"1199"]  # type: ignore[attr-defined]  # a Job


def test_submit_many_tells_which_items_were_refused(face: Face) -> None:
    """The others are submitted all the same."""
    with pytest.raises(SubmitManyError) as caught:
        face.submit_many([{"type": "echo"}, {"type": "no-such-type"}, {"type": "echo", "priority": "urgent"}])

    first, second, third = caught.value.results
    assert face.result(first, wait=PATIENCE) is None
    assert isinstance(second, UnknownTypeError)
    assert isinstance(third, InvalidRequestError)


def test_result_of_a_failed_job_raises(face: Face) -> None:
    """The error tells what the handler raised."""
    with pytest.raises(JobFailedError, match="ValueError: broken"):
        face.result(face.submit("fail", "broken"), wait=PATIENCE)


def test_result_ends_when_its_time_is_over(face: Face) -> None:
    """The job goes on."""
    job_id = face.submit("echo", delay_seconds=3600)

    with pytest.raises(WaitTimeoutError):
        face.result(job_id, wait=0.2)

    assert face.get(job_id).state is JobState.SCHEDULED  # type: ignore[attr-defined]  # a Job


def test_watch_tells_each_change_to_the_end(face: Face) -> None:
    """The first event has the job, progress is told, the last one has the result."""
    job_id = face.submit("steps", delay_seconds=0.5)

    events = face.watch(str(job_id))

    states = [event.state for event in events]
    assert events[0].job is not None
    assert states == sorted(states, key=["scheduled", "enqueued", "processing", "completed"].index)
    assert events[-1].job is not None
    assert (events[-1].job.state, events[-1].job.result) == (JobState.COMPLETED, b'"done"')
    assert any(event.progress_message == "a quarter" and event.progress == 0.25 for event in events)


def test_watch_tells_what_the_handler_says_though_it_comes_late(face: Face) -> None:
    """Log lines and output are told whole, in order, also when the job is over; from any event the rest can be had."""
    job_id = str(face.submit("talk"))
    face.result(job_id, wait=PATIENCE)

    events = face.watch(job_id)
    rest = face.watch(job_id, cursor=events[2].cursor)
    nothing = face.watch(job_id, cursor=events[-1].cursor)

    assert [event.kind.value for event in events] == ["state", "state", "log", "output", "output", "state"]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[2].log == LogLine("warning", "hello")
    assert [event.output and event.output.value for event in events[3:5]] == [{"n": [1, None]}, b"\x00\xff"]
    assert [event.is_final for event in events] == [False] * 5 + [True]
    assert rest == events[3:]
    assert nothing == []


def test_cancel_ends_a_running_job(face: Face) -> None:
    """With wait, the answer comes when the task tree has ended; the reason is kept and told."""
    job_id = str(face.submit("steps", "endless"))
    cancelled: list[object] = []

    def cancel_once_it_runs(event: JobEvent) -> None:
        if event.progress and not cancelled:
            cancelled.append(None)
            other.start()

    with Client(face.client.address) as client:  # type: ignore[attr-defined]  # each face has its client
        other = threading.Thread(
            target=lambda: cancelled.append(client.cancel(job_id, reason="enough", actor="ann", grace=2.0, wait=True))
        )
        events = face.watch(job_id, cancel_once_it_runs)
        other.join(PATIENCE)

    assert events[-1].state is JobState.CANCELLED
    assert isinstance(cancelled[1], Job)
    assert cancelled[1].cancel_requested
    assert (cancelled[1].state, cancelled[1].cancel_reason, cancelled[1].cancel_actor) == (JobState.CANCELLED, "enough", "ann")
    with pytest.raises(JobCancelledError, match="enough"):
        face.result(job_id, wait=PATIENCE)


def test_cancel_ends_a_waiting_job_at_once(face: Face) -> None:
    """Nothing runs, so there is nothing to wait for."""
    job = face.cancel(face.submit("echo", delay_seconds=3600))

    assert isinstance(job, Job)
    assert job.state is JobState.CANCELLED


def test_retry_and_delete(face: Face) -> None:
    """A failed job gets a new generation; a deleted one is gone."""
    job_id = face.submit("fail", "broken")
    with pytest.raises(JobFailedError):
        face.result(job_id, wait=PATIENCE)

    retried = face.retry(job_id)
    with pytest.raises(JobFailedError):
        face.result(job_id, wait=PATIENCE)
    face.delete(job_id)

    assert isinstance(retried, Job)
    assert retried.generation == 1
    with pytest.raises(JobNotFoundError):
        face.get(job_id)


def test_list_finds_jobs_by_what_is_given(face: Face) -> None:
    """Queue, state, type and labels narrow the list; the limit cuts it."""
    queue = fresh("q")
    face.submit_many({"type": "echo", "queue": queue, "delay_seconds": 3600, "labels": {"n": str(n % 2)}} for n in range(130))

    def count(**options: object) -> int:
        found = face.list(queue=queue, **options)
        assert isinstance(found, list)
        return len(found)

    assert count(limit=None) == 130
    assert count() == 100
    assert count(limit=3) == 3
    assert count(state="scheduled", labels={"n": "1"}, limit=None) == 65
    assert count(state="failed") == 0
    assert count(type="size") == 0


def test_dead_letters_are_listed_and_requeued(face: Face) -> None:
    """A failed job is among the dead letters until it is given new attempts."""
    ids = [str(face.submit("fail", n)) for n in range(2)]
    for job_id in ids:
        with pytest.raises(JobFailedError):
            face.result(job_id, wait=PATIENCE)

    listed = face.list_failed(type="fail", limit=None)
    count = face.requeue_failed(job_ids=ids)

    assert isinstance(listed, list)
    assert set(ids) <= {job.id for job in listed}
    assert count == 2


def test_bulk_operation_is_started_waited_for_and_listed(face: Face) -> None:
    """It acts on what matches, tells how it comes on, and what is not confirmed is refused."""
    queue = fresh("q")
    told: list[object] = []
    face.pause(queue)
    face.submit_many({"type": "echo", "queue": queue, "labels": {"n": str(n)}} for n in range(3))

    with pytest.raises(ConfirmationError):
        face.start_bulk_operation("delete", queue=queue)
    cancel = face.start_bulk_operation("cancel", queue=queue, labels={"n": "1"}, reason="not wanted", grace=1.0)
    cancelled = face.wait_bulk_operation(cancel.id, wait=PATIENCE, tell=told.append)  # type: ignore[attr-defined]  # an operation
    delete = face.start_bulk_operation("delete", queue=queue, states=["enqueued", "cancelled"], type="echo", confirm=queue)
    deleted = face.wait_bulk_operation(delete.id, wait=PATIENCE)  # type: ignore[attr-defined]  # an operation
    listed = face.list_bulk_operations()

    assert (cancelled.state, cancelled.done) == ("completed", 1)  # type: ignore[attr-defined]  # an operation
    assert told[-1] == cancelled
    assert deleted.done == 3  # type: ignore[attr-defined]  # an operation
    assert isinstance(listed, list)
    assert [each.id for each in listed[:2]] == [delete.id, cancel.id]  # type: ignore[attr-defined]  # operations
    assert face.get_bulk_operation(delete.id) == deleted  # type: ignore[attr-defined]  # an operation


def test_bulk_operation_that_has_ended_cannot_be_cancelled(face: Face) -> None:
    """The error says how it stands; words that are none and a moment without a zone are refused before anything is sent."""
    ended = face.wait_bulk_operation(face.start_bulk_operation("retry", queue=fresh("q")).id)  # type: ignore[attr-defined]  # an operation

    with pytest.raises(BulkOperationEndedError):
        face.cancel_bulk_operation(ended.id)  # type: ignore[attr-defined]  # an operation
    for options in ({"kind": "purge"}, {"kind": "retry", "states": ["dead"]}):
        with pytest.raises(InvalidRequestError):
            face.start_bulk_operation(**options)
    with pytest.raises(InvalidRequestError):
        face.start_bulk_operation("retry", submitted_before=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the fault


def test_queues_are_paused_resumed_and_purged(face: Face) -> None:
    """A paused queue is created, keeps what is submitted, and loses what waits when purged by name."""
    queue = fresh("q")

    paused = face.pause(queue)
    face.submit_many({"type": "echo", "queue": queue} for _ in range(3))
    figures = {each.name: each for each in face.queues()}[queue]  # type: ignore[attr-defined]  # a list of Queue
    with pytest.raises(ConfirmationError):
        face.purge(queue, confirm="another")
    purged = face.purge(queue, confirm=queue)
    resumed = face.resume(queue)

    assert paused.paused  # type: ignore[attr-defined]  # a Queue
    assert (figures.paused, figures.jobs["enqueued"], figures.enqueued["normal"], figures.submitted_total) == (True, 3, 3, 3)
    assert purged == 3
    assert not resumed.paused  # type: ignore[attr-defined]  # a Queue
    with pytest.raises(QueueNotFoundError):
        face.resume(fresh("q"))


def test_figures_tell_of_workers_types_and_redis(face: Face) -> None:
    """The worker that lives, what it handles, its slots, and Redis itself."""
    stats, workers, types = face.stats(), face.workers(), face.types()

    assert stats.worker_count == 1  # type: ignore[attr-defined]  # a Stats
    assert stats.slot_count == 100  # type: ignore[attr-defined]  # a Stats
    assert stats.redis.used_memory_bytes > 0  # type: ignore[attr-defined]  # a Stats
    assert [(worker.slot_count, "echo" in worker.types, worker.draining) for worker in workers] == [(100, True, False)]  # type: ignore[attr-defined]  # a list
    assert {"echo", "fail", "steps"} <= {each.type for each in types if each.served}  # type: ignore[attr-defined]  # a list
    assert face.is_serving()


def test_audit_finds_nothing(face: Face) -> None:
    """Every job stands in exactly one place; the last report is done."""
    reports = face.audit()

    assert reports[-1].done
    assert reports[-1].finding_count == 0


@pytest.mark.parametrize("method", ["get", "cancel", "retry", "delete", "result"])
def test_unknown_job_is_told_by_its_own_error(face: Face, method: str) -> None:
    """The error's class, reason and facts are those that the server raised."""
    with pytest.raises(JobNotFoundError) as caught:
        getattr(face, method)(NO_JOB)

    assert caught.value.reason == "JOB_NOT_FOUND"
    assert caught.value.metadata["job_id"] == NO_JOB


def test_refusal_names_each_field(face: Face) -> None:
    """All faults of a request come back at once."""
    with pytest.raises(InvalidRequestError) as caught:
        face.submit("Bad Type", queue="{x}", max_attempts=1000)

    assert {(each.field, each.reason) for each in caught.value.violations} == {
        ("job.type", "BAD_NAME"),
        ("job.queue", "BAD_NAME"),
        ("job.retry_policy.max_attempts", "OUT_OF_RANGE"),
    }


def test_retry_of_a_waiting_job_is_refused(face: Face) -> None:
    """The error says what the state allows."""
    queue = fresh("q")
    face.pause(queue)

    with pytest.raises(JobStateError):
        face.retry(face.submit("echo", queue=queue))


@pytest.mark.parametrize("kind", FACES)
def test_server_that_is_not_there_is_told_with_its_address(kind: str) -> None:
    """After a few tries the error names the address."""
    face = FACES[kind]("127.0.0.1:1")

    with pytest.raises(ServerUnreachableError, match=r"no server answers at 127\.0\.0\.1:1: Connection refused"):
        face.get(NO_JOB)

    face.close()
