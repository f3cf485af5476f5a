"""The children of nurseries in Trio handlers: which may be, which are refused, and what they take over from their parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.errors import (
    InvalidRequestError,
    JobNotFoundError,
    UniqueKeyHeldError,
    UnknownTypeError,
)
from gopher.job import JobState
from gopher.kin.kin import Sibling
from tests.waiting import until

if TYPE_CHECKING:
    import gopher
    from gopher.nursery import ChildJob
    from tests.runtime.home import Home


async def test_children_that_are_refused_count_as_failed(home: Home) -> None:
    """An unknown type and a unique key that is held show at the end of the block, in one group."""
    await home.submit("leaf", unique_key="k", delay_ms=3_600_000)
    found: list[type[Exception]] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        children: list[ChildJob] = []
        try:
            async with job.open_nursery(policy="any") as nursery:
                children += [nursery.start_soon("unheard-of"), nursery.start_soon("leaf", unique_key="k")]
        except* (UnknownTypeError, UniqueKeyHeldError) as group:
            found.extend(type(error) for error in group.exceptions)
        for child in children:
            with pytest.raises((UnknownTypeError, UniqueKeyHeldError)):
                await child.result()

    async with home.working():
        job = await home.run()

    assert job.state is JobState.COMPLETED
    assert found == [UnknownTypeError, UniqueKeyHeldError]
    assert await home.families() == []


async def test_start_that_is_refused_raises_there_and_harms_nobody(home: Home) -> None:
    """It is no child: the block goes on, and ends well."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> object:
        async with job.open_nursery() as nursery:
            child = nursery.start_soon("leaf", "kept")
            with pytest.raises(UnknownTypeError):
                await nursery.start("unheard-of")
        return await child.result()

    async with home.working():
        job = await home.run()

    assert job.result == b'"kept"'


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"on_cancel": "abandon"}, "on_cancel"),
        ({"request_id": "r"}, "request_id"),
        ({"payload": object()}, "payload"),
    ],
)
async def test_child_that_cannot_be_is_refused_where_it_is_started(home: Home, fault: dict[str, object], field: str) -> None:
    """Before anything is stored, and by name."""
    told: list[str] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            try:
                nursery.start_soon("leaf", **fault)  # type: ignore[arg-type] # the fault that is tested
            except InvalidRequestError as error:
                told.extend(violation.field for violation in error.violations)

    async with home.working():
        job = await home.run()

    assert (job.state, told) == (JobState.COMPLETED, [field])
    assert await home.jobs("leaf") == []


@pytest.mark.parametrize("words", [{"policy": "some"}, {"on_crash": "forget"}])
async def test_nursery_of_an_unknown_kind_is_not_opened(home: Home, words: dict[str, str]) -> None:
    """The field and what it may be are told."""

    @home.registry.handler("parent", max_attempts=1)
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery(**words):
            raise AssertionError

    async with home.working():
        job = await home.run()

    assert job.failure is not None
    assert next(iter(words)) in job.failure.message


async def test_nurseries_stand_a_hundred_deep_and_no_deeper(home: Home) -> None:
    """The parent that stands in a hundred may start none, and has no further attempt."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("leaf")

    async with home.working():
        deepest, too_deep = await home.run(depth=99), await home.run(depth=100)

    assert deepest.state is JobState.COMPLETED
    assert [leaf.depth for leaf in await home.jobs("leaf")] == [100]
    assert too_deep.failure is not None
    assert (too_deep.failure.reason, too_deep.attempt) == ("NURSERY_TOO_DEEP", 1)


async def test_failure_tells_where_in_a_deep_tree_it_began(home: Home) -> None:
    """At the root stand the reason and the words of the leaf; a tree that is too deep is not run again, whoever may retry."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: int) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("parent", payload - 1)

    async with home.working():
        root = await home.run("parent", 4, depth=97)

    assert root.failure is not None
    assert root.failure.reason == "CHILD_FAILED"
    assert root.failure.metadata == {"cause_reason": "NURSERY_TOO_DEEP"}
    assert "nurseries may stand 100 deep" in root.failure.message
    assert root.attempt == 1


async def test_block_that_has_ended_takes_no_more_children(home: Home) -> None:
    """Neither while the handler goes on nor from a Trio task that has outlasted it."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> str:
        async with job.open_nursery() as nursery:
            child = nursery.start_soon("sleep", delay_seconds=3600)
            with pytest.raises(RuntimeError, match="after the nursery's block"):
                await child.result()
            nursery.cancel()
        with pytest.raises(RuntimeError, match="has ended"):
            nursery.start_soon("leaf")
        return "right"

    async with home.working():
        job = await home.run()

    assert job.result == b'"right"'


async def test_child_that_is_deleted_meanwhile_counts_as_failed(home: Home) -> None:
    """An operator has taken it away: its parent is told that it is not there."""
    found: list[type[Exception]] = []

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        try:
            async with job.open_nursery() as nursery:
                child = await nursery.start("leaf", delay_seconds=3600)
                await home.store.lifecycle.delete(home.namespace, child.id or "")
        except* JobNotFoundError as group:
            found.extend(type(error) for error in group.exceptions)

    async with home.working():
        job = await home.run()

    assert (job.state, found) == (JobState.COMPLETED, [JobNotFoundError])


async def test_children_of_other_queues_are_children_all_the_same(home: Home) -> None:
    """They run where their queue is served, and are cancelled with the others."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> object:
        async with job.open_nursery() as nursery:
            child = nursery.start_soon("leaf", "there", queue="other")
            later = nursery.start_soon("leaf", queue="third", delay_seconds=3600)
            assert isinstance(child, Sibling)
            await until(lambda: child.state is not None)
            nursery.cancel()
        return [await child.result(), later.state]

    async with home.working(home.worker(), home.worker(queues=("other",))):
        job = await home.run()

    assert job.result == b'["there","cancelled"]'
    assert await home.families() == []


async def test_deadline_of_the_parent_binds_its_children(home: Home) -> None:
    """Theirs is at the latest its own."""

    @home.registry.handler("parent")
    async def parent(job: gopher.JobContext, payload: object) -> None:
        async with job.open_nursery() as nursery:
            nursery.start_soon("leaf")

    async with home.working():
        deadline_ms = await home.store.registry.now_ms() + 3_600_000
        await home.run(deadline_ms=deadline_ms)

    assert [leaf.deadline_ms for leaf in await home.jobs("leaf")] == [deadline_ms]
