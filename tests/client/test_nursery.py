"""Nurseries of jobs with each of the clients against a real server and worker: what the block waits for, cancels and raises."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the client for asyncio is tested as its users run it
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.client import AsyncClient, CallEndedError, Client, ServerUnreachableError, TrioClient
from gopher.client.nursery_stream import MAX_UNANSWERED
from gopher.errors import GopherError, InvalidRequestError, JobCancelledError, JobFailedError, UnknownTypeError
from gopher.job import Job, JobState
from tests.client.faces import AsyncFace, Face
from tests.client.test_clients import PATIENCE

if TYPE_CHECKING:
    from gopher.nursery import ChildJob, JobNursery, SyncChildJob


def state_of(face: Face, child: ChildJob | None) -> JobState:
    assert child is not None
    job = face.get(child.id)
    assert isinstance(job, Job)
    return job.state


def result_of(face: Face, child: ChildJob | SyncChildJob) -> object:
    return face.run(child.result) if isinstance(face, AsyncFace) else child.result()  # type: ignore[arg-type]  # that of its face


def test_block_ends_when_all_children_have(face: Face) -> None:
    """Many more children than are on their way at a time all run, and each knows its result after the block."""
    children: list[ChildJob] = []

    def body(nursery: JobNursery) -> None:
        for number in range(2 * MAX_UNANSWERED + 44):
            children.append(nursery.start_soon("echo", number))  # noqa: PERF401 - so that each is there when one fails

    face.in_nursery(body)

    assert {child.state for child in children} == {JobState.COMPLETED}
    assert len({child.id for child in children}) == len(children)
    assert [result_of(face, child) for child in children[:3]] == [0, 1, 2]
    assert children[0].type == "echo"


def test_block_without_children_makes_no_call() -> None:
    """Nothing is asked of a server, so none has to be there."""
    with Client("127.0.0.1:1") as client, client.open_nursery():
        pass


def test_failure_cancels_the_siblings_and_is_raised(face: Face) -> None:
    """Only the child that failed by itself is an error; the others are cancelled."""
    endless: list[ChildJob] = []

    def body(nursery: JobNursery) -> None:
        endless.extend(nursery.start_soon("steps", "endless") for _ in range(2))
        nursery.start_soon("fail", "no")

    with pytest.RaisesGroup(pytest.RaisesExc(JobFailedError, match="no")):
        face.in_nursery(body)

    assert {child.state for child in endless} == {JobState.CANCELLED}
    assert state_of(face, endless[0]) is JobState.CANCELLED
    with pytest.raises(JobCancelledError):
        result_of(face, endless[1])


def test_any_ends_with_the_first_that_completes(face: Face) -> None:
    """The others are cancelled, and nothing is raised."""
    endless: list[ChildJob] = []

    def body(nursery: JobNursery) -> None:
        endless.append(nursery.start_soon("steps", "endless"))
        nursery.start_soon("fail", "no")
        nursery.start_soon("echo", 1)

    face.in_nursery(body, policy="any")

    assert endless[0].state is JobState.CANCELLED


def test_collect_raises_nothing(face: Face) -> None:
    """Each child is looked at by itself."""
    children: list[ChildJob] = []

    def body(nursery: JobNursery) -> None:
        children.append(nursery.start_soon("fail", "no"))
        children.append(nursery.start_soon("echo", 1))

    face.in_nursery(body, policy="collect")

    assert [child.state for child in children] == [JobState.FAILED, JobState.COMPLETED]


def test_error_of_the_block_cancels_the_children(face: Face) -> None:
    """It is raised in a group, when the children have ended; those that were never sent were never jobs."""
    children: list[ChildJob] = []

    async def body(nursery: JobNursery) -> None:
        children.append(await nursery.start("steps", "endless"))
        children.append(nursery.start_soon("steps", "endless"))
        raise KeyError("own")

    with pytest.RaisesGroup(KeyError):
        face.in_nursery(body)

    assert [child.state for child in children] == [JobState.CANCELLED, JobState.CANCELLED]
    assert state_of(face, children[0]) is JobState.CANCELLED


def test_refused_child_counts_as_one_that_failed(face: Face) -> None:
    """What the server refuses ends the siblings, and is raised."""

    def body(nursery: JobNursery) -> None:
        nursery.start_soon("steps", "endless")
        nursery.start_soon("no-such-type")

    with pytest.RaisesGroup(UnknownTypeError):
        face.in_nursery(body)


def test_start_returns_once_it_is_stored_and_raises_a_refusal(face: Face) -> None:
    """A child that is refused there is none, and the block goes on."""
    ids: list[str | None] = []

    async def body(nursery: JobNursery) -> None:
        ids.append((await nursery.start("echo", 1)).id)
        with pytest.raises(UnknownTypeError):
            await nursery.start("no-such-type")
        with pytest.raises(InvalidRequestError, match="priority"):
            await nursery.start("echo", 1, priority="urgent")
        ids.append((await nursery.start("echo", 2)).id)

    face.in_nursery(body)

    assert None not in ids
    assert len(set(ids)) == 2


def test_cancel_lets_the_block_go_on(face: Face) -> None:
    """Those that were started are cancelled, which is no error; others may follow; one that is detached goes on alone."""
    children: list[ChildJob] = []

    async def body(nursery: JobNursery) -> None:
        children.append(await nursery.start("steps", "endless"))
        children.append(await nursery.start("echo", 1, delay_seconds=3600, on_cancel="detach"))
        nursery.cancel()
        children.append(nursery.start_soon("echo", 2))

    face.in_nursery(body)

    assert [child.state for child in children] == [JobState.CANCELLED, None, JobState.COMPLETED]
    assert state_of(face, children[1]) is JobState.SCHEDULED
    face.cancel(children[1].id)


def test_detached_child_outlives_a_block_that_fails(face: Face) -> None:
    """The block does not wait for it, and nobody cancels it."""
    children: list[ChildJob] = []

    async def body(nursery: JobNursery) -> None:
        children.append(await nursery.start("echo", 1, delay_seconds=3600, on_cancel="detach"))
        children.append(nursery.start_soon("echo", 2, delay_seconds=3600, on_cancel="detach"))
        raise KeyError("own")

    with pytest.RaisesGroup(KeyError):
        face.in_nursery(body)

    for child in children:
        assert state_of(face, child) is JobState.SCHEDULED
        face.cancel(child.id)


def test_unfit_arguments_are_refused_at_once(face: Face) -> None:
    """A policy, a grace, an option or a payload that cannot be is the caller's error, before anything is sent."""

    async def nothing(_: JobNursery) -> None:
        pass

    def bad_option(nursery: JobNursery) -> None:
        nursery.start_soon("echo", 1, colour="red")  # type: ignore[call-arg]  # which it does not take

    with pytest.raises(InvalidRequestError, match="policy"):
        face.in_nursery(nothing, policy="some")
    with pytest.raises(InvalidRequestError, match="grace"):
        face.in_nursery(nothing, grace=0.5)
    with pytest.RaisesGroup(InvalidRequestError):
        face.in_nursery(bad_option)


def test_server_that_is_not_there_is_an_error_of_the_block() -> None:
    """A child that cannot be sent ends the block after some tries; `start` raises too."""
    with Client("127.0.0.1:1") as client:
        with pytest.RaisesGroup(ServerUnreachableError), client.open_nursery() as nursery:
            nursery.start_soon("echo")

        with pytest.RaisesGroup(ServerUnreachableError, ServerUnreachableError), client.open_nursery() as jobs:
            jobs.start("echo")


def test_closed_client_says_so(face: Face) -> None:
    """A client that was closed makes no call."""

    def body(nursery: JobNursery) -> None:
        nursery.start_soon("echo")

    face.in_nursery(body)
    face.run(face.client.aclose) if isinstance(face, AsyncFace) else face.close()

    with pytest.RaisesGroup(CallEndedError):
        face.in_nursery(body)


def test_failure_cancels_a_block_on_trio(dev_address: str) -> None:
    """The body is cancelled where it waits; its own cleanup runs."""
    log: list[str] = []

    async def main() -> None:
        async with TrioClient(dev_address) as client, client.open_nursery() as nursery:
            nursery.start_soon("fail", "no")
            try:
                await trio.sleep_forever()
            finally:
                log.append("cleaned up")

    with pytest.RaisesGroup(JobFailedError):
        trio.run(main)

    assert log == ["cleaned up"]


def test_failure_cancels_a_block_on_asyncio(dev_address: str) -> None:
    """Its task is cancelled once, and goes on after the block."""
    log: list[str] = []

    async def main() -> None:
        async with AsyncClient(dev_address) as client:
            try:
                async with client.open_nursery() as nursery:
                    nursery.start_soon("fail", "no")
                    await asyncio.Event().wait()
            except* GopherError as group:
                log.extend(type(error).__name__ for error in group.exceptions)
            await asyncio.sleep(0)
            log.append("goes on")

    asyncio.run(main())

    assert log == ["JobFailedError", "goes on"]


def test_cancel_from_outside_cancels_the_children_on_trio(dev_address: str) -> None:
    """A block that is cancelled ends when its children have, and the cancel goes on up."""

    async def main() -> JobState:
        async with TrioClient(dev_address) as client:
            with trio.CancelScope() as scope:
                async with client.open_nursery() as nursery:
                    child = await nursery.start("steps", "endless")
                    scope.cancel()
            assert scope.cancelled_caught
            return (await client.get(str(child.id))).state

    assert trio.run(main) is JobState.CANCELLED


def test_cancel_from_outside_cancels_the_children_on_asyncio(dev_address: str) -> None:
    """Likewise; the task ends as cancelled."""
    ids: list[str] = []

    async def main() -> JobState:
        async with AsyncClient(dev_address) as client:
            started = asyncio.Event()

            async def block() -> None:
                async with client.open_nursery() as nursery:
                    ids.append(str((await nursery.start("steps", "endless")).id))
                    started.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(block())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await client.get(ids[0])).state

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) is JobState.CANCELLED
