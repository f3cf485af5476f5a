"""One stream of a client's nursery: what the client says, and what it is told of its children."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.errors import GopherError, JobNotFoundError, NurseryGoneError, StoreError, invalid
from gopher.job import JobState, NewJob
from gopher.kin.carrier import cancel_reason
from gopher.nursery import MAX_WIDTH, OnCancel
from gopher.store.submission import BATCH
from gopher.telemetry import tracing
from gopher.wire import check, convert
from gopher.wire.check import Faults
from gopher.wire.status import NurseryResumedError, to_status
from gopher.wire.submission import new_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gopher.job import Job
    from gopher.kin.carrier import Carrier
    from gopher.kin.kin import Kin, Sibling
    from gopher.store.attachments import Attachment
    from gopher.store.families import Member
    from gopher.store.store import Store

    Send = Callable[[pb.RunNurseryResponse], Awaitable[None]]

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

HEARTBEAT_SECONDS: Final = 15.0
LEAVE_SECONDS: Final = 10.0
"""How long a client that has been told all may take to leave; chosen: as a slow reader has."""
_MOST_UNSENT: Final = 200
"""Children that a nursery takes in beyond those stored; then the client has to wait. Chosen: two script calls."""
_MOST_UNTOLD: Final = 1_000
"""What is there to tell before a client that only talks has to wait. Chosen: more than the answers of what may be unsent."""
_TOLD_AT_ONCE: Final = 32
"""Jobs that are read together; with results and payloads at their largest they are 10 MiB. Chosen."""
_LEAVE: Final = 1_000
"""Places a script call takes out of a family at most; chosen: some 0.3 ms."""


class ClientParent:
    """A client, as the parent of its children.

    Args:
        namespace: Of all of them.
        queue: Where the nursery is kept.
        grace_ms: How long it stands without its client.

    Attributes:
        id: Of the nursery; empty until it has one.
    """

    token = 0
    grace_seconds = 5.0

    def __init__(self, namespace: str, queue: str, grace_ms: int) -> None:
        self.namespace = namespace
        self.queue = queue
        self.grace_ms = grace_ms
        self.id = ""
        self.is_over = False


class Session:
    """One stream of a nursery.

    Args:
        store: Where the children are.
        carrier: Brings them there.
        kin: The children.
        parent: The client.
        max_payload_bytes: Largest payload.

    Attributes:
        is_left: Whether the client has heard all.
    """

    def __init__(self, store: Store, carrier: Carrier, kin: Kin, parent: ClientParent, max_payload_bytes: int) -> None:
        self.parent = parent
        self.is_left = False
        self._store = store
        self._carrier = carrier
        self._kin = kin
        self._max_payload_bytes = max_payload_bytes
        self._attachment: Attachment | None = None
        self._by_number: dict[int, Sibling] = {}
        self._missing: dict[int, Member] = {}
        self._cancelled_through = 0
        self._untold: deque[Sibling | int] = deque()
        self._has_told = trio.Event()
        self._has_news = trio.Event()
        self._is_joined = False
        self._has_ended = False
        self._error: GopherError | None = None
        kin.on_stored = self._note_stored
        kin.on_end = self._note_end
        kin.on_lost = self.note_lost

    # --- the begin --------------------------------------------------------------------------------------------------------------

    async def attach(self, attachment: Attachment, *, again: bool) -> bool:
        """Have the nursery stand while this session does; tell whether it does."""
        self._attachment = attachment
        stands = await self._store.attachments.attach(attachment, again=again)
        self._carrier.take(self._kin)
        return stands

    async def take_back(self) -> None:
        """Take in the children of an earlier stream."""
        parent = self.parent
        members = await self._store.families.members(parent.namespace, parent.queue, parent.id)
        reason = cancel_reason(parent.id)
        for start in range(0, len(members), BATCH):
            batch = members[start : start + BATCH]
            fates = await self._store.families.fates(parent.namespace, [member.id for member in batch])
            children = []
            for member, fate in zip(batch, fates, strict=True):
                if fate is None:
                    # Never stored, and then the client says it again; or deleted.
                    self._missing[member.number] = member
                else:
                    queue = await self._store.registry.queue_of(parent.namespace, member.id)
                    child = self._kin.take_back(member, queue, by_nursery=fate.cancel_reason == reason)
                    self._by_number[member.number] = child
                    self._note_stored(child)
                    children.append(child)
            await self._carrier.follow(self._kin, children)

    # --- what the client says ---------------------------------------------------------------------------------------------------

    async def listen(self, requests: AsyncIterator[pb.RunNurseryRequest]) -> None:
        """Take what the client says after the first message.

        Raises:
            InvalidRequestError: It has said what it must not.
        """
        async for request in requests:
            await self._take(request)
        if not self._kin.is_closed:
            # It may be a cut as well: that the client has meant it, only a close says.
            raise invalid("message", "OUT_OF_ORDER", "the stream has ended and the nursery was not closed")
        self._has_ended = True
        self._ring()

    async def _take(self, request: pb.RunNurseryRequest) -> None:
        while len(self._untold) > _MOST_UNTOLD:
            await self._has_told.wait()
        if self._error is not None:
            raise self._error
        match request.WhichOneof("message"):
            case "start":
                await self._start(request.start)
            case "close":
                self._close()
            case "cancel":
                self._cancel(request.cancel)
            case "leave":
                self._leave()
            case _:
                raise invalid("message", "OUT_OF_ORDER", "must be start, cancel, close or leave: a nursery is opened once")

    async def _start(self, start: pb.StartChild) -> None:
        known = self._by_number.get(start.number)
        if known is not None:
            self._tell_again(known)
            return
        if self._kin.is_closed:
            raise invalid("start", "OUT_OF_ORDER", "comes after the nursery was closed")
        if not 1 <= start.number <= MAX_WIDTH:
            raise invalid("start.number", "OUT_OF_RANGE", f"must be 1 to {MAX_WIDTH:,}, got {start.number}")
        refusal: GopherError | None = None
        try:
            with tracing.submit_span(start.job.type, start.job.queue, 1) as trace:
                job = new_job(start.job, "start.job.", max_payload_bytes=self._max_payload_bytes, trace=trace)
        except GopherError as error:
            job, refusal = NewJob(type=""), error
        await self._kin.wait_room(len(job.payload), _MOST_UNSENT)
        if self._error is not None:
            raise self._error
        job = msgspec.structs.replace(job, parent_id=self.parent.id, root_id=self.parent.id, request_id=None, depth=1)
        child = self._kin.add(job, OnCancel.DETACH if start.detached else OnCancel.CANCEL, start.number)
        self._by_number[start.number] = child
        if start.may_be_refused:
            child.stored = trio.Event()
        before = self._missing.pop(start.number, None)
        if before is not None and child.state is None:
            child.id = before.id
        if refusal is not None and child.state is None:
            self._kin.refuse(child, refusal)

    def _cancel(self, cancel: pb.CancelNursery) -> None:
        faults = Faults("cancel.")
        check.text(faults, "reason", cancel.reason)
        if not 0 <= cancel.through_number <= MAX_WIDTH:
            faults.add("through_number", "OUT_OF_RANGE", f"must be 0 to {MAX_WIDTH:,}, got {cancel.through_number}")
        faults.refuse()
        through = cancel.through_number or max(self._by_number, default=0)
        # Not each time anew: to look through ten thousand children is much to do for a message of two bytes.
        if through > self._cancelled_through:
            self._cancelled_through = through
            self._kin.cancel(through)

    def _close(self) -> None:
        """Take no more children."""
        self._kin.is_closed = True
        for member in self._missing.values():
            # Not said again, so it had been answered: it was stored, and is kept no more.
            child = self._kin.take_back(member, self.parent.queue, by_nursery=member.number <= self._cancelled_through)
            self._by_number[member.number] = child
            self._kin.end(child, JobState.CANCELLED if child.by_nursery else None)
        self._missing.clear()
        self._ring()

    def _leave(self) -> None:
        if not self._kin.is_closed or self._kin.open_count:
            raise invalid("leave", "OUT_OF_ORDER", "comes when the nursery is closed and its children have ended")
        self.is_left = True
        self._ring()

    # --- what it is told --------------------------------------------------------------------------------------------------------

    async def tell(self, send: Send, token: str) -> None:
        """Tell the client what becomes of its children, until it has left, or has heard all and says no more.

        Args:
            send: Sends a message.
            token: Right to resume the nursery.
        """
        await send(pb.RunNurseryResponse(opened=pb.NurseryOpened(nursery_id=self.parent.id, resume_token=token)))
        while not self.is_left:
            if self._error is not None:
                raise self._error
            while self._untold:
                batch = [self._untold.popleft() for _ in range(min(_TOLD_AT_ONCE, len(self._untold)))]
                jobs = await self._read([each for each in batch if not isinstance(each, int)])
                for each in batch:
                    await send(await self._message(each, jobs))
                self._has_told.set()
                self._has_told = trio.Event()
            if self._kin.is_closed and not (self._is_joined or self._kin.open_count or self._untold):
                self._is_joined = True
                await send(pb.RunNurseryResponse(joined=pb.NurseryJoined()))
            if self._is_joined and self._has_ended:
                return
            with trio.move_on_after(LEAVE_SECONDS if self._is_joined else HEARTBEAT_SECONDS) as silence:
                await self._has_news.wait()
            self._has_news = trio.Event()
            if silence.cancelled_caught:
                if self._is_joined:
                    return
                await send(pb.RunNurseryResponse(heartbeat=pb.Heartbeat()))

    async def _read(self, children: list[Sibling]) -> dict[Sibling, Job]:
        """Return the jobs of children that have ended, as far as they are kept: one that was deleted has ended all the same."""
        jobs: dict[Sibling, Job] = {}
        failures: list[StoreError] = []

        async def read(child: Sibling) -> None:
            try:
                jobs[child] = await self._kin.read(child)
            except JobNotFoundError:
                pass
            except StoreError as error:
                failures.append(error)

        # While Redis answers all of them together.
        async with trio.open_nursery() as nursery:
            for child in children:
                if child.error is None and child.id is not None:
                    nursery.start_soon(read, child)
        if failures:
            raise failures[0]
        return jobs

    async def _message(self, told: Sibling | int, jobs: dict[Sibling, Job]) -> pb.RunNurseryResponse:
        if isinstance(told, int):
            return pb.RunNurseryResponse(started=pb.ChildStarted(number=told, job_id=self._by_number[told].id or ""))
        if told.error is not None:
            if told.id is not None:
                # Whoever resumes must not take it for one that was stored.
                parent = self.parent
                await self._store.families.leave(parent.namespace, parent.queue, parent.id, [self._kin.place(told)])
                told.id = None
            return pb.RunNurseryResponse(started=pb.ChildStarted(number=told.number, error=to_status(told.error)))
        ended = pb.ChildEnded(number=told.number, cancelled_by_nursery=told.by_nursery and told.state is JobState.CANCELLED)
        if told in jobs:
            ended.job.CopyFrom(convert.job_to_message(jobs[told]))
        return pb.RunNurseryResponse(ended=ended)

    def _tell_again(self, child: Sibling) -> None:
        if child.is_stored:
            self._note_stored(child)
        if child.state is not None:
            self._note_end(child)

    def _note_stored(self, child: Sibling) -> None:
        self._untold.append(child.number)
        self._ring()

    def _note_end(self, child: Sibling) -> None:
        self._untold.append(child)
        self._ring()

    def note_lost(self) -> None:
        """End the stream: the nursery stands no more."""
        self._error = NurseryGoneError(self.parent.id)
        self._ring()

    def _ring(self) -> None:
        self._has_news.set()

    # --- the end ----------------------------------------------------------------------------------------------------------------

    async def forget(self) -> None:
        """Forget the nursery: what has not ended is detached, and goes on alone."""
        parent, attachment = self.parent, self._attachment
        if attachment is None:
            return
        try:
            places = [self._kin.place(child) for child in self._kin.children if child.id is not None]
            for start in range(0, len(places), _LEAVE):
                await self._store.families.leave(parent.namespace, parent.queue, parent.id, places[start : start + _LEAVE])
            await self._store.attachments.detach(attachment)
        except StoreError as error:
            # Then it stands for its grace, and what is left of it is found among the orphans.
            _log.warning("nursery.not_left", nursery_id=parent.id, error=str(error))

    def give_way(self) -> None:
        """End the stream: another one goes on with the nursery."""
        self._error = NurseryResumedError(self.parent.id)
        self.let_go()
        self._ring()

    def let_go(self) -> None:
        """End the session; a nursery that was not left stands for its grace."""
        if not self.parent.is_over:
            self.parent.is_over = True
            self._carrier.let_go(self._kin)
            if self._attachment is not None:
                self._store.attachments.let_go(self._attachment)
