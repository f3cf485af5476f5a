from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gopher.client import CallEndedError, TrioClient

PATIENCE = 60


async def test_trio_client_call_can_be_cancelled(dev_address: str) -> None:
    """A cancelled wait ends at once, and the client goes on."""
    async with TrioClient(dev_address) as client:
        job_id = await client.submit("echo", delay_seconds=3600)

        with trio.fail_after(PATIENCE), trio.move_on_after(0.2) as scope:
            await client.wait(job_id)
        job = await client.get(job_id)

    assert scope.cancelled_caught
    assert job.id == job_id


async def test_trio_client_watches_do_not_use_up_the_threads_of_the_program(dev_address: str) -> None:
    """More idle watches than Trio has threads to lend leave the program all of them."""
    limiter = trio.to_thread.current_default_thread_limiter()
    count = int(limiter.total_tokens) + 10
    heard: list[str] = []
    all_heard = trio.Event()

    async def watch(client: TrioClient, job_id: str) -> None:
        async for event in client.watch(job_id):
            heard.append(event.job_id)
            if len(heard) == count:
                all_heard.set()

    async with TrioClient(dev_address) as client, trio.open_nursery() as nursery:
        job_id = await client.submit("echo", delay_seconds=3600)
        for _ in range(count):
            nursery.start_soon(watch, client, job_id)
        with trio.fail_after(PATIENCE):
            await all_heard.wait()
            answer = await trio.to_thread.run_sync(lambda: "still there")
        nursery.cancel_scope.cancel()

    assert answer == "still there"
    assert limiter.borrowed_tokens == 0


async def test_trio_client_many_calls_share_the_connection(dev_address: str) -> None:
    """Calls from many Trio tasks at once each get their own answer."""
    answers: dict[int, object] = {}

    async def echo(client: TrioClient, number: int) -> None:
        answers[number] = await client.result(await client.submit("echo", number), wait=PATIENCE)

    async with TrioClient(dev_address) as client:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(echo, client, number)

    assert answers == {number: number for number in range(100)}


async def test_trio_client_closed_ends_its_calls(dev_address: str) -> None:
    """A call under way, and every later one, ends with an error that says so."""
    client = TrioClient(dev_address)
    job_id = await client.submit("echo", delay_seconds=3600)
    events = client.watch(job_id)
    first = await anext(events)

    with pytest.RaisesGroup(CallEndedError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.wait, job_id)
            await wait_all_tasks_blocked(0.05)
            await client.aclose()
    with pytest.raises(CallEndedError):
        await client.get(job_id)
    with pytest.raises(CallEndedError):
        await anext(events)

    assert first.job_id == job_id
