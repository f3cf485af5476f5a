"""The check for leaked keys: it finds each kind of leak, and lets a store in order pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.key_leaks import leaked_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.leaves_keys


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        yield connection


@pytest.fixture
def base(connection: redis.Redis, namespace: str) -> str:
    """A queue in order, with a job that waits and holds a unique key and one that is completed."""
    base = f"gopher:{{{namespace}:default}}:"
    connection.hset(f"gopher:{namespace}:queues", "default", "0")
    connection.hset(base + "counters", "submitted_total", "2")
    connection.hset(base + "job:a", mapping={"state": "enqueued", "unique_key": "u"})
    connection.zadd(base + "enqueued:normal", {"a": 1})
    connection.set(base + "unique:u", "a")
    connection.hset(base + "job:b", mapping={"state": "completed"})
    connection.zadd(base + "completed", {"b": 1})
    connection.set(base + "request:r", "a", ex=60)
    return base


def test_leaked_keys_passes_a_store_in_order(connection: redis.Redis, namespace: str, base: str) -> None:
    """Jobs in the index of their state, a held unique key, a TTL and permanent names are no leaks."""
    assert connection.exists(base + "job:a")
    assert leaked_keys(connection, namespace) == []


@pytest.mark.parametrize(
    ("command", "leaked"),
    [
        pytest.param(["ZREM", "{base}completed", "b"], "{base}job:b: the job is not in completed", id="record"),
        pytest.param(
            ["ZADD", "{base}failed", "1", "b"], "{base}failed: holds ['b'], which stand elsewhere or nowhere", id="entry"
        ),
        pytest.param(["ZADD", "{base}deadlines", "1", "c"], "{base}deadlines: holds ['c'], which do not exist", id="deadline"),
        pytest.param(["SET", "{base}unique:v", "b"], "{base}unique:v: is held by a job that is final or gone", id="unique"),
        pytest.param(["HSET", "{base}outbox", "c", "x"], "{base}outbox: holds ['c'], which nobody has delivered", id="outbox"),
        pytest.param(["SET", "{base}other", "x"], "{base}other: no TTL, and not known as permanent", id="queue"),
        pytest.param(["PERSIST", "{base}request:r"], "{base}request:r: no TTL, and not known as permanent", id="request"),
    ],
)
def test_leaked_keys_finds_each_kind(
    connection: redis.Redis, namespace: str, base: str, command: list[str], leaked: str
) -> None:
    """A store in order with one thing broken has exactly one leak."""
    connection.execute_command(*(word.format(base=base) for word in command))  # type: ignore[no-untyped-call]  # redis-py's own

    assert leaked_keys(connection, namespace) == [leaked.format(base=base)]


def test_leaked_keys_finds_a_key_of_the_namespace(connection: redis.Redis, namespace: str) -> None:
    """A key of the namespace that is not known as permanent and has no TTL is a leak."""
    key = f"gopher:{namespace}:other"
    connection.set(key, "x")

    assert leaked_keys(connection, namespace) == [f"{key}: permanent, and not known as such"]
