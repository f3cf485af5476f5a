"""What operators order on a running system, by the command line as they would, takes effect at once."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from tests.programs import run
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GUARDED: Final = "guarded"
LIMITED: Final = "limited"
"""No other test runs a job of this type: a limit counts what it has let start before it was set."""


class Operator:
    """Runs commands, each of which must succeed."""

    def __init__(self, address: str) -> None:
        self._environ = {**os.environ, "GOPHER_SERVER": address}

    async def gopher(self, *argv: str) -> str:
        """Run a command and return its output."""
        done = await trio.to_thread.run_sync(partial(run, "gopher.cli.main", *argv, environ=self._environ))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def job(self, job_id: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(await self.gopher("get", job_id, "--json"))
        return found

    async def until(self, job_id: str, key: str, value: str) -> dict[str, object]:
        """Wait until a job shows a value, and return it."""
        found: dict[str, object] = {}

        async def shows() -> bool:
            found.update(await self.job(job_id))
            return found[key] == value

        await until_async(shows)
        return found


@asynccontextmanager
async def operator_of(address: str) -> AsyncIterator[Operator]:
    """Take back at the end what was ordered: other tests use the same system."""
    operator = Operator(address)
    yield operator
    await operator.gopher("breakers", "dependency", "--control", "automatic")
    await operator.gopher("rate-limit", LIMITED, "--remove")


async def test_limit_takes_effect_on_a_running_system(dev_address: str) -> None:
    """Of two jobs one runs and one is parked; with a higher limit it runs too, though the day is not over."""
    async with operator_of(dev_address) as operator:
        await operator.gopher("rate-limit", LIMITED, "--limit", "1", "--per", "d")
        first = await operator.gopher("submit", LIMITED)
        await operator.until(first, "state", "completed")
        second = await operator.gopher("submit", LIMITED)
        held = await operator.until(second, "parked_by", f"rate:{LIMITED}")
        queues = [json.loads(line) for line in (await operator.gopher("queues", "--json")).splitlines()]
        await operator.gopher("rate-limit", LIMITED, "--limit", "10", "--per", "d")
        freed = await operator.until(second, "state", "completed")

    assert (held["state"], held["attempt"]) == ("enqueued", 0)
    assert [each["parked"] for each in queues if each["name"] == "default"] == [1]
    assert (freed["parked_by"], freed["attempt"]) == (None, 1)


async def test_breaker_held_open_parks_and_closed_lets_go(dev_address: str) -> None:
    """A job waits with no attempt spent, and starts once the order changes."""
    async with operator_of(dev_address) as operator:
        await operator.gopher("breakers", "dependency", "--control", "open")
        job_id = await operator.gopher("submit", GUARDED)
        held = await operator.until(job_id, "parked_by", "breaker:dependency")
        await operator.gopher("breakers", "dependency", "--control", "closed")
        freed = await operator.until(job_id, "state", "completed")

    assert (held["state"], held["attempt"]) == ("enqueued", 0)
    assert (freed["parked_by"], freed["attempt"]) == (None, 1)
