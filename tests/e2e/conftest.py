"""Fixtures for the end-to-end tests: real programs over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.store.store import Store
from tests.e2e.farm import Farm
from tests.programs import dev_address

__all__ = ["dev_address"]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trio

    from tests.redis_server import RedisServer


@pytest.fixture
async def farm(redis_url: str, namespace: str, nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Farm]:
    """Workers on the shared redis-server."""
    store = Store(redis_url, client_name="test")
    await nursery.start(store.run)
    with Farm(store, redis_url, namespace, tmp_path) as made:
        yield made


@pytest.fixture
async def lone_farm(redis_server: RedisServer, nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Farm]:
    """Workers on a redis-server of the test's own."""
    store = Store(redis_server.url, client_name="test")
    await nursery.start(store.run)
    with Farm(store, redis_server.url, "test", tmp_path) as made:
        yield made
