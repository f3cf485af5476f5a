"""Fixtures for the end-to-end tests: real programs over real sockets."""

from __future__ import annotations

from tests.programs import dev_address

__all__ = ["dev_address"]
