from __future__ import annotations

import asyncio  # noqa: TID251 - the client for asyncio is tested as its users run it

import pytest

from gopher.client import AsyncClient, CallEndedError

PATIENCE = 60


def test_async_client_call_can_be_cancelled(dev_address: str) -> None:
    """A wait that is cancelled by asyncio ends at once as cancelled, and the client goes on."""

    async def main() -> str:
        async with AsyncClient(dev_address) as client:
            job_id = await client.submit("echo", delay_seconds=3600)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.wait(job_id)
            return (await client.get(job_id)).id

    assert len(asyncio.run(asyncio.wait_for(main(), PATIENCE))) == 36


def test_async_client_many_calls_share_the_connection(dev_address: str) -> None:
    """Calls from many tasks at once each get their own answer."""

    async def main() -> list[object]:
        async with AsyncClient(dev_address) as client:

            async def echo(number: int) -> object:
                return await client.result(await client.submit("echo", number), wait=PATIENCE)

            return await asyncio.gather(*(echo(number) for number in range(100)))

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == list(range(100))


def test_async_client_closed_ends_its_calls(dev_address: str) -> None:
    """A call under way, and every later one, ends with an error that says so, not as if its task had been cancelled."""

    async def main() -> None:
        client = AsyncClient(dev_address)
        job_id = await client.submit("echo", delay_seconds=3600)
        events = client.watch(job_id)
        await anext(events)
        waiting = asyncio.ensure_future(client.wait(job_id))
        await asyncio.sleep(0)

        await client.aclose()

        for call in (waiting, client.get(job_id), anext(events)):
            with pytest.raises(CallEndedError):
                await call

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
