from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from gopher.config import SECTIONS, ServerConfig, StoreConfig, WorkerConfig, settings_of
from gopher.errors import ConfigError


@pytest.mark.parametrize("table", SECTIONS)
def test_section_defaults_are_within_their_own_bounds(table: str) -> None:
    """Each section can be made with no argument."""
    section = SECTIONS[table]()

    assert replace(section) == section  # type: ignore[type-var]  # every Section is a dataclass


@pytest.mark.parametrize("table", SECTIONS)
def test_section_tells_of_each_setting_in_a_sentence(table: str) -> None:
    """Each field has a variable and a help text, and units are said where the name has them."""
    for name, spec, _ in settings_of(SECTIONS[table]):
        assert spec.variables, name
        assert spec.help.endswith("."), name
        assert not name.endswith("_seconds") or "seconds" in spec.help, name
        assert not name.endswith("_bytes") or "bytes" in spec.help, name


def test_sections_share_no_variable() -> None:
    """A variable means one thing in all programs."""
    variables = [v for section in SECTIONS.values() for _, spec, _ in settings_of(section) for v in spec.variables]

    assert len(variables) == len(set(variables))


def test_section_made_by_hand_obeys_the_bounds() -> None:
    """All faulty fields are told at once, each with its flag, its variables and its key."""
    with pytest.raises(ConfigError) as caught:
        WorkerConfig(concurrency=0, queues={"Bad Name": 1}, lease_seconds=0.5)

    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "--concurrency, GOPHER_CONCURRENCY, WORKER_CONCURRENCY, worker.concurrency: expected int >= 1" in text
    assert "worker.queues" in text
    assert "worker.lease_seconds" in text


@pytest.mark.parametrize("field", ["grpc_address", "http_address"])
def test_server_refuses_plaintext_that_others_can_reach(field: str) -> None:
    """An address that is not loopback needs the explicit word, and has it then."""
    with pytest.raises(ConfigError, match="--insecure") as caught:
        ServerConfig(**{field: "0.0.0.0:1"})  # type: ignore[arg-type]  # one field of several types

    assert len(caught.value.problems) == 1
    assert getattr(ServerConfig(insecure=True, **{field: "0.0.0.0:1"}), field) == "0.0.0.0:1"  # type: ignore[arg-type]  # as above


def test_server_refuses_an_address_that_is_none() -> None:
    """A malformed address is found also when the section is made by hand."""
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        ServerConfig(grpc_address="nowhere")


def test_server_refuses_a_payload_that_no_message_can_carry() -> None:
    """The limit of a payload is at most that of a message."""
    with pytest.raises(ConfigError, match="max_message_bytes"):
        ServerConfig(max_payload_bytes=2048, max_message_bytes=1024)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (StoreConfig(), {"host": "127.0.0.1", "port": 6379}),
        (StoreConfig(redis_url="redis://h:1"), {"host": "h", "port": 1}),
        (StoreConfig(redis_url="redis://h:1", redis_db=3), {"host": "h", "port": 1, "db": 3}),
        (StoreConfig(redis_db=3), {"db": 3}),
        (StoreConfig(redis_url="redis://h:1/2", redis_db=3), {"db": 2}),
        (StoreConfig(redis_url="redis://h:1?db=4", redis_db=3), {"db": 4}),
        (StoreConfig(redis_url="redis://h:1", redis_password="p@:/ss"), {"password": "p@:/ss", "host": "h"}),
        (StoreConfig(redis_url="redis://u:own@h:1", redis_password="p"), {"username": "u", "password": "own"}),
        (StoreConfig(redis_url="redis://u@h:1", redis_password="p"), {"username": "u", "password": "p"}),
        (
            StoreConfig(redis_url="unix:///tmp/r.sock", redis_db=3, redis_password="p"),
            {"path": "/tmp/r.sock", "db": 3, "password": "p"},
        ),
        (StoreConfig(redis_url="rediss://h:1/5"), {"host": "h", "db": 5}),
    ],
)
def test_store_url_says_all_to_redis_py(config: StoreConfig, expected: dict[str, object]) -> None:
    """Password and database join the URL, unless it has its own, in the form that redis-py reads."""
    known = redis.ConnectionPool.from_url(config.url).connection_kwargs

    assert {name: known.get(name) for name in expected} == expected
