"""Fixtures for the tests of the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.edge.rest_rig import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.edge.rest_rig import Rest


@pytest.fixture
async def rest(redis_url: str, namespace: str) -> AsyncIterator[Rest]:
    """A server with HTTP that takes every type, in a namespace of the test's own."""
    async with serving(redis_url, namespace) as running:
        yield running
