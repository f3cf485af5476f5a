"""Hears what Redis tells the workers of a queue: that it has jobs again, that something is due earlier, that a job is to be ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.runtime.claimer import Claimer
    from gopher.runtime.inspector import Inspector
    from gopher.runtime.orphans import Orphans
    from gopher.runtime.promoter import Promoter
    from gopher.runtime.scheduler import Scheduler
    from gopher.runtime.scopes import Scopes
    from gopher.store.events import Control


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Passes the messages of one queue on.

    Attributes:
        control: Where they come from.
        namespace: Of the queue.
        queue: Whose messages.
        claimer: Is woken.
        promoter: Is woken.
        scheduler: Is woken.
        scopes: Ends jobs, and is told which are watched.
        orphans: Is woken.
        inspector: Answers servers.
        drain: Called with the id of a worker that is to drain, and the grace in seconds, None for its own.
    """

    control: Control
    namespace: str
    queue: str
    claimer: Claimer
    promoter: Promoter
    scheduler: Scheduler
    scopes: Scopes
    orphans: Orphans
    inspector: Inspector
    drain: Callable[[str, float | None], None]

    async def start(self) -> None:
        """Listen from now on, for as long as the link lives."""
        await self.control.listen(self.namespace, self.queue, self.receive)

    def receive(self, word: str, rest: list[str]) -> None:
        """Take one message."""
        match word, rest:
            case "wake", _:
                self.claimer.wake(self.queue)
            case "due", _:
                self.promoter.wake()
            case "schedule", _:
                self.scheduler.wake()
            case "orphans", _:
                self.orphans.wake()
            case "cancel", [job_id, token, grace_ms, *_]:
                self.scopes.request_cancel(job_id, int(token), int(grace_ms) / 1000)
            case "watched", [job_id]:
                self.scopes.note_watched(job_id)
            case "tree", [job_id, token, question, *_]:
                self.inspector.ask_nowait(job_id, int(token), question)
            case "drain", [worker, grace_ms, *_]:
                self.drain(worker, None if int(grace_ms) < 0 else int(grace_ms) / 1000)
            case _:
                # A newer version's scripts may say more than this one understands.
                pass

    def reread(self) -> None:
        """Do what may have been missed while the connection was down; cancels are found by the keeper."""
        self.claimer.wake(self.queue)
        self.promoter.wake()
        self.scheduler.wake()
        self.orphans.wake()
