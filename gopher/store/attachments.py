"""What lives no longer than a client: the jobs of RunJob, and the nurseries of clients.

A server attaches an id while it holds the client's call, and again every few seconds. Once it does not (the client has gone without a
word, or the server has), the id stands for its lease and no longer: then the reaper of any worker of the queue ends the job, or the
children of the nursery. Within the lease a client may come back by another server.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import structlog
import trio

from gopher.errors import StoreError
from gopher.store import keys
from gopher.store.scripts import Script
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.store.link import Link

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BEATS_A_LEASE: Final = 3


class Attachment:
    """An id that is attached while its client lives.

    Attributes:
        namespace: Of the queue.
        queue: Of the job or nursery.
        id: Which.
        lease_ms: How long it stands unless it is attached again.
        on_lost: Called when it stands no more.
    """

    def __init__(self, namespace: str, queue: str, id: str, lease_ms: int, on_lost: Callable[[], None]) -> None:  # noqa: A002 - the field's name
        self.namespace = namespace
        self.queue = queue
        self.id = id
        self.lease_ms = lease_ms
        self.on_lost = on_lost
        self.renew_at = 0.0


class Attachments:
    """Keeps what is attached, for any number of clients of one server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._attach = Script.load("attach")
        self._kept: set[Attachment] = set()
        self._has_work = trio.Event()

    async def attach(self, attachment: Attachment, *, again: bool = False) -> bool:
        """Attach an id from now on, until `detach` or `let_go`.

        Args:
            attachment: Which.
            again: Only if it still stands: its client has come back.

        Returns:
            False when it stands no more.

        Raises:
            StoreError: It may have been attached, and then stands for its lease.
        """
        lost = await self._renew(attachment.namespace, attachment.queue, [attachment], "again" if again else "new")
        if not lost:
            self._kept.add(attachment)
            self._has_work.set()
        return not lost

    def let_go(self, attachment: Attachment) -> None:
        """Attach an id no more: it stands for its lease, within which the client may come back."""
        self._kept.discard(attachment)

    async def detach(self, attachment: Attachment) -> None:
        """End an attachment: nothing is ended because of it.

        Raises:
            StoreError: It may stand for its lease; of a job that has ended that is no matter.
        """
        self._kept.discard(attachment)
        await self._link.call("ZREM", keys.attached(attachment.namespace, attachment.queue), attachment.id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Attach again what is kept, until cancelled; with nothing kept this sleeps."""
        task_status.started()
        while True:
            if not self._kept:
                await self._has_work.wait()
            self._has_work = trio.Event()
            next_at = min((each.renew_at for each in self._kept), default=0.0)
            with trio.move_on_at(next_at):
                await self._has_work.wait()
            try:
                await self.tick()
            except StoreError as error:
                _log.warning("attachments.delayed", error=str(error))
                await trio.sleep(1)

    async def tick(self) -> None:
        """Attach again what is due."""
        now = trio.current_time()
        due: dict[tuple[str, str, int], list[Attachment]] = defaultdict(list)
        for each in self._kept:
            if each.renew_at <= now:
                due[each.namespace, each.queue, each.lease_ms].append(each)
        for (namespace, queue, _), attachments in due.items():
            for start in range(0, len(attachments), BATCH):
                batch = attachments[start : start + BATCH]
                lost = await self._renew(namespace, queue, batch, "again")
                for each in batch:
                    if each.id in lost:
                        self._kept.discard(each)
                        each.on_lost()

    async def _renew(self, namespace: str, queue: str, attachments: list[Attachment], word: str) -> set[str]:
        lease_ms = attachments[0].lease_ms
        renew_at = trio.current_time() + lease_ms / 1000 / _BEATS_A_LEASE
        ids = [each.id for each in attachments]
        _, *lost = await self._attach(self._link, [keys.settings(namespace, queue)], [lease_ms, word, *ids])
        for each in attachments:
            each.renew_at = renew_at
        return {job_id.decode() for job_id in lost}
