"""Fixtures for every test: a real redis-server, the URL of one shared by all, and a namespace of the test's own."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final

import hypothesis
import pytest
import redis

from gopher.errors import StartError
from gopher.store.embedded import SERVER_VARIABLE, find_redis_server
from gopher.store.socket_directory import open_socket_directory
from tests.key_leaks import forget, leaked_keys
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

TEST_SERVER_VARIABLE: Final = "GOPHER_TEST_REDIS_SERVER"

# A busy machine makes an example slow, not wrong.
hypothesis.settings.register_profile("gopher", deadline=None)
hypothesis.settings.load_profile("gopher")

_namespaces = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def redis_program() -> Iterator[str]:
    """The redis-server that all tests and the programs they start use: the wheel's, or `GOPHER_TEST_REDIS_SERVER`."""
    named = os.environ.get(TEST_SERVER_VARIABLE, "")
    try:
        program = find_redis_server({SERVER_VARIABLE: named, "PATH": os.environ["PATH"] if named else ""})
    except StartError as error:
        pytest.exit(f"{error}; for the tests, name it in {TEST_SERVER_VARIABLE}", returncode=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVER_VARIABLE, program)
        yield program


@pytest.fixture(scope="session")
def shared_redis(redis_program: str) -> Iterator[RedisServer]:
    """One redis-server for the whole session; it keeps nothing. For its URL ask for `redis_url`."""
    with open_socket_directory("/tmp", prefix="gopher-tests-") as (directory, _):
        server = RedisServer(redis_program, directory / "redis.sock", directory, persistent=False)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """The URL of the shared redis-server; stay inside your own `namespace` there."""
    return shared_redis.url


@pytest.fixture
def redis_server(redis_program: str) -> Iterator[RedisServer]:
    """A running redis-server of the test's own, with an append-only file: kill it, start it again, set its configuration."""
    with open_socket_directory("/tmp", prefix="gopher-tests-") as (directory, _):
        server = RedisServer(redis_program, directory / "redis.sock", directory, persistent=True)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def namespace(request: pytest.FixtureRequest, redis_url: str) -> Iterator[str]:
    """A namespace that no other test of this session uses; fails a test that leaves a key there which nothing will remove.

    Mark a test that breaks the store on purpose with `leaves_keys`.
    """
    name = f"test-{next(_namespaces)}"
    yield name
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        leaked = [] if request.node.get_closest_marker("leaves_keys") else leaked_keys(connection, name)
        forget(connection, name)
    assert leaked == []
