from __future__ import annotations

import asyncio  # noqa: TID251 - what some of the handlers and lifespans here are made of
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

import gopher
from gopher.errors import StartError
from gopher.job import Failure, Move, Outcome
from gopher.runtime.lifespans import Lifespans
from gopher.runtime.scopes import CancelReason
from tests.runtime.rig import Bench, claimed_job
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.surroundings import CallNext, Surroundings


@pytest.fixture
def said() -> list[str]:
    """What happened, in order."""
    return []


@asynccontextmanager
async def kept(registry: Surroundings, *, close_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[Lifespans]:
    """Keep the lifespans of a registry open, as a worker does."""
    lifespans = Lifespans(registry, on_end=lambda: None)
    async with lifespans.keep_open(lambda: trio.current_time() + close_seconds) as are_open:
        assert are_open
        yield lifespans


async def linger(seconds: float = 0.001, *, is_asyncio: bool) -> None:
    if is_asyncio:
        await asyncio.sleep(seconds)
    else:
        await trio.sleep(seconds)


def failure_of(encoded: bytes) -> Failure:
    return msgspec.json.decode(encoded, type=Failure)


# --- Trio -----------------------------------------------------------------------------------------------------------------------


async def test_resources_reach_trio_and_thread_handlers_and_middleware(bench: Bench) -> None:
    """`job.resources` is the very object that the lifespan yields."""
    pool = object()
    seen: list[object] = []

    @bench.registry.lifespan
    async def opened() -> AsyncIterator[object]:
        await trio.lowlevel.checkpoint()
        yield pool

    @bench.registry.middleware
    async def look(job: gopher.JobContext, payload: object, call_next: CallNext) -> object:
        seen.append(job.resources)
        return await call_next()

    @bench.registry.handler("coroutine")
    async def coroutine(job: gopher.JobContext, payload: object) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(job.resources)

    @bench.registry.handler("thread")
    def thread(job: gopher.SyncJobContext, payload: object) -> None:
        seen.append(job.resources)

    async with bench.open_lifespans():
        await bench.run_alone(bench.take(claimed_job("coroutine")))
        await bench.run_alone(bench.take(claimed_job("thread")))

    assert seen == [pool] * 4


@pytest.mark.parametrize("kind", ["none", "asyncio"])
async def test_resources_without_a_lifespan_say_why(bench: Bench, kind: str) -> None:
    """With no lifespan, or none of its own kind, a handler is told so in one line."""
    if kind == "asyncio":

        @bench.registry.lifespan
        async def opened() -> AsyncIterator[str]:
            await trio.lowlevel.checkpoint()
            yield "for Trio"

    @bench.registry.handler("work", asyncio=kind == "asyncio")
    async def work(job: gopher.JobContext, payload: object) -> object:
        await job.progress(0)
        return str(job.resources)

    async with bench.open_lifespans():
        settlement = await bench.run()

    assert settlement.outcome is Outcome.RAISED
    assert "no job.resources" in failure_of(settlement.failure).message


async def test_lifespan_is_open_for_the_block_and_closed_once(said: list[str]) -> None:
    """Both kinds open before the block, in order, and close after it, in the opposite order."""
    registry = gopher.Registry()

    @registry.lifespan
    async def on_trio() -> AsyncIterator[None]:
        said.append("open trio")
        yield
        await trio.lowlevel.checkpoint()
        said.append("close trio")

    @registry.lifespan(asyncio=True)
    @asynccontextmanager
    async def on_asyncio() -> AsyncIterator[None]:
        said.append("open asyncio")
        async with asyncio.timeout(3600):  # must be left by the asyncio task that has entered it
            await asyncio.sleep(0)
            yield
        said.append("close asyncio")

    async with kept(registry):
        said.append("block")

    assert said == ["open trio", "open asyncio", "block", "close asyncio", "close trio"]


@pytest.mark.parametrize("is_asyncio", [False, True])
async def test_lifespan_that_fails_to_open_is_a_start_error(*, is_asyncio: bool, said: list[str]) -> None:
    """The block does not begin, what is open already is closed, and the error names the cause in one line."""
    registry = gopher.Registry()

    async def fails() -> AsyncIterator[None]:
        await linger(is_asyncio=is_asyncio)
        raise OSError("no database")
        yield

    async def closes() -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield
        said.append("closed")

    registry.lifespan(closes if is_asyncio else fails)
    if is_asyncio:
        registry.lifespan(asyncio=True)(fails)

    with pytest.raises(StartError, match="the lifespan cannot be opened: OSError: no database"):
        async with kept(registry):
            said.append("block")

    assert said == (["closed"] if is_asyncio else [])


async def test_drain_gives_up_opening() -> None:
    """A worker that is told to go while a lifespan waits for its database goes."""
    registry = gopher.Registry()

    @registry.lifespan
    async def waits() -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    lifespans = Lifespans(registry, on_end=lambda: None)
    lifespans.stop_opening()
    with trio.fail_after(PATIENCE_SECONDS):
        async with lifespans.keep_open(trio.current_time) as are_open:
            pass

    assert not are_open


@pytest.mark.parametrize("is_asyncio", [False, True])
async def test_lifespan_that_fails_to_close_is_no_error(*, is_asyncio: bool) -> None:
    """All has been done by then: it is logged."""
    registry = gopher.Registry()

    async def fails() -> AsyncIterator[None]:
        await linger(is_asyncio=is_asyncio)
        yield
        raise OSError("gone")

    registry.lifespan(asyncio=is_asyncio)(fails)

    async with kept(registry):
        pass


@pytest.mark.parametrize("is_asyncio", [False, True])
async def test_closing_is_cut_short(*, is_asyncio: bool, said: list[str]) -> None:
    """A lifespan that takes too long to close is cancelled, with all that it has begun."""
    registry = gopher.Registry()

    async def lingers() -> AsyncIterator[None]:
        try:
            yield
            await linger(3600, is_asyncio=is_asyncio)
        finally:
            said.append("cut")

    registry.lifespan(asyncio=is_asyncio)(lingers)

    with trio.fail_after(PATIENCE_SECONDS):
        async with kept(registry, close_seconds=0):
            pass

    assert said == ["cut"]


@pytest.mark.parametrize("is_asyncio", [False, True])
async def test_lifespan_that_ends_early_ends_the_worker(*, is_asyncio: bool) -> None:
    """Whatever it opened is gone: the worker is told to abort, and ends with the cause once it has."""
    registry = gopher.Registry()
    fail, told = trio.Event(), trio.Event()

    @asynccontextmanager
    async def on_trio() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:

            async def background() -> None:
                await fail.wait()
                raise OSError("connection lost")

            nursery.start_soon(background)
            yield

    @asynccontextmanager
    async def on_asyncio() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:

            async def background() -> None:
                while not fail.is_set():  # noqa: ASYNC110 - Trio's event, seen from asyncio
                    await asyncio.sleep(0.001)
                raise OSError("connection lost")

            group.create_task(background())
            yield

    registry.lifespan(asyncio=is_asyncio)(on_asyncio if is_asyncio else on_trio)
    lifespans = Lifespans(registry, on_end=told.set)

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StartError, match=r"ended before the worker: .*connection lost"):
        async with lifespans.keep_open(lambda: trio.current_time() + PATIENCE_SECONDS):
            fail.set()
            await told.wait()


@pytest.mark.parametrize("is_asyncio", [False, True])
async def test_cancelled_worker_closes_lifespans_after_its_attempts(*, is_asyncio: bool, said: list[str]) -> None:
    """However the worker ends, what handlers use is there until they have ended, and is then closed in order."""
    registry = gopher.Registry()

    async def opened() -> AsyncIterator[None]:
        yield
        await linger(is_asyncio=is_asyncio)
        said.append("closed")

    registry.lifespan(asyncio=is_asyncio)(opened)

    with trio.CancelScope() as worker:
        async with kept(registry):
            try:
                worker.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):  # a handler that takes its time
                    await trio.testing.wait_all_tasks_blocked()
                said.append("attempts ended")

    assert said == ["attempts ended", "closed"]


# --- one asyncio loop for all ---------------------------------------------------------------------------------------------------


async def test_asyncio_handlers_share_the_loop_of_their_lifespan(bench: Bench) -> None:
    """What is bound to an event loop, as connection pools are, works in every attempt; progress does too."""

    @bench.registry.lifespan(asyncio=True)
    async def opened() -> AsyncIterator[asyncio.Queue[int]]:
        await asyncio.sleep(0)
        queue: asyncio.Queue[int] = asyncio.Queue()
        loops.append(asyncio.get_running_loop())
        yield queue

    @bench.registry.handler("work", asyncio=True)
    async def work(job: gopher.JobContext, payload: int) -> int:
        loops.append(asyncio.get_running_loop())
        await job.progress(0.5, "half")
        if payload:
            await job.resources.put(payload)
            return 0
        got: int = await job.resources.get()
        return got

    loops: list[asyncio.AbstractEventLoop] = []
    async with bench.open_lifespans(), trio.open_nursery() as nursery:
        nursery.start_soon(bench.run_alone, bench.take(claimed_job(payload=b"0")))
        await until(lambda: len(bench.reports) == 1)
        nursery.start_soon(bench.run_alone, bench.take(claimed_job(payload=b"5")))

    assert sorted(settlement.result for settlement in bench.handed.settlements) == [b"0", b"5"]
    assert len(set(map(id, loops))) == 1
    assert len(loops) == 3


async def test_shared_loop_charges_each_task_to_its_attempt(bench: Bench, said: list[str]) -> None:
    """What one attempt leaves behind, grandchildren included, ends before its outcome; another's goes on."""

    async def background(name: str) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)  # noqa: ASYNC102 - this is asyncio, where a cancel comes once
            said.append(name)

    async def parent(name: str) -> None:
        tasks.append(asyncio.create_task(background(name)))
        await asyncio.sleep(3600)

    @bench.registry.lifespan(asyncio=True)
    async def opened() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield

    @bench.registry.handler("work", asyncio=True)
    async def work(job: gopher.JobContext, payload: str) -> str:
        tasks.append(asyncio.create_task(parent(payload)))
        await asyncio.sleep(0.001)
        if payload == "stays":
            await job.progress(0, "begun")
            await asyncio.sleep(3600)
        return payload

    tasks: list[asyncio.Task[None]] = []
    async with bench.open_lifespans(), trio.open_nursery() as nursery:
        staying = bench.take(claimed_job(payload=b'"stays"'))
        nursery.start_soon(bench.run_alone, staying)
        await until(lambda: bool(bench.reports))
        await bench.run_alone(bench.take(claimed_job(payload=b'"goes"')))
        said.append("outcome")
        staying.cancel(CancelReason.REQUESTED)

    assert said == ["goes", "outcome", "stays"]
    assert [settlement.move for settlement in bench.handed.settlements] == [Move.COMPLETE, Move.ACKNOWLEDGE_CANCEL]


async def test_shared_loop_survives_what_fails_in_it(bench: Bench) -> None:
    """A callback or a background task of one attempt that fails ends neither the loop nor another attempt."""

    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("in the background")

    @bench.registry.lifespan(asyncio=True)
    async def opened() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield

    @bench.registry.handler("work", asyncio=True)
    async def work(job: gopher.JobContext, payload: str) -> str:
        if payload == "fails":
            asyncio.get_running_loop().call_soon(int, "no number")
            tasks.append(asyncio.create_task(fails()))
            await asyncio.sleep(0.001)
            tasks.clear()
            raise ValueError("the handler too")
        await job.progress(0, "begun")
        while len(bench.handed.settlements) == 0:  # noqa: ASYNC110 - what a handler in asyncio can see of the test
            await asyncio.sleep(0.001)
        return payload

    tasks: list[asyncio.Task[None]] = []
    async with bench.open_lifespans(), trio.open_nursery() as nursery:
        nursery.start_soon(bench.run_alone, bench.take(claimed_job(payload=b'"stays"')))
        await until(lambda: bool(bench.reports))
        await bench.run_alone(bench.take(claimed_job(payload=b'"fails"')))

    failed, stayed = bench.handed.settlements
    assert failure_of(failed.failure).message == "ValueError: the handler too"
    assert stayed.result == b'"stays"'


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_shared_loop_survives_an_exit(bench: Bench, error: BaseException) -> None:
    """What would end asyncio's loop, raised by a handler, its tasks and its callbacks, is the failure of that handler alone."""

    async def fail() -> None:  # noqa: ASYNC124 - for a task
        raise error

    def call() -> None:
        raise error

    @bench.registry.lifespan(asyncio=True)
    async def opened() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield

    @bench.registry.handler("work", asyncio=True)
    async def work(job: gopher.JobContext, payload: str) -> str:
        if payload == "fails":
            asyncio.get_running_loop().call_soon(call)
            await asyncio.create_task(fail())  # noqa: ASYNC300 - awaited at once
        await asyncio.sleep(0.001)
        return payload

    with trio.fail_after(PATIENCE_SECONDS):
        async with bench.open_lifespans():
            await bench.run_alone(bench.take(claimed_job(payload=b'"fails"')))
            await bench.run_alone(bench.take(claimed_job(payload=b'"stays"')))

    failed, stayed = bench.handed.settlements
    assert failure_of(failed.failure).message.startswith(type(error).__name__)
    assert stayed.result == b'"stays"'
