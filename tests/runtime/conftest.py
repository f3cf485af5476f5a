"""Fixtures for the tests of the worker: a bench with no Redis, and a connected store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.store.store import Store
from tests.runtime.home import Home
from tests.runtime.rig import Bench

if TYPE_CHECKING:
    import trio


@pytest.fixture
def bench() -> Bench:
    """A runner whose handlers the test makes."""
    return Bench()


@pytest.fixture
async def store(redis_url: str, nursery: trio.Nursery) -> Store:
    """A store on the shared redis-server."""
    connected = Store(redis_url, client_name="test")
    await nursery.start(connected.run)
    return connected


@pytest.fixture
def home(store: Store, redis_url: str, namespace: str) -> Home:
    """Room for workers whose handlers open nurseries, on the shared redis-server."""
    return Home(store, redis_url, namespace)
