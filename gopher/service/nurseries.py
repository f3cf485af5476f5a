"""RunNursery: a nursery of jobs whose parent is a client.

The nursery is attached to the client for as long as a server holds its stream. A client that goes without having left it leaves it to
its grace: within that it may go on by another stream, to any server; after that the children are ended as orphans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from gopher.errors import JobNotFoundError, NurseryGoneError, invalid
from gopher.kin.kin import Kin
from gopher.nursery import DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS, MIN_GRACE_SECONDS, NurseryPolicy, OnCrash
from gopher.service.nursery_session import ClientParent, Session
from gopher.service.seals import Seal
from gopher.store.attachments import Attachment
from gopher.wire import check
from gopher.wire.check import Faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher_pb.v1 import job_stream_pb2 as pb

    from gopher.kin.carrier import Carrier
    from gopher.service.nursery_session import Send
    from gopher.store.store import Store

_POLICIES: Final = {0: NurseryPolicy.ALL, 1: NurseryPolicy.ALL, 2: NurseryPolicy.ANY, 3: NurseryPolicy.COLLECT}


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
        self._sessions: dict[str, Session] = {}

    async def run_nursery(self, requests: AsyncIterator[pb.RunNurseryRequest], send: Send) -> None:
        """Run a nursery until its client leaves it, or goes."""
        opening = await anext(requests, None)
        if opening is None or opening.WhichOneof("message") != "open":
            raise invalid("open", "REQUIRED", "the first message must open the nursery")
        session = self._session(opening.open)
        parent = session.parent
        try:
            if opening.open.resume_token:
                await self._resume(session, opening.open.resume_token)
            else:
                parent.id = await self._store.families.reserve(parent.namespace, parent.queue)
                await session.attach(self._attachment(session), again=False)
                self._sessions[parent.id] = session
            # While the client's stream lasts.
            async with trio.open_nursery() as tasks:
                tasks.start_soon(session.listen, requests)
                await session.tell(send, (await self._seal(parent)).close(parent.id.encode()))
                tasks.cancel_scope.cancel()
            if session.is_left:
                await session.forget()
        finally:
            session.let_go()
            if self._sessions.get(parent.id) is session:
                del self._sessions[parent.id]

    def _session(self, opening: pb.OpenNursery) -> Session:
        namespace = check.namespace(opening.namespace)
        faults = Faults("open.")
        queue = check.queue_or_default(faults, "queue", opening.queue)
        policy = _POLICIES.get(opening.policy)
        if policy is None:
            faults.add("policy", "BAD_ENUM", f"must be 1 (all), 2 (any), 3 (collect) or unset, got {opening.policy}")
        grace_ms = round(DEFAULT_GRACE_SECONDS * 1000)
        if opening.HasField("grace"):
            least, most = round(MIN_GRACE_SECONDS * 1000), round(MAX_GRACE_SECONDS * 1000)
            grace_ms = check.duration_ms(faults, "grace", opening.grace, least, most)
        faults.refuse()
        parent = ClientParent(namespace, queue, grace_ms)
        kin = Kin(self._carrier, parent, 1, policy=policy or NurseryPolicy.ALL, on_crash=OnCrash.CANCEL, earlier={})
        return Session(self._store, self._carrier, kin, parent, self._max_payload_bytes)

    async def _resume(self, session: Session, token: str) -> None:
        """Go on with a nursery of an earlier stream, which is over from here on.

        Raises:
            InvalidRequestError: BAD_RESUME_TOKEN.
            NurseryGoneError: It was away for too long.
        """
        parent = session.parent
        opened = (await self._seal(parent)).open(token)
        if opened is None:
            raise invalid("open.resume_token", "BAD_RESUME_TOKEN", "was not given for a nursery of this namespace")
        nursery_id = opened.decode()
        try:
            parent.queue = await self._store.registry.queue_of(parent.namespace, nursery_id)
        except JobNotFoundError:
            raise NurseryGoneError(nursery_id) from None
        parent.id = nursery_id
        if not await session.attach(self._attachment(session), again=True):
            raise NurseryGoneError(nursery_id)
        # A server follows each child for one session: the earlier one must have let go before this one takes it back.
        earlier = self._sessions.get(nursery_id)
        self._sessions[nursery_id] = session
        if earlier is not None:
            earlier.give_way()
        await session.take_back()

    def _attachment(self, session: Session) -> Attachment:
        parent = session.parent
        return Attachment(parent.namespace, parent.queue, parent.id, parent.grace_ms, session.note_lost)

    async def _seal(self, parent: ClientParent) -> Seal:
        return Seal(await self._store.registry.page_secret(parent.namespace), "nursery")
