"""Following one job: WaitJob and WatchJob."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from gopher_pb.v1 import job_service_pb2 as pb
from gopher_pb.v1 import job_stream_pb2

from gopher.service.feeds import Feeds
from gopher.service.telling import message_with_reason, truncated
from gopher.wire import check, convert

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher_pb.v1 import job_event_pb2

    from gopher.service.feeds import Feed, Told
    from gopher.store.store import Store

    Send = Callable[[job_stream_pb2.WatchJobResponse], Awaitable[None]]

HEARTBEAT_SECONDS: Final = 12.0
"""Of silence, then comes a sign of life; chosen: a reader may count on one every 15 s, also over a slow network."""

_GRID_SECONDS: Final = 0.1
"""Signs of life leave at multiples of this, all that are due together, with one wake-up of each thread. Chosen: of ten thousand idle
watchers some 80 are due at once, which is a few ms of other calls' time."""


class Watch:
    """Answers WaitJob and WatchJob.

    Args:
        store: Where the jobs are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds = Feeds(store)

    async def wait_job(self, request: pb.WaitJobRequest) -> pb.WaitJobResponse:
        """Return the job once it is final."""
        job = await self._store.wait(check.namespace(request.namespace), request.job_id)
        return pb.WaitJobResponse(job=convert.job_to_message(job))

    async def watch_job(self, request: job_stream_pb2.WatchJobRequest, send: Send) -> None:
        """Send the events of a job, from the oldest that is kept or from behind the cursor, until it is final."""
        namespace, job_id, cursor = check.namespace(request.namespace), request.job_id, request.cursor
        del request  # an idle watcher, of which there may be ten thousand, does not keep it
        async with self._feeds.open(namespace, job_id) as feed:
            place = await feed.begin(cursor)
            if not cursor:
                place = await self._send_first(namespace, job_id, feed, send)
            await _send_rest(feed, place, send)

    async def _send_first(self, namespace: str, job_id: str, feed: Feed, send: Send) -> int:
        """Send the first event of a stream without a cursor, which holds the whole job; return its number."""
        first = (await feed.next(0))[0]
        job = await message_with_reason(self._store, await self._store.query.get(namespace, job_id))
        message = job_stream_pb2.WatchJobResponse()
        if first.sequence > 1:
            message.event.CopyFrom(_truncated(feed, 0, first))
        else:
            message.CopyFrom(first.message)
        message.event.job.CopyFrom(job)
        if job.HasField("waiting_reason") and (job.state, job.attempt) == (message.event.state, message.event.attempt):
            message.event.waiting_reason.CopyFrom(job.waiting_reason)
        await send(message)
        return first.sequence if first.sequence == 1 else first.sequence - 1


def _next_beat(now: float) -> float:
    return math.ceil((now + HEARTBEAT_SECONDS) / _GRID_SECONDS) * _GRID_SECONDS


async def _send_rest(feed: Feed, place: int, send: Send) -> None:
    while not (feed.last is not None and feed.last.is_end and feed.last.sequence == place):
        told: list[Told] = []
        with trio.move_on_at(_next_beat(trio.current_time())):
            told = await feed.next(place)
        if not told:
            await send(feed.heartbeat())
        elif told[0].sequence != place + 1:
            await send(job_stream_pb2.WatchJobResponse(event=_truncated(feed, place, told[0])))
        for each in told:
            await send(each.message)
            place = each.sequence


def _truncated(feed: Feed, place: int, following: Told) -> job_event_pb2.JobEvent:
    oldest = following.sequence
    return truncated(following.message.event, oldest - 1 - place, feed.cursor(oldest - 1))
