"""WorkerService: workers in other languages, each on a stream."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from gopher.errors import CallExpiredError
from gopher.service.remote_frames import out_of_order, read_greeting
from gopher.service.remote_identity import Identities
from gopher.service.remote_session import Session
from gopher.wire.worker_errors import ServerBusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from gopher_pb.v1 import worker_service_pb2 as pb

    from gopher.service.remote_frames import Greeting
    from gopher.service.remote_holdings import Meter
    from gopher.service.remote_line import Send
    from gopher.service.remote_session import Terms
    from gopher.store.store import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

HELLO_SECONDS: Final = 10.0
"""Chosen: a worker knows what it is before it connects."""
MOST_SERVED: Final = 4096
"""Queues, of all workers on streams of a server; chosen: each takes some tasks and a subscription, about 30 KB."""


class Upkeep(Protocol):
    """Does for a queue what workers that are ours do beside running its jobs; `gopher.runtime.upkeep` has it."""

    def keep(self, namespace: str, queue: str) -> AbstractAsyncContextManager[Meter]:
        """Keep a queue while the block lasts; what is counted in the meter is told by GetStats."""


class RemoteWorkers:
    """Answers the rpc.

    Args:
        store: Where the jobs are.
        upkeep: Keeps the queues of workers that are connected.
        terms: What workers are offered.
    """

    def __init__(self, store: Store, upkeep: Upkeep, terms: Terms) -> None:
        self._store = store
        self._upkeep = upkeep
        self._terms = terms
        self._identities = Identities(store.registry)
        self._served: Counter[tuple[str, str]] = Counter()

    async def connect(self, requests: AsyncIterator[pb.ConnectRequest], send: Send) -> None:
        """Serve a worker for as long as its stream lasts."""
        greeting = await _greeting(requests)
        worker, resume_token = await self._identities.identify(greeting)

        async def declare() -> None:
            for queue in greeting.queues:
                await self._store.registry.name_queue(greeting.namespace, queue)
            await self._store.registry.add_types(greeting.namespace, sorted(greeting.types))

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._store.declarations.declared(declare))
            stack.enter_context(self._counted(greeting))
            meters = {
                queue: await stack.enter_async_context(self._upkeep.keep(greeting.namespace, queue))
                for queue in greeting.queues
            }
            _log.info("worker.connected", worker=worker, stream=greeting.stream)
            try:
                session = Session(self._store, self._terms, greeting, meters, worker=worker)
                await session.run(requests, send, resume_token)
            finally:
                _log.info("worker.disconnected", worker=worker, stream=greeting.stream)

    @contextmanager
    def _counted(self, greeting: Greeting) -> Iterator[None]:
        """Count the queues of a worker while the block lasts.

        Raises:
            ServerBusyError: There are too many of them.
        """
        queues = [(greeting.namespace, queue) for queue in greeting.queues]
        if len(self._served.keys() | set(queues)) > MOST_SERVED:
            raise ServerBusyError(f"workers on streams are served from {MOST_SERVED} queues here")
        self._served.update(queues)
        try:
            yield
        finally:
            self._served.subtract(queues)
            for each in queues:
                if not self._served[each]:
                    del self._served[each]


async def _greeting(requests: AsyncIterator[pb.ConnectRequest]) -> Greeting:
    """Take the first frame.

    Raises:
        CallExpiredError: None came in time.
        InvalidRequestError: It is no hello, or a faulty one.
    """
    with trio.move_on_after(HELLO_SECONDS):
        async for frame in requests:
            return read_greeting(frame)
        raise out_of_order("the stream ended before a hello came")
    raise CallExpiredError(f"no hello came within {HELLO_SECONDS:g} s")
