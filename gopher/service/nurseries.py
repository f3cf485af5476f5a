"""RunNursery: a nursery of jobs whose parent is a client.

The nursery is attached to the client for as long as a server holds its stream. A client that goes without a word leaves it with its
grace: within that it may go on by another stream, to any server; after that the children are ended as orphans.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.errors import GopherError, JobNotFoundError, NurseryGoneError, invalid
from gopher.job import JobState, NewJob
from gopher.kin.kin import Kin
from gopher.nursery import MAX_WIDTH, NurseryPolicy, OnCancel, OnCrash
from gopher.store.attachments import Attachment
from gopher.telemetry import tracing
from gopher.wire import check, convert
from gopher.wire.check import Faults
from gopher.wire.status import to_status
from gopher.wire.submission import new_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gopher.kin.carrier import Carrier
    from gopher.kin.kin import Sibling
    from gopher.store.store import Store

    Send = Callable[[pb.RunNurseryResponse], Awaitable[None]]

DEFAULT_GRACE_MS: Final = 10_000
MIN_GRACE_MS: Final = 1_000
MAX_GRACE_MS: Final = 300_000
HEARTBEAT_SECONDS: Final = 15.0
_MOST_UNSENT: Final = 200
"""Children that a nursery takes in beyond those stored; then the client has to wait. Chosen: two script calls."""
_LEAVE: Final = 1_000
_POLICIES: Final = {0: NurseryPolicy.ALL, 1: NurseryPolicy.ALL, 2: NurseryPolicy.ANY, 3: NurseryPolicy.COLLECT}
_SIGNATURE_BYTES: Final = 16


class Nurseries:
    """Answers RunNursery.

    Args:
        store: Where the children are.
        carrier: Brings them there.
        max_payload_bytes: Largest payload.
    """

    def __init__(self, store: Store, carrier: Carrier, *, max_payload_bytes: int) -> None:
        self._store = store
        self._carrier = carrier
        self._max_payload_bytes = max_payload_bytes

    async def run_nursery(self, requests: AsyncIterator[pb.RunNurseryRequest], send: Send) -> None:
        """Run a nursery until all its children have ended, or its client goes."""
        opening = await anext(requests, None)
        if opening is None or opening.WhichOneof("message") != "open":
            raise invalid("open", "REQUIRED", "the first message must open the nursery")
        session = await self._open(opening.open)
        try:
            # While the client's stream lasts.
            async with trio.open_nursery() as tasks:
                tasks.start_soon(session.listen, requests)
                await session.tell(send)
                tasks.cancel_scope.cancel()
            await session.end()
        finally:
            session.let_go()

    async def _open(self, opening: pb.OpenNursery) -> _Session:
        namespace = check.namespace(opening.namespace)
        faults = Faults("open.")
        policy = _POLICIES.get(opening.policy)
        if policy is None:
            faults.add("policy", "BAD_ENUM", f"must be 1 (all), 2 (any), 3 (collect) or unset, got {opening.policy}")
        grace_ms = DEFAULT_GRACE_MS
        if opening.HasField("grace"):
            grace_ms = check.duration_ms(faults, "grace", opening.grace, MIN_GRACE_MS, MAX_GRACE_MS)
        faults.refuse()
        parent = _Client(namespace, grace_ms)
        kin = Kin(self._carrier, parent, 1, policy=policy or NurseryPolicy.ALL, on_crash=OnCrash.CANCEL, earlier={})
        session = _Session(self._store, self._carrier, kin, parent, self._max_payload_bytes)
        if opening.resume_token:
            await session.resume(opening.resume_token)
        return session


class _Client:
    """A client, as the parent of its children.

    Args:
        namespace: Of all of them.
        grace_ms: How long its nursery stands without it.

    Attributes:
        id: Of the nursery; empty until the first child.
        queue: That of the first child: some worker serves it.
    """

    token = 0
    grace_seconds = 5.0

    def __init__(self, namespace: str, grace_ms: int) -> None:
        self.namespace = namespace
        self.grace_ms = grace_ms
        self.id = ""
        self.queue = ""
        self.is_over = False


class _Session:
    """One stream of a nursery."""

    def __init__(self, store: Store, carrier: Carrier, kin: Kin, parent: _Client, max_payload_bytes: int) -> None:
        self._store = store
        self._carrier = carrier
        self._kin = kin
        self._parent = parent
        self._max_payload_bytes = max_payload_bytes
        self._attachment: Attachment | None = None
        self._by_number: dict[int, Sibling] = {}
        self._untold: deque[Sibling | int] = deque()
        self._has_news = trio.Event()
        self._is_opened = False
        self._error: GopherError | None = None
        kin.on_stored = self._note_stored
        kin.on_end = self._note_end
        kin.on_lost = self._note_lost

    # --- what the client says ---------------------------------------------------------------------------------------------------

    async def listen(self, requests: AsyncIterator[pb.RunNurseryRequest]) -> None:
        """Take what the client says after the first message; when it has said all, the nursery is closed."""
        async for request in requests:
            await self._take(request)
        self.close()

    async def _take(self, request: pb.RunNurseryRequest) -> None:
        match request.WhichOneof("message"):
            case "start":
                await self._start(request.start)
            case "close":
                self.close()
            case "cancel":
                _check_reason(request.cancel.reason)
                self._kin.cancel()
                self.close()
            case _:
                raise invalid("message", "OUT_OF_ORDER", "must be start, close or cancel: a nursery is opened once")

    async def _start(self, start: pb.StartChild) -> None:
        if self._kin.is_closed:
            raise invalid("start", "OUT_OF_ORDER", "comes after the nursery was closed")
        if not 1 <= start.number <= MAX_WIDTH:
            raise invalid("start.number", "OUT_OF_RANGE", f"must be 1 to {MAX_WIDTH:,}, got {start.number}")
        known = self._by_number.get(start.number)
        if known is not None:
            self._tell_again(known)
            return
        refusal: GopherError | None = None
        try:
            with tracing.submit_span(start.job.type, start.job.queue, 1) as trace:
                job = new_job(start.job, "start.job.", max_payload_bytes=self._max_payload_bytes, trace=trace)
        except GopherError as error:
            job, refusal = NewJob(type=start.job.type), error
        await self._attach(job.queue)
        job = msgspec.structs.replace(job, parent_id=self._parent.id, root_id=self._parent.id, request_id=None, depth=1)
        child = self._kin.add(job, OnCancel.CANCEL, start.number)
        self._by_number[start.number] = child
        if refusal is not None:
            self._kin.refuse(child, refusal)
        await self._kin.wait_sent(_MOST_UNSENT)

    async def _attach(self, queue: str) -> None:
        """Bring the nursery into being with its first child."""
        if self._attachment is None:
            parent = self._parent
            parent.queue = queue
            parent.id = await self._store.families.reserve(parent.namespace, queue)
            attachment = Attachment(parent.namespace, queue, parent.id, parent.grace_ms, self._note_lost)
            await self._store.attachments.attach(attachment)
            self._attachment = attachment
            self._carrier.take(self._kin)
            self._ring()

    async def resume(self, token: str) -> None:
        """Go on with a nursery of an earlier stream.

        Raises:
            InvalidRequestError: BAD_RESUME_TOKEN.
            NurseryGoneError: It was away for too long.
        """
        parent = self._parent
        parent.id = await self._unseal(token)
        parent.queue = await self._store.registry.queue_of(parent.namespace, parent.id)
        attachment = Attachment(parent.namespace, parent.queue, parent.id, parent.grace_ms, self._note_lost)
        if not await self._store.attachments.attach(attachment, again=True):
            raise NurseryGoneError(parent.id)
        self._attachment = attachment
        self._carrier.take(self._kin)
        for member in await self._store.families.members(parent.namespace, parent.queue, parent.id):
            queue = await self._store.registry.queue_of(parent.namespace, member.id)
            self._by_number[member.number] = self._kin.take_back(member.number, member.id, queue)
            self._note_stored(self._by_number[member.number])
        await self._carrier.follow(self._kin, list(self._by_number.values()))

    def close(self) -> None:
        """Take no more children; the stream ends when those that there are have ended."""
        self._kin.is_closed = True
        self._ring()

    # --- what it is told --------------------------------------------------------------------------------------------------------

    async def tell(self, send: Send) -> None:
        """Tell the client what becomes of its children, until all have ended and no more can come."""
        while True:
            if self._error is not None:
                raise self._error
            if not self._is_opened and (self._parent.id or self._kin.is_closed):
                self._is_opened = True
                token = await self._seal() if self._parent.id else ""
                await send(pb.RunNurseryResponse(opened=pb.NurseryOpened(nursery_id=self._parent.id, resume_token=token)))
            while self._untold:
                await send(await self._message(self._untold.popleft()))
            if self._kin.is_closed and self._kin.open_count == 0 and not self._untold:
                await send(pb.RunNurseryResponse(joined=pb.NurseryJoined()))
                return
            with trio.move_on_after(HEARTBEAT_SECONDS) as silence:
                await self._has_news.wait()
            self._has_news = trio.Event()
            if silence.cancelled_caught:
                await send(pb.RunNurseryResponse(heartbeat=pb.Heartbeat()))

    async def _message(self, told: Sibling | int) -> pb.RunNurseryResponse:
        if isinstance(told, int):
            return pb.RunNurseryResponse(started=pb.ChildStarted(number=told, job_id=self._by_number[told].id or ""))
        if told.error is not None:
            return pb.RunNurseryResponse(started=pb.ChildStarted(number=told.number, error=to_status(told.error)))
        ended = pb.ChildEnded(number=told.number, cancelled_by_nursery=told.by_nursery and told.state is JobState.CANCELLED)
        if told.id is not None:
            # One that was deleted, or kept for no time, has ended all the same.
            with suppress(JobNotFoundError):
                ended.job.CopyFrom(convert.job_to_message(await self._kin.read(told)))
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

    def _note_lost(self) -> None:
        self._error = NurseryGoneError(self._parent.id)
        self._ring()

    def _ring(self) -> None:
        self._has_news.set()

    # --- the end ----------------------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """Forget the nursery: all its children have ended."""
        parent, attachment = self._parent, self._attachment
        if attachment is not None:
            places = [self._kin.place(child) for child in self._kin.children if child.id is not None]
            for start in range(0, len(places), _LEAVE):
                await self._store.families.leave(parent.namespace, parent.queue, parent.id, places[start : start + _LEAVE])
            await self._store.attachments.detach(attachment)
            self._attachment = None

    def let_go(self) -> None:
        """End the session; a nursery that has not ended stands for its grace."""
        self._parent.is_over = True
        self._carrier.let_go(self._kin)
        if self._attachment is not None:
            self._store.attachments.let_go(self._attachment)

    async def _seal(self) -> str:
        nursery_id = self._parent.id.encode()
        return base64.urlsafe_b64encode(await self._sign(nursery_id) + nursery_id).decode()

    async def _unseal(self, token: str) -> str:
        try:
            sealed = base64.urlsafe_b64decode(token.encode())
        except (binascii.Error, ValueError):
            sealed = b""
        signature, nursery_id = sealed[:_SIGNATURE_BYTES], sealed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, await self._sign(nursery_id)):
            raise invalid("open.resume_token", "BAD_RESUME_TOKEN", "was not given for a nursery of this namespace")
        return nursery_id.decode()

    async def _sign(self, nursery_id: bytes) -> bytes:
        secret = await self._store.registry.page_secret(self._parent.namespace)
        return hmac.digest(secret, b"nursery\n" + nursery_id, "sha256")[:_SIGNATURE_BYTES]


def _check_reason(reason: str) -> None:
    """Check the reason of a cancel.

    Raises:
        InvalidRequestError: It is too long, or no text.
    """
    faults = Faults("cancel.")
    check.text(faults, "reason", reason)
    faults.refuse()
