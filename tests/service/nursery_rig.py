"""A client that streams into RunNursery and notes what it is told, and the upkeep of a worker for what clients leave behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio
from google.protobuf.duration_pb2 import Duration

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_stream_pb2 as pb

from gopher.errors import GopherError
from gopher.kin.carrier import Carrier
from gopher.runtime.orphans import Orphans
from gopher.service.nurseries import Nurseries
from gopher.store import keys
from gopher.store.store import Store
from tests.waiting import PATIENCE_SECONDS, until, until_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.job import JobState

    Said = pb.RunNurseryRequest

CLOSE: Final = pb.RunNurseryRequest(close=pb.CloseNursery())
LEAVE: Final = pb.RunNurseryRequest(leave=pb.LeaveNursery())


def start(number: int, *, may_be_refused: bool = False, detached: bool = False, **fields: object) -> Said:
    spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # the test names fields of JobSpec
    child = pb.StartChild(number=number, job=spec, may_be_refused=may_be_refused, detached=detached)
    return pb.RunNurseryRequest(start=child)


def cancel(through: int = 0, reason: str = "") -> Said:
    return pb.RunNurseryRequest(cancel=pb.CancelNursery(through_number=through, reason=reason))


class Talk:
    """One stream of a nursery.

    Attributes:
        answers: What has been told, in order.
        error: What the stream has ended with.
        ended: Set when it has.
        gate: What is told waits for it.
    """

    def __init__(self, nurseries: Nurseries) -> None:
        self.answers: list[pb.RunNurseryResponse] = []
        self.error: GopherError | None = None
        self.ended = trio.Event()
        self.gate = trio.Event()
        self.gate.set()
        self._nurseries = nurseries
        self._mouth, self._ear = trio.open_memory_channel[pb.RunNurseryRequest](math.inf)
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._nurseries.run_nursery(self._ear, self._send)
        except* GopherError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                (error,) = error.exceptions
            assert isinstance(error, GopherError)
            self.error = error
        self.ended.set()

    async def _send(self, answer: pb.RunNurseryResponse) -> None:
        await trio.lowlevel.checkpoint()
        await self.gate.wait()
        self.answers.append(answer)

    def say(self, *requests: Said) -> None:
        for request in requests:
            self._mouth.send_nowait(request)

    def half_close(self) -> None:
        self._mouth.close()

    @property
    def unheard(self) -> int:
        """Requests that nobody has taken."""
        return self._ear.statistics().current_buffer_used

    async def vanish(self) -> None:
        """Go without a word."""
        self._scope.cancel()
        await self.end()

    async def end(self) -> GopherError | None:
        """Wait for the end of the stream and return its error."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.ended.wait()
        return self.error

    async def leave(self) -> None:
        """Hear all, and leave."""
        await self.hear("joined")
        self.say(LEAVE)
        assert await self.end() is None

    async def hear(self, kind: str, count: int = 1) -> list[pb.RunNurseryResponse]:
        """Wait until so many messages of a kind have been told, and return all of them."""
        await until(lambda: len(self.heard(kind)) >= count or self.ended.is_set())
        assert len(self.heard(kind)) >= count, f"the stream has ended with {self.error!r}: {self.answers}"
        return self.heard(kind)

    def heard(self, kind: str) -> list[pb.RunNurseryResponse]:
        return [answer for answer in self.answers if answer.WhichOneof("message") == kind]

    @property
    def token(self) -> str:
        (opened,) = self.heard("opened")
        return opened.opened.resume_token

    @property
    def nursery_id(self) -> str:
        (opened,) = self.heard("opened")
        return opened.opened.nursery_id

    def kinds(self) -> list[str | None]:
        return [answer.WhichOneof("message") for answer in self.answers]


class Desk:
    """Servers that answer RunNursery, and a worker's upkeep."""

    def __init__(self, store: Store, url: str, namespace: str, nursery: trio.Nursery) -> None:
        self.store = store
        self.namespace = namespace
        self._url = url
        self._tasks = nursery
        self.nurseries = self._serve(store, accept_unknown_types=True)

    async def server(self, *, accept_unknown_types: bool = True) -> Nurseries:
        """Start another server on the same Redis."""
        store = Store(self._url, client_name="test")
        await self._tasks.start(store.run)
        return self._serve(store, accept_unknown_types=accept_unknown_types)

    def _serve(self, store: Store, *, accept_unknown_types: bool) -> Nurseries:
        carrier = Carrier(store, accept_unknown_types=accept_unknown_types)
        self._tasks.start_soon(carrier.run)
        self._tasks.start_soon(store.attachments.run)
        return Nurseries(store, carrier, max_payload_bytes=1024)

    def dial(self, *requests: Said, server: Nurseries | None = None) -> Talk:
        """Begin a stream and say something."""
        talk = Talk(server or self.nurseries)
        self._tasks.start_soon(talk.run)
        talk.say(*requests)
        return talk

    def open(self, policy: int = 0, *, grace_seconds: int = 60, token: str = "", namespace: str = "", queue: str = "") -> Said:
        opening = pb.OpenNursery(
            namespace=namespace or self.namespace,
            policy=policy,  # type: ignore[arg-type]  # an enum is a number, and may be a wrong one
            grace=Duration(seconds=grace_seconds),
            resume_token=token,
            queue=queue,
        )
        return pb.RunNurseryRequest(open=opening)

    async def sweep(self, nursery_id: str, queue: str = "default") -> None:
        """Do what workers do until nothing is left of a nursery that was not left."""
        orphans = Orphans(self.store.families, self.store.lifecycle, namespace=self.namespace, queue=queue, sweep_seconds=60.0)

        async def is_gone() -> bool:
            await self.store.lifecycle.reap(self.namespace, queue)
            await orphans.tick()
            return await self.is_forgotten(nursery_id, queue)

        await until_async(is_gone)

    async def is_forgotten(self, nursery_id: str, queue: str = "default") -> bool:
        """Tell whether Redis holds nothing of a nursery."""
        is_attached = await self.store.link.call("ZSCORE", keys.attached(self.namespace, queue), nursery_id)
        has_family = await self.store.link.call("EXISTS", keys.family(self.namespace, queue, nursery_id))
        return is_attached is None and not has_family

    async def state(self, job_id: str) -> JobState:
        return (await self.store.query.get(self.namespace, job_id)).state


def only(answers: list[pb.RunNurseryResponse], look: Callable[[pb.RunNurseryResponse], bool]) -> pb.RunNurseryResponse:
    (found,) = [answer for answer in answers if look(answer)]
    return found
