"""Waiting for a job and following it, on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import job_event_pb2, job_pb2, job_stream_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import JobNotFoundError
from gopher.job import Move, Outcome
from gopher.wire.status import SlowReaderError

if TYPE_CHECKING:
    from tests.service.conftest import Rig

PATIENCE_SECONDS = 30.0


class Watcher:
    """Takes what a WatchJob sends."""

    def __init__(self, rig: Rig, job_id: str) -> None:
        self.events: list[job_event_pb2.JobEvent] = []
        self.error: Exception | None = None
        self.ended = trio.Event()
        self._rig = rig
        self._job_id = job_id
        self._news = trio.Event()

    async def run(self) -> None:
        request = job_stream_pb2.WatchJobRequest(namespace=self._rig.namespace, job_id=self._job_id)
        try:
            await self._rig.watch.watch_job(request, self.send)
        except (JobNotFoundError, SlowReaderError) as error:
            self.error = error
        self.ended.set()
        self._news.set()

    async def send(self, message: job_stream_pb2.WatchJobResponse) -> None:
        self.events.append(message.event)
        self._news.set()
        await trio.lowlevel.checkpoint()

    async def until(self, count: int) -> None:
        """Wait for so many events."""
        while len(self.events) < count and not self.ended.is_set():
            self._news = trio.Event()
            await self._news.wait()

    @property
    def states(self) -> list[str]:
        return [job_pb2.JobState.Name(event.state).removeprefix("JOB_STATE_") for event in self.events]


async def test_watch_tells_every_change_from_first_to_last(rig: Rig) -> None:
    """The first event holds the whole job, so does the last, which is final and ends the stream."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            (claimed,) = await rig.claim()
            await rig.store.lifecycle.report(rig.namespace, "default", job_id, claimed.token, 0.5, "half way")
            await watcher.until(3)
            await rig.settle(claimed, Move.COMPLETE)

    assert watcher.states == ["ENQUEUED", "PROCESSING", "PROCESSING", "COMPLETED"]
    assert [event.HasField("job") for event in watcher.events] == [True, False, False, True]
    assert [event.attempt for event in watcher.events] == [0, 1, 1, 1]
    assert watcher.events[2].progress == 0.5
    assert watcher.events[2].progress_message == "half way"
    assert watcher.events[3].job.result == b'{"done":true}'
    moments = [event.event_time.ToMilliseconds() for event in watcher.events]
    assert moments == sorted(moments)


async def test_watch_of_a_final_job_is_one_event(rig: Rig) -> None:
    """It holds the whole job, and the stream ends."""
    await rig.submit()
    job_id = await rig.complete()
    watcher = Watcher(rig, job_id)

    await watcher.run()

    assert watcher.states == ["COMPLETED"]
    assert watcher.events[0].job.id == job_id


async def test_watch_tells_that_a_cancel_was_asked_for(rig: Rig) -> None:
    """The mark is an event of its own while the job goes on, and stays until its end."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            await rig.store.lifecycle.cancel(rig.namespace, job_id, reason="x", grace_ms=1000)
            await watcher.until(2)
            await rig.settle(claimed, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)

    assert watcher.states == ["PROCESSING", "PROCESSING", "CANCELLED"]
    assert [event.cancel_requested for event in watcher.events] == [False, True, True]


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


async def test_watch_reads_the_job_again_when_the_connection_was_renewed(rig: Rig) -> None:
    """What happened meanwhile shows in an event that holds the whole job."""
    job_id = await rig.submit()
    watcher = Watcher(rig, job_id)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            await watcher.until(1)
            for renewed in rig.store.link.on_reconnect:
                renewed()
            await watcher.until(2)
            await rig.complete()

    assert watcher.states == ["ENQUEUED", "ENQUEUED", "PROCESSING", "COMPLETED"]
    assert watcher.events[1].job.id == job_id


async def test_watcher_that_does_not_keep_up_is_cut_off(rig: Rig) -> None:
    """Its changes are dropped, it is told to call again, and another watcher of the job misses nothing."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim()
    slow, quick = Watcher(rig, job_id), Watcher(rig, job_id)
    hold = trio.Event()
    take = slow.send

    async def wait_and_take(message: job_stream_pb2.WatchJobResponse) -> None:
        await hold.wait()
        await take(message)

    slow.send = wait_and_take  # type: ignore[method-assign]  # a reader that stands still

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            nursery.start_soon(quick.run)
            await quick.until(1)
            for step in range(200):
                await rig.store.lifecycle.report(rig.namespace, "default", job_id, claimed.token, step / 200, "")
                await quick.until(step + 1)
            hold.set()
            await slow.ended.wait()
            await rig.settle(claimed, Move.COMPLETE)

    assert isinstance(slow.error, SlowReaderError)
    assert quick.error is None
    assert quick.states[-1] == "COMPLETED"


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
