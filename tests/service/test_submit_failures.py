"""Submits of many jobs when Redis fails some of them: each error stands at the jobs that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import GopherError, StoreError, StoreFullError, StoreUnavailableError
from gopher.job import NewJob
from gopher.store import keys
from gopher.store.submission import BATCH, SubmitReceipt
from gopher.wire.status import from_status
from tests.service.test_submit_stream import Stream, asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.store.link import Link
    from gopher.store.resp import Argument, Reply
    from gopher.store.scripts import Script
    from tests.service.conftest import Rig

BAD: Final = "bad"
FULL: Final = StoreFullError("redis is full")


class Failing:
    """`submit.lua`, which fails for the queue `bad`, and for every queue from a call on."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, *, calls: int = 1_000_000, error: StoreError = FULL) -> None:
        self._whole: Script = rig.store.lifecycle._submit
        self._bad = keys.settings(rig.namespace, BAD)
        self._left = calls
        self._error = error
        monkeypatch.setattr(rig.store.lifecycle, "_submit", self)

    async def __call__(self, link: Link, keys: Sequence[Argument], args: Sequence[Argument]) -> Reply:
        self._left -= 1
        if self._left < 0 or keys[0] == self._bad:
            raise self._error
        return await self._whole(link, keys, args)


def specs(*queues: str) -> list[job_pb2.JobSpec]:
    return [job_pb2.JobSpec(type="email", queue=queue) for queue in queues]


async def stored(rig: Rig) -> int:
    jobs, _ = await rig.store.query.list_jobs(rig.namespace, size=1000)
    return len(jobs)


async def test_group_commit_fails_only_the_calls_of_the_queue_that_failed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the other queues are answered with their jobs."""
    Failing(rig, monkeypatch)
    requests = [pb.SubmitJobRequest(namespace=rig.namespace, job=spec) for spec in specs("a", BAD, "b", BAD, "a")]

    answers = await rig.lax_jobs.submit_job_batch(requests)

    assert [isinstance(answer, pb.SubmitJobResponse) for answer in answers] == [True, False, True, False, True]
    assert [answer for answer in answers if isinstance(answer, GopherError)] == [FULL, FULL]
    assert await stored(rig) == 3


async def test_submit_jobs_answers_what_was_stored(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that failed has its error, as one that is refused."""
    Failing(rig, monkeypatch)

    reply = await rig.lax_jobs.submit_jobs(pb.SubmitJobsRequest(namespace=rig.namespace, jobs=specs("a", BAD, "b")))

    assert [bool(each.job_id) for each in reply.results] == [True, False, True]
    assert from_status(reply.results[1].error).reason == "BROKER_FULL"


async def test_submit_jobs_that_stored_nothing_fails_as_a_call(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller may then repeat it as a whole."""
    Failing(rig, monkeypatch, calls=0)

    with pytest.raises(StoreFullError):
        await rig.lax_jobs.submit_jobs(pb.SubmitJobsRequest(namespace=rig.namespace, jobs=specs("a", "b")))


async def test_defect_in_one_item_is_told_by_an_id(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis said of it is in the log, not in the answer."""
    Failing(rig, monkeypatch, error=StoreError("secret"))

    reply = await rig.lax_jobs.submit_jobs(pb.SubmitJobsRequest(namespace=rig.namespace, jobs=specs("a", BAD)))

    assert from_status(reply.results[1].error).message.startswith("internal error ")


async def test_batch_of_one_queue_that_fails_fails_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of script calls that went well are stored, and those after the failure are not sent."""
    Failing(rig, monkeypatch, calls=2)

    answers = await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t")] * (BATCH * 8))

    assert all(isinstance(answer, SubmitReceipt) for answer in answers[: BATCH * 2])
    assert answers[BATCH * 2 :] == [FULL] * BATCH * 6
    assert await stored(rig) == BATCH * 2


async def test_queue_that_gets_no_number_fails_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Redis fails before the jobs are sent it is the same."""
    number = rig.store.registry.queue_number

    async def fail(namespace: str, queue: str) -> int:
        if queue == BAD:
            raise FULL
        return await number(namespace, queue)

    monkeypatch.setattr(rig.store.registry, "queue_number", fail)

    answers = await rig.store.lifecycle.submit(rig.namespace, [NewJob(type="t", queue=queue) for queue in (BAD, "a")])

    assert answers[0] is FULL
    assert isinstance(answers[1], SubmitReceipt)


async def test_types_that_cannot_be_looked_up_refuse_their_jobs_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A type that is known already is taken."""
    down = StoreUnavailableError("redis is away")
    is_known = rig.store.registry.is_known_type

    async def fail(namespace: str, job_type: str) -> bool:
        if job_type != "email":
            raise down
        return await is_known(namespace, job_type)

    await rig.store.registry.add_types(rig.namespace, ["email"])
    monkeypatch.setattr(rig.store.registry, "is_known_type", fail)
    jobs = [job_pb2.JobSpec(type=each) for each in ("email", "other", "third")]

    answers = await rig.jobs.submit_job_batch([pb.SubmitJobRequest(namespace=rig.namespace, job=job) for job in jobs])

    assert isinstance(answers[0], pb.SubmitJobResponse)
    assert answers[1:] == [down, down]


async def test_stream_answers_what_was_stored_before_and_after_a_failure(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by the failure where nothing stored follows it; until then the failure is an item's answer."""
    Failing(rig, monkeypatch)
    going = Stream(asked(rig.namespace, queue="a"), asked(queue=BAD), asked(queue="b"))
    ending = Stream(asked(rig.namespace, queue="a"), asked(queue=BAD), asked(queue=BAD))

    await rig.lax_jobs.submit_job_stream(going.requests, going.send)
    with pytest.raises(StoreFullError):
        await rig.lax_jobs.submit_job_stream(ending.requests, ending.send)

    assert [bool(answer.job_id) for answer in going.answers] == [True, False, True]
    assert [bool(answer.job_id) for answer in ending.answers] == [True]
    assert await stored(rig) == 3
