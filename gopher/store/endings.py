"""Tells when jobs end, for any number of jobs of any queue, at the cost of one subscription a queue.

A subscription is left a while after the last job that was followed in its queue, since whoever starts children often soon starts more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from gopher.job import FINAL_STATES, JobState
from gopher.store import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.link import Link

    Tell = Callable[[JobState | None], None]

_LINGER_SECONDS: Final = 5.0
"""Chosen: meanwhile the queue's changes are looked through for nothing, some 0.3 us each."""
_ID_LENGTH: Final = 36
_ENDS: Final[dict[bytes, JobState | None]] = {state.value.encode(): state for state in FINAL_STATES} | {b"deleted": None}


class Endings:
    """Follows jobs to their end.

    What was published while the connection to Redis was down is missed: whoever follows is told of a renewed connection by
    `link.on_reconnect`, and looks at what it follows.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queues: dict[bytes, _Followed] = {}
        self._has_idle = trio.Event()

    async def listen(self, namespace: str, queue: str) -> None:
        """Hear a queue's changes from now on, until nothing was followed there for a while; `follow` at once after this.

        Raises:
            StoreError: As `Link.subscribe`.
        """
        channel = keys.events(namespace, queue).encode()
        while channel not in self._queues:
            followed = _Followed()
            await self._link.subscribe(channel, followed.receive)
            if channel in self._queues:  # another Trio task was faster
                await self._link.unsubscribe(channel, followed.receive)
            else:
                self._queues[channel] = followed

    def follow(self, namespace: str, queue: str, job_id: str, tell: Tell) -> None:
        """Have `tell` called once, with the final state of a job, or None if it is deleted; it must neither block nor raise."""
        self._queues[keys.events(namespace, queue).encode()].tells[job_id.encode()] = tell

    def forget(self, namespace: str, queue: str, job_id: str) -> None:
        """Follow a job no more."""
        followed = self._queues.get(keys.events(namespace, queue).encode())
        if followed is not None:
            followed.tells.pop(job_id.encode(), None)
            if not followed.tells:
                self._has_idle.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Leave subscriptions that nobody needs, until cancelled."""
        task_status.started()
        while True:
            await self._has_idle.wait()
            self._has_idle = trio.Event()
            await trio.sleep(_LINGER_SECONDS)
            for channel, followed in list(self._queues.items()):
                if not followed.tells:
                    del self._queues[channel]
                    await self._link.unsubscribe(channel, followed.receive)


class _Followed:
    """The jobs that are followed in one queue."""

    def __init__(self) -> None:
        self.tells: dict[bytes, Tell] = {}

    def receive(self, message: bytes) -> None:
        """Take one message of `publish_changes` in lib/queue.lua: a first line, then `id state ...` a change."""
        tells = self.tells
        if not tells:
            return
        for line in message.split(b"\n"):
            tell = tells.get(line[:_ID_LENGTH])
            if tell is not None:
                state = line[_ID_LENGTH + 1 :].partition(b" ")[0]
                if state in _ENDS:
                    del tells[line[:_ID_LENGTH]]
                    tell(_ENDS[state])
