"""Fixtures for the tests of the worker: a bench with no Redis, and a connected store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.store.store import Store
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
