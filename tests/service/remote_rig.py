"""Workers on streams as tests play them: plain frames each way, no socket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

import trio

from gopher_pb.v1 import worker_service_pb2 as pb

from gopher.retry import RetryPolicy
from gopher.runtime.upkeep import Upkeep
from gopher.service.remote_session import Terms
from gopher.service.remote_workers import RemoteWorkers
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gopher.job import Job, JobState
    from gopher.store.store import Store
    from tests.service.conftest import Rig

LEASE_SECONDS: Final = 20.0
MAX_RESULT_BYTES: Final = 100


class Stream:
    """One stream of a worker: what it says, and what it has heard."""

    def __init__(self) -> None:
        self._say, self._said = trio.open_memory_channel[pb.ConnectRequest](1000)
        self._tell, self._told = trio.open_memory_channel[pb.ConnectResponse](1000)
        self.may_read = trio.Event()
        self.may_read.set()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self.resume_token = ""
        self.number = 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pb.ConnectRequest:
        try:
            return await self._said.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def send(self, frame: pb.ConnectResponse) -> None:
        """Hear a frame, in the server."""
        await self.may_read.wait()
        await self._tell.send(frame)

    async def serve(self, workers: RemoteWorkers) -> None:
        """Be served until the end, in the server."""
        try:
            with self.scope:
                await workers.connect(self, self.send)
        except Exception as error:  # noqa: BLE001 - what the edge would turn into a status
            self.error = error
        finally:
            self.ended.set()
            self._tell.close()

    def say(self, *frames: pb.ConnectRequest) -> None:
        """Say something."""
        for frame in frames:
            self._say.send_nowait(frame)

    def hang_up(self) -> None:
        """Say no more, as a client does that half-closes."""
        self._say.close()

    async def cut(self) -> None:
        """Break the connection."""
        self.scope.cancel()
        await self.ended.wait()

    async def hear(self, *, pings: bool = False) -> pb.ConnectResponse:
        """Return what is said next, but pings."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                frame = await self._told.receive()
                if pings or frame.WhichOneof("frame") != "ping":
                    return frame

    async def hear_welcome(self) -> pb.Welcome:
        frame = await self.hear()
        assert frame.WhichOneof("frame") == "welcome", frame
        self.resume_token = frame.welcome.resume_token
        return frame.welcome

    async def hear_assignment(self) -> pb.Assignment:
        frame = await self.hear()
        assert frame.WhichOneof("frame") == "assignment", frame
        return frame.assignment

    async def hear_settled(self) -> pb.Settled:
        frame = await self.hear()
        assert frame.WhichOneof("frame") == "settled", frame
        return frame.settled

    def heard_nothing(self) -> bool:
        """Tell whether all that was said has been heard."""
        return self._told.statistics().current_buffer_used == 0

    async def settle_stream(self) -> None:
        """Wait until all that was said has been acted upon: the answer to an empty extend comes after it."""
        self.say(extend())
        frame = await self.hear()
        assert frame.WhichOneof("frame") == "extended", frame

    async def end(self) -> BaseException | None:
        """Wait for the end and return why it ended; None for OK."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.ended.wait()
        return self.error


def hello(namespace: str, *, types: Sequence[str] = ("email",), **fields: object) -> pb.ConnectRequest:
    said = {"namespace": namespace, "queues": {"default": 1}, "types": types, "stream": 1, **fields}
    return pb.ConnectRequest(hello=pb.Hello(**said))  # type: ignore[arg-type]  # the test names fields of Hello


def credit(jobs: int = 1) -> pb.ConnectRequest:
    return pb.ConnectRequest(credit=pb.Credit(jobs=jobs))


def extend(*leases: pb.Lease) -> pb.ConnectRequest:
    return pb.ConnectRequest(extend=pb.Extend(leases=leases))


def settle(lease: pb.Lease, **fields: object) -> pb.ConnectRequest:
    return pb.ConnectRequest(settle=pb.Settle(lease=lease, **fields))  # type: ignore[arg-type]  # as above


def leave() -> pb.ConnectRequest:
    return pb.ConnectRequest(leave=pb.Leave())


class Remote:
    """The service, for workers of one namespace."""

    def __init__(self, rig: Rig, nursery: trio.Nursery, upkeep: Upkeep, terms: Terms) -> None:
        self.rig = rig
        self.store: Store = rig.store
        self.namespace = rig.namespace
        self.upkeep = upkeep
        self._nursery = nursery
        self.workers = RemoteWorkers(rig.store, upkeep, terms)

    def open(self) -> Stream:
        """Open a stream, and say nothing."""
        stream = Stream()
        self._nursery.start_soon(stream.serve, self.workers)
        return stream

    async def connect(self, **fields: object) -> Stream:
        """Open a stream and be welcomed."""
        stream = self.open()
        stream.say(hello(self.namespace, **fields))  # type: ignore[arg-type]  # as above
        await stream.hear_welcome()
        return stream

    async def submit(self, **fields: object) -> str:
        return await self.rig.submit(**fields)

    async def assigned(self, stream: Stream, **fields: object) -> pb.Assignment:
        """Submit a job and have it assigned."""
        await self.submit(**fields)
        stream.say(credit())
        return await stream.hear_assignment()

    async def job(self, job_id: str) -> Job:
        return await self.store.query.get(self.namespace, job_id)

    async def state(self, job_id: str) -> JobState:
        return (await self.job(job_id)).state


@asynccontextmanager
async def serving_workers(
    rig: Rig, *, lease_seconds: float = LEASE_SECONDS, poll_seconds: float = 0.5
) -> AsyncIterator[Remote]:
    """Serve workers while the block lasts."""
    terms = Terms(
        lease_seconds=lease_seconds,
        poll_seconds=poll_seconds,
        max_result_bytes=MAX_RESULT_BYTES,
        policy=RetryPolicy(max_attempts=2, backoff_initial_seconds=0.001),
    )
    upkeep = Upkeep(rig.store, poll_seconds=poll_seconds, sweep_seconds=min(1.0, lease_seconds / 3))
    async with trio.open_nursery() as nursery:
        await nursery.start(upkeep.run)
        yield Remote(rig, nursery, upkeep, terms)
        nursery.cancel_scope.cancel()
