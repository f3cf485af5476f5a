"""`gopher dev`: everything on one machine with one command; an embedded Redis, the server in this process, the worker beside it.

The worker is a child process (`gopher-worker`), so that killing one does not kill the other; it is restarted when it dies. All
children are on a leash: none outlives this process, however it ends. At a stop the worker drains first, then the server, then Redis.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from gopher import config
from gopher.cli import options, output, starting
from gopher.cli.server import Addresses, Server
from gopher.cli.worker import processes_for
from gopher.runtime.signals import watch_signals
from gopher.store.embedded import open_embedded_redis

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gopher.config import Settings


def run(settings: Settings) -> None:
    """Run everything until told to stop.

    Raises:
        StartError: An address or the data directory is in use, Redis cannot be used, or the application cannot be imported.
    """
    with starting.telemetry(settings.telemetry, "gopher-server"):
        trio.run(_serve, settings)


async def _serve(settings: Settings) -> None:
    async with _redis(settings) as url, trio.open_nursery() as nursery:
        store = starting.new_store(settings.store, "gopher-dev", url=url)
        await starting.connect(nursery, store, settings.store)
        server = Server(settings.server, store)
        watchdog = starting.Watchdog(settings.server.grace_seconds)
        # While the server serves; the worker ends first, because what it runs may still submit.
        async with trio.open_nursery() as serving:
            addresses = await serving.start(server.run)
            try:
                if settings.worker.app:
                    await processes_for(
                        settings,
                        url,
                        on_ready=lambda served: output.line(f"ready {addresses} {served}"),
                        on_stop=lambda: _say_stopping(settings.worker.grace_seconds),
                        on_abort=server.abort,
                    ).run()
                else:
                    await _until_told(addresses)
            finally:
                # The worker's end has bounds of its own; from here on the server's is awaited.
                watchdog.arm()
            server.stop()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _redis(settings: Settings) -> AsyncGenerator[str]:
    """Give the URL of the Redis that is named, or of one of our own."""
    if settings.store.redis_url is not None:
        yield settings.store.url
        return
    async with open_embedded_redis(settings.dev.data_path) as redis:
        yield redis.url


def _say_stopping(grace_seconds: float) -> None:
    output.say(f"stopping: what runs has {grace_seconds:g} s to end (--grace); Ctrl-C again stops at once")


async def _until_told(addresses: Addresses) -> None:
    """Serve without a worker until a signal comes: jobs are kept until one is started with the same Redis."""
    told = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: watch_signals(drain=told.set, abort=told.set, task_status=task_status))
        output.line(f"ready {addresses}")
        await told.wait()
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run the program."""
    sys.exit(options.run_program(config.DEV, run))
