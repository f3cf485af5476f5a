"""Waiting for a job and following it, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import JobNotFoundError
from gopher.event import EventKind
from gopher.job import Failure, Move, Outcome
from gopher.store.codec import encode_failure
from gopher.store.history import Saying
from gopher.store.lifecycle import Settlement
from gopher.wire.status import failure_from_status
from tests.service.watcher import PATIENCE_SECONDS, Watcher, say, watch_until, watched

if TYPE_CHECKING:
    from tests.service.conftest import Rig


async def test_watch_tells_every_event_from_first_to_last(rig: Rig) -> None:
    """The first event holds the whole job, so does the last, which is final and ends the stream."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            (claimed,) = await rig.claim()
            await say(rig, claimed, 1, kind=EventKind.PROGRESS)
            await say(rig, claimed, 2)
            await watcher.until(4)
            await rig.settle(claimed, Move.COMPLETE)

    assert watcher.states == ["ENQUEUED", "PROCESSING", "PROCESSING", "PROCESSING", "COMPLETED"]
    assert watcher.kinds == ["state", "state", "progress", "log", "state"]
    assert watcher.sequences == [1, 2, 3, 4, 5]
    assert [event.HasField("job") for event in watcher.events] == [True, False, False, False, True]
    assert [event.attempt for event in watcher.events] == [0, 1, 1, 1, 1]
    assert [event.progress for event in watcher.events] == [0, 0, 0.5, 0.5, 0.5]
    assert (watcher.events[2].progress_message, watcher.events[3].log.message) == ("1", "2")
    assert watcher.events[4].job.result == b'{"done":true}'
    moments = [event.event_time.ToMilliseconds() for event in watcher.events]
    assert moments == sorted(moments)


async def test_watch_of_a_final_job_tells_its_whole_life(rig: Rig) -> None:
    """Though nobody has watched it before; then the stream ends."""
    await rig.submit()
    job_id = await rig.complete()

    events = await watched(rig, job_id)

    assert [event.state for event in events] == [
        job_pb2.JOB_STATE_ENQUEUED,
        job_pb2.JOB_STATE_PROCESSING,
        job_pb2.JOB_STATE_COMPLETED,
    ]
    assert (events[0].job.id, events[-1].job.id) == (job_id, job_id)


async def test_watch_tells_what_a_handler_gives_and_what_gopher_tells_of_it(rig: Rig) -> None:
    """Output, children and notices come as they were kept."""
    await rig.submit()
    (job,) = await rig.claim()
    details = [
        (EventKind.OUTPUT, b"application/octet-stream a b\xff\n"),
        (EventKind.CHILD, f"{job.id} email enqueued".encode()),
        (EventKind.NOTICE, b"STUCK the handler does not end"),
    ]
    sayings = [Saying(job.id, job.token, number, kind, "", detail) for number, (kind, detail) in enumerate(details, 1)]
    await rig.store.histories.report(rig.namespace, "default", sayings)
    await rig.settle(job, Move.COMPLETE)

    _, _, output, child, notice, _ = await watched(rig, job.id)

    assert (output.output.content_type, output.output.data) == ("application/octet-stream", b"a b\xff\n")
    assert (child.child.job_id, child.child.type, child.child.state) == (job.id, "email", job_pb2.JOB_STATE_ENQUEUED)
    assert (notice.notice.reason, notice.notice.message) == ("STUCK", "the handler does not end")


async def test_watch_tells_that_a_cancel_was_asked_for(rig: Rig) -> None:
    """The mark is an event of its own while the job goes on, and stays until its end."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(2)
            await rig.store.lifecycle.cancel(rig.namespace, job_id, reason="x", grace_ms=1000)
            await watcher.until(3)
            await rig.settle(claimed, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)

    assert watcher.kinds == ["state", "state", "cancel_requested", "state"]
    assert watcher.states == ["ENQUEUED", "PROCESSING", "PROCESSING", "CANCELLED"]
    assert [event.cancel_requested for event in watcher.events] == [False, False, True, True]


async def test_watch_goes_on_after_a_retry(rig: Rig) -> None:
    """A job that fails and is tried again is not at its end."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            (claimed,) = await rig.claim()
            await rig.settle(claimed, Move.RETRY, Outcome.RAISED)
            await rig.store.lifecycle.requeue(rig.namespace, [job_id])
            await rig.complete()

    assert watcher.states == ["ENQUEUED", "PROCESSING", "RETRYING", "ENQUEUED", "PROCESSING", "COMPLETED"]


async def test_watch_of_a_requeued_job_goes_on_past_its_first_end(rig: Rig) -> None:
    """An end that was taken back is an event like others; only the last one ends the stream."""
    job_id = await rig.submit()
    await rig.fail()
    await rig.store.lifecycle.requeue(rig.namespace, [job_id])
    await watch_until(rig, job_id, 4)
    await rig.complete()

    events = await watched(rig, job_id)

    assert [job_pb2.JobState.Name(event.state)[10:] for event in events] == [
        "ENQUEUED",
        "PROCESSING",
        "FAILED",
        "ENQUEUED",
        "PROCESSING",
        "COMPLETED",
    ]
    assert [event.HasField("job") for event in events] == [True, False, False, False, False, True]


async def test_watch_of_a_job_that_is_deleted_is_not_found(rig: Rig) -> None:
    """A watcher is not left waiting for a job that is no more."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            await rig.jobs.delete_job(pb.DeleteJobRequest(namespace=rig.namespace, job_id=job_id))

    assert isinstance(watcher.error, JobNotFoundError)


async def test_watch_misses_nothing_when_the_connection_was_renewed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened meanwhile is read from the history, once."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            (feed,) = rig.watch._feeds._feeds.values()
            with monkeypatch.context() as patch:
                patch.setattr(type(feed), "put_nowait", lambda *_: None)  # no message is heard
                await rig.complete()
                await trio.testing.wait_all_tasks_blocked(0.05)
            before = len(watcher.events)
            for renewed in rig.store.link.on_reconnect:
                renewed()

    assert before == 1
    assert watcher.states == ["ENQUEUED", "PROCESSING", "COMPLETED"]
    assert watcher.sequences == [1, 2, 3]


async def test_wait_answers_at_the_jobs_end(rig: Rig) -> None:
    """WaitJob of a job that is final answers at once, of another one when it is."""
    job_id = await rig.submit()
    request = pb.WaitJobRequest(namespace=rig.namespace, job_id=job_id)
    replies: list[job_pb2.Job] = []

    async def wait() -> None:
        replies.append((await rig.watch.wait_job(request)).job)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            before = list(replies)
            await rig.complete()
        await wait()

    assert before == []
    assert [job.state for job in replies] == [job_pb2.JOB_STATE_COMPLETED] * 2


async def test_wait_for_a_job_that_is_deleted_is_not_found(rig: Rig) -> None:
    """As the proto says."""
    job_id = await rig.submit()
    caught: list[Exception] = []

    async def wait() -> None:
        with pytest.raises(JobNotFoundError) as raised:
            await rig.watch.wait_job(pb.WaitJobRequest(namespace=rig.namespace, job_id=job_id))
        caught.append(raised.value)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await rig.jobs.delete_job(pb.DeleteJobRequest(namespace=rig.namespace, job_id=job_id))

    assert len(caught) == 1


async def test_idle_watchers_cost_redis_nothing(rig: Rig) -> None:
    """A hundred watchers of jobs that do not change send no command."""
    ids = [await rig.submit() for _ in range(10)]
    watchers = [Watcher(rig, ids[number % 10]) for number in range(100)]

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for watcher in watchers:
                nursery.start_soon(watcher.run)
            for watcher in watchers:
                await watcher.until(1)
            before = await commands(rig)
            await trio.testing.wait_all_tasks_blocked(0.3)
            after = await commands(rig)
            nursery.cancel_scope.cancel()

    assert after - before == 1  # the question itself


async def commands(rig: Rig) -> int:
    """Return how many commands this client has sent."""
    info: bytes = await rig.store.link.call("CLIENT", "INFO")
    return int(info.decode().partition("tot-cmds=")[2].split()[0])


async def test_watch_says_why_an_attempt_has_failed(rig: Rig) -> None:
    """With each attempt's own reason, also where the history is begun after the fact, and after a requeue has cleared the job's."""
    job_id = await rig.submit()
    for word, move in (("FIRST", Move.RETRY), ("SECOND", Move.BURY)):
        (job,) = await rig.claim()
        failure = encode_failure(Failure(reason=word, message="m"))
        await rig.store.lifecycle.settle(
            rig.namespace, "default", [Settlement(job.id, job.token, move, Outcome.RAISED, failure=failure)]
        )
        await rig.store.lifecycle.promote(rig.namespace, "default")

    events = await watched(rig, job_id)
    await rig.store.lifecycle.requeue(rig.namespace, [job_id])
    await rig.complete()
    again = await watched(rig, job_id)

    told = [(event.state, failure_from_status(event.failure).reason) for event in events if event.HasField("failure")]
    assert told == [(job_pb2.JOB_STATE_RETRYING, "FIRST"), (job_pb2.JOB_STATE_FAILED, "SECOND")]
    assert [event.failure for event in again if event.HasField("failure")] == [
        e.failure for e in events if e.HasField("failure")
    ]


async def test_watch_says_why_the_job_waits(rig: Rig) -> None:
    """In its first event, and in later ones as long as they are the newest."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            (job,) = await rig.claim()
            failure = encode_failure(Failure(reason="X", message="m"))
            settlement = Settlement(job.id, job.token, Move.RETRY, Outcome.RAISED, 60_000, failure=failure)
            await rig.store.lifecycle.settle(rig.namespace, "default", [settlement])
            await watcher.until(3)
            await rig.store.lifecycle.cancel(rig.namespace, job_id, reason="", grace_ms=0)

    kinds = [event.waiting_reason.kind for event in watcher.events]
    assert kinds[0] == job_pb2.WAITING_KIND_NO_WORKER == watcher.events[0].job.waiting_reason.kind
    assert kinds[1:] == [0, job_pb2.WAITING_KIND_BACKING_OFF, 0]
