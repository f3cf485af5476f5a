from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.lowlevel

if TYPE_CHECKING:
    from gopher.contexts import JobContext, SyncJobContext
    from tests.runtime.rig import Bench

ENDED: Final = 70
PATIENCE_SECONDS: Final = 30

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks beside threads"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


def fork() -> int:
    """Fork; a child that the guard misses is ended by the alarm, before it runs this test once more."""
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_SECONDS)
    return pid


async def exit_status(pid: int) -> int:
    _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("end", ["return", "raise", "wait"])
async def test_forked_child_that_comes_back_into_the_worker_is_ended(bench: Bench, end: str) -> None:
    """Whether it returns from the handler, raises, or awaits something: the worker's own attempt completes."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> int:
        pid = fork()
        if end == "raise" and not pid:
            raise ValueError
        if end == "wait":
            await trio.lowlevel.checkpoint()
        return pid

    settlement = await bench.run()

    assert await exit_status(int(settlement.result)) == ENDED


def test_forked_child_is_ended_also_where_trio_asyncio_was_imported_first() -> None:
    """In a child trio-asyncio takes away what tells that Trio runs, by a hook of its own that comes first then."""
    program = f"""
        import os, trio, trio_asyncio
        from gopher.runtime.forks import ForkGuard

        async def main():
            pid = os.fork()
            await trio.lowlevel.checkpoint()
            if not pid:
                os._exit({ENDED + 1})
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        ForkGuard()
        trio.run(main)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )

    assert done.stdout.strip() == str(ENDED)


async def test_forked_child_of_an_asyncio_handler_is_ended(bench: Bench) -> None:
    """At its first step that awaits something, or returns."""

    @bench.registry.handler("work", asyncio=True)
    async def work(job: JobContext, payload: object) -> int:  # noqa: ASYNC124 - a handler
        return fork()

    settlement = await bench.run()

    assert await exit_status(int(settlement.result)) == ENDED


async def test_forked_child_of_a_thread_handler_is_ended(bench: Bench) -> None:
    """It ends where the handler returns."""

    @bench.handler
    def work(job: SyncJobContext, payload: object) -> int:
        return fork()

    settlement = await bench.run()

    assert await exit_status(int(settlement.result)) == ENDED


async def test_forked_child_that_ends_by_itself_is_left_alone(bench: Bench) -> None:
    """As those of `multiprocessing` do."""

    @bench.handler
    async def work(job: JobContext, payload: object) -> int:
        await trio.lowlevel.checkpoint()
        pid = fork()
        if not pid:
            os._exit(3)
        return pid

    settlement = await bench.run()

    assert await exit_status(int(settlement.result)) == 3
