"""From outside: of many submits at once, to a Redis that fails for one queue, only those of that queue are told of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from gopher.client import TrioClient
from gopher.client.calls import Receipt
from gopher.client.dialogues import SubmitManyError
from gopher.errors import GopherError
from gopher.job import Priority
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.edge.rest_rig import Rest

COUNT: Final = 60
BROKEN: Final = "broken"


@asynccontextmanager
async def broken_queue(rest: Rest) -> AsyncIterator[None]:
    """Make Redis refuse what is enqueued in a queue: its line is no sorted set."""
    line = keys.enqueued(rest.namespace, BROKEN, Priority.NORMAL)
    await rest.store.link.call("SET", line, "x")
    yield
    await rest.store.link.call("DEL", line)


def queue_of(number: int) -> str:
    return BROKEN if number % 10 == 5 else f"q{number % 3}"


EXPECTED: Final = [queue_of(number) != BROKEN for number in range(COUNT)]


async def stored(rest: Rest) -> int:
    jobs, _ = await rest.store.query.list_jobs(rest.namespace, size=COUNT * 2)
    return len(jobs)


async def test_calls_at_once_are_answered_each_by_itself(rest: Rest) -> None:
    """Each call whose job is stored is told so, though others of its group commit failed."""
    outcomes: dict[int, bool] = {}

    async def submit(client: TrioClient, number: int) -> None:
        try:
            await client.submit("email", queue=queue_of(number))
        except GopherError:
            outcomes[number] = False
        else:
            outcomes[number] = True

    async with (
        broken_queue(rest),
        TrioClient(rest.grpc_address, namespace=rest.namespace) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(COUNT):
            nursery.start_soon(submit, client, number)

    assert [outcomes[number] for number in range(COUNT)] == EXPECTED
    assert await stored(rest) == sum(EXPECTED)


async def test_many_and_streamed_jobs_are_answered_each_by_itself(rest: Rest) -> None:
    """The clients give the id of each job that is stored."""
    items = [{"type": "email", "queue": queue_of(number)} for number in range(COUNT)]
    results: list[str | GopherError] = []
    async with broken_queue(rest), TrioClient(rest.grpc_address, namespace=rest.namespace) as client:
        try:
            await client.submit_many(items)  # type: ignore[arg-type]  # a JobItem, as mypy cannot see
        except SubmitManyError as error:
            results = error.results
        answers = [answer async for answer in client.submit_stream(items)]  # type: ignore[arg-type]  # as above

    assert [isinstance(each, str) for each in results] == EXPECTED
    assert [isinstance(each, Receipt) for each in answers] == EXPECTED
    assert await stored(rest) == 2 * sum(EXPECTED)


async def test_batch_over_rest_is_answered_each_by_itself(rest: Rest) -> None:
    """200, with an error in the place of each job that is not stored."""
    async with broken_queue(rest):
        answer = await rest.post(
            "/api/v1/jobs/batch", {"jobs": [{"type": "email", "queue": queue_of(n)} for n in range(COUNT)]}
        )

    assert answer.status == 200
    assert [each["job_id"] is not None for each in answer.list("results")] == EXPECTED
    assert await stored(rest) == sum(EXPECTED)
