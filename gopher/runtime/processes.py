"""The parent of `gopher-worker --processes N`: spawns worker processes, restarts those that die, forwards the drain.

Processes are spawned by exec, never forked: a forked child that uses gRPC hangs or aborts. Each is on a leash, so that none outlives
the parent.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StartError
from gopher.leash import leashed
from gopher.retry import RetryPolicy
from gopher.runtime.signals import watch_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RESTART: Final = RetryPolicy(backoff_initial_seconds=0.2, backoff_max_seconds=10.0)
_INTENSITY: Final = 5
"""Deaths of one worker process within the period that end the whole. Source: Erlang/OTP supervisors, intensity and period."""
_PERIOD_SECONDS: Final = 30.0
_SPARE_SECONDS: Final = 10.0
"""Chosen: how much longer than the grace a child may take to go before it is killed."""


class Processes:
    """A number of equal worker processes.

    Args:
        arguments: Of `gopher-worker`, for one process.
        environ: Its environment.
        count: How many.
        grace_seconds: What the children are given to drain.
        is_hopeless: Tells from an exit status that a restart cannot help.
        on_ready: Called once when every child has said that it is ready.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        count: int,
        grace_seconds: float,
        is_hopeless: Callable[[int], bool],
        on_ready: Callable[[], None],
    ) -> None:
        self._command = leashed([sys.executable, "-m", "gopher.cli.worker", *arguments])
        self._environ = environ
        self._count = count
        self._grace_seconds = grace_seconds
        self._is_hopeless = is_hopeless
        self._on_ready = on_ready
        self._ready: set[int] = set()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._draining = trio.Event()

    async def run(self) -> None:
        """Keep the processes running until drained.

        Raises:
            StartError: They die again and again, or cannot start.
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._watch_signals)
                async with trio.open_nursery() as keeping:
                    for number in range(self._count):
                        keeping.start_soon(self._keep, number)
                nursery.cancel_scope.cancel()
        finally:
            for child in self._children.values():
                child.kill()

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        await watch_signals(drain=self._drain, abort=self._forward, task_status=task_status)

    def _drain(self) -> None:
        self._draining.set()
        self._forward()

    def _forward(self) -> None:
        for child in self._children.values():
            child.terminate()

    async def _keep(self, number: int) -> None:
        deaths: deque[float] = deque(maxlen=_INTENSITY)
        while not self._draining.is_set():
            status = await self._run_child(number)
            if self._draining.is_set():
                return
            if self._is_hopeless(status):
                raise StartError("the worker processes cannot start, see above", exit_code=status)
            now = trio.current_time()
            deaths.append(now)
            if len(deaths) == _INTENSITY and now - deaths[0] < _PERIOD_SECONDS:
                raise StartError(f"a worker process died {_INTENSITY} times within {_PERIOD_SECONDS:g} s: giving up")
            _log.warning("worker.restarting", number=number, status=status)
            with trio.move_on_after(_RESTART.delay_seconds(len(deaths), random.random)):
                await self._draining.wait()

    async def _run_child(self, number: int) -> int:
        # Spawned from the Trio thread, which lives as long as this process: the leash is bound to the thread that spawns.
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._children[number] = child
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_ready, number, child)
                nursery.start_soon(self._kill_late, child)
                status = await trio.to_thread.run_sync(child.wait, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
        finally:
            del self._children[number]
            child.kill()
        return status

    async def _wait_ready(self, number: int, child: subprocess.Popen[bytes]) -> None:
        """Read what the child prints: one line, when it is ready."""
        assert child.stdout is not None
        async with trio.lowlevel.FdStream(os.dup(child.stdout.fileno())) as stream:
            async for _ in stream:
                self._ready.add(number)
                if len(self._ready) == self._count:
                    self._on_ready()
                    self._ready.clear()

    async def _kill_late(self, child: subprocess.Popen[bytes]) -> None:
        await self._draining.wait()
        await trio.sleep(self._grace_seconds + _SPARE_SECONDS)
        child.kill()
