"""The channel arguments that are set, of clients and servers: gRPC says nothing of one that it does not have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import grpc
import pytest

from gopher.client import channel
from gopher.edge.grpc_server import Limits

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CORE: Final = next((Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")).read_bytes()
SET: Final = sorted({name for name, _ in (*channel.OPTIONS, *Limits().options())})


@pytest.mark.parametrize("name", SET)
def test_channel_argument_is_one_that_grpc_knows(name: str) -> None:
    """Its name stands in the library, whole: a prefix of another name, or a word from elsewhere, has no effect."""
    assert f"{name}\0".encode() in CORE


def test_channel_arguments_are_told_from_names_that_grpc_does_not_have() -> None:
    """A name that reads well, and a prefix of one that there is, are found out."""
    wrong = ["grpc.http2.min_recv_ping_interval_without_data_ms", "grpc.keepalive_time"]

    assert [name for name in wrong if f"{name}\0".encode() in CORE] == []


def test_channel_arguments_are_all_held_to_that() -> None:
    """Every file that names one takes part above, so that none is set elsewhere."""
    argument = re.compile(r'(?<!\w)\("(grpc\.[a-z0-9_.]+)", ')
    named = {name for source in (ROOT / "gopher").rglob("*.py") for name in argument.findall(source.read_text())}

    assert sorted(named) == SET


def test_clients_ask_for_life_no_oftener_than_servers_allow() -> None:
    """Otherwise the server ends the connection, and every call on it, as soon as one of them takes long."""
    client = dict(channel.OPTIONS)

    assert client["grpc.keepalive_time_ms"] >= 2 * Limits().ping_interval_ms
