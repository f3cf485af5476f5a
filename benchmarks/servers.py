"""The Redis of a measurement: one fresh redis-server for each, by the launcher and with the settings of `gopher dev`.

The driver looks into it with the synchronous redis-py: it has nothing else to do meanwhile, and an asynchronous client would only
add to what the measured processes compete with.
"""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import redis
import trio

from gopher.store.embedded import open_embedded_redis

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LOOK_SECONDS: Final = 10.0
"""Socket timeout of the driver's own look; a Redis that does not answer by then has failed."""

REWRITE_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running redis-server.

    Attributes:
        url: What the measured programs connect to.
        socket_path: The unix socket in `url`.
        look: The driver's own connection.
    """

    url: str
    socket_path: Path
    look: redis.Redis

    @property
    def environment(self) -> dict[str, str]:
        """What the measured programs are told about it."""
        return {"REDIS_URL": self.url}

    def used_memory_bytes(self) -> int:
        """Return the memory Redis has given out."""
        return int(self.look.info("memory")["used_memory"])

    def cpu_seconds(self) -> float:
        """Return the processor time Redis has used."""
        cpu = self.look.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    async def wait_rewritten(self) -> None:
        """Wait until Redis is not rewriting its append-only file: its child would need a core of those that are measured."""
        while self._is_rewriting():  # noqa: ASYNC110 - Redis announces it to nobody
            await trio.sleep(REWRITE_LOOK_SECONDS)

    def _is_rewriting(self) -> bool:
        persistence = self.look.info("persistence")
        return bool(persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"])

    def version(self) -> str:
        """Return the version of Redis."""
        return str(self.look.info("server")["redis_version"])


@asynccontextmanager
async def open_server() -> AsyncGenerator[Server]:
    """Run a fresh redis-server with an append-only file in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="gopher-bench-") as directory:
        async with open_embedded_redis(Path(directory)) as embedded:
            with redis.Redis.from_url(embedded.url, socket_timeout=LOOK_SECONDS) as look:
                yield Server(url=embedded.url, socket_path=embedded.socket_path, look=look)
