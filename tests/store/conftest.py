"""Fixtures for the tests of the store: a connected store, and a rig whose clock the test turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.store.store import Store
from tests.store.rig import Rig, turn_clocks

if TYPE_CHECKING:
    import trio


@pytest.fixture
async def store(redis_url: str, nursery: trio.Nursery) -> Store:
    """A store on the shared redis-server."""
    connected = Store(redis_url, client_name="test")
    await nursery.start(connected.run)
    return connected


@pytest.fixture
async def rig(store: Store, namespace: str) -> Rig:
    """The queue `default` of the test's namespace, at START_MS."""
    turn_clocks(store.lifecycle, store.audit, store.limits, store.breakers, store.outbox, store.histories, store.families)
    turn_clocks(store.attached_jobs)
    made = Rig(store, namespace)
    await made.set_clock()
    return made
