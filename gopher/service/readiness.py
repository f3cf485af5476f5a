"""Whether Redis is there and set up so that it loses no job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from gopher.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.store import Store

KEEPS_EVERYTHING: Final = "noeviction"
PAUSE_SECONDS: Final = 2.0
"""Between two looks; chosen: what a balancer that asks every few seconds cannot tell from at once."""
ANSWER_SECONDS: Final = 2.0
"""How long an answer may take; chosen: longer than a slow script, shorter than a person's patience."""


class Readiness:
    """Looks at Redis.

    Args:
        store: The way to it.
        report: Told after each look what is wrong, in one line without an address; None when nothing is.
    """

    def __init__(self, store: Store, report: Callable[[str | None], None]) -> None:
        self._store = store
        self._report = report

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await trio.sleep(PAUSE_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Look once and report."""
        self._report(await self.fault())

    async def fault(self) -> str | None:
        """Return what keeps Redis from being used; None when nothing does."""
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                stats = await self._store.query.redis_stats()
            except StoreError:
                return "redis does not serve now"
            if stats.max_memory_bytes and stats.maxmemory_policy != KEEPS_EVERYTHING:
                return (
                    f"redis may throw jobs away: its maxmemory-policy is {stats.maxmemory_policy}; "
                    f"set it to {KEEPS_EVERYTHING} (CONFIG SET maxmemory-policy {KEEPS_EVERYTHING})"
                )
            return None
        return f"redis has not answered for {ANSWER_SECONDS:g} s"
