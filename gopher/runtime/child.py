"""The subprocess of a handler marked `process=True`: `python -m gopher.runtime.child APP FD`; see `subprocesses`.

A coroutine handler runs on Trio and is cancelled by SIGTERM; in a plain `def`, SIGTERM raises `SystemExit`, so that its `finally`
blocks run. Either finds `job.cancel_requested` true from then on.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec
import trio

from gopher.contexts import JobContext, SyncJobContext
from gopher.errors import (
    GopherError,
    PayloadMismatchError,
    StartError,
    StoreError,
    TooManyChildrenError,
    TooManyQueuesError,
    UnknownTypeError,
)
from gopher.handlers import Discard, Retry, Snooze
from gopher.runtime.apps import load_registry
from gopher.runtime.children import new_child
from gopher.runtime.failures import cut, describe, is_retryable, message_of, sole, too_large
from gopher.runtime.forks import ForkGuard
from gopher.runtime.process_tree import adopt_orphans, kill_descendants
from gopher.runtime.subprocesses import (
    Accepted,
    Answer,
    Assignment,
    Raised,
    Refused,
    Returned,
    Said,
    Submission,
    encode_line,
)
from gopher.runtime.tracebacks import traceback_of
from gopher.submission import encode_json
from gopher.telemetry import log, tracing

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader

    from gopher.contexts import ContextT, Ending
    from gopher.event import EventKind
    from gopher.handlers import HandlerSpec
    from gopher.job import NewJob
    from gopher.submission import JobOptions, Payload

_EXIT_TERMINATED: Final = 143  # as the shell counts: 128 + SIGTERM
_REFUSALS: Final[dict[str, type[GopherError]]] = {
    each.__name__: each for each in (UnknownTypeError, TooManyQueuesError, TooManyChildrenError)
}
_answers: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)


def main(app: str, fd: int) -> None:
    """Run one handler, say how it ended, and leave nothing running that it has started."""
    adopt_orphans()
    try:
        _serve(app, fd)
    finally:
        kill_descendants(os.getpid())


def _serve(app: str, fd: int) -> None:
    guard = ForkGuard()
    channel = socket.socket(fileno=fd)
    with channel, channel.makefile("rb") as lines:
        assignment = msgspec.json.decode(lines.readline(), type=Assignment)
        if assignment.log is not None:
            log.start(*assignment.log)
        log.open_slot().attempt = assignment
        with nullcontext() if assignment.span is None else tracing.continued(assignment.span):
            outcome = _run(app, assignment, Worker(channel, lines))
        guard.check()
        # Where the attempt has been cancelled meanwhile, nobody listens any more.
        with suppress(ConnectionError):
            if isinstance(outcome, bytes):
                channel.sendall(encode_line(Returned(len(outcome))) + b"\n" + outcome)
            else:
                channel.sendall(encode_line(outcome) + b"\n")


class Worker:
    """The worker, at the other end of the channel; for handlers of any number of threads."""

    def __init__(self, channel: socket.socket, lines: BufferedReader) -> None:
        self._channel = channel
        self._lines = lines
        self._lock = threading.Lock()

    def say(self, kind: EventKind, progress: float | str, detail: bytes) -> None:
        """Hand over what the handler says to the job's watchers; the worker keeps it before all that comes later."""
        with self._lock:
            self._channel.sendall(encode_line(Said(kind, progress, detail)) + b"\n")

    def submit(self, job: NewJob) -> str:
        """Hand over what the handler submits and return its id.

        Raises:
            GopherError: The worker has refused it.
            ConnectionError: The worker has cancelled the attempt.
        """
        with self._lock:
            self._channel.sendall(encode_line(Submission(job)) + b"\n")
            line = self._lines.readline()
        if not line:
            raise ConnectionError("the worker has cancelled the attempt")
        answer = _answers.decode(line)
        if isinstance(answer, Accepted):
            return answer.job_id
        raise error_of(answer)


class Sigterm:
    """By which the worker asks this process to end."""

    def __init__(self) -> None:
        self._has_come = False

    def must_end(self) -> bool:
        """Tell whether it has come."""
        return self._has_come

    def catch(self, then: Callable[[], object]) -> None:
        """Note it from now on, and do something about it in the main thread."""

        def take(_number: int, _frame: object) -> None:
            self._has_come = True
            then()

        signal.signal(signal.SIGTERM, take)


def error_of(refused: Refused) -> GopherError:
    """Return the error that the worker has met; what it does not tell by class is Redis's."""
    kind = _REFUSALS.get(refused.kind, StoreError)
    error = kind.__new__(kind)
    GopherError.__init__(error, refused.message, **refused.metadata)
    return error


def _run(app: str, assignment: Assignment, worker: Worker) -> bytes | Raised:
    spec: HandlerSpec | None = None
    sigterm = Sigterm()
    try:
        spec = load_registry(app).get(assignment.type)
        if spec is None:
            return Raised("Exception", f"{app} has no handler for {assignment.type!r} any more")
        return _returned(_call(spec, assignment, worker, sigterm), assignment.max_result_bytes)
    except StartError as error:
        return Raised("Exception", error.message)
    except BaseException as error:  # noqa: ASYNC103 - whatever the handler raises is its outcome
        if isinstance(error, SystemExit) and sigterm.must_end():
            raise
        return _raised(sole(error), spec.non_retryable if spec is not None else ())  # noqa: ASYNC104 - likewise


def _returned(value: object, max_bytes: int) -> bytes | Raised:
    try:
        result = encode_json(value)
    except ValueError as error:
        return Raised("ResultInvalidError", cut(f"what the handler returned is not JSON: {error}"))
    if len(result) > max_bytes:
        return Raised("ResultInvalidError", too_large(len(result), max_bytes))
    return result


def _raised(error: BaseException, non_retryable: tuple[type[BaseException], ...]) -> Raised:
    match error:
        case Snooze():
            return Raised("Snooze", message_of(error), error.seconds)
        case Retry():
            return Raised("Retry", message_of(error), error.after, traceback=traceback_of(error))
        case Discard():
            return Raised("Discard", message_of(error), traceback=traceback_of(error))
        case PayloadMismatchError():
            return Raised("PayloadMismatchError", message_of(error))
        case _:
            failure = describe(error)
            may_follow = is_retryable(error, non_retryable)
            return Raised("Exception", failure.message, traceback=traceback_of(error), failure=failure, is_retryable=may_follow)


def _call(spec: HandlerSpec, assignment: Assignment, worker: Worker, sigterm: Sigterm) -> object:
    payload = spec.read_payload(assignment.payload, assignment.content_type)

    async def say_on_trio(kind: EventKind, progress: float | str, detail: bytes) -> None:
        await trio.lowlevel.checkpoint()
        worker.say(kind, progress, detail)

    async def enlist_on_trio(job_type: str, payload: Payload, options: JobOptions) -> str:
        # The answer is awaited in a thread, so that the handler's other Trio tasks go on.
        return await trio.to_thread.run_sync(worker.submit, new_child(job_type, payload, options))

    if spec.is_coroutine:
        context = _context(JobContext, assignment, sigterm)
        context.say, context.enlist, context.nurse = say_on_trio, enlist_on_trio, _no_nursery
        return trio.run(_call_on_trio, spec, context, payload, sigterm)
    sync_context = _context(SyncJobContext, assignment, sigterm)
    sync_context.say = worker.say
    sync_context.enlist = lambda *words: worker.submit(new_child(*words))
    sync_context.nurse = _no_nursery
    sigterm.catch(lambda: sys.exit(_EXIT_TERMINATED))
    return spec.as_plain(sync_context, payload)


def _no_nursery(_policy: str, _on_crash: str) -> NoReturn:
    raise RuntimeError(
        "a handler marked process=True has no nursery of jobs: open it in one on Trio, on asyncio or in a thread"
    )


def _context(kind: type[ContextT], assignment: Assignment, ending: Ending) -> ContextT:
    context = kind(
        id=assignment.id,
        type=assignment.type,
        queue=assignment.queue,
        namespace=assignment.namespace,
        attempt=assignment.attempt,
        token=assignment.token,
        labels=assignment.labels,
        deadline_ms=assignment.deadline_ms,
        # A subprocess is asked to end by SIGTERM, not by a flag.
        is_draining=lambda: False,
    )
    context.ending = ending
    return context


async def _call_on_trio(spec: HandlerSpec, context: JobContext, payload: object, sigterm: Sigterm) -> object:
    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        sigterm.catch(lambda: token.run_sync_soon(scope.cancel))
        return await spec.function(context, payload)
    sys.exit(_EXIT_TERMINATED)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
