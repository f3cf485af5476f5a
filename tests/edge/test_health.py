"""The state of the server, as both transports tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from grpc_health.v1 import health_pb2 as pb

from gopher.edge.health import STOPPING, Health
from gopher.errors import NotFoundError

if TYPE_CHECKING:
    from google.protobuf.message import Message

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
NAME = "gopher.v1.JobService"


class Watcher:
    """Takes what a Watch sends."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    async def send(self, message: Message) -> None:
        assert isinstance(message, pb.HealthCheckResponse)
        self.statuses.append(message.status)
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("service", ["", NAME])
async def test_check_follows_the_fault(service: str) -> None:
    """The whole server and each of its services serve while nothing is wrong."""
    health = Health([NAME])

    before = await health.check(pb.HealthCheckRequest(service=service))
    health.report("redis does not serve now")
    during = await health.check(pb.HealthCheckRequest(service=service))
    health.report(None)
    after = await health.check(pb.HealthCheckRequest(service=service))

    assert [before.status, during.status, after.status] == [SERVING, NOT_SERVING, SERVING]


async def test_check_of_an_unknown_service_is_not_found() -> None:
    """As the protocol has it."""
    with pytest.raises(NotFoundError):
        await Health([NAME]).check(pb.HealthCheckRequest(service="nope"))


async def test_watch_tells_each_change_and_ends_with_the_server(autojump_clock: trio.testing.MockClock) -> None:
    """The first message comes at once, one more with each change; the last one says that the server stops."""
    health, watcher = Health([NAME]), Watcher()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(health.watch, pb.HealthCheckRequest(), watcher.send)
        await trio.testing.wait_all_tasks_blocked()
        for fault in ("gone", "gone", "gone for long", None, STOPPING):
            health.report(fault)
            await trio.testing.wait_all_tasks_blocked()

    assert watcher.statuses == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]


async def test_watch_of_an_unknown_service_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    """It says SERVICE_UNKNOWN and stays, as the protocol has it."""
    health, watcher = Health([NAME]), Watcher()

    with trio.move_on_after(1) as scope:
        await health.watch(pb.HealthCheckRequest(service="nope"), watcher.send)

    assert watcher.statuses == [pb.HealthCheckResponse.SERVICE_UNKNOWN]
    assert scope.cancelled_caught


def test_stop_is_for_good() -> None:
    """A look at Redis that finds all well does not make a stopping server serve again."""
    health = Health([NAME])

    health.stop()
    health.report(None)

    assert health.fault == STOPPING
