"""Jobs that are tied to a call of a client from the moment they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gopher.errors import GopherError, JobDetachedError
from gopher.job import JobState
from gopher.store import keys
from gopher.store.ids import IdSource
from gopher.store.scripts import Script
from gopher.store.submission import REQUEST_TTL_MS, SubmitReceipt, add_submission, read_answer, whole

if TYPE_CHECKING:
    from gopher.job import NewJob
    from gopher.store.codec import Field
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Reply

LEASE_MS: Final = 10_000
"""How long a job stands whose server is silent; chosen: a server that restarts is back in it, and a client that is gone costs no more."""


class AttachedJobs:
    """Stores and ends them, in any queue of any namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._ids = IdSource()
        self._submit = Script.load("submit_attached")
        self._abandon = Script.load("abandon")

    async def submit(self, namespace: str, job: NewJob, call_id: str, left_ms: int | None) -> SubmitReceipt | GopherError:
        """Store a job, attached for `LEASE_MS`; one that its request id stands for already, and that still stands, is taken over.

        Args:
            namespace: Where its queue is.
            job: Already validated.
            call_id: Tells the call from others that have the same job.
            left_ms: How long the call may last still, by the clock of Redis: the job's deadline is no later; None: as long as it
                likes. It is no part of what the request id stands for.

        Returns:
            The receipt; one of a final job is attached to nothing. Or the error that refuses the job.

        Raises:
            TooManyQueuesError: Its queue cannot be created.
            StoreError: It may have been stored, and then stands for its lease.
        """
        left: Field = "" if left_ms is None else left_ms
        job_id = ""

        async def store(number: int) -> Reply:
            nonlocal job_id
            job_id = self._ids.new(number)
            words: list[Field] = []
            add_submission(words, job_id, job)
            args = [REQUEST_TTL_MS, LEASE_MS, left, call_id, *whole(words)]
            return await self._submit(self._link, [keys.settings(namespace, job.queue)], args)

        reply = await self._registry.numbered(namespace, job.queue, store)
        match reply:
            case [b"OK", found_id, state, was_there]:
                return SubmitReceipt(found_id.decode(), JobState(state.decode()), is_duplicate=bool(was_there))
            case [b"DETACHED", found_id]:
                job_id = found_id.decode()
                advice = "follow it with WatchJob, or run another under a request id of its own"
                return JobDetachedError(f"job {job_id} of this request id is tied to no client; {advice}", job_id=job_id)
            case _:
                return read_answer(job_id, job, reply)

    async def is_known(self, namespace: str, queue: str, request_id: str | None) -> bool:
        """Tell whether a request id stands for a job of a queue already."""
        return bool(request_id and await self._link.call("EXISTS", keys.request(namespace, queue, request_id)))

    async def abandon(self, namespace: str, queue: str, job_id: str, call_id: str, *, reason: str, grace_ms: int) -> bool:
        """End a job as cancelled, unless another call has taken it over; a final one stays as it is.

        Returns:
            False when the job is another call's, or is gone.
        """
        args: list[Field] = [job_id, call_id, reason, grace_ms]
        reply = await self._abandon(self._link, [keys.settings(namespace, queue)], args)
        return bool(reply[0] == b"OK")
