"""The client for programs that block: `Client`; safe to use from several threads at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self, TypeVar, cast

import grpc

from gopher.client import calls, channel, dialogues, operations
from gopher.client.sync_bulk import BulkMethods
from gopher.client.sync_calls import StreamCalls
from gopher.client.sync_limits import LimitMethods
from gopher.client.sync_nursery import NurseryMethods
from gopher.client.sync_runs import RunMethods
from gopher.client.sync_schedules import ScheduleMethods
from gopher.client.sync_streams import StreamMethods
from gopher.errors import GopherError
from gopher.job import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Unpack

    from gopher.client import values
    from gopher.client.submission import JobItem, SubmitOptions
    from gopher.job import Job, JsonValue
    from gopher.submission import Payload
    from gopher.wire.task_tree import TaskTree

T = TypeVar("T")


class Client(StreamCalls, BulkMethods, LimitMethods, NurseryMethods, RunMethods, ScheduleMethods, StreamMethods):
    """A connection to a Gopher server; opened by the first call, shared by all that follow.

    A call that finds no server is made again for a few seconds, if twice is as good as once; a submit is, because its request id
    makes it so. Every method may raise the errors of `gopher.errors`: a `RequestError` when the server refuses, a
    `StoreUnavailableError` when it (or Redis behind it) cannot be reached, a `CallExpiredError` when it takes too long.

    Args:
        address: HOST:PORT of the server.
        token: Sent as bearer token.
        namespace: Where queues, types and jobs are.
        call_seconds: Deadline of a call that has none of its own.
    """

    def __init__(
        self,
        address: str = channel.DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        call_seconds: float = channel.CALL_SECONDS,
    ) -> None:
        self.address = address
        self.namespace = namespace
        self._metadata = channel.metadata_for(token)
        self._call_seconds = call_seconds
        self._channel = grpc.insecure_channel(address, options=channel.OPTIONS)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way end with a `CallEndedError`."""
        self._closed.set()
        self._channel.close()

    def submit(self, job_type: str, payload: Payload = None, **options: Unpack[SubmitOptions]) -> str:
        """Submit a job and return its id.

        Args:
            job_type: Which handler.
            payload: A JSON value, a dataclass, a msgspec Struct, or bytes.
            options: See `SubmitOptions`.
        """
        return self.submit_for_receipt(job_type, payload, **options).job_id

    def submit_for_receipt(self, job_type: str, payload: Payload = None, **options: Unpack[SubmitOptions]) -> calls.Receipt:
        """Submit a job and return the whole answer: id, state, and whether the request id had been used before."""
        return self._run(dialogues.submit(self.namespace, job_type, payload, cast("Mapping[str, object]", options)))

    def submit_many(self, items: Iterable[JobItem]) -> list[str]:
        """Submit any number of jobs in batches and return their ids, in order.

        Args:
            items: Mappings with `type`, `payload` and what else `submit` takes; read as they are sent.

        Raises:
            SubmitManyError: Some items were not stored; its `results` hold the ids of the others, and why for each of these.
            GopherError: A call failed, and nothing was stored before.
        """
        return self._run(dialogues.submit_many(self.namespace, cast("Iterable[Mapping[str, object]]", items)))

    def get(self, job_id: str) -> Job:
        """Return the job as it stands."""
        return self._run(dialogues.ask(calls.get(self.namespace, job_id)))

    def tree(self, job_id: str) -> TaskTree:
        """Return what the job does at this moment: the Trio tasks of its handler, and the jobs that it has started."""
        return self._run(dialogues.ask(calls.tree(self.namespace, job_id)))

    def wait(self, job_id: str, wait: float | None = None) -> Job:
        """Return the job once it is final.

        Args:
            job_id: Which.
            wait: For how many seconds to wait; None: as long as it takes.

        Raises:
            WaitTimeoutError: It was not final by then.
        """
        return self._run(dialogues.wait(self.namespace, job_id, wait))

    def result(self, job_id: str, wait: float | None = None) -> JsonValue:
        """Return what the handler returned, once the job is completed.

        Args:
            job_id: Which.
            wait: For how many seconds to wait; None: as long as it takes.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            WaitTimeoutError: It was not final by then.
        """
        return self._run(dialogues.result(self.namespace, job_id, wait))

    def watch(self, job_id: str, cursor: str | None = None) -> Iterator[values.JobEvent]:
        """Yield all that has happened to the job and what happens, from the oldest event that is kept, until it is final.

        When the server goes away, the watch goes on where it was, there or at another one: nothing is missed, nothing told twice.

        Args:
            job_id: Which.
            cursor: Of the last event that is known, to go on behind it; None: from the oldest.

        Raises:
            CursorTooOldError: Events behind the cursor are kept no more; the metadata hold `oldest_cursor`.
        """
        return self._follow(dialogues.Watching(self.namespace, job_id, cursor))

    def watch_jobs(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        labels: Mapping[str, str] | None = None,
        root_id: str | None = None,
        kinds: Iterable[str] = (),
        cursor: str | None = None,
    ) -> Iterator[values.JobEvent]:
        """Yield what happens to all jobs that match, from now on or from behind a cursor, for as long as it is read.

        When the server goes away, the watch goes on where it was: within a minute nothing is missed, nothing told twice.

        Args:
            queue: Only of this queue; None for all.
            type: Only of this type; None for all.
            labels: Only with all of these labels.
            root_id: Only of the tree of this job.
            kinds: Only these, as `EventKind` has them; empty for all.
            cursor: Of the last event that is known; None: from now on.

        Raises:
            CursorTooOldError: Events behind the cursor are kept no more; the metadata hold `oldest_cursor`.
        """
        which = calls.event_filter(queue, type, labels, root_id, kinds)
        return self._follow(dialogues.WatchingJobs(self.namespace, which, cursor))

    def _follow(self, watching: dialogues.Watching) -> Iterator[values.JobEvent]:
        while True:
            cut: GopherError | None = None
            try:
                for event in self._stream(watching.call):
                    if watching.is_news(event):
                        yield event
                if watching.has_ended:
                    return
            except GopherError as error:
                cut = error
            if cut is not None and (skipped := watching.skipped(cut)) is not None:
                yield skipped
            else:
                self._pause(watching.pause_seconds(cut))

    def cancel(self, job_id: str, *, reason: str = "", actor: str = "", grace: float | None = None, wait: bool = False) -> Job:
        """End the job as cancelled and return it.

        Where a cancel is on its way already, its reason and actor stay, and the grace can only become shorter.

        Args:
            job_id: Which.
            reason: For people.
            actor: Who asks, for people.
            grace: How many seconds the handler's cleanup may take; None: 5.
            wait: Return only when the job is final, as a running one is when its task tree has ended.
        """
        return self._run(
            dialogues.cancel(self.namespace, job_id, reason=reason, actor=actor, grace_seconds=grace, wait_final=wait)
        )

    def retry(self, job_id: str) -> Job:
        """Give a failed or cancelled job new attempts, or start a waiting one now; return it."""
        return self._run(dialogues.ask(calls.retry(self.namespace, job_id)))

    def delete(self, job_id: str) -> None:
        """Remove a job that is not processing, for good."""
        self._run(dialogues.ask(calls.delete(self.namespace, job_id)))

    def list(
        self,
        *,
        queue: str | None = None,
        state: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        labels: Mapping[str, str] | None = None,
        limit: int | None = 100,
    ) -> Sequence[Job]:
        """Return jobs that match all that is given; `limit=None` returns all there are."""
        which = calls.job_filter(queue=queue, state=state, job_type=type, labels=labels)
        return self._run(dialogues.list_all(calls.pages(self.namespace, which), limit))

    def list_failed(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        limit: int | None = 100,
    ) -> Sequence[Job]:
        """Return dead letters, oldest first."""
        which = calls.job_filter(queue=queue, job_type=type)
        return self._run(dialogues.list_all(calls.failed_pages(self.namespace, which), limit))

    def requeue_failed(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 -- the field's name
        job_ids: Sequence[str] = (),
    ) -> int:
        """Give all dead letters that match new attempts, and return how many there were."""
        return self._run(dialogues.ask(calls.requeue_failed(self.namespace, queue, type, job_ids)))

    def queues(self) -> Sequence[values.Queue]:
        """Return the queues of the namespace, by name."""
        return self._run(dialogues.ask(operations.queues(self.namespace)))

    def pause(self, queue: str) -> values.Queue:
        """Stop claims from the queue; one not yet used is created."""
        return self._run(dialogues.ask(operations.pause(self.namespace, queue)))

    def resume(self, queue: str) -> values.Queue:
        """Let claims from the queue go on."""
        return self._run(dialogues.ask(operations.resume(self.namespace, queue)))

    def purge(self, queue: str, *, confirm: str) -> int:
        """Remove the queue's waiting jobs for good, and return how many; `confirm` must repeat the queue's name."""
        return self._run(dialogues.ask(operations.purge(self.namespace, queue, confirm)))

    def stats(self) -> values.Stats:
        """Return the figures of the namespace."""
        return self._run(dialogues.ask(operations.stats(self.namespace)))

    def workers(self) -> Sequence[values.Worker]:
        """Return the workers that live, by id."""
        return self._run(dialogues.ask(operations.workers(self.namespace)))

    def drain_worker(self, worker_id: str, *, grace: float | None = None) -> values.Worker:
        """Tell the worker to drain and exit, and return it as it last described itself.

        Args:
            worker_id: Which.
            grace: How many seconds attempts may go on; None: as it was started with.
        """
        return self._run(dialogues.ask(operations.drain_worker(self.namespace, worker_id, grace)))

    def types(self) -> Sequence[values.JobType]:
        """Return the types that are known, by name."""
        return self._run(dialogues.ask(operations.types(self.namespace)))

    def audit(self, *, repair: bool = False) -> Iterator[values.AuditReport]:
        """Yield what an audit finds, as it goes; the last report is done and has the totals."""
        return self._stream(operations.audit(self.namespace, repair=repair))

    def is_serving(self) -> bool:
        """Tell whether the server says that it serves."""
        return self._run(dialogues.ask(operations.health()))

    # --- driving a dialogue -----------------------------------------------------------------------------------------------------

    def _run(self, dialogue: dialogues.Dialogue[T]) -> T:
        try:
            step = next(dialogue)
            while True:
                try:
                    answer = self._take(step)
                except GopherError as error:
                    step = dialogue.throw(error)
                else:
                    step = dialogue.send(answer)
        except StopIteration as end:
            return cast("T", end.value)

    def _take(self, step: dialogues.Step) -> object:
        if isinstance(step, dialogues.Pause):
            self._pause(step.seconds)
            return None
        deadline_seconds = self._call_seconds if step.deadline_seconds is None else step.deadline_seconds
        rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(step.path)
        try:
            with channel.traced(step.path, self._metadata) as metadata:
                reply = rpc(step.request, timeout=deadline_seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise channel.error_of(error, self.address) from error
        except ValueError as error:
            raise channel.CallEndedError("the client is closed") from error
        return step.read(reply)

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise channel.CallEndedError("the client is closed")
