"""What lives no longer than a client: the jobs of RunJob, and the nurseries of clients.

A server attaches an id while it holds the client's call, and again every few seconds. Once it does not (the client has gone without a
word, or the server has), the id stands for its lease and no longer: then the reaper of any worker of the queue ends the job, or the
children of the nursery. Within the lease a client may come back by another server.
"""

from __future__ import annotations

import heapq
import itertools
import math
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
_EARLY: Final = 0.25
"""Of the time between two beats: what is due within it goes along with what is due now, so that calls that began one after another
come to share their beats."""
_RETRY_SECONDS: Final = 1.0


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


class Attachments:
    """Keeps what is attached, for any number of clients of one server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._attach = Script.load("attach")
        self._kept: set[Attachment] = set()
        # By when to attach again; what is kept no more leaves when its time comes. The number only tells equal ones apart.
        self._due: list[tuple[float, int, Attachment]] = []
        self._numbers = itertools.count()
        self._is_earlier = trio.Event()

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
            self.keep(attachment)
        return not lost

    def keep(self, attachment: Attachment) -> None:
        """Attach again from now on, until `detach` or `let_go`, an id that a script has attached just now."""
        self._kept.add(attachment)
        self._put(attachment, trio.current_time() + _beat_seconds(attachment))

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
            self._is_earlier = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._is_earlier.wait()
            await self.tick()

    async def tick(self) -> None:
        """Attach again what is due."""
        for (namespace, queue, _), attachments in self._take_due().items():
            for start in range(0, len(attachments), BATCH):
                batch = attachments[start : start + BATCH]
                try:
                    lost = await self._renew(namespace, queue, batch, "again")
                except StoreError as error:
                    _log.warning("attachments.delayed", queue=queue, error=str(error))
                    for each in batch:
                        self._put(each, trio.current_time() + _RETRY_SECONDS)
                    continue
                for each in batch:
                    if each.id not in lost:
                        self._put(each, trio.current_time() + _beat_seconds(each))
                    elif each in self._kept:
                        self._kept.discard(each)
                        each.on_lost()

    def _take_due(self) -> dict[tuple[str, str, int], list[Attachment]]:
        now = trio.current_time()
        found: dict[tuple[str, str, int], list[Attachment]] = defaultdict(list)
        if not self._due or self._due[0][0] > now:
            return found
        while self._due and self._due[0][0] <= now + _EARLY * _beat_seconds(self._due[0][2]):
            _, _, each = heapq.heappop(self._due)
            if each in self._kept:
                found[each.namespace, each.queue, each.lease_ms].append(each)
        return found

    def _put(self, attachment: Attachment, at: float) -> None:
        if attachment not in self._kept:
            return
        heapq.heappush(self._due, (at, next(self._numbers), attachment))
        if self._due[0][2] is attachment:
            self._is_earlier.set()

    async def _renew(self, namespace: str, queue: str, attachments: list[Attachment], word: str) -> set[str]:
        ids = [each.id for each in attachments]
        _, *lost = await self._attach(self._link, [keys.settings(namespace, queue)], [attachments[0].lease_ms, word, *ids])
        return {job_id.decode() for job_id in lost}


def _beat_seconds(attachment: Attachment) -> float:
    return attachment.lease_ms / 1000 / _BEATS_A_LEASE
