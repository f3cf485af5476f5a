"""Handlers marked `process=True`: one subprocess an attempt, which a cancel ends with all its children.

The worker starts `python -m gopher.runtime.child APP FD` in a process group of its own, on a leash. They talk over a socket pair, a
JSON document a line: the worker says which job; the child says what its watchers are to hear, and what it submits, any number of
times, then its outcome, and ends. Each submit is answered. A result follows the line that gives its size, which is looked at first. What the child prints goes to the worker's standard error. However the
attempt ends, nothing is left of its process group afterwards. What has left the group is found by its parents, and ends as well,
unless the child itself was killed by somebody else or has gone by `os._exit`: then nobody knows whose it was.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import trio

from gopher.errors import GopherError, HandlerError, PayloadMismatchError, ResultInvalidError
from gopher.event import EventKind  # noqa: TC001 - msgspec reads the fields of these structs at run time
from gopher.handlers import Discard, Retry, Snooze
from gopher.job import Failure, NewJob  # noqa: TC001 - msgspec reads the fields of these structs at run time
from gopher.leash import leashed
from gopher.runtime.failures import ChildError, too_large
from gopher.runtime.notices import CLEANUP_CUT, Notice
from gopher.runtime.process_tree import kill_tree
from gopher.runtime.tracebacks import RemoteTraceback
from gopher.telemetry import log, tracing

if TYPE_CHECKING:
    from types import FrameType

    from gopher.contexts import JobContext
    from gopher.runtime.children import Children
    from gopher.runtime.scopes import RunningAttempt

_NO_SIGNAL: Final = 0  # of kill(2)
_SPARE_SECONDS: Final = 1.0
"""Chosen: a cancelled child is killed by the worker's cutter when the grace is over; so much later without one."""
_LINE_BYTES: Final = 1024 * 1024
"""Chosen: what a line may hold. The longest is a submitted job: its payload takes a third more in base64."""


class Assignment(msgspec.Struct):
    """What the worker tells the child: what is known of the attempt, and the payload as it came.

    Attributes:
        trace: Traceparent of the submitter.
        span: Traceparent of the attempt; None when the worker does not trace.
        log: How the worker logs.
    """

    id: str
    type: str
    queue: str
    namespace: str
    attempt: int
    token: int
    labels: dict[str, str]
    deadline_ms: int | None
    payload: bytes
    content_type: str
    max_result_bytes: int
    trace: str | None
    span: str | None
    log: tuple[log.Level, log.Form] | None

    @property
    def job(self) -> Assignment:
        """As `gopher.telemetry.log` asks for it."""
        return self


class Said(msgspec.Struct, tag="said"):
    """What the handler says to the job's watchers, as `gopher.contexts.Saying` has it."""

    kind: EventKind
    progress: float | str
    detail: bytes


class Submission(msgspec.Struct, tag="submission"):
    """The handler submits a job, checked already; the child waits for the answer."""

    job: NewJob


class Returned(msgspec.Struct, tag="returned"):
    """The handler has returned; behind this line comes the value as JSON, in so many bytes."""

    size: int


class Raised(msgspec.Struct, tag="raised"):
    """The handler has raised.

    Attributes:
        verdict: `Retry`, `Snooze`, `Discard`, `PayloadMismatchError`, `ResultInvalidError`, or `Exception` for anything else.
        message: The text of the error.
        seconds: Of Retry and Snooze.
        traceback: Where the handler's own code has raised it.
        failure: Of anything else, where the handler's own code has raised it.
        is_retryable: Whether another attempt may follow.
    """

    verdict: str
    message: str
    seconds: float | None = None
    traceback: str = ""
    failure: Failure | None = None
    is_retryable: bool = True


Report: TypeAlias = Said | Submission | Returned | Raised


class Accepted(msgspec.Struct, tag="accepted"):
    """The id that a submitted job will have."""

    job_id: str


class Refused(msgspec.Struct, tag="refused"):
    """Why a submitted job was refused: name of the error's class, and what the error says."""

    kind: str
    message: str
    metadata: dict[str, str]


Answer: TypeAlias = Accepted | Refused
_reports: Final[msgspec.json.Decoder[Report]] = msgspec.json.Decoder(Report)
encode_line = msgspec.json.Encoder().encode


class Subprocesses:
    """Runs handlers in processes of their own, any number at once.

    Args:
        app: `module:registry`, by which the child finds the handler.
        children: Takes in what the handlers submit.
        max_result_bytes: A larger result is not sent, nor is it read from a child that sends it all the same.

    The directory of this moment is that of the subprocesses, wherever a handler may take the worker.
    """

    def __init__(self, app: str, children: Children, *, max_result_bytes: int) -> None:
        self._app = app
        self._children = children
        self._max_result_bytes = max_result_bytes
        self._directory = Path.cwd()
        self._running: set[subprocess.Popen[bytes]] = set()

    async def execute(self, context: JobContext, attempt: RunningAttempt) -> msgspec.Raw:
        """Run a handler in a subprocess.

        Args:
            context: Takes what the handler says.
            attempt: Which job; its grace is what a cancel gives the subprocess between SIGTERM and SIGKILL.

        Returns:
            What the handler returned, as JSON.

        Raises:
            Retry: The handler's verdict; likewise Snooze and Discard.
            PayloadMismatchError: The payload does not fit.
            ResultInvalidError: What the handler returned is not JSON, or is too large.
            HandlerError: The handler raised, or its process ended without a word.

        Cancellation:
            The subprocess and all its children have ended when this returns.
        """
        ours, theirs = socket.socketpair()
        with trio.socket.from_stdlib_socket(ours) as channel:
            with theirs:
                process = _spawn(self._app, theirs.fileno(), self._directory)
            self._running.add(process)
            attempt.host = _Process(process)
            try:
                outcome = await self._talk(trio.SocketStream(channel), process, context, attempt)
                await _end(process, _NO_SIGNAL, attempt.grace_seconds)
            except BaseException:
                # Nobody listens any more: what the child still says must not hold it up.
                channel.close()
                await _end(process, signal.SIGTERM, attempt.grace_seconds + _SPARE_SECONDS)  # noqa: ASYNC102 - it shields itself
                raise
            finally:
                attempt.host = None
                self._running.discard(process)
        if isinstance(outcome, Raised):
            raise _error(outcome)
        return outcome

    async def _talk(
        self, stream: trio.SocketStream, process: subprocess.Popen[bytes], context: JobContext, attempt: RunningAttempt
    ) -> msgspec.Raw | Raised:
        await stream.send_all(encode_line(_assignment(context, attempt, self._max_result_bytes)) + b"\n")
        outcome = None
        with suppress(trio.BrokenResourceError):
            outcome = await self._follow(_Reader(stream), stream, context, attempt)
        if outcome is None:
            status = await _reap(process)
            raise HandlerError(f"the handler's process ended with {_describe_status(status)}")
        return outcome

    async def _follow(
        self, reader: _Reader, stream: trio.SocketStream, context: JobContext, attempt: RunningAttempt
    ) -> msgspec.Raw | Raised | None:
        """Pass on what the child says until the outcome comes; None when it ends without one."""
        while (line := await reader.line()) is not None:
            match _reports.decode(line):
                case Said(kind, progress, detail):
                    await context.say(kind, progress, detail)
                case Submission(job):
                    await stream.send_all(encode_line(await self._answer(attempt, job)) + b"\n")
                case Returned(size):
                    if size > self._max_result_bytes:
                        raise ResultInvalidError(too_large(size, self._max_result_bytes))
                    result = await reader.block(size)
                    return None if result is None else msgspec.json.decode(result, type=msgspec.Raw)
                case raised:
                    return raised
        return None

    async def _answer(self, attempt: RunningAttempt, job: NewJob) -> Answer:
        try:
            return Accepted(await self._children.add(attempt, job))
        except GopherError as error:
            return Refused(type(error).__name__, error.message, error.metadata)

    def kill(self) -> None:
        """End every process that still runs, at once: the worker goes."""
        for process in self._running:
            kill_tree(process.pid)


class _Reader:
    """Reads what a child says, and holds no more of it than may be said."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def line(self) -> bytes | None:
        """Return the next line; None when the child ends before it is whole."""
        seen = 0
        while (end := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            if seen > _LINE_BYTES:
                raise ResultInvalidError(f"the handler's process said more than {_LINE_BYTES} bytes in one line")
            if not await self._receive():
                return None
        return self._take(end + 1)

    async def block(self, size: int) -> bytes | None:
        """Return the next bytes; None when the child ends before them."""
        while len(self._buffer) < size:
            if not await self._receive():
                return None
        return self._take(size)

    async def _receive(self) -> bool:
        chunk = await self._stream.receive_some()
        self._buffer += chunk
        return bool(chunk)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class _Process:
    """The subprocess of one attempt."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def cut(self) -> Notice | None:
        """Kill it, with all that it has started."""
        if self._process.returncode is not None:
            return None
        kill_tree(self._process.pid)
        return Notice(CLEANUP_CUT, "the grace is over: the handler's process was killed, with all that it has started")

    def frames(self) -> list[FrameType]:
        """Return nothing: it stands in another process."""
        return []


def _spawn(app: str, fd: int, directory: Path) -> subprocess.Popen[bytes]:
    # Spawned from the Trio thread itself, which lives as long as the worker: the leash is bound to the thread that spawns.
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        leashed([sys.executable, "-m", "gopher.runtime.child", app, str(fd)]),
        # What this process can import, the child must be able to import too.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(directory / entry) for entry in sys.path)},
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),
        pass_fds=(fd,),
        start_new_session=True,
    )


def _assignment(context: JobContext, attempt: RunningAttempt, max_result_bytes: int) -> Assignment:
    job = attempt.job
    return Assignment(
        context.id,
        context.type,
        context.queue,
        context.namespace,
        context.attempt,
        context.token,
        dict(context.labels),
        context.deadline_ms,
        job.payload,
        job.content_type,
        max_result_bytes,
        job.trace,
        tracing.current(),
        log.started(),
    )


def _error(raised: Raised) -> Exception:
    error: Exception
    match raised.verdict:
        case "Retry":
            error = Retry(raised.message, after=raised.seconds)
        case "Snooze":
            error = Snooze(raised.seconds or 0.0)
        case "Discard":
            error = Discard(raised.message)
        case "PayloadMismatchError":
            error = PayloadMismatchError(raised.message)
        case "ResultInvalidError":
            error = ResultInvalidError(raised.message)
        case _:
            failure = raised.failure
            error = ChildError(failure, is_retryable=raised.is_retryable) if failure else HandlerError(raised.message)
    error.__cause__ = RemoteTraceback(raised.traceback)
    return error


async def _end(process: subprocess.Popen[bytes], number: int, grace_seconds: float) -> None:
    """Give the whole group a signal, and SIGKILL when its leader has ended or the grace is over; the leader is reaped.

    A leader that ends by itself has killed what has left the group.
    """
    # Shielded, since it runs while the attempt is being cancelled; the grace and SIGKILL bound it.
    with trio.CancelScope(shield=True):
        _signal_group(process, number)
        with trio.move_on_after(grace_seconds) as grace:
            await _reap(process)
        if grace.cancelled_caught:
            kill_tree(process.pid)
            await _reap(process)
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # The group's number stays taken while any of its members lives.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _reap(process: subprocess.Popen[bytes]) -> int:
    # A limiter of its own: the wait for one process never queues behind the waits for others.
    status = await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
    if process.stdin is not None:
        process.stdin.close()
    return status


def _describe_status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status} and no outcome"
