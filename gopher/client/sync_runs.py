"""Running attached jobs with the client for programs that block: a thread reads the stream while the block does what it likes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeVar, cast

from gopher.client import dialogues
from gopher.client.runs import Run
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Unpack

    from gopher.client import calls
    from gopher.client.submission import SubmitOptions
    from gopher.client.values import JobEvent
    from gopher.job import JobState, JsonValue
    from gopher.submission import Payload

T = TypeVar("T")


class RunMethods(ABC):
    """What the client for programs that block can do about attached jobs."""

    namespace: str

    @abstractmethod
    def _begin_stream(self, call: calls.Call[T]) -> tuple[Iterator[T], Callable[[], object]]:
        """Make a call that is answered by a stream; return what its replies mean, and what ends it from any thread."""

    @abstractmethod
    def _run(self, dialogue: dialogues.Dialogue[T]) -> T: ...

    def run(
        self,
        job_type: str,
        payload: Payload = None,
        *,
        grace: float | None = None,
        within: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> AttachedJob:
        """Run a job that is attached to a `with` block: it never outlives the block.

        Leaving the block before the job has ended, whether by an exception, a `break`, or simply by its end, cancels the job and waits
        for its end; wait in the block, with `result`, for what you want to see completed. If the program dies or is cut off, the
        server cancels the job. If the server restarts, the block goes on with the same job.

        Args:
            job_type: Which handler.
            payload: As for `submit`.
            grace: How many seconds the handler's cleanup may take when the job is cancelled; None: 5.
            within: How many seconds from now the job may take in all, waiting for a worker included: then it is cancelled, with the
                jobs it has started. None: as long as it takes.
            options: See `SubmitOptions`. A program that may itself be restarted in the block passes a `request_id`, and takes up the
                same job again if it comes back within 10 s.
        """
        run = Run(self.namespace, job_type, payload, cast("Mapping[str, object]", options), grace=grace, within=within)
        return AttachedJob(self._begin_stream, lambda: self._run(_leave(run)), run)


def _leave(run: Run) -> dialogues.Dialogue[None]:
    run.see_end((yield from dialogues.ask(run.leave())))


class AttachedJob:
    """A job that is attached to the block it is entered for; made by `Client.run`."""

    def __init__(
        self,
        begin_stream: Callable[[calls.Call[JobEvent]], tuple[Iterator[JobEvent], Callable[[], object]]],
        leave: Callable[[], None],
        run: Run,
    ) -> None:
        self._begin_stream = begin_stream
        self._leave = leave
        self._run = run
        self._news = threading.Condition()
        self._is_left = threading.Event()
        self._end_call: Callable[[], object] = lambda: None
        self._reader = threading.Thread(target=self._read, name="gopher-run", daemon=True)

    @property
    def id(self) -> str:
        """The job's."""
        return self._run.job_id

    @property
    def is_known(self) -> bool:
        """Whether the server has told of the job."""
        return bool(self._run.job_id)

    @property
    def state(self) -> JobState:
        """Where the job stands, as last told."""
        return cast("JobState", self._run.state)  # known since the block was entered

    def events(self) -> Iterator[JobEvent]:
        """Yield the job as it stood when it was entered, then its changes, until it is final; each iterator has all of them.

        Raises:
            GopherError: The run has ended, and the job is not known to have.
        """
        place = 0
        while True:
            self._wait(lambda: self._run.has_news(place), None)  # noqa: B023 - called before the place changes
            with self._news:
                fresh = list(self._run.after(place))
            if not fresh:
                self._run.require_final()
                return
            for place, event in fresh:  # noqa: B007 - the place is where to go on
                yield event

    def result(self, wait: float | None = None) -> JsonValue:
        """Return what the handler returned, once the job is completed.

        Args:
            wait: For how many seconds to wait; None: as long as it takes.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            WaitTimeoutError: It was not final by then; it goes on, as long as the block does.
            CallExpiredError: The time that `run` gave it was over.
        """
        if not self._wait(lambda: self._run.has_ended, wait):
            raise self._run.timeout(wait)
        return self._run.result()

    def __enter__(self) -> Self:
        self._reader.start()
        try:
            self._wait(lambda: self._run.has_news(0), None)
            self._run.require_begun()
        except BaseException:
            # Also where a person has interrupted it: the end of the call cancels the job.
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            # Refused because it has just ended; or no server answers, and then its lease ends it.
            with suppress(GopherError):
                if not self._run.is_final:
                    self._leave()
        finally:
            self._stop()

    def _wait(self, claim: Callable[[], bool], seconds: float | None) -> bool:
        with self._news:
            return self._news.wait_for(claim, seconds)

    def _stop(self) -> None:
        self._is_left.set()
        self._end_call()

    # --- in the reader's thread ---

    def _read(self) -> None:
        try:
            while not self._is_left.is_set():
                cut = self._read_call()
                if self._run.is_final or self._is_left.is_set():
                    return
                self._is_left.wait(self._run.pause_seconds(cut))
        except GopherError as error:
            self._run.fail(error)
        finally:
            with self._news:
                self._run.end()
                self._news.notify_all()

    def _read_call(self) -> GopherError | None:
        """Make one call and take what it tells; return what it ended with."""
        try:
            told, self._end_call = self._begin_stream(self._run.call())
            if self._is_left.is_set():
                self._end_call()
            for each in told:
                with self._news:
                    self._run.take(each)
                    self._news.notify_all()
        except GopherError as error:
            return error
        return None
