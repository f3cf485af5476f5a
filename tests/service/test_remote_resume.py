"""A worker whose stream was cut goes on, on any server: what it holds it keeps, what has not reached it comes again, nothing runs twice."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.errors import StoreUnavailableError
from gopher.job import JobState
from gopher.store.claims import REPLACED
from gopher.store.store import Store
from gopher.wire.worker_errors import WorkerReplacedError
from tests.runtime.parts import WilfulLifecycle
from tests.service.conftest import Rig
from tests.service.remote_rig import credit, extend, hello, leave, serving_workers, settle
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.store.claims import Claim
    from tests.service.remote_rig import Remote, Stream


@asynccontextmanager
async def another_server(redis_url: str, namespace: str) -> AsyncIterator[Remote]:
    """Serve the same namespace from a store of its own, as a second server does."""
    async with trio.open_nursery() as nursery:
        store = Store(redis_url, client_name="test-2")
        await nursery.start(store.run)
        async with serving_workers(Rig(store, namespace)) as remote:
            yield remote
        nursery.cancel_scope.cancel()


async def resumed(remote: Remote, stream: Stream, *leases: pb.Lease, **fields: object) -> Stream:
    """Open a further stream of a worker, on a server, and be welcomed."""
    again = remote.open()
    again.number = stream.number + 1
    said = {"resume_token": stream.resume_token, "leases": leases, "stream": again.number, **fields}
    again.say(hello(remote.namespace, **said))  # type: ignore[arg-type]  # fields of Hello
    await again.hear_welcome()
    return again


async def test_cut_worker_goes_on_as_itself_with_what_it_holds(remote: Remote, redis_url: str) -> None:
    """On another server it has the same id; its lease stands, and the outcome is written."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    await stream.cut()

    async with another_server(redis_url, remote.namespace) as other:
        again = await resumed(other, stream, given.lease)
        again.say(extend(given.lease), settle(given.lease, result=b"1"))
        kinds = [(await again.hear()).WhichOneof("frame") for _ in range(2)]
        workers = await remote.store.registry.workers(remote.namespace)

    assert kinds == ["extended", "settled"]
    job = await remote.job(given.lease.job_id)
    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 1, 0)
    assert [worker.id for worker in workers] == [job.worker]


async def test_what_has_not_reached_the_worker_comes_again_for_its_credit(remote: Remote, redis_url: str) -> None:
    """The same attempt under a new token: the old one, should it have arrived after all, is worth nothing."""
    stream = await remote.connect()
    held = await remote.assigned(stream)
    unseen = await remote.assigned(stream)
    await stream.cut()

    async with another_server(redis_url, remote.namespace) as other:
        again = await resumed(other, stream, held.lease)
        await again.settle_stream()
        quiet = again.heard_nothing()
        again.say(credit())
        given = await again.hear_assignment()
        again.say(settle(unseen.lease, result=b"1"), settle(given.lease, result=b"2"))
        stale, written = await again.hear_settled(), await again.hear_settled()

    assert quiet
    assert given.lease.job_id == unseen.lease.job_id
    assert given.lease.token > unseen.lease.token
    assert (given.attempt, given.payload, given.type) == (unseen.attempt, unseen.payload, unseen.type)
    assert stale.HasField("error")
    assert not written.HasField("error")
    job = await remote.job(unseen.lease.job_id)
    assert (job.result, job.crashes) == (b"2", 0)


async def test_what_was_assigned_and_given_up_comes_again_as_a_further_attempt(remote: Remote) -> None:
    """Once its lease has ended it is not taken for one that never arrived, also where nobody has reaped it yet."""
    stream = await remote.connect()
    given_up = await remote.assigned(stream)
    await stream.cut()
    await remote.store.link.call("ZADD", f"gopher:{{{remote.namespace}:default}}:processing", 1, given_up.lease.job_id)

    again = await resumed(remote, stream)
    again.say(credit())
    given = await again.hear_assignment()

    assert given.lease.job_id == given_up.lease.job_id
    assert given.attempt == 2


async def test_what_a_server_had_not_sent_is_given_back_with_its_stream(remote: Remote) -> None:
    """A job that was claimed for a worker that reads nothing is free as soon as the stream has ended."""
    stream = await remote.connect()
    stream.may_read = trio.Event()
    for _ in range(40):
        await remote.submit()
    stream.say(credit(40))
    await until_async(lambda: _are_claimed(remote, 40))

    await stream.cut()

    stats = await remote.store.query.queue_stats(remote.namespace, "default")
    # Those that were on the line may have left; the rest has not.
    assert stats.counts[JobState.ENQUEUED] >= 20


async def _are_claimed(remote: Remote, count: int) -> bool:
    stats = await remote.store.query.queue_stats(remote.namespace, "default")
    return stats.counts[JobState.PROCESSING] == count


async def test_outcome_sent_again_after_a_cut_counts_once(remote: Remote) -> None:
    """Its confirmation was lost: the new stream confirms it at the hello, and again when it is sent."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    stream.say(settle(given.lease, result=b"1"))
    await until_async(lambda: _is_final(remote, given.lease.job_id))
    await stream.cut()

    again = await resumed(remote, stream, given.lease)
    at_hello = await again.hear_settled()
    again.say(settle(given.lease, result=b"2"))
    sent_again = await again.hear_settled()

    assert (at_hello, sent_again) == (pb.Settled(lease=given.lease, already=True),) * 2
    assert (await remote.job(given.lease.job_id)).result == b"1"


async def _is_final(remote: Remote, job_id: str) -> bool:
    return (await remote.state(job_id)).is_final


async def test_outcome_whose_reply_redis_lost_ends_the_stream_and_counts_once(remote: Remote) -> None:
    """Nobody knows whether it was written: the worker asks again on its next stream, and learns that it was."""
    lifecycle = remote.store.lifecycle = WilfulLifecycle(remote.store)
    stream = await remote.connect()
    given = await remote.assigned(stream)

    lifecycle.lose = 1
    stream.say(settle(given.lease, result=b"1"))
    error = await stream.end()
    again = await resumed(remote, stream, given.lease)
    answer = await again.hear_settled()

    assert isinstance(error, StoreUnavailableError)
    assert answer == pb.Settled(lease=given.lease, already=True)


async def test_outcome_of_a_job_that_waits_again_counts_once_too(remote: Remote) -> None:
    """A failure that was written before the cut spends one attempt, not two."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    failed = settle(given.lease, released=pb.Released())
    stream.say(failed)
    await stream.hear_settled()
    await stream.cut()

    again = await resumed(remote, stream)
    again.say(failed)
    answer = await again.hear_settled()

    assert answer == pb.Settled(lease=given.lease, already=True)


async def test_lost_leases_are_told_at_the_hello(remote: Remote) -> None:
    """A job that was reaped during the cut, one of another worker, and what is no job at all."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    await stream.cut()
    await remote.store.link.call("ZADD", f"gopher:{{{remote.namespace}:default}}:processing", 1, given.lease.job_id)
    await remote.store.lifecycle.reap(remote.namespace, "default")
    (foreign,) = await remote.rig.claim()
    guessed = pb.Lease(job_id=foreign.id, token=foreign.token)
    garbage = pb.Lease(job_id="garbage", token=1)

    again = await resumed(remote, stream, given.lease, garbage)
    lost = [(await again.hear()).lease_lost.lease for _ in range(2)]
    third = await resumed(remote, again, guessed)
    lost_too = (await third.hear()).lease_lost.lease

    assert lost == [garbage, given.lease]
    assert lost_too == guessed
    assert (await remote.job(foreign.id)).token == foreign.token


async def test_cancel_of_the_time_of_the_cut_is_told_at_the_hello(remote: Remote) -> None:
    """The worker hears of it as soon as it is back; what has not reached it is cancelled without it."""
    stream = await remote.connect()
    held, unseen = await remote.assigned(stream), await remote.assigned(stream)
    await stream.cut()
    for lease in (held.lease, unseen.lease):
        await remote.store.lifecycle.cancel(remote.namespace, lease.job_id, reason="late", grace_ms=0)

    again = await resumed(remote, stream, held.lease)
    told = (await again.hear()).cancel
    again.say(credit())

    assert (told.lease, told.reason) == (held.lease, "late")
    await until_async(lambda: _is_final(remote, unseen.lease.job_id))
    assert await remote.state(unseen.lease.job_id) is JobState.CANCELLED
    assert await remote.state(held.lease.job_id) is JobState.PROCESSING


async def test_later_stream_ends_the_earlier_one_on_another_server(remote: Remote, redis_url: str) -> None:
    """Two streams never assign for one worker: the older one ends, and claims nothing from the moment of the newer one on."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    stream.say(credit(5))
    await stream.settle_stream()

    async with another_server(redis_url, remote.namespace) as other:
        again = await resumed(other, stream, given.lease)
        error = await stream.end()
        job_id = await remote.submit()
        again.say(credit())
        later = await again.hear_assignment()

    assert isinstance(error, WorkerReplacedError)
    assert later.lease.job_id == job_id


async def test_earlier_session_that_was_not_told_claims_nothing(remote: Remote) -> None:
    """The number of the session decides in Redis, should the message that ends the older one be lost."""
    worker, assignments = "w", remote.store.assignments
    older, newer = 1, 2
    await remote.submit()

    async def resume(session: int) -> bool:
        resumption = await assignments.resume(
            remote.namespace, "default", worker=worker, session=session, lease_ms=1000, leases=[]
        )
        return resumption is not None

    async def claim(session: int) -> Claim | None:
        return await remote.store.lifecycle.claim(
            remote.namespace, "default", worker=worker, count=1, lease_ms=1000, claim_id=f"@{session}.1"
        )

    resumed_newer = await resume(newer)
    by_older = await claim(older)
    resumed_older = await resume(older)
    by_newer = await claim(newer)

    assert (resumed_newer, resumed_older) == (True, False)
    assert by_older is REPLACED
    assert by_newer is not None
    assert len(by_newer.jobs) == 1


@pytest.mark.parametrize("number", [1, 2])
async def test_stream_that_comes_late_is_refused(remote: Remote, number: int) -> None:
    """The hello of a stream that the worker has long given up, or has sent twice, ends nothing but itself."""
    stream = await remote.connect()
    again = await resumed(remote, stream)
    given = await remote.assigned(again)

    late = remote.open()
    late.say(hello(remote.namespace, resume_token=stream.resume_token, stream=number))
    error = await late.end()
    again.say(settle(given.lease, result=b"1"))
    answer = await again.hear_settled()

    assert isinstance(error, WorkerReplacedError)
    assert not answer.HasField("error")


async def test_earlier_session_gives_nothing_back_that_the_later_one_has(remote: Remote) -> None:
    """It ends late, with an assignment that had not left: by then the job is the later session's, under another token."""
    stream = await remote.connect()
    stream.may_read = trio.Event()
    for _ in range(30):
        await remote.submit()
    stream.say(credit(30))
    await until_async(lambda: _are_claimed(remote, 30))

    again = await resumed(remote, stream)
    await stream.end()
    again.say(credit(30))
    given = [await again.hear_assignment() for _ in range(30)]

    assert len({each.lease.job_id for each in given}) == 30
    assert await _are_claimed(remote, 30)
    for each in given:
        again.say(settle(each.lease, result=b"1"))
        assert not (await again.hear_settled()).HasField("error")


async def test_assignments_that_wait_for_credit_keep_their_leases_and_are_given_back_at_a_leave(rig: Rig) -> None:
    """What comes again does not run out while the worker is busy, and is nobody's once it has left."""
    async with serving_workers(rig, lease_seconds=1.0) as remote:
        stream = await remote.connect()
        unseen = await remote.assigned(stream)
        await stream.cut()
        again = await resumed(remote, stream)
        deadline = trio.current_time() + 2.5
        while trio.current_time() < deadline:
            again.say(extend())
            await again.hear(pings=True)
        still = await remote.job(unseen.lease.job_id)
        again.say(leave())
        await again.end()

    assert (still.state, still.crashes) == (JobState.PROCESSING, 0)
    job = await remote.job(unseen.lease.job_id)
    assert (job.state, job.attempt) == (JobState.ENQUEUED, 0)


async def test_nothing_is_left_of_a_worker_that_has_left(remote: Remote) -> None:
    """What its sessions had noted in Redis is gone, at the latest with its leases."""
    stream = await remote.connect()
    given = await remote.assigned(stream)
    (key,) = await remote.store.link.call("KEYS", f"gopher:{{{remote.namespace}:default}}:assigned:*")
    noted = await remote.store.link.call("HGETALL", key)
    life_ms = await remote.store.link.call("PTTL", key)

    stream.say(settle(given.lease, result=b"1"))
    await stream.hear_settled()
    noted_after = await remote.store.link.call("HGETALL", key)
    stream.say(leave())
    await stream.end()

    assert given.lease.job_id.encode() in noted
    assert 20_000 < life_ms <= 40_000
    assert set(noted_after) == {b"session"}
    assert not await remote.store.link.call("EXISTS", key)


async def test_drained_worker_is_told_again_on_its_next_stream(remote: Remote) -> None:
    """The order stands in the register until the worker has left."""
    stream = await remote.connect()
    (worker,) = await remote.store.registry.workers(remote.namespace)
    await remote.store.registry.drain_worker(remote.namespace, worker.id, None)
    await stream.hear()
    await stream.cut()

    again = await resumed(remote, stream)
    told = await again.hear()

    assert told.WhichOneof("frame") == "drain"
    assert not told.drain.HasField("grace")


async def test_stream_that_ends_keeps_the_leases(remote: Remote) -> None:
    """However it ends: a client that half-closes has not left."""
    stream = await remote.connect()
    given = await remote.assigned(stream)

    stream.hang_up()
    error = await stream.end()

    assert error is None
    assert await remote.state(given.lease.job_id) is JobState.PROCESSING
    await until(lambda: not remote.upkeep._kept)
