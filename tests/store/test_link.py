"""The link against a real redis-server: many callers, cancels, kills, restarts."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import redis
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from gopher.errors import ScriptReplyError, StoreFullError, StoreUnavailableError
from gopher.store.link import Link
from tests.redis_peer import Answers, open_linked_peer, open_peer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_server import RedisServer

PATIENCE_SECONDS: Final = 30.0
"""Bounds each wait; met only when something is broken."""


@pytest.fixture
async def link(redis_url: str, nursery: trio.Nursery) -> Link:
    link = Link(redis_url, client_name="gopher-test")
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
    link = Link(redis_server.url, client_name="gopher-test")
    await nursery.start(link.run)
    return link


def kill_links(admin: redis.Redis) -> None:
    for client in admin.client_list():
        if client["name"] == "gopher-test":
            admin.client_kill_filter(_id=client["id"])


async def test_call_returns_the_types_of_resp3(link: Link, namespace: str) -> None:
    """Bytes, numbers, nothing, lists, dicts and truth come as such."""
    key = f"gopher:{namespace}:types"

    replies = [
        await link.call("SET", key, b"\r\n\x00\xff", "EX", 60),
        await link.call("GET", key),
        await link.call("STRLEN", key),
        await link.call("GET", f"{key}:none"),
        await link.call("MGET", key, f"{key}:none"),
        await link.call("CONFIG", "GET", "maxmemory-policy"),
        await link.call("EVAL", "redis.setresp(3); return true", 0),
        await link.call("EVAL", "redis.setresp(3); return {double = 1.5}", 0),
        await link.call("DEL", key),
    ]

    assert replies == [
        b"OK",
        b"\r\n\x00\xff",
        4,
        None,
        [b"\r\n\x00\xff", None],
        {b"maxmemory-policy": b"noeviction"},
        True,
        1.5,
        1,
    ]


async def test_call_raises_what_redis_refuses_and_goes_on(link: Link) -> None:
    """An error reply raises at the one call that it answers."""
    with pytest.raises(ScriptReplyError, match="unknown command 'NONSENSE'"):
        await link.call("NONSENSE")

    assert await link.call("ECHO", "still here") == b"still here"


async def test_call_many_keeps_order_and_leaves_errors_in_place(link: Link) -> None:
    """A batch gives a reply a command, in order; one refused command leaves the others theirs."""
    first, refused, last = await link.call_many([("ECHO", 1), ("NONSENSE",), ("ECHO", 2)])

    assert (first, last) == (b"1", b"2")
    assert isinstance(refused, ScriptReplyError)
    assert await link.call_many([]) == []


async def test_call_gives_no_one_the_reply_of_another_when_waiters_are_cancelled(link: Link) -> None:
    """1,000 Trio tasks, a third of them cancelled at a random moment: each reply that arrives is the asker's own."""
    wrong: list[object] = []
    ended = 0

    async def ask(number: int, scope: trio.CancelScope) -> None:
        nonlocal ended
        with scope:
            for turn in range(5):
                word = f"{number}:{turn}".encode()
                if turn % 2:
                    replies = await link.call_many([("ECHO", word), ("ECHO", word + b"!")])
                    wrong.extend(reply for reply in replies if not reply.startswith(word))
                elif (reply := await link.call("ECHO", word)) != word:
                    wrong.append(reply)
            ended += 1

    async def cancel_some(scopes: list[trio.CancelScope]) -> None:
        for scope in random.sample(scopes, len(scopes) // 3):
            scope.cancel()
            if random.random() < 0.2:
                await trio.lowlevel.checkpoint()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(1000)]
            for number, scope in enumerate(scopes):
                nursery.start_soon(ask, number, scope)
            nursery.start_soon(cancel_some, scopes)
        after = await link.call("ECHO", "after")

    assert wrong == []
    assert 667 <= ended < 1000
    assert after == b"after"


async def test_call_that_is_cancelled_beforehand_sends_nothing(link: Link, namespace: str) -> None:
    """A call in a cancelled scope leaves Redis as it is."""
    key = f"gopher:{namespace}:cancelled"

    with trio.CancelScope() as scope:
        scope.cancel()
        await link.call("SET", key, "1", "EX", 60)
    with trio.CancelScope() as other_scope:
        other_scope.cancel()
        await link.call_many([("SET", key, "1", "EX", 60)])

    assert scope.cancelled_caught
    assert other_scope.cancelled_caught
    assert await link.call("GET", key) is None


async def test_call_moves_megabytes_among_small_calls(link: Link) -> None:
    """A huge request and reply arrive whole, and the small ones around them are not mixed up with them."""
    payload = random.randbytes(1 << 20) * 8
    answers = Answers()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                word = payload if number % 10 == 5 else str(number)
                nursery.start_soon(answers.keep, str(number), partial(link.call, "ECHO", word))

    assert [number for number in range(50) if answers.came[str(number)] != payload] == [n for n in range(50) if n % 10 != 5]
    assert all(answers.came[str(number)] == str(number).encode() for number in range(50) if number % 10 != 5)


async def test_call_has_an_unknown_outcome_when_the_connection_is_killed(own_link: Link, admin: redis.Redis) -> None:
    """A command that was on its way raises with `outcome_unknown` and is not sent again; the next call finds a new connection."""
    answers = Answers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answers.keep, "blocked", partial(own_link.call, "BLPOP", "list", 0))
        await wait_all_tasks_blocked()
        kill_links(admin)
    admin.rpush("list", "untouched")

    with trio.fail_after(PATIENCE_SECONDS):
        after = await own_link.call("LRANGE", "list", 0, -1)

    error = answers.came["blocked"]
    assert isinstance(error, StoreUnavailableError)
    assert error.outcome_unknown
    assert after == [b"untouched"]


async def test_calls_go_on_through_kills(own_link: Link, admin: redis.Redis) -> None:
    """With its connection killed again and again, every INCR is either counted, or refused and not counted, or unknown."""
    done = unknown = 0
    nothing = Answers()

    async def count() -> None:
        nonlocal done, unknown
        for _ in range(40):
            try:
                await own_link.call("INCR", "counter")
                done += 1
            except StoreUnavailableError as error:
                unknown += error.outcome_unknown

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(count)
            for _ in range(5):
                await nothing.keep("", partial(own_link.call, "PING"))
                kill_links(admin)

    counted = int(admin.get("counter") or 0)
    assert done <= counted <= done + unknown


async def test_calls_wait_for_a_server_that_restarts(own_link: Link, redis_server: RedisServer) -> None:
    """While Redis is away calls wait, and are answered when it is back."""
    answers = Answers()
    await own_link.call("SET", "k", "v")
    redis_server.stop()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answers.keep, "get", partial(own_link.call, "GET", "k"))
            nursery.start_soon(answers.keep, "many", partial(own_link.call_many, [("GET", "k")]))
            await wait_all_tasks_blocked()
            redis_server.start()

    assert answers.came == {"get": b"v", "many": [b"v"]}


async def test_call_gives_up_when_there_is_no_connection_for_the_grace(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """A call without a connection fails after `connect_grace_seconds`, known not to have been carried out."""
    link = Link(redis_server.url, connect_grace_seconds=0.2)
    await nursery.start(link.run)
    redis_server.stop()

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreUnavailableError) as first:
        while True:
            await link.call("PING")
    with (
        trio.fail_after(PATIENCE_SECONDS),
        pytest.raises(StoreUnavailableError, match=r"no connection to redis for 0\.2 s") as then,
    ):
        await link.call("PING")

    assert str(redis_server.socket_path) not in first.value.message + then.value.message
    assert not then.value.outcome_unknown


async def test_run_fails_when_nobody_answers_the_first_connect() -> None:
    """A Redis that is not there ends `run` after the grace, with a line that holds no address."""
    async with open_peer() as peer:
        url = peer.url
    link = Link(url, connect_grace_seconds=0.2)

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreUnavailableError) as caught:
        await link.run()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await link.call("PING")

    assert caught.value.message == "redis cannot be reached: connection refused"


async def test_run_tries_again_until_redis_is_there(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Started before Redis, `run` reports only when it has connected."""
    redis_server.stop()
    link = Link(redis_server.url)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as starting:
            starting.start_soon(nursery.start, link.run)
            await wait_all_tasks_blocked()
            redis_server.start()
        reply = await link.call("PING")

    assert reply == b"PONG"


async def test_run_tells_waiters_when_it_is_cancelled() -> None:
    """Closing the link leaves nobody waiting: not for a reply, not for room, not for a connection."""
    answers = Answers()
    async with trio.open_nursery() as nursery, open_linked_peer(max_unanswered=1) as (link, _, conversation):
        nursery.start_soon(answers.keep, "sent", partial(link.call, "GET", "k"))
        await conversation.hear()
        nursery.start_soon(answers.keep, "waiting for room", partial(link.call, "GET", "k"))
        await wait_all_tasks_blocked()

    with pytest.raises(StoreUnavailableError, match="closed"):
        await link.call("GET", "k")
    assert {name: error.outcome_unknown for name, error in answers.came.items()} == {"sent": True, "waiting for room": False}


async def test_link_logs_where_redis_is(redis_server: RedisServer, own_link: Link) -> None:
    """What the operator reads of a lost Redis names the one that is meant."""
    with capture_logs() as logs, trio.fail_after(PATIENCE_SECONDS):
        redis_server.kill()
        await until(lambda: any(each["event"] == "link.connect_failed" for each in logs))

    failed = next(each for each in logs if each["event"] == "link.connect_failed")
    assert failed["redis"] == str(redis_server.socket_path)


async def test_link_reconnects_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that hangs up at once is tried at delays that double, not in a tight loop."""
    monkeypatch.setattr(random, "random", lambda: 1.0)

    async with open_linked_peer() as (_, peer, first):
        since = trio.current_time()
        conversations = [first]
        with trio.fail_after(PATIENCE_SECONDS):
            for _ in range(4):
                await conversations[-1].hang_up()
                conversations.append(await peer.welcome())
        took_seconds = trio.current_time() - since

    assert took_seconds >= 0.05 + 0.1 + 0.2 + 0.4


async def test_link_leaves_a_server_that_has_become_a_replica(own_link: Link, admin: redis.Redis) -> None:
    """READONLY raises as unavailable, outcome known, and the next call goes over a new connection."""
    before = await own_link.call("CLIENT", "ID")
    admin.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError) as caught:
        await own_link.call("SET", "k", "v")
    admin.replicaof("NO", "ONE")

    with trio.fail_after(PATIENCE_SECONDS):
        reply = await own_link.call("SET", "k", "v")
        after = await own_link.call("CLIENT", "ID")

    assert not caught.value.outcome_unknown
    assert reply == b"OK"
    assert after != before


async def test_call_tells_that_redis_is_full(own_link: Link, admin: redis.Redis) -> None:
    """At maxmemory a write raises StoreFullError, and a read goes on."""
    admin.config_set("maxmemory", 1)

    with pytest.raises(StoreFullError):
        await own_link.call("SET", "k", "v")

    assert await own_link.call("GET", "k") is None
