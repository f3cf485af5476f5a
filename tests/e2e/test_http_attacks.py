"""`gopher dev` under connections that no honest client makes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from gopher.client import Client
from tests.edge.http_attacks import ATTACKS, attack, mutations
from tests.programs import Program

if TYPE_CHECKING:
    from pathlib import Path

COUNT: Final = 300
HEALTH: Final = (b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",)


def test_dev_serves_on_whatever_is_sent_to_its_http_port(tmp_path: Path) -> None:
    """Known attacks and mutations of them: the process lives, answers over HTTP, runs jobs, has logged nothing, and ends with 0."""
    arguments = ["dev", "--app", "tests.client.app:registry", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with Program("gopher.cli.main", *arguments, "--data-dir", str(tmp_path), environ=os.environ) as program:
        addresses = program.wait_ready()

        with ThreadPoolExecutor(16) as pool:
            received = list(pool.map(partial(attack, addresses["http"]), [*ATTACKS.values(), *mutations(20, COUNT)]))
        health = attack(addresses["http"], HEALTH)
        with Client(addresses["grpc"]) as client:
            result = client.result(client.submit("echo", 1), wait=60)
        code = program.stop()

    assert health.startswith(b"HTTP/1.1 200 ")
    assert (result, code) == (1, 0)
    assert [each for each in received if each.startswith(b"HTTP/1.1 500 ")] == []
    assert [line for line in program.errors if "http." in line or "rest." in line or "Traceback" in line] == []
