"""Brings the replies of a call home to Trio: all that have come since the last look at once, for calls that have many.

Nothing holds the server back: for calls whose replies are bounded in number.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


class Replies:
    """The replies of one call, read in a thread that ends with the call.

    Args:
        replies: What gRPC gives; it blocks.
    """

    def __init__(self, replies: Iterator[bytes]) -> None:
        self._replies = replies
        self._arrived: deque[bytes | Exception | None] = deque()
        self._news = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    async def each(self) -> AsyncGenerator[bytes]:
        """Yield each reply; whoever leaves this early must end the call."""
        threading.Thread(target=self._read, name="gopher-replies", daemon=True).start()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._arrived:
                reply = self._arrived.popleft()
                if reply is None:
                    return
                if isinstance(reply, Exception):
                    raise reply
                yield reply

    def _read(self) -> None:
        try:
            for reply in self._replies:
                self._post(reply)
            self._post(None)
        except Exception as error:  # noqa: BLE001 - raised again where the replies are taken
            self._post(error)

    def _post(self, reply: bytes | Exception | None) -> None:
        self._arrived.append(reply)
        # A call may end after the whole Trio run.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._ring, idempotent=True)

    def _ring(self) -> None:
        self._news.set()
