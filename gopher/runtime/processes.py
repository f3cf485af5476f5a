"""The parent of `gopher-worker --processes N`: spawns worker processes, restarts those that die, forwards the drain.

One that an operator has drained is not restarted; when that was the last, the parent goes too.

The first one must be ready before the others are spawned, so that what keeps them all from starting is met, and told, once. When
one cannot be started again the others are drained, and the whole ends. One that has been ready is restarted however often it dies,
since jobs may have killed it; a job that has killed three is not run again. One that lives and is silent for a lease is killed.

Processes are spawned by exec, never forked: a forked child that uses gRPC hangs or aborts. Each is on a leash, so that none outlives
the parent.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StartError
from gopher.leash import leashed
from gopher.retry import RetryPolicy
from gopher.runtime import heartbeat
from gopher.runtime.signals import watch_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RESTART: Final = RetryPolicy(backoff_initial_seconds=0.2, backoff_max_seconds=10.0)
_INTENSITY: Final = 5
"""Failed starts of one worker process within the period that end the whole. Source: Erlang/OTP supervisors, intensity and period."""
_PERIOD_SECONDS: Final = 30.0
_SPARE_SECONDS: Final = 10.0
"""Chosen: how much longer than the grace a child may take to go before it is killed."""
EXIT_DISMISSED: Final = 83
"""Chosen: the exit status of a child that an operator has drained, so that it is not taken for one that has died."""
_READY: Final = b"ready types="
"""How the line of a child begins that says it is ready, as `gopher.cli.worker` prints it; an application may print "ready" too."""
CHILD_VARIABLE: Final = "GOPHER_CHILD_OF"
"""Tells a worker process that it has a parent, which its exit status is for."""
_LAST_WORDS_SECONDS: Final = 1.0
"""Chosen: how long the output of a child that has ended is still read; a grandchild may hold it open for ever."""


class Processes:
    """A number of equal worker processes.

    Args:
        arguments: Of `gopher-worker`, for one process.
        environ: Its environment.
        count: How many.
        grace_seconds: What the children are given to drain.
        lease_seconds: Of their jobs.
        is_hopeless: Tells from the exit status of a child that was never ready that a restart cannot help.
        on_ready: Called once, when every child has said that it is ready, with what they say beside it.
        on_stop: Called when the first signal has come, and the children drain.
        on_abort: Called when another has come, and they stop at once.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        count: int,
        grace_seconds: float,
        lease_seconds: float,
        is_hopeless: Callable[[int], bool],
        on_ready: Callable[[str], None],
        on_stop: Callable[[], None] = lambda: None,
        on_abort: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = leashed([sys.executable, "-m", "gopher.cli.worker", *arguments])
        self._environ = {**environ, CHILD_VARIABLE: str(os.getpid())}
        self._count = count
        self._grace_seconds = grace_seconds
        self._lease_seconds = lease_seconds
        self._is_hopeless = is_hopeless
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_abort = on_abort
        self._ready: set[int] = set()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._may_spawn = trio.Event()
        self._draining = trio.Event()
        self._aborting = trio.Event()
        self._fault: StartError | None = None

    async def run(self) -> None:
        """Keep the processes running until drained.

        Raises:
            StartError: They die again and again, or cannot start.
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    lambda task_status: watch_signals(drain=self._stop, abort=self._abort, task_status=task_status)
                )
                async with trio.open_nursery() as keeping:
                    for number in range(self._count):
                        keeping.start_soon(self._keep, number)
                nursery.cancel_scope.cancel()
        finally:
            for child in self._children.values():
                child.kill()
        if self._fault is not None:
            raise self._fault

    def _stop(self) -> None:
        self._drain()
        self._on_stop()

    def _abort(self) -> None:
        self._aborting.set()
        # Another signal than the first: two of a kind are one to a child that has not come to see the first.
        self._forward(signal.SIGINT)
        self._on_abort()

    def _drain(self) -> None:
        self._draining.set()
        self._may_spawn.set()
        self._forward(signal.SIGTERM)

    def _forward(self, number: signal.Signals) -> None:
        for child in self._children.values():
            child.send_signal(number)

    def _give_up(self, fault: StartError) -> None:
        self._fault = self._fault or fault
        self._drain()

    async def _keep(self, number: int) -> None:
        deaths = 0
        failed_starts: deque[float] = deque(maxlen=_INTENSITY)
        if number > 0:
            await self._may_spawn.wait()
        while not self._draining.is_set():
            status, was_ready = await self._run_child(number)
            if self._draining.is_set():
                return
            if status == EXIT_DISMISSED:
                _log.info("worker.dismissed", number=number)
                return
            if not was_ready and (self._is_hopeless(status) or not self._may_spawn.is_set()):
                self._give_up(StartError("the worker processes cannot start, see above", exit_code=status if status > 0 else 1))
                return
            if was_ready:
                failed_starts.clear()
            else:
                failed_starts.append(trio.current_time())
            if len(failed_starts) == _INTENSITY and failed_starts[-1] - failed_starts[0] < _PERIOD_SECONDS:
                self._give_up(
                    StartError(
                        f"a worker process died {_INTENSITY} times before it was ready within {_PERIOD_SECONDS:g} s: giving up"
                    )
                )
                return
            deaths = min(deaths + 1, _INTENSITY)
            _log.warning("worker.restarting", number=number, status=status)
            with trio.move_on_after(_RESTART.delay_seconds(deaths, random.random)):
                await self._draining.wait()

    async def _run_child(self, number: int) -> tuple[int, bool]:
        """Run a child to its end; return its exit status and whether it has ever been ready."""
        (reader, writer), (beat_reader, beat_writer) = os.pipe(), os.pipe()
        was_ready, heard_out = trio.Event(), trio.Event()
        async with (
            trio.lowlevel.FdStream(reader) as output,
            trio.lowlevel.FdStream(beat_reader) as beats,
            trio.open_nursery() as nursery,
        ):
            child = self._spawn(writer, beat_writer)
            self._children[number] = child
            try:
                nursery.start_soon(self._listen, number, output, was_ready, heard_out)
                nursery.start_soon(self._kill_late, child)
                nursery.start_soon(self._kill_silent, number, child, beats)
                # A limiter of its own: there may be more children than Trio has threads for everybody.
                status = await trio.to_thread.run_sync(child.wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
                with trio.move_on_after(_LAST_WORDS_SECONDS):
                    await heard_out.wait()
                nursery.cancel_scope.cancel()
            finally:
                del self._children[number]
                child.kill()
                if child.stdin is not None:
                    child.stdin.close()
        return status, was_ready.is_set()

    def _spawn(self, output: int, beats: int) -> subprocess.Popen[bytes]:
        # Spawned from the Trio thread, which lives as long as this process: the leash is bound to the thread that spawns.
        try:
            return subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command,
                env={**self._environ, heartbeat.VARIABLE: str(beats)},
                stdin=subprocess.PIPE,
                stdout=output,
                pass_fds=(beats,),
                start_new_session=True,
            )
        finally:
            os.close(output)
            os.close(beats)

    async def _listen(self, number: int, output: trio.lowlevel.FdStream, was_ready: trio.Event, heard_out: trio.Event) -> None:
        """Pass on what a child prints, but for the line that says it is ready."""
        rest = b""
        async for chunk in output:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(_READY) and not was_ready.is_set():
                    was_ready.set()
                    self._note_ready(number, line.removeprefix(b"ready ").decode(errors="replace"))
                else:
                    _pass_on(line + b"\n")
            if was_ready.is_set():
                _pass_on(rest)
                rest = b""
        _pass_on(rest)
        heard_out.set()

    def _note_ready(self, number: int, said: str) -> None:
        self._may_spawn.set()
        was_complete = len(self._ready) == self._count
        self._ready.add(number)
        if len(self._ready) == self._count and not was_complete:
            self._on_ready(said)

    async def _kill_silent(self, number: int, child: subprocess.Popen[bytes], beats: trio.lowlevel.FdStream) -> None:
        seconds = await heartbeat.wait_silent(beats, self._lease_seconds)
        _log.error("worker.silent", number=number, pid=child.pid, seconds=seconds)
        child.kill()

    async def _kill_late(self, child: subprocess.Popen[bytes]) -> None:
        await self._draining.wait()
        with trio.move_on_after(self._grace_seconds):
            await self._aborting.wait()
        await trio.sleep(_SPARE_SECONDS)
        child.kill()


def _pass_on(output: bytes) -> None:
    # Nobody may read it any more; the workers go on all the same.
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(output)
        sys.stdout.flush()
