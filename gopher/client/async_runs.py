"""Running attached jobs with the clients whose methods are awaited: a task reads the stream while the block does what it likes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from gopher.client import dialogues
from gopher.client.runs import Run
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import Unpack

    from gopher.client import calls
    from gopher.client.submission import SubmitOptions
    from gopher.client.values import JobEvent
    from gopher.job import JobState, JsonValue
    from gopher.submission import Payload

T = TypeVar("T")


class Bell(Protocol):
    """Tells all who wait that there is news; of asyncio or of Trio."""

    def ring(self) -> None:
        """Wake all who wait now."""

    async def heard(self, seconds: float | None) -> bool:
        """Wait for the next ring, for so long at most; tell whether it came."""


class AsyncRunMethods(ABC):
    """What the clients whose methods are awaited can do about attached jobs."""

    namespace: str

    @abstractmethod
    def _stream(self, call: calls.Call[T]) -> AsyncGenerator[T]: ...

    @abstractmethod
    async def _pause(self, seconds: float) -> None: ...

    @abstractmethod
    async def _run(self, dialogue: dialogues.Dialogue[T]) -> T: ...

    @abstractmethod
    def _beside(self, read: Callable[[], Coroutine[None, None, None]]) -> AbstractAsyncContextManager[None]:
        """Run a function, which raises nothing, beside a block; it is cancelled when the block ends."""

    @abstractmethod
    def _new_bell(self) -> Bell: ...

    @abstractmethod
    def _last_act(self, seconds: float) -> AbstractContextManager[object]:
        """Let a block wait, for so long at most, though what is around it has been cancelled."""

    @asynccontextmanager
    async def run(
        self,
        job_type: str,
        payload: Payload = None,
        *,
        grace: float | None = None,
        within: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncGenerator[AsyncAttachedJob]:
        """Run a job that is attached to an `async with` block: leaving it before the job has ended cancels the job."""
        run = Run(self.namespace, job_type, payload, cast("Mapping[str, object]", options), grace=grace, within=within)
        job = AsyncAttachedJob(run, self._new_bell())
        async with self._beside(lambda: self._read_run(job)):
            await job.begun()
            try:
                yield job
            finally:
                with self._last_act(run.leaving_seconds):
                    await self._leave(run)  # noqa: ASYNC102 - the line above shields it, for a time

    async def _leave(self, run: Run) -> None:
        if run.is_final:
            return
        # Refused because it has just ended; or no server answers, and then its lease ends it.
        with suppress(GopherError):
            run.see_end(await self._run(dialogues.ask(run.leave())))

    async def _read_run(self, job: AsyncAttachedJob) -> None:
        run = job.told
        try:
            while not run.is_final:
                cut = await self._read_call(job)
                if not run.is_final:
                    await self._pause(run.pause_seconds(cut))
        except GopherError as error:
            run.fail(error)
        finally:
            run.end()
            job.ring()

    async def _read_call(self, job: AsyncAttachedJob) -> GopherError | None:
        """Make one call and take what it tells; return what it ended with."""
        try:
            told = self._stream(job.told.call())
            try:
                async for each in told:
                    job.told.take(each)
                    job.ring()
            finally:
                await told.aclose()  # noqa: ASYNC102 -- it ends the call and waits for nothing
        except GopherError as error:
            return error
        return None


class AsyncAttachedJob:
    """A job that is attached to a block; the awaited twin of `AttachedJob`.

    Attributes:
        told: What is known of it; the client's own.
    """

    def __init__(self, run: Run, bell: Bell) -> None:
        self.told = run
        self._bell = bell

    @property
    def id(self) -> str:
        """The job's."""
        return self.told.job_id

    @property
    def state(self) -> JobState:
        """Where the job stands, as last told."""
        return cast("JobState", self.told.state)  # known since the block was entered

    async def events(self) -> AsyncGenerator[JobEvent]:
        """Yield the job as it stood when it was entered, then its changes, until it is final; each iterator has all of them."""
        place = 0
        while True:
            while not self.told.has_news(place):
                await self._bell.heard(None)
            fresh = list(self.told.after(place))
            if not fresh:
                self.told.require_final()
                return
            for place, event in fresh:  # noqa: B007 - the place is where to go on
                yield event

    async def result(self, wait: float | None = None) -> JsonValue:
        """Return what the handler returned, once the job is completed; see `AttachedJob.result`."""
        end = None if wait is None else time.monotonic() + wait
        while not self.told.has_ended:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not await self._bell.heard(left) and not self.told.has_ended:
                raise self.told.timeout(wait)
        return self.told.result()

    async def begun(self) -> None:
        """Wait until the job is known.

        Raises:
            GopherError: There is none.
        """
        while not self.told.has_news(0):
            await self._bell.heard(None)
        self.told.require_begun()

    def ring(self) -> None:
        """Tell those who wait that there is news."""
        self._bell.ring()
