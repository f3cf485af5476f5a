"""A handler of the original's README: its mail is refused for as long as a file stands in the way."""

from __future__ import annotations

import os
from typing import Final

import trio

import gopher

BLOCKER_VARIABLE: Final = "GOPHER_TEST_BLOCKER"

registry = gopher.Registry()


@registry.handler("email", backoff_initial_seconds=0.01, backoff_max_seconds=0.01)
async def email(job: gopher.JobContext, payload: dict[str, str]) -> dict[str, str]:
    """Say to whom the mail went."""
    if await trio.Path(os.environ[BLOCKER_VARIABLE]).exists():
        raise ConnectionError("the mail server is down")
    return {"to": payload["to"]}
