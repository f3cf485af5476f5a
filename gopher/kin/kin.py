"""The children of one nursery, from the call that starts each until it has ended; what is known of them, and nothing that waits for Redis.

`Carrier` tells a kin what became of its children, and does what it asks for: store them, cancel them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
import trio

from gopher.errors import JobNotFoundError, TooManyChildrenError
from gopher.job import JobState, NewJob
from gopher.nursery import MAX_UNSENT_BYTES, MAX_WIDTH, OnCancel, OnCrash, Siblings, error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.errors import GopherError
    from gopher.job import Job, JsonValue
    from gopher.nursery import NurseryPolicy
    from gopher.store.families import Member


class Parent(Protocol):
    """Whose nursery it is: an attempt, or a client."""

    @property
    def id(self) -> str:
        """Of its job."""

    @property
    def token(self) -> int:
        """Lease token."""

    @property
    def namespace(self) -> str:
        """Of its job, and of all children."""

    @property
    def queue(self) -> str:
        """Of its job."""

    @property
    def is_over(self) -> bool:
        """Whether it takes no more children."""

    @property
    def grace_seconds(self) -> float:
        """How long the cleanup of a cancelled child may take."""


class Carries(Protocol):
    """Does what a kin asks for; `Carrier` does."""

    def send_soon(self, kin: Kin) -> None:
        """Store the children in `kin.unsent`."""

    def cancel_soon(self, kin: Kin, child: Sibling) -> None:
        """Cancel a child that is stored."""

    async def read(self, namespace: str, job_id: str) -> Job:
        """Return the record of a child that has ended."""


class Sibling:
    """A child, as its nursery sees it.

    Attributes:
        number: In its nursery, from 1.
        job: As it was submitted; its payload is let go of once it is stored.
        on_cancel: What becomes of it when the nursery is cancelled.
        id: Of the job; None until one is given.
        state: How it has ended; None while it has not.
        error: Why it was refused.
        is_stored: Whether it can be cancelled in Redis.
        by_nursery: Whether the nursery has had it cancelled.
        is_alone: Whether nobody waits for it any more: it is detached, and its nursery was cancelled.
        before: What an earlier attempt has started in its place, if that is taken over.
        stored: Set when it is stored, or refused; made where somebody waits for that.
    """

    __slots__ = (
        "_kin",
        "before",
        "by_nursery",
        "error",
        "id",
        "is_alone",
        "is_stored",
        "job",
        "number",
        "on_cancel",
        "state",
        "stored",
    )

    def __init__(self, kin: Kin, number: int, job: NewJob, on_cancel: OnCancel) -> None:
        self._kin = kin
        self.number = number
        self.job = job
        self.on_cancel = on_cancel
        self.id: str | None = None
        self.state: JobState | None = None
        self.error: GopherError | None = None
        self.is_stored = False
        self.is_alone = False
        self.by_nursery = False
        self.before: Member | None = None
        self.stored: trio.Event | None = None

    @property
    def type(self) -> str:
        """Of the job."""
        return self.job.type

    async def result(self) -> JsonValue:
        """See `ChildJob.result`."""
        if self.error is not None:
            raise self.error
        if self.state is None:
            raise RuntimeError(f"job {self.id} has not ended: ask for its result after the nursery's block")
        job = await self._kin.read(self)
        error = error_of(job)
        if error is not None:
            raise error
        return None if job.result is None else cast("JsonValue", msgspec.json.decode(job.result))

    def forget_payload(self) -> None:
        """Let go of what Redis has, or never will have."""
        self.job = msgspec.structs.replace(self.job, payload=b"")

    async def wait_stored(self) -> None:
        """Wait until it is stored.

        Raises:
            GopherError: It is refused.
        """
        if not self.is_stored and self.state is None:
            self.stored = self.stored or trio.Event()
            await self.stored.wait()
        else:
            await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error

    async def fault(self) -> GopherError | None:
        """Return what is wrong with it, once it has ended; None when it has completed."""
        if self.error is not None or self.state is JobState.COMPLETED:
            return self.error
        try:
            return error_of(await self._kin.read(self))
        except JobNotFoundError as error:
            return error


class Kin:
    """The children of one nursery.

    Args:
        carrier: Does what needs Redis.
        parent: Whose nursery.
        number: Of the nursery among its parent's, from 1.
        policy: When it ends its children early.
        on_crash: What becomes of them when the parent is lost.
        earlier: What an earlier attempt has left for this nursery to take over, by number.

    Attributes:
        children: In order.
        unsent: Those that are not yet stored, in order.
        line_ms: Where they stand in their lines; empty until the first is stored.
        on_decided: Called when the end of a child decides that the block is to end.
        on_lost: Called when the parent's lease is found lost.
        on_stored: Called with each child that is in Redis.
        on_end: Called with each child that has ended, or was refused.
        open_count: Children that have not ended and are waited for.
        is_cut_off: Whether nobody carries anything for it any more, since the process ends.
    """

    def __init__(
        self,
        carrier: Carries,
        parent: Parent,
        number: int,
        *,
        policy: NurseryPolicy,
        on_crash: OnCrash,
        earlier: dict[int, Member],
    ) -> None:
        self._carrier = carrier
        self.parent = parent
        self.number = number
        self.on_crash = on_crash
        self.earlier = earlier
        self.children: list[Sibling] = []
        self.unsent: list[Sibling] = []
        self.line_ms = ""
        self.on_decided: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_stored: Callable[[Sibling], None] = lambda _: None
        self.on_end: Callable[[Sibling], None] = lambda _: None
        self.is_closed = False
        self.open_count = 0
        self.is_cut_off = False
        self._siblings = Siblings(policy)
        self._unsent_bytes = 0
        self._news = trio.Event()
        self._sent = trio.Event()

    def place(self, child: Sibling) -> str:
        """Return where a child stands in its parent's family."""
        return f"{self.parent.token}.{self.number}.{child.number}"

    def policy_of(self, child: Sibling) -> str:
        """Return what becomes of a child when the parent is lost."""
        if child.on_cancel is OnCancel.DETACH:
            return "keep" if self.on_crash is OnCrash.ADOPT else "detach"
        return self.on_crash.value

    def add(self, job: NewJob, on_cancel: OnCancel, number: int | None = None) -> Sibling:
        """Take in a child, to be stored soon.

        Args:
            job: What it is to be.
            on_cancel: What becomes of it when the nursery is cancelled.
            number: Where numbers are somebody else's; None for the next.

        Raises:
            TooManyChildrenError: There is no room for it.
            RuntimeError: The block has ended.
        """
        if self.is_closed or self.parent.is_over:
            raise RuntimeError("the nursery's block has ended: it takes no more children")
        if len(self.children) == MAX_WIDTH:
            raise TooManyChildrenError(f"{MAX_WIDTH:,} children in one nursery")
        if self._unsent_bytes + len(job.payload) > MAX_UNSENT_BYTES:
            raise TooManyChildrenError(f"{MAX_UNSENT_BYTES >> 20} MiB of children at once: await start() for large ones")
        child = Sibling(self, number or len(self.children) + 1, job, on_cancel)
        self.children.append(child)
        self.open_count += 1
        if self._siblings.is_decided:
            child.by_nursery = True
            child.forget_payload()
            self.end(child, JobState.CANCELLED)
        else:
            self.unsent.append(child)
            self._unsent_bytes += len(job.payload)
            self._carrier.send_soon(self)
        return child

    def take_back(self, member: Member, queue: str, *, by_nursery: bool) -> Sibling:
        """Take in a child that this nursery had started before it was cut off from its client.

        Args:
            member: As the family has it.
            queue: Of the child.
            by_nursery: Whether its nursery had it cancelled.
        """
        on_cancel = OnCancel.DETACH if member.is_detached else OnCancel.CANCEL
        child = Sibling(self, member.number, NewJob(type="", queue=queue), on_cancel)
        child.id = member.id
        child.is_stored = True
        child.by_nursery = by_nursery
        self.children.append(child)
        self.open_count += 1
        return child

    async def wait_room(self, payload_bytes: int, most: int) -> None:
        """Wait until no more than so many children are still to be stored, and there is room for a payload beside theirs."""
        while self.unsent and (len(self.unsent) > most or self._unsent_bytes + payload_bytes > MAX_UNSENT_BYTES):
            await self._sent.wait()

    def note_sent(self, count: int) -> None:
        """Note that the first children in `unsent` are stored, or never will be."""
        for child in self.unsent[:count]:
            self._unsent_bytes -= len(child.job.payload)
            child.forget_payload()
        del self.unsent[:count]
        self._sent.set()
        self._sent = trio.Event()

    def take_over(self, child: Sibling) -> Member | None:
        """Return what an earlier attempt has started in the place of a child, if it is the same; it is then this child's."""
        member = self.earlier.get(child.number)
        if member is None or member.fingerprint != self.fingerprint_of(child):
            return None
        return self.earlier.pop(child.number)

    def fingerprint_of(self, child: Sibling) -> str:
        """Return what tells a child from others that might be started in its place; of one that nobody takes over, nothing does."""
        if self.on_crash is not OnCrash.ADOPT:
            return "-"
        digest = hashlib.blake2b(digest_size=16)
        for part in (child.job.type.encode(), child.job.queue.encode(), child.job.payload):
            digest.update(b"%d:%b" % (len(part), part))
        return digest.hexdigest()

    def note_stored(self, child: Sibling) -> None:
        """Note that a child is in Redis; one that was cancelled meanwhile is cancelled there, or goes on alone."""
        child.is_stored = True
        if child.stored is not None:
            child.stored.set()
        self.on_stored(child)
        if child.by_nursery and child.state is None:
            self._cancel_stored(child)

    def end(self, child: Sibling, state: JobState | None) -> None:
        """Note how a child has ended; None: it was deleted. Told twice, the first counts."""
        if child.state is not None:
            return
        child.state = JobState.FAILED if state is None else state
        if child.stored is not None:
            child.stored.set()
        self._release(child)
        self.on_end(child)
        if not child.is_alone and self._siblings.note_end(child.state, by_nursery=child.by_nursery):
            self.cancel()
            self.on_decided()

    def _release(self, child: Sibling) -> None:
        """Wait for a child no more."""
        if not child.is_alone:
            self.open_count -= 1
            if self.open_count == 0:
                self._news.set()
                self._news = trio.Event()

    def refuse(self, child: Sibling, error: GopherError) -> None:
        """Note that a child will never be stored."""
        child.error = error
        # Whoever waits for it to be stored is told there, and the block need not end of it.
        child.by_nursery |= child.stored is not None
        self.end(child, JobState.CANCELLED if child.by_nursery else JobState.FAILED)

    def cancel(self, through: int = MAX_WIDTH) -> None:
        """Have children cancelled that have not ended; those that are detached go on alone once they are stored.

        Args:
            through: The last number that is meant.
        """
        for child in self.children:
            if child.state is None and not child.by_nursery and child.number <= through:
                child.by_nursery = True
                if child.is_stored:
                    self._cancel_stored(child)
                elif child.id is None and child.on_cancel is OnCancel.CANCEL:
                    self.end(child, JobState.CANCELLED)

    def _cancel_stored(self, child: Sibling) -> None:
        if child.on_cancel is OnCancel.CANCEL:
            self._carrier.cancel_soon(self, child)
        elif not child.is_alone:
            self._release(child)
            child.is_alone = True

    async def wait_ended(self) -> None:
        """Wait until every child has ended but those that go on alone, or nobody would tell."""
        while self.open_count and not self.is_cut_off:
            await self._news.wait()

    def cut_off(self) -> None:
        """Note that nobody will tell of the children any more."""
        self.is_cut_off = True
        self._news.set()

    async def read(self, child: Sibling) -> Job:
        """Return the record of a child that has ended.

        Raises:
            JobNotFoundError: It is kept no more.
            StoreError: As for a look.
        """
        return await self._carrier.read(self.parent.namespace, child.id or "")

    async def errors(self) -> list[GopherError]:
        """Return what the block raises for its children.

        Raises:
            StoreError: Their records cannot be read.
        """
        found = []
        for child in self.children:
            if child.state is None or child.is_alone:
                continue
            if self._siblings.raises(child.state, by_nursery=child.by_nursery):
                fault = await child.fault()
                if fault is not None:
                    found.append(fault)
        return found
