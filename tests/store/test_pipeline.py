"""The pipeline against a peer that answers byte for byte what the test says."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gopher.errors import StoreUnavailableError
from gopher.store.pipeline import Pipeline, Slot
from gopher.store.transport import SocketTransport
from tests.redis_peer import Answers, open_linked_peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.store.resp import Reply

# All kinds of replies, with a push frame that nobody asked for between two of them.
STREAM: Final = (
    b"+OK\r\n$5\r\nhe\r\no\r\n:-42\r\n_\r\n*3\r\n$1\r\na\r\n*1\r\n:7\r\n$-1\r\n"
    b">3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$3\r\nhey\r\n"
    b"%1\r\n$1\r\nk\r\n$1\r\nv\r\n,1.5\r\n#t\r\n$0\r\n\r\n"
)
REPLIES: Final[list[Reply]] = [b"OK", b"he\r\no", -42, None, [b"a", [7], None], {b"k": b"v"}, 1.5, True, b""]
PATIENCE_SECONDS: Final = 20.0
"""Bounds each wait; met only when something is broken."""


async def test_pipeline_reads_replies_cut_at_every_byte() -> None:
    """A reply is the same wherever the network cuts the stream, for single commands and for batches."""
    commands = [("GET", str(number)) for number in range(len(REPLIES))]

    async with open_linked_peer() as (link, _, redis):
        with trio.fail_after(PATIENCE_SECONDS):
            for cut in range(1, len(STREAM)):
                answers = Answers()
                async with trio.open_nursery() as nursery:
                    if cut % 2:
                        nursery.start_soon(answers.keep, "all", partial(link.call_many, commands))
                    else:
                        for number, command in enumerate(commands):
                            nursery.start_soon(answers.keep, str(number), partial(link.call, *command))
                    asked = [int((await redis.hear())[1]) for _ in commands]
                    await redis.say(STREAM[:cut])
                    await wait_all_tasks_blocked()
                    await redis.say(STREAM[cut:])
                came = answers.came["all"] if cut % 2 else [answers.came[str(number)] for number in asked]

                assert came == REPLIES, f"cut before byte {cut}"


async def test_pipeline_gives_each_waiter_the_reply_in_its_place() -> None:
    """Replies go by the order in which the commands left, also when they come in one piece and waiters are gone."""
    answers = Answers()

    async with open_linked_peer() as (link, _, redis), trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(20)]
        for number, scope in enumerate(scopes):
            nursery.start_soon(_call_within, scope, answers, str(number), partial(link.call, "ECHO", number))
        asked = [(await redis.hear())[1] for _ in scopes]
        for scope in scopes[::3]:
            scope.cancel()
        await wait_all_tasks_blocked()
        await redis.say(b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in asked))

    assert answers.came == {str(number): str(number).encode() for number in range(20) if number % 3}


async def _call_within(scope: trio.CancelScope, answers: Answers, name: str, call: partial[Reply]) -> None:
    with scope:
        await answers.keep(name, call)


async def test_pipeline_sends_the_commands_of_a_tick_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty Trio tasks that ask at once cost two writes; those who ask again together cost one, which their last one makes."""
    senders: list[str] = []
    send_nowait = SocketTransport.send_nowait

    def count(self: SocketTransport, data: bytes) -> int:
        senders.append(trio.lowlevel.current_task().name)
        return send_nowait(self, data)

    monkeypatch.setattr(SocketTransport, "send_nowait", count)

    async def ask_twice() -> None:
        await link.call("PING")
        await link.call("PING")

    async with open_linked_peer() as (link, _, redis), trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask_twice, name="caller")
        first = [await redis.hear() for _ in range(50)]
        first_senders = senders.copy()
        senders.clear()
        await redis.say(b"+PONG\r\n" * 50)
        second = [await redis.hear() for _ in range(50)]
        await redis.say(b"+PONG\r\n" * 50)

    assert first == second == [[b"PING"]] * 50
    assert len(first_senders) <= 2
    assert first_senders[0] == "caller"
    assert senders == ["caller"]


@pytest.mark.parametrize(
    "nonsense",
    [b"HTTP/1.1 400 Bad Request\r\n", b"$1\r\n1\r\n$1\r\n2\r\n", b">3\r\n$12\r\nsunsubscribe\r\n$2\r\nch\r\n:0\r\n"],
    ids=["not RESP", "a reply too many", "a subscription taken away"],
)
async def test_pipeline_is_given_up_when_the_stream_makes_no_sense(nonsense: bytes) -> None:
    """A peer that is out of step is left for a new connection, which serves."""
    answers = Answers()

    async with open_linked_peer() as (link, peer, redis), trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "first", partial(link.call, "GET", "k"))
        await redis.hear()
        await redis.say(nonsense)
        renewed = await peer.welcome()
        nursery.start_soon(answers.keep, "second", partial(link.call, "GET", "k"))
        assert await renewed.hear() == [b"GET", b"k"]
        await renewed.say(b"$1\r\n3\r\n")

    assert answers.came["first"] == b"1" or answers.came["first"].outcome_unknown
    assert answers.came["second"] == b"3"


async def test_pipeline_notices_a_peer_that_has_fallen_silent() -> None:
    """Replies that are owed and do not come end the connection within 1.25 x `reply_seconds`, outcome unknown."""
    async with open_linked_peer(reply_seconds=0.2) as (link, peer, redis):
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreUnavailableError) as caught:
            await link.call("INCR", "k")
        asked = await redis.hear()
        renewed = await peer.welcome()

    assert caught.value.outcome_unknown
    assert "silent" in caught.value.message
    assert asked == [b"INCR", b"k"]
    assert renewed is not redis


async def test_pipeline_waits_for_a_slow_reply() -> None:
    """A reply that comes before `reply_seconds` are over is in time."""
    answers = Answers()

    async with open_linked_peer(reply_seconds=0.8) as (link, _, redis), trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "k", partial(link.call, "GET", "k"))
        await redis.hear()
        await trio.sleep(0.4)  # what is tested is time: half of what is allowed
        await redis.say(b"$1\r\n1\r\n")

    assert answers.came == {"k": b"1"}


async def test_pipeline_does_not_blame_redis_for_a_loop_that_stood_still() -> None:
    """A handler that blocks the whole loop for longer than `reply_seconds` costs no connection when the reply is there."""
    async with open_linked_peer(reply_seconds=0.2) as (link, _, redis), trio.open_nursery() as nursery:
        answers = Answers()
        nursery.start_soon(answers.keep, "k", partial(link.call, "GET", "k"))
        await redis.hear()
        await redis.say(b"$1\r\n1\r\n")
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass

    assert answers.came == {"k": b"1"}


async def test_pipeline_is_mute_while_nobody_asks() -> None:
    """An idle connection sends nothing and is not given up."""
    heard: list[object] = []

    async with open_linked_peer(reply_seconds=0.02) as (_, peer, redis):
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_listen, redis.hear, heard)
                nursery.start_soon(_listen, peer.accept, heard)

    assert heard == []


async def _listen(hear: Callable[[], Awaitable[object]], heard: list[object]) -> None:
    while True:
        heard.append(await hear())


async def test_pipeline_holds_callers_back_when_too_much_is_unanswered() -> None:
    """From `max_unanswered` commands on callers wait, and each reply lets one go on; none is lost."""
    answers = Answers()
    heard: list[object] = []
    counts: list[int] = []

    async with open_linked_peer(max_unanswered=3) as (link, _, redis), trio.open_nursery() as nursery:
        nursery.start_soon(_listen, redis.hear, heard)
        for number in range(8):
            nursery.start_soon(answers.keep, str(number), partial(link.call, "GET", number))
        for number in range(8):
            await wait_all_tasks_blocked()
            counts.append(len(heard))
            await redis.say(b":%d\r\n" % number)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert counts == [3, 4, 5, 6, 7, 8, 8, 8]
    assert sorted(answers.came.values()) == list(range(8))


async def test_pipeline_survives_a_peer_that_reads_late() -> None:
    """More than the socket takes is kept in order, byte for byte, and callers wait meanwhile."""
    payload = bytes(range(256)) * 256
    answers = Answers()

    async with open_linked_peer() as (link, _, redis), trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(answers.keep, str(number), partial(link.call, "SET", number, payload))
        await wait_all_tasks_blocked()
        nursery.start_soon(answers.keep, "late", partial(link.call, "SET", "late", payload))
        await wait_all_tasks_blocked()
        posted = len(link._pipeline._line) if link._pipeline is not None else 0
        heard = []
        with trio.fail_after(PATIENCE_SECONDS):
            for _ in range(301):
                _, key, value = await redis.hear()
                heard.append((key, value == payload))
                await redis.say(b"$%d\r\n%b\r\n" % (len(key), key))

    assert posted == 300
    assert all(is_whole for _, is_whole in heard)
    assert answers.came == {key.decode(): key for key, _ in heard}
    assert len(answers.came) == 301


class Valve:
    """A network that takes nothing while it is shut, and then all of it in the order in which it was offered."""

    def __init__(self) -> None:
        self.taken = b""
        self.is_full = True
        self.opened = trio.Event()
        self.incoming, self._receive = trio.open_memory_channel[bytes](10)

    def send_nowait(self, data: bytes) -> int:
        if self.is_full:
            return 0
        self.taken += data
        return len(data)

    async def send_all(self, data: bytes) -> None:
        await self.opened.wait()
        self.taken += data

    async def receive(self) -> bytes:
        return await self._receive.receive()

    def close(self) -> None:
        self.incoming.close()


async def test_pipeline_does_not_overtake_itself(nursery: trio.Nursery) -> None:
    """A command issued while the writer waits for the network goes behind what the writer holds, though there is room again."""
    valve = Valve()
    pipeline = Pipeline(valve, lambda _: None, reply_seconds=60, max_unanswered=10)
    nursery.start_soon(pipeline.run)

    pipeline.post(b"first", Slot(None))
    await wait_all_tasks_blocked()
    valve.is_full = False
    await valve.incoming.send(b">1\r\n$4\r\nnews\r\n")
    await wait_all_tasks_blocked()
    pipeline.post(b"second", Slot(None))
    taken_early = valve.taken
    valve.opened.set()
    await wait_all_tasks_blocked()

    assert taken_early == b""
    assert valve.taken == b"firstsecond"


async def test_pipeline_tells_commands_that_left_from_those_that_did_not() -> None:
    """When the connection breaks, a command that began to leave has an unknown outcome; one that did not goes to the next."""
    answers = Answers()
    payload = b"x" * (16 << 20)

    async with open_linked_peer() as (link, peer, redis), trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "left", partial(link.call, "SET", "k", payload))
        await wait_all_tasks_blocked()
        assert link._pipeline is not None
        link._pipeline.has_room = True
        nursery.start_soon(answers.keep, "stayed", partial(link.call, "SET", "k", "v"))
        await wait_all_tasks_blocked()
        await redis.hang_up()
        renewed = await peer.welcome()
        heard = await renewed.hear()
        await renewed.say(b"+OK\r\n")

    assert answers.came["left"].outcome_unknown
    assert heard == [b"SET", b"k", b"v"]
    assert answers.came["stayed"] == b"OK"
