"""One connection to Redis that any number of Trio tasks share, made anew whenever it breaks.

Each life of it is a `Pipeline` of its own, so that nothing of a broken one can reach the next.

Nothing is ever sent twice. A command that was on its way when the connection broke raises `StoreUnavailableError` with
`outcome_unknown`; what issued it knows whether issuing it again is safe. While there is no connection, calls wait for the next,
and so do those of whose command not a byte had left.

Subscriptions are served by RESP3's push frames. After a reconnect they are the first commands in the line; when Redis has confirmed
them all, the `on_reconnect` hooks are called.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog
import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task, wait_task_rescheduled

from gopher.errors import StoreError, StoreUnavailableError
from gopher.retry import RetryPolicy
from gopher.store.pipeline import Batch, NotSentError, Pipeline, Slot
from gopher.store.resp import pack
from gopher.store.transport import open_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gopher.store.resp import Argument, Reply
    from gopher.store.transport import Address, Transport

RECONNECT: Final = RetryPolicy(backoff_initial_seconds=0.05, backoff_max_seconds=2.0)
"""Chosen: a restarted Redis is found within 2 s, and one that is down sees one attempt a second of each process on average."""

STEADY_SECONDS: Final = 5.0
"""Chosen: a connection that stood this long ends a series of failures; a shorter one is part of it, which bounds the rate."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Connection:
    """A connection to one redis-server.

    Attributes:
        on_reconnect: Called, in order, after each reconnect once all subscriptions are confirmed; must neither block nor raise.

    Args:
        address: Of the server.
        client_name: What `CLIENT LIST` shows; no spaces.
        connect_grace_seconds: How long a call, and the first connect, waits for a connection, > 0.
        reply_seconds: How long Redis may be silent while it owes a reply, > 0; also bounds each attempt to connect.
        max_unanswered: From how many commands without a reply on callers wait; one batch may go beyond it.
    """

    def __init__(
        self, address: Address, *, client_name: str, connect_grace_seconds: float, reply_seconds: float, max_unanswered: int
    ) -> None:
        self.on_reconnect: list[Callable[[], None]] = []
        self._address = address
        self._client_name = client_name
        self._connect_grace_seconds = connect_grace_seconds
        self._reply_seconds = reply_seconds
        self._max_unanswered = max_unanswered
        self._pipeline: Pipeline | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._is_closed = False
        self._failures = 0
        self._handlers: dict[bytes, Counter[Callable[[bytes], None]]] = {}
        self._confirmed: set[bytes] = set()

    async def keep(self, transport: Transport) -> None:
        """Serve by a transport, and by others once it has broken, until cancelled."""
        await self._serve(transport)
        while True:
            transport = await self._reconnect()
            _log.info("link.reconnected", redis=self._address.place, failures=self._failures)
            await self._serve(transport, self.note_renewed)

    async def keep_patiently(self) -> None:
        """Connect, and keep a connection until cancelled; where the first connect fails, go on trying."""
        try:
            transport = await self._connect(self._reply_seconds)
        except StoreError as error:
            _log.warning("link.connect_failed", redis=self._address.place, error=error.message, failures=self._failures)
            transport = await self._reconnect()
        await self.keep(transport)

    def close(self) -> None:
        """Have calls fail from now on."""
        self._is_closed = True
        self._changed.unpark_all()

    def note_renewed(self) -> None:
        """Call the hooks: there is another connection, and all subscriptions are confirmed."""
        for hook in tuple(self.on_reconnect):
            hook()

    def note_broken(self) -> None:
        """Do nothing; for a subclass to note that the connection has broken."""

    def break_off(self, reason: str) -> None:
        """Give the connection up, if there is one, and make another."""
        if self._pipeline is not None:
            self._pipeline.break_off(reason)

    async def call(self, *command: Argument) -> Reply:
        """Send one command and return its reply.

        Raises:
            StoreUnavailableError: There is no connection, it broke, or Redis does not serve now.
            StoreFullError: Redis has reached its maxmemory.
            StoreError: Redis refused the command.

        Cancellation:
            A call that is cancelled before it was sent sends nothing; after that Redis carries the command out all the same.
        """
        packed = pack(command)
        pipeline = self._pipeline
        if pipeline is not None and pipeline.has_room:
            await checkpoint_if_cancelled()
        else:
            pipeline = await self._admit()
        reply = await self._exchange(pipeline, packed)
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def call_many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        """Send commands in one write and return their replies in the same order; a refused one leaves its error in its place.

        The commands are not a transaction: those of others may come between them.

        Raises:
            StoreUnavailableError: There is no connection, or it broke; the outcome of all the commands is then unknown.
        """
        if not commands:
            await trio.lowlevel.checkpoint()
            return []
        packed = b"".join(map(pack, commands))
        pipeline = await self._admit()
        await checkpoint_if_cancelled()
        replies: list[Reply] = await self._exchange(pipeline, packed, Batch(len(commands)))
        return replies

    async def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        """Do as `call_many`, and raise the first error that a reply is.

        Raises:
            StoreError: As `call`; the other commands have been carried out.
        """
        replies = await self.call_many(commands)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    async def subscribe(self, channel: bytes, handler: Callable[[bytes], None]) -> None:
        """Pass each message of a sharded channel to a handler, from now until `unsubscribe`, across reconnects.

        Args:
            channel: May have any number of handlers. One that is subscribed twice is called once, until it is unsubscribed twice.
            handler: Called with the message; must neither block nor raise. It may call `unsubscribe`.

        Raises:
            StoreError: As `call`; the handler is then not subscribed.

        Cancellation:
            The handler is not subscribed.
        """
        self._handlers.setdefault(channel, Counter())[handler] += 1
        try:
            pipeline = await self._admit()
            await checkpoint_if_cancelled()
            if channel in self._confirmed:
                return
            batch = Batch(1, confirmation=b"ssubscribe")
            (reply,) = await self._exchange(pipeline, pack((b"SSUBSCRIBE", channel)), batch)
            if isinstance(reply, StoreError):
                raise reply  # noqa: TRY301 - the handler is taken back for this as for a cancel
        except BaseException:
            self._unsubscribe(channel, handler)
            raise

    async def unsubscribe(self, channel: bytes, handler: Callable[[bytes], None]) -> None:
        """End a subscription; the handler is not called again.

        Cancellation:
            The subscription has ended all the same: this may be called while being cancelled, and needs no shield.
        """
        self._unsubscribe(channel, handler)
        await trio.lowlevel.checkpoint()

    def _unsubscribe(self, channel: bytes, handler: Callable[[bytes], None]) -> None:
        handlers = self._handlers[channel]
        handlers[handler] -= 1
        if handlers[handler] == 0:
            del handlers[handler]
        if handlers:
            return
        del self._handlers[channel]
        self._confirmed.discard(channel)
        if self._pipeline is not None and not self._pipeline.reason:
            # The confirmation is not awaited: the commands of a connection are carried out in order.
            slot = Slot(None, Batch(1, confirmation=b"sunsubscribe"))
            self._pipeline.post(pack((b"SUNSUBSCRIBE", channel)), slot)

    async def _exchange(self, pipeline: Pipeline, packed: bytes, batch: Batch | None = None) -> Reply:
        while True:
            slot = Slot(current_task(), batch)
            pipeline.post(packed, slot)
            try:
                return await wait_task_rescheduled(slot.abandon)
            except NotSentError:
                pass
            pipeline = await self._admit()

    async def _admit(self) -> Pipeline:
        """Wait until a command may be posted."""
        give_up_at = trio.current_time() + self._connect_grace_seconds
        while True:
            pipeline = self._pipeline
            if self._is_closed:
                raise StoreUnavailableError("the link to redis is closed")
            if pipeline is None:
                with trio.move_on_at(give_up_at):
                    await self._changed.park()
                    continue
                raise StoreUnavailableError(f"there was no connection to redis for {self._connect_grace_seconds:g} s")
            if pipeline.has_room:
                return pipeline
            await pipeline.room.park()

    async def wait_connected(self) -> None:
        """Return once commands may be posted, or none will ever be."""
        while self._pipeline is None and not self._is_closed:
            await self._changed.park()

    async def connect_first(self) -> Transport:
        """Connect for `keep`, within the grace.

        Raises:
            StoreUnavailableError: No server answered.
            StoreError: Redis refused us.
        """
        give_up_at = trio.current_time() + self._connect_grace_seconds
        while True:
            left_seconds = give_up_at - trio.current_time()
            try:
                return await self._connect(min(left_seconds, self._reply_seconds))
            except StoreUnavailableError:
                delay_seconds = self._backoff_seconds()
                if trio.current_time() + delay_seconds >= give_up_at:
                    raise
            await trio.sleep(delay_seconds)

    async def _reconnect(self) -> Transport:
        while True:
            await trio.sleep(self._backoff_seconds())
            try:
                return await self._connect(self._reply_seconds)
            except StoreError as error:
                _log.warning("link.connect_failed", redis=self._address.place, error=error.message, failures=self._failures)

    async def _connect(self, within_seconds: float) -> Transport:
        return await open_transport(self._address, self._client_name, within_seconds=within_seconds)

    def _backoff_seconds(self) -> float:
        self._failures += 1
        return RECONNECT.delay_seconds(self._failures, random.random)

    async def _serve(self, transport: Transport, renewed: Callable[[], None] = lambda: None) -> None:
        """Let calls use a connection until it breaks."""
        pipeline = Pipeline(transport, self._on_push, reply_seconds=self._reply_seconds, max_unanswered=self._max_unanswered)
        since = trio.current_time()
        try:
            self._resume(pipeline, renewed)
            self._pipeline = pipeline
            self._changed.unpark_all()
            await pipeline.run()
        finally:
            self._pipeline = None
            self._confirmed.clear()
            pipeline.close()
            pipeline.room.unpark_all()
        _log.warning("link.broken", reason=pipeline.reason)
        self.note_broken()
        if trio.current_time() - since >= STEADY_SECONDS:
            self._failures = 0

    def _resume(self, pipeline: Pipeline, renewed: Callable[[], None]) -> None:
        """Put all subscriptions ahead of the calls to come, and call `renewed` once they are confirmed."""

        def tell(replies: Sequence[Reply]) -> None:
            if any(isinstance(reply, StoreError) for reply in replies):
                pipeline.break_off("redis refused a subscription")
                return
            renewed()

        if self._handlers:
            packed = b"".join(pack((b"SSUBSCRIBE", channel)) for channel in self._handlers)
            pipeline.post(packed, Slot(None, Batch(len(self._handlers), confirmation=b"ssubscribe", done=tell)))
        else:
            tell(())

    def _on_push(self, push: list[bytes]) -> None:
        match push:
            case [b"smessage", channel, message]:
                for handler in tuple(self._handlers.get(channel, ())):
                    handler(message)
            case [b"ssubscribe", channel, _]:
                self._confirmed.add(channel)
            case [b"sunsubscribe", channel, _]:
                self._confirmed.discard(channel)
            case _:
                pass  # a kind of push that we did not ask for tells us nothing
