"""Fixtures for the tests of the commands: a server with a worker in processes of their own."""

from __future__ import annotations

from tests.programs import dev_address

__all__ = ["dev_address"]
