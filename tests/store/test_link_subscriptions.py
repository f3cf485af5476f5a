"""Subscriptions of the link: confirmed, shared, taken back, and renewed with the connection."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import redis
import trio
from trio.testing import wait_all_tasks_blocked

from gopher.errors import ScriptReplyError, StoreError
from gopher.store.link import Link
from tests.redis_peer import Answers, open_connected_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_server import RedisServer

NAME: Final = "gopher-test"
PATIENCE_SECONDS: Final = 30.0
"""Bounds each wait; met only when something is broken."""
SUBSCRIBED: Final = b">3\r\n$10\r\nssubscribe\r\n$2\r\nch\r\n:1\r\n"
UNSUBSCRIBED: Final = b">3\r\n$12\r\nsunsubscribe\r\n$2\r\nch\r\n:0\r\n"
MESSAGE: Final = b">3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"


@pytest.fixture
async def link(redis_url: str, nursery: trio.Nursery) -> Link:
    link = Link(redis_url)
    await nursery.start(link.run)
    return link


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A second way to the test's own server."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
async def own_link(redis_server: RedisServer, nursery: trio.Nursery) -> Link:
    """A link to the test's own server."""
    link = Link(redis_server.url, client_name=NAME)
    await nursery.start(link.run)
    return link


def kill_links(admin: redis.Redis) -> None:
    for client in admin.client_list():
        if client["name"] == NAME:
            admin.client_kill_filter(_id=client["id"])


async def test_link_takes_the_confirmation_of_a_subscription_from_its_place() -> None:
    """A push frame that confirms is the reply to its command, between commands with replies; other pushes are none."""
    answers = Answers()
    messages: list[bytes] = []

    async with open_connected_peer() as (link, _, conversation), trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "before", partial(link.call, "GET", "before"))
        assert await conversation.hear() == [b"GET", b"before"]
        nursery.start_soon(answers.keep, "subscribe", partial(link.subscribe, b"ch", messages.append))
        assert await conversation.hear() == [b"SSUBSCRIBE", b"ch"]
        nursery.start_soon(answers.keep, "after", partial(link.call, "GET", "after"))
        assert await conversation.hear() == [b"GET", b"after"]
        await conversation.say(b">2\r\n$10\r\ninvalidate\r\n_\r\n$1\r\n1\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n")
        await wait_all_tasks_blocked()
        came_first = dict(answers.came)
        await conversation.say(SUBSCRIBED + MESSAGE + b"$1\r\n2\r\n")

    assert came_first == {"before": b"1"}
    assert answers.came == {"before": b"1", "subscribe": None, "after": b"2"}
    assert messages == [b"hi"]


async def test_link_takes_a_refused_subscription_for_a_reply() -> None:
    """A subscription that Redis refuses raises, and the commands behind it get their own replies."""
    answers = Answers()

    async with open_connected_peer() as (link, _, conversation), trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "subscribe", partial(link.subscribe, b"ch", list[bytes]().append))
        assert await conversation.hear() == [b"SSUBSCRIBE", b"ch"]
        nursery.start_soon(answers.keep, "after", partial(link.call, "GET", "after"))
        await conversation.hear()
        await conversation.say(b"-ERR no\r\n$1\r\n2\r\n")
        taken_back = await conversation.hear()
        await conversation.say(UNSUBSCRIBED)

    assert isinstance(answers.came["subscribe"], ScriptReplyError)
    assert answers.came["after"] == b"2"
    assert taken_back == [b"SUNSUBSCRIBE", b"ch"]


async def test_subscribe_waits_for_the_confirmation_that_counts() -> None:
    """A confirmed channel takes further handlers for nothing; one that is given up, or was lost, is confirmed anew first."""
    answers = Answers()
    one, two, three, four = (list[bytes]().append for _ in range(4))

    async with open_connected_peer() as (link, peer, first), trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "one", partial(link.subscribe, b"ch", one))
        assert await first.hear() == [b"SSUBSCRIBE", b"ch"]
        await first.say(SUBSCRIBED)
        await wait_all_tasks_blocked()
        await link.subscribe(b"ch", two)

        await link.unsubscribe(b"ch", one)
        await link.unsubscribe(b"ch", two)
        assert await first.hear() == [b"SUNSUBSCRIBE", b"ch"]
        nursery.start_soon(answers.keep, "three", partial(link.subscribe, b"ch", three))
        assert await first.hear() == [b"SSUBSCRIBE", b"ch"]
        await first.say(UNSUBSCRIBED)
        await wait_all_tasks_blocked()
        unconfirmed = [set(answers.came)]
        await first.say(SUBSCRIBED)
        await wait_all_tasks_blocked()

        await first.hang_up()
        second = await peer.welcome()
        assert await second.hear() == [b"SSUBSCRIBE", b"ch"]
        nursery.start_soon(answers.keep, "four", partial(link.subscribe, b"ch", four))
        assert await second.hear() == [b"SSUBSCRIBE", b"ch"]
        unconfirmed.append(set(answers.came))
        await second.say(SUBSCRIBED + SUBSCRIBED)

    assert unconfirmed == [{"one"}, {"one", "three"}]
    assert answers.came == {"one": None, "three": None, "four": None}


async def test_link_tries_again_when_a_subscription_is_not_renewed() -> None:
    """Redis refusing to renew a subscription ends the connection; no hook runs until one stands with all subscriptions."""
    renewed = trio.Event()
    messages: list[bytes] = []

    async with open_connected_peer() as (link, peer, first), trio.open_nursery() as nursery:
        link.on_reconnect.append(renewed.set)
        nursery.start_soon(link.subscribe, b"ch", messages.append)
        await first.hear()
        await first.say(SUBSCRIBED)
        await wait_all_tasks_blocked()
        await first.hang_up()
        second = await peer.welcome()
        await second.hear()
        await second.say(b"-LOADING wait\r\n")
        third = await peer.welcome()
        await third.hear()
        too_early = renewed.is_set()
        await third.say(SUBSCRIBED + MESSAGE)
        with trio.fail_after(PATIENCE_SECONDS):
            await renewed.wait()
        await wait_all_tasks_blocked()

    assert not too_early
    assert messages == [b"hi"]


async def test_subscribe_gets_messages_from_the_moment_it_returns(link: Link, namespace: str) -> None:
    """A message published right after `subscribe` arrives, among hundreds of commands in flight, once for each handler."""
    channel = f"gopher:{namespace}:ch".encode()
    first: list[bytes] = []
    second: list[bytes] = []
    answers = Answers()

    async def follow(handler: Callable[[bytes], None], word: str) -> None:
        await link.subscribe(channel, handler)
        await link.call("SPUBLISH", channel, word)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(answers.keep, str(number), partial(link.call, "ECHO", number))
                if number == 100:
                    nursery.start_soon(follow, first.append, "one")
                if number == 200:
                    nursery.start_soon(follow, second.append, "two")
        await link.call("SPUBLISH", channel, "three")
        await link.call("PING")

    assert answers.came == {str(number): str(number).encode() for number in range(300)}
    assert {b"one", b"three"} <= set(first)
    assert {b"two", b"three"} <= set(second)
    assert len(first) + len(second) == len(set(first)) + len(set(second))


async def test_unsubscribe_ends_messages_and_the_last_one_tells_redis(link: Link, namespace: str) -> None:
    """A handler subscribed twice is called once, until it is unsubscribed twice; Redis is told when nobody is left."""
    channel = f"gopher:{namespace}:ch".encode()
    messages: list[bytes] = []
    handler = messages.append
    listeners = []

    await link.subscribe(channel, handler)
    await link.subscribe(channel, handler)
    await link.call("SPUBLISH", channel, "1")
    await link.unsubscribe(channel, handler)
    await link.call("SPUBLISH", channel, "2")
    listeners.append((await link.call("PUBSUB", "SHARDNUMSUB", channel))[1])
    with trio.CancelScope() as scope:
        scope.cancel()
        await link.unsubscribe(channel, handler)
    await link.call("SPUBLISH", channel, "3")
    listeners.append((await link.call("PUBSUB", "SHARDNUMSUB", channel))[1])
    await link.subscribe(channel, handler)
    await link.call("SPUBLISH", channel, "4")
    await link.unsubscribe(channel, handler)

    assert messages == [b"1", b"2", b"4"]
    assert listeners == [1, 0]


async def test_subscribe_that_is_cancelled_leaves_no_subscription(link: Link, namespace: str) -> None:
    """A cancel while Redis confirms takes the handler back, on both sides."""
    channel = f"gopher:{namespace}:ch".encode()
    messages: list[bytes] = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.subscribe, channel, messages.append)
        # Posted in this tick, confirmed no earlier than in the next but one.
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    (_, listeners) = await link.call("PUBSUB", "SHARDNUMSUB", channel)
    await link.call("SPUBLISH", channel, "1")

    assert listeners == 0
    assert messages == []


async def test_subscriptions_outlive_the_connection(own_link: Link, admin: redis.Redis) -> None:
    """After a kill all channels are subscribed again before the hooks run, so that what a hook reads is the latest."""
    messages: dict[bytes, list[bytes]] = {b"ch-%d" % number: [] for number in range(20)}
    listeners: list[int] = []
    reconnected = trio.Event()

    def look() -> None:
        listeners.extend(count for _, count in admin.pubsub_shardnumsub(*messages))
        reconnected.set()

    own_link.on_reconnect.append(look)
    for channel, received in messages.items():
        await own_link.subscribe(channel, received.append)
    kill_links(admin)

    with trio.fail_after(PATIENCE_SECONDS):
        await reconnected.wait()
        for channel in messages:
            await own_link.call("SPUBLISH", channel, channel)
        await own_link.call("PING")

    # Where both connections were killed, that of the subscriptions may be made anew twice.
    assert len(listeners) % 20 == 0
    assert set(listeners) == {1}
    assert messages == {channel: [channel] for channel in messages}


async def test_hooks_run_after_each_reconnect_and_not_before(
    redis_server: RedisServer, admin: redis.Redis, nursery: trio.Nursery
) -> None:
    """Hooks hear of every renewed connection, also with no subscription, and of the first one not at all."""
    renewed, receive = trio.open_memory_channel[None](10)
    link = Link(redis_server.url, client_name=NAME)
    link.on_reconnect.append(partial(renewed.send_nowait, None))

    await nursery.start(link.run)
    await link.call("PING")
    at_first = renewed.statistics().current_buffer_used
    with trio.fail_after(PATIENCE_SECONDS):
        for _ in range(2):
            kill_links(admin)
            await receive.receive()

    assert at_first == 0
    assert renewed.statistics().current_buffer_used == 0


async def test_subscribe_fails_with_the_connection(own_link: Link, redis_server: RedisServer) -> None:
    """A subscription that cannot be made raises and leaves no handler behind."""
    redis_server.stop()
    own_link._subscriber._connect_grace_seconds = 0.1

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreError):
        await own_link.subscribe(b"ch", list[bytes]().append)

    assert own_link._subscriber._handlers == {}


async def test_large_replies_do_not_end_a_connection_with_subscriptions(own_link: Link, admin: redis.Redis) -> None:
    """Replies of 48 MiB at once, more than Redis lets wait for a subscriber, reach a program that has subscribed."""
    messages: list[bytes] = []
    await own_link.subscribe(b"ch", messages.append)
    admin.set("large", b"x" * (1 << 20))

    with trio.fail_after(PATIENCE_SECONDS):
        replies = await own_link.call_many([("GET", "large")] * 48)
        await own_link.call("SPUBLISH", "ch", "hi")
        while not messages:
            await own_link.call("PING")

    assert [len(reply) for reply in replies] == [1 << 20] * 48
    assert messages == [b"hi"]
