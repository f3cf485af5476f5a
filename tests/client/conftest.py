"""Fixtures for the tests of the clients: a server with a worker in processes of their own, and each client in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client.faces import FACES, Face
from tests.programs import dev_address

__all__ = ["dev_address", "face"]

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest, dev_address: str) -> Iterator[Face]:
    """Each of the clients in turn."""
    face = FACES[request.param](dev_address)
    yield face
    face.close()
