"""Fixtures for the tests of nurseries' children: a connected store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.store.store import Store

if TYPE_CHECKING:
    import trio


@pytest.fixture
async def store(redis_url: str, nursery: trio.Nursery) -> Store:
    """A store on the shared redis-server."""
    connected = Store(redis_url, client_name="test")
    await nursery.start(connected.run)
    return connected
