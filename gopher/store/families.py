"""The children that attempts start in nurseries, while they run: kept in a family, so that somebody ends them when a parent is lost.

A family is a hash in the parent's queue, `token.nursery.number` -> `id policy fingerprint`. A place tells which attempt, by its lease
token, which of its nurseries and which of that one's children. A child is written down before it is stored; it is taken out once its
nursery has seen it end. A parent that goes any other way (its worker is lost, it is given back, cancelled while it waits, deleted)
is noted among the orphans' parents: some worker of the queue walks through its family and ends what has not ended.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gopher.errors import JobNotFoundError
from gopher.job import JobState
from gopher.store import keys
from gopher.store.ids import IdSource
from gopher.store.scripts import Script
from gopher.store.submission import add_submission, guarded, read_answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gopher.errors import GopherError
    from gopher.job import NewJob
    from gopher.store.codec import Field
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Reply
    from gopher.store.submission import SubmitReceipt

_WALK: Final = 100
"""Children a call, about; chosen as for every other script."""
_SLICE: Final = 1000
"""Children read at once, about; chosen: some 100 KB, of a family that may have any number."""
_RESERVED_MS: Final = 10_000
"""Chosen: much longer than a step of the walk takes; after that another worker goes on."""

REMEMBERED_MS: Final = 3_600_000
"""Chosen: as long as a record is kept that does not say otherwise. The same stands in `start_children.lua`."""

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Member(NamedTuple):
    """A child of a family.

    Attributes:
        place: `token.nursery.number`.
        id: Of the child.
        policy: What becomes of it when its parent's attempt is lost: cancel; adopt, by the next attempt, or it is cancelled; detach; or
            keep: adopted by the next attempt, or it goes on alone.
        fingerprint: Tells it from others that a nursery might start at its place.
    """

    place: str
    id: str
    policy: str
    fingerprint: str

    @property
    def token(self) -> int:
        """Lease token of that attempt."""
        return int(self.place.split(".")[0])

    @property
    def may_be_adopted(self) -> bool:
        """Whether the next attempt may take it over."""
        return self.policy in {"adopt", "keep"}

    @property
    def is_detached(self) -> bool:
        """Whether it goes on alone where nobody takes it over."""
        return self.policy in {"detach", "keep"}

    @property
    def nursery(self) -> int:
        """Number of its nursery in the attempt that has started it, or has taken it over."""
        return int(self.place.split(".")[1])

    @property
    def number(self) -> int:
        """In its nursery."""
        return int(self.place.split(".")[2])


class Fate(NamedTuple):
    """What has become of a child so far.

    Attributes:
        state: Where it stands.
        cancel_reason: Empty unless its cancel was asked for.
    """

    state: JobState
    cancel_reason: str


class Start(NamedTuple):
    """A child to start, or one of an earlier attempt to take over.

    Attributes:
        member: As the family is to have it.
        job: To store; None of one that is taken over.
        before: The place that one had which is taken over; else empty.
    """

    member: Member
    job: NewJob | None
    before: str = ""


class Started(NamedTuple):
    """What became of the children of a call.

    Attributes:
        line_ms: Where they stand in their lines, for the next call of the same nursery.
        answers: An entry a child that was to be stored here, in order.
        taken: Only of a client's nursery: ids by place of children that another stream has started first; nothing was changed.
    """

    line_ms: str
    answers: list[SubmitReceipt | GopherError]
    taken: Mapping[str, str] = NOTHING


class OrphanStep(NamedTuple):
    """A step of the walk through the family of a parent that has left it.

    Attributes:
        parent_id: Whose family.
        cursor: Where the walk goes on; 0 when it has come round.
        reservation: Until when the parent is the caller's, as Redis has it.
        members: Place and id of each child to end; an id that is empty is only to be forgotten.
    """

    parent_id: str
    cursor: int
    reservation: int
    members: list[tuple[str, str]]


class Families:
    """Keeps families, of any queue of any namespace."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._ids = IdSource()
        self._submit = Script.load("submit")
        self._start = Script.load("start_children")
        self._leave = Script.load("leave_children")
        self._take = Script.load("take_orphans")

    async def reserve(self, namespace: str, queue: str) -> str:
        """Return an id for a child; its queue is created if it is new.

        Raises:
            TooManyQueuesError: As for a submit.
        """
        return self._ids.new(await self._registry.queue_number(namespace, queue))

    async def start(
        self, namespace: str, queue: str, parent_id: str, token: int, starts: Sequence[Start], line_ms: str
    ) -> Started | None:
        """Write children down and store those whose queue is their parent's; safe to repeat.

        Args:
            namespace: Of the queue.
            queue: Of the parent.
            parent_id: Whose children.
            token: Lease token of its attempt.
            starts: At most 100.
            line_ms: Of the call before; empty for the first.

        Returns:
            None when the attempt is no more: nothing was changed.
        """
        adopted = [start.before for start in starts if start.before]
        args: list[Field] = [parent_id, token, line_ms, len(starts), len(adopted)]
        for start in starts:
            member = start.member
            args += (member.place, f"{member.id} {member.policy} {member.fingerprint}")
        args += adopted
        stored = [(start.member.id, start.job) for start in starts if start.job is not None and start.job.queue == queue]
        for job_id, job in stored:
            args += _submission(job_id, job)
        start_all = partial(self._start, self._link, [keys.settings(namespace, queue)], args)
        reply = await (self._registry.under_number(namespace, queue, stored[0][0], start_all) if stored else start_all())
        if reply[0] == b"TAKEN":
            pairs = iter(reply[1:])
            return Started(line_ms, [], {place.decode(): child.decode() for place, child in zip(pairs, pairs, strict=True)})
        if reply[0] != b"OK":
            return None
        return Started(reply[1].decode(), _answers(stored, reply[2:]))

    async def submit(self, namespace: str, queue: str, jobs: Sequence[tuple[str, NewJob]]) -> list[SubmitReceipt | GopherError]:
        """Store children whose queue is not their parent's, under the ids that they have; safe to repeat.

        Args:
            namespace: Of the queue.
            queue: Of the children.
            jobs: At most 100.

        Returns:
            An answer a child, in order.
        """
        args: list[Field] = [REMEMBERED_MS]
        for job_id, job in jobs:
            args += _submission(job_id, job)
        submit = partial(self._submit, self._link, [keys.settings(namespace, queue)], args)
        return _answers(jobs, await self._registry.under_number(namespace, queue, jobs[0][0], submit))

    async def leave(
        self, namespace: str, queue: str, parent_id: str, places: Sequence[str], *, reservation: int | str = ""
    ) -> None:
        """Take children out of a family.

        Args:
            namespace: Of the queue.
            queue: Of the parent.
            parent_id: Whose family.
            places: At most 1,000.
            reservation: Of `take_orphans`, when the walk is over.
        """
        await self._leave(self._link, [keys.settings(namespace, queue)], [parent_id, reservation, *places])

    async def members(self, namespace: str, queue: str, parent_id: str) -> list[Member]:
        """Return the whole family of a parent, in no order; of children that come or go meanwhile some."""
        found: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            cursor, flat = await self._link.call("HSCAN", keys.family(namespace, queue, parent_id), cursor, "COUNT", _SLICE)
            found.update(zip(flat[::2], flat[1::2], strict=True))
            if cursor == b"0":
                return [Member(place.decode(), *record.decode().split(" ")) for place, record in found.items()]

    async def keeps(self, namespace: str, queue: str, parent_id: str, places: Sequence[str]) -> list[bool]:
        """Tell which places of a family are taken, in order."""
        found = await self._link.call("HMGET", keys.family(namespace, queue, parent_id), *places)
        return [each is not None for each in found]

    async def take_orphans(self, namespace: str, queue: str, parent_id: str = "", cursor: int = 0) -> OrphanStep | None:
        """Return some of the children that nobody looks after, of one parent.

        Args:
            namespace: Of the queue.
            queue: Of the parent.
            parent_id: Whose family to walk on through; empty for whichever parent is due.
            cursor: Where the walk stands.

        Returns:
            None when no parent is due.
        """
        reply = await self._take(self._link, [keys.settings(namespace, queue)], [parent_id, cursor, _WALK, _RESERVED_MS])
        if reply[0] != b"OK":
            return None
        _, parent, following, reservation, *members = reply
        return OrphanStep(
            parent.decode(), int(following), reservation, [(place.decode(), each.decode()) for place, each in members]
        )

    async def states(self, namespace: str, job_ids: Sequence[str]) -> list[JobState | None]:
        """Return where jobs stand, in order; None for those that are gone."""
        return [None if fate is None else fate.state for fate in await self.fates(namespace, job_ids)]

    async def fates(self, namespace: str, job_ids: Sequence[str]) -> list[Fate | None]:
        """Return where jobs stand and why they were cancelled, in order; None for those that are gone."""
        queues: dict[str, str] = {}
        for each in job_ids:
            # One of a queue that was freed, or that Redis has lost, is gone with it.
            with suppress(JobNotFoundError):
                queues[each] = await self._registry.queue_of(namespace, each)
        commands = [("HMGET", keys.job(namespace, queue, each), "state", "cancel_reason") for each, queue in queues.items()]
        found = dict(zip(queues, await self._link.call_all(commands), strict=True))
        fates = (found.get(each, (None, None)) for each in job_ids)
        return [Fate(JobState(state.decode()), (reason or b"").decode()) if state else None for state, reason in fates]


def _submission(job_id: str, job: NewJob) -> list[Field]:
    """Return the arguments that stand for a child, which is stored once however often the call is repeated.

    Its record says that it is stored; where that is kept for less than `REMEMBERED_MS`, its id is remembered as a request id.
    """
    words: list[Field] = []
    add_submission(words, job_id, job)
    return words if job.retention_ms is None or job.retention_ms >= REMEMBERED_MS else guarded(words)


def _answers(jobs: Sequence[tuple[str, NewJob]], replies: Sequence[Reply]) -> list[SubmitReceipt | GopherError]:
    return [read_answer(job_id, job, reply) for (job_id, job), reply in zip(jobs, replies, strict=True)]
