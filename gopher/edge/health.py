"""Whether this server serves, told alike over gRPC (`grpc.health.v1`) and HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from grpc_health.v1 import health_pb2 as pb

from gopher.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Send = Callable[[pb.HealthCheckResponse], Awaitable[None]]

STOPPING: Final = "the server is stopping"


class Health:
    """The state of this server, and the rpcs that tell it.

    Attributes:
        fault: What keeps it from serving, in one line; None while it serves.

    Args:
        services: Full names of the services it answers for; the empty name, for the whole server, is always known.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self.fault: str | None = None
        self._services = {"", *services}
        self._changed = trio.Event()

    def report(self, fault: str | None) -> None:
        """Say what is wrong now; a server that stops stays so."""
        if self.fault not in {fault, STOPPING}:
            self.fault = fault
            self._changed.set()
            self._changed = trio.Event()

    def stop(self) -> None:
        """Say, for good, that the server is stopping; every Watch is told, and ends."""
        self.report(STOPPING)

    @property
    def is_stopping(self) -> bool:
        """Whether the server stops, for good."""
        return self.fault == STOPPING

    async def wait_stopping(self) -> None:
        """Return once the server stops."""
        while not self.is_stopping:
            await self._changed.wait()

    async def check(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        """Return whether a service is served.

        Raises:
            NotFoundError: There is no such service.
        """
        if request.service not in self._services:
            raise NotFoundError(f"service {request.service[:64]!r} does not exist")
        return self._answer(request)

    async def watch(self, request: pb.HealthCheckRequest, send: Send) -> None:
        """Send whether a service is served, at once and after each change."""
        told: int | None = None
        while True:
            changed, answer = self._changed, self._answer(request)
            if answer.status != told:
                await send(answer)
                told = answer.status
            if self.fault == STOPPING:
                return
            # What has changed while the answer was sent is found at once.
            await changed.wait()

    def _answer(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
        is_serving = self.fault is None
        return pb.HealthCheckResponse(
            status=pb.HealthCheckResponse.SERVING if is_serving else pb.HealthCheckResponse.NOT_SERVING
        )
