"""Whether Redis can be used, on one of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
import trio

from gopher.service.readiness import Readiness
from gopher.store.store import Store

if TYPE_CHECKING:
    from tests.redis_server import RedisServer


@pytest.fixture
async def own_store(redis_server: RedisServer, nursery: trio.Nursery) -> Store:
    connected = Store(redis_server.url, client_name="test")
    await nursery.start(connected.run)
    return connected


async def test_redis_that_serves_has_no_fault(own_store: Store) -> None:
    """The embedded settings are right."""
    assert await Readiness(own_store, lambda _fault: None).fault() is None


@pytest.mark.parametrize(
    ("maxmemory", "policy", "is_fault"),
    [("100mb", "allkeys-lru", True), ("0", "allkeys-lru", False), ("100mb", "noeviction", False)],
)
async def test_eviction_is_a_fault(
    redis_server: RedisServer, own_store: Store, maxmemory: str, policy: str, *, is_fault: bool
) -> None:
    """A Redis that may throw jobs away is not used; a policy without a limit has no effect."""
    with redis.Redis.from_url(redis_server.url) as operator:
        operator.config_set("maxmemory", maxmemory)
        operator.config_set("maxmemory-policy", policy)

    fault = await Readiness(own_store, lambda _fault: None).fault()

    assert (fault is not None) is is_fault
    assert fault is None or f"maxmemory-policy is {policy}" in fault


async def test_each_look_is_reported(redis_server: RedisServer, own_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that goes is reported in a line that holds no address, and so is its return."""
    monkeypatch.setattr("gopher.service.readiness.ANSWER_SECONDS", 0.2)
    faults: list[str | None] = []
    readiness = Readiness(own_store, faults.append)

    await readiness.tick()
    redis_server.kill()
    await readiness.tick()
    redis_server.start()
    with trio.fail_after(30):
        while faults[-1] is not None:
            await readiness.tick()

    assert faults[0] is None
    assert faults[1] in {"redis does not serve now", "redis has not answered for 0.2 s"}
