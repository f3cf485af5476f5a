"""The breakers of a namespace: each a key of its own, for all queues and workers together."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

from gopher.breaker import BreakerState, BreakerStatus, Forced
from gopher.errors import BreakerNotFoundError
from gopher.store import keys
from gopher.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gopher.breaker import Breaker
    from gopher.store.link import Link
    from gopher.store.resp import Argument, Reply


class BreakerView(NamedTuple):
    """How a breaker stands, as workers need it.

    Attributes:
        state: With an operator's order taken into account.
        open_seconds: How long it will still be open; None when it is not, or until an operator says otherwise.
        open_until_ms: The same as a moment, ms since the epoch by the clock of Redis; 0 for None.
        is_free: Whether jobs need no permit.
    """

    state: BreakerState
    open_seconds: float | None
    open_until_ms: int
    is_free: bool


class Admission(NamedTuple):
    """What a breaker lets start.

    Attributes:
        view: How it stands.
        permits: A name each; at most as many as were asked for.
        next_seconds: When a permit that others hold ends at the latest; None when none is held.
    """

    view: BreakerView
    permits: list[str]
    next_seconds: float | None


class BreakerEnding(NamedTuple):
    """How an attempt ended, as its breaker sees it: the arguments of `breaker_report.lua`.

    Attributes:
        ending: `s`, `f` or `n`: succeeded, failed, or says nothing of the dependency.
        permit: That the attempt ran under; empty for none.
    """

    ending: str
    permit: str


class Breakers:
    """Reads and moves breakers."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._admit = Script.load("breaker_admit")
        self._renew = Script.load("breaker_renew")
        self._report = Script.load("breaker_report")
        self._force = Script.load("breaker_force")
        self._add_names = Script.load("add_names")
        self._declare = Script.load("breaker_declare")

    async def declare(self, namespace: str, name: str, breaker: Breaker, types: Sequence[str]) -> BreakerView:
        """Note what handlers declare of a breaker."""
        await self._add_names(self._link, [keys.breakers(namespace)], [name])
        args: list[Argument] = [
            breaker.failures,
            round(breaker.window_seconds * 1000),
            round(breaker.reset_seconds * 1000),
            breaker.probes,
            " ".join(types),
        ]
        return _view(await self._declare(self._link, [keys.breaker(namespace, name)], args))

    async def admit(self, namespace: str, name: str, *, count: int, permit_seconds: float) -> Admission:
        """Ask for permits.

        Args:
            namespace: Of the breaker.
            name: Of the breaker.
            count: How many at most.
            permit_seconds: How long they stand unless they are renewed, or given back by a report.

        Cancellation:
            Permits may have been given; they end by themselves.
        """
        args: list[Argument] = [count, uuid.uuid4().hex + ":", round(permit_seconds * 1000)]
        reply = await self._admit(self._link, [keys.breaker(namespace, name)], args)
        now_ms, next_ms = reply[3], reply[4]
        next_seconds = None if next_ms < 0 else max(0, next_ms - now_ms) / 1000
        return Admission(_view(reply), [permit.decode() for permit in reply[5:]], next_seconds)

    async def renew(self, namespace: str, name: str, permits: Sequence[str], permit_seconds: float) -> None:
        """Have permits stand for so long from now; those that have ended are not given again."""
        args: list[Argument] = [round(permit_seconds * 1000), *permits]
        await self._renew(self._link, [keys.breaker(namespace, name)], args)

    async def report(
        self, namespace: str, name: str, *, worker: str, report_id: str, endings: Sequence[BreakerEnding]
    ) -> BreakerView:
        """Tell how attempts ended, in their order.

        Args:
            namespace: Of the breaker.
            name: Of the breaker.
            worker: Id of the worker.
            report_id: The same id again changes nothing: for a call whose reply was lost.
            endings: At most 100.
        """
        args: list[Argument] = [report_id, worker]
        for ending in endings:
            args += ending
        return _view(await self._report(self._link, [keys.breaker(namespace, name)], args))

    async def force(self, namespace: str, name: str, forced: Forced | None) -> BreakerStatus:
        """Hold a breaker open or closed; None lets attempts decide again.

        Raises:
            BreakerNotFoundError: No handler has declared it.
        """
        reply = await self._force(self._link, [keys.breaker(namespace, name)], [forced or ""])
        if reply[0] != b"OK":
            raise BreakerNotFoundError(name)
        return await self.get(namespace, name)

    async def get(self, namespace: str, name: str) -> BreakerStatus:
        """Return how a breaker stands.

        Raises:
            BreakerNotFoundError: No handler has declared it.
        """
        key = keys.breaker(namespace, name)
        record, permits, (seconds, micros) = await self._link.call_many(
            [("HGETALL", key), ("ZCARD", key + ":permits"), ("TIME",)]
        )
        if not record:
            raise BreakerNotFoundError(name)
        return _status(name, record, permits, int(seconds) * 1000 + int(micros) // 1000)

    async def list_breakers(self, namespace: str) -> list[BreakerStatus]:
        """Return every breaker that a handler has declared, by name."""
        names = sorted(name.decode() for name in await self._link.call("SMEMBERS", keys.breakers(namespace)))
        found = []
        for name in names:
            try:
                found.append(await self.get(namespace, name))
            except BreakerNotFoundError:
                continue
        return found

    async def listen(self, namespace: str, name: str, receive: Callable[[BreakerView], None]) -> None:
        """Have every change of a breaker handed to `receive`, until the link closes."""

        def parse(message: bytes) -> None:
            state, *numbers = message.decode().split(" ")
            receive(_view([state.encode(), *map(int, numbers)]))

        await self._link.subscribe((keys.breaker(namespace, name) + ":events").encode(), parse)


def _view(reply: Sequence[Reply]) -> BreakerView:
    state, until_ms, is_free, now_ms = reply[:4]
    is_timed = until_ms >= 0
    seconds = max(0, until_ms - now_ms) / 1000 if is_timed else None
    return BreakerView(BreakerState(state.decode()), seconds, until_ms if is_timed else 0, bool(is_free))


def _status(name: str, record: dict[bytes, bytes], permits: int, now_ms: int) -> BreakerStatus:
    forced = Forced(record[b"forced"].decode()) if b"forced" in record else None
    state = BreakerState(forced or record.get(b"state", b"closed").decode())
    window_ms = int(record[b"window_ms"])
    failures = sum(int(moment) > now_ms - window_ms for moment in record.get(b"streak", b"").split())
    is_proven = record.get(b"proven") == b"1"
    return BreakerStatus(
        name=name,
        state=state,
        forced=forced,
        failures=failures,
        reopen_ms=int(record[b"until_ms"]) if state is BreakerState.OPEN and forced is None else None,
        is_free=forced is Forced.CLOSED or (state is BreakerState.CLOSED and is_proven and failures == 0),
        permits=permits,
        opened_total=int(record.get(b"opened_total", 0)),
        types=tuple(record[b"types"].decode().split()),
    )
