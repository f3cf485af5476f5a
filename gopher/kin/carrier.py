"""Carries the children of a worker's nurseries to Redis, hears of their ends, and cancels those that are to end early.

One service a worker, for all its nurseries: children leave in batches, as outcomes do, and a queue is listened to once.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import trio

from gopher.errors import (
    GopherError,
    JobAlreadyFinalError,
    JobNotFoundError,
    ScriptReplyError,
    StoreFullError,
    StoreUnavailableError,
    UnknownTypeError,
)
from gopher.job import JobState
from gopher.kin.turns import Turns
from gopher.store.families import REMEMBERED_MS, Member, Start
from gopher.store.submission import BATCH, BATCH_BYTES, SubmitReceipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gopher.job import Job
    from gopher.kin.kin import Kin, Sibling
    from gopher.store.store import Store


class Carrier:
    """Does what kins ask for.

    Args:
        store: Where children go.
        accept_unknown_types: Whether to take children whose type no worker has registered.
    """

    def __init__(self, store: Store, *, accept_unknown_types: bool = False) -> None:
        self._accept_unknown_types = accept_unknown_types
        self._store = store
        self._families = store.families
        self._endings = store.endings
        self._kins: set[Kin] = set()
        self._sending = Turns(self._send)
        self._cancelling = Turns(self._cancel, at_once=BATCH)
        self._looking = Turns(self._look_again)
        self._has_ended = False
        store.link.on_reconnect.append(self._note_reconnect)

    def take(self, kin: Kin) -> None:
        """Serve a kin, until it is let go of."""
        self._kins.add(kin)
        if self._has_ended:
            kin.cut_off()

    def let_go(self, kin: Kin) -> None:
        """Serve a kin no more; what has not ended goes on without it."""
        self._kins.discard(kin)
        for child in kin.children:
            if child.state is None:
                self._forget(kin, child)

    async def read(self, namespace: str, job_id: str) -> Job:
        """Return the record of a child that has ended."""
        return await self._store.query.get(namespace, job_id)

    def send_soon(self, kin: Kin) -> None:
        """Store what a kin has not sent."""
        self._sending.put(kin)

    def cancel_soon(self, kin: Kin, child: Sibling) -> None:
        """Cancel a child that is stored."""
        self._cancelling.put((kin, child))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then no kin waits for anything any more."""
        task_status.started()
        try:
            await self._serve()
        finally:
            self._has_ended = True
            for kin in self._kins:
                kin.cut_off()

    async def _serve(self) -> None:
        # While the worker works. Apart, so that no cancel waits for a child that cannot be stored.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._endings.run)
            nursery.start_soon(self._cancelling.run)
            nursery.start_soon(self._sending.run)
            nursery.start_soon(self._looking.run)

    async def _send(self, kin: Kin) -> None:
        """Store the next children of a kin; what fails half-way is done again, under the same ids."""
        batch = kin.unsent[: _room(kin.unsent)]
        if kin.parent.is_over or kin not in self._kins:
            _give_up(kin, kin.unsent)
            kin.note_sent(len(kin.unsent))
            return
        ready = [child for child in batch if child.state is None and await self._is_ready(kin, child)]
        if ready and not await self._store_children(kin, ready):
            kin.on_lost()
            # An earlier try may have stored those of other queues after somebody had ended the lost parent's children.
            for child in ready:
                child.by_nursery = True
                if child.job.queue != kin.parent.queue:
                    self.cancel_soon(kin, child)
            _give_up(kin, [child for child in ready if child.job.queue == kin.parent.queue])
        kin.note_sent(len(batch))
        if kin.unsent:
            self._sending.put(kin)

    async def _is_ready(self, kin: Kin, child: Sibling) -> bool:
        """Give a child its id and listen for its end; one that cannot be is refused."""
        job = child.job
        try:
            if child.id is None:
                child.before = kin.take_over(child)
                if child.before is None:
                    await self._require_type(kin.parent.namespace, job.type)
                child.id = (
                    await self._families.reserve(kin.parent.namespace, job.queue) if child.before is None else child.before.id
                )
            await self._endings.listen(kin.parent.namespace, job.queue)
        except StoreUnavailableError:
            raise
        except GopherError as error:
            kin.refuse(child, error)
            return False
        if child.state is not None:  # cancelled meanwhile, when nothing of it was in Redis
            return False
        self._endings.follow(kin.parent.namespace, job.queue, child.id, partial(kin.end, child))
        return True

    async def _require_type(self, namespace: str, job_type: str) -> None:
        if not (self._accept_unknown_types or await self._store.registry.is_known_type(namespace, job_type)):
            raise UnknownTypeError(job_type)

    async def _store_children(self, kin: Kin, ready: list[Sibling]) -> bool:
        """Write children down and store them; tell whether the parent still is."""
        parent = kin.parent
        answers: dict[Sibling, SubmitReceipt | GopherError] = {}
        new = [each for each in ready if not each.before]
        try:
            starts = [_start_of(kin, child) for child in ready]
            started = await self._families.start(parent.namespace, parent.queue, parent.id, parent.token, starts, kin.line_ms)
            if started is None:
                return False
            if started.taken:
                self._go_along(kin, ready, started.taken)
                return await self._store_children(kin, ready)
            kin.line_ms = started.line_ms
            answers.update(zip((each for each in new if each.job.queue == parent.queue), started.answers, strict=True))
            await self._store_elsewhere(kin, [each for each in new if each.job.queue != parent.queue], answers)
        except (StoreFullError, ScriptReplyError) as error:
            answers.update((child, error) for child in new if child not in answers)
        for child in ready:
            answer = answers.get(child)
            if isinstance(answer, GopherError):
                self._forget(kin, child)
                kin.refuse(child, answer)
            else:
                kin.note_stored(child)
        # Those that were there before this call may have ended while nobody listened: an earlier one had lost its reply.
        await self._look_at(kin, [child for child in ready if child.before or _is_known(answers.get(child))])
        return True

    async def _store_elsewhere(
        self, kin: Kin, children: list[Sibling], answers: dict[Sibling, SubmitReceipt | GopherError]
    ) -> None:
        """Store children in queues that are not their parent's; they are written down already."""
        parent = kin.parent
        for queue, group in groupby(children, lambda each: each.job.queue):
            batch = list(group)
            try:
                submitted = await self._families.submit(parent.namespace, queue, [(each.id or "", each.job) for each in batch])
            except (StoreFullError, ScriptReplyError) as error:
                answers.update(dict.fromkeys(batch, error))
            else:
                answers.update(zip(batch, submitted, strict=True))
        if children:
            kept = await self._families.keeps(parent.namespace, parent.queue, parent.id, [kin.place(each) for each in children])
            for child, is_kept in zip(children, kept, strict=True):
                if not is_kept:
                    # The parent was lost, and whoever ended its children came by before this one was there.
                    child.by_nursery = True
                    kin.on_lost()

    def _go_along(self, kin: Kin, ready: list[Sibling], taken: Mapping[str, str]) -> None:
        """Take for a kin's own the children that another stream of the same client's nursery has started first."""
        for child in ready:
            job_id = taken.get(kin.place(child))
            if job_id is not None:
                self._forget(kin, child)
                # Stored once more under that id, which changes nothing: the other may have written it down and not come to store it.
                child.id = job_id
                self._endings.follow(kin.parent.namespace, child.job.queue, job_id, partial(kin.end, child))

    async def follow(self, kin: Kin, children: Sequence[Sibling]) -> None:
        """Hear of the ends of children that are stored already."""
        namespace = kin.parent.namespace
        for child in children:
            await self._endings.listen(namespace, child.job.queue)
            self._endings.follow(namespace, child.job.queue, child.id or "", partial(kin.end, child))
        await self._look_at(kin, children)

    async def _look_at(self, kin: Kin, children: Sequence[Sibling]) -> None:
        """Note which children have ended while nobody listened."""
        for start in range(0, len(children), BATCH):
            batch = children[start : start + BATCH]
            states = await self._families.states(kin.parent.namespace, [child.id or "" for child in batch])
            for child, state in zip(batch, states, strict=True):
                if state is None or state.is_final:
                    self._forget(kin, child)
                    kin.end(child, state or _state_when_gone(child))

    async def _look_again(self, kin: Kin) -> None:
        if kin in self._kins:
            await self._look_at(kin, [child for child in kin.children if child.is_stored and child.state is None])

    def _note_reconnect(self) -> None:
        for kin in self._kins:
            self._looking.put(kin)

    async def _cancel(self, stored: tuple[Kin, Sibling]) -> None:
        kin, child = stored
        if child.state is not None or child.id is None:
            return
        parent = kin.parent
        reason = cancel_reason(parent.id)
        grace_ms = round(parent.grace_seconds * 1000)
        try:
            state: JobState | None = await self._store.lifecycle.cancel(
                kin.parent.namespace, child.id, reason=reason, grace_ms=grace_ms, actor=f"parent {parent.id}"
            )
        except JobNotFoundError:
            state = None
        except JobAlreadyFinalError as error:
            state = JobState(error.metadata["state"])
        if state is None or state.is_final:
            self._forget(kin, child)
            kin.end(child, state)

    def _forget(self, kin: Kin, child: Sibling) -> None:
        if child.id is not None:
            self._endings.forget(kin.parent.namespace, child.job.queue, child.id)


def cancel_reason(parent_id: str) -> str:
    """Return why a child was cancelled, where its nursery has had it cancelled."""
    return f"its parent {parent_id} ended the nursery"


def _room(children: Sequence[Sibling]) -> int:
    """Return how many children a call takes, so that it writes no more than 100 jobs and 1 MiB; at least the first."""
    size = 0
    for place, child in enumerate(children[:BATCH]):
        size += len(child.job.payload)
        if place and size > BATCH_BYTES:
            return place
    return min(BATCH, len(children))


def _give_up(kin: Kin, children: Sequence[Sibling]) -> None:
    """Note that children will never be stored, and that nobody is to be told."""
    for child in children:
        child.by_nursery = True
        kin.end(child, JobState.CANCELLED)


def _state_when_gone(child: Sibling) -> JobState | None:
    """Return how a child has ended whose record is gone and of whose end no word has come; None if it was deleted.

    A dead letter is kept for long, whatever its retention, so one that is kept for less than its id is remembered has not failed. To
    take it for a failure would have the whole nursery run again.
    """
    kept_ms = child.job.retention_ms
    if kept_ms is None or kept_ms >= REMEMBERED_MS:
        return None
    return JobState.CANCELLED if child.by_nursery else JobState.COMPLETED


def _is_known(answer: SubmitReceipt | GopherError | None) -> bool:
    return isinstance(answer, SubmitReceipt) and answer.is_duplicate


def _start_of(kin: Kin, child: Sibling) -> Start:
    member = Member(kin.place(child), child.id or "", kin.policy_of(child), kin.fingerprint_of(child))
    return Start(member, None if child.before else child.job, child.before.place if child.before else "")
