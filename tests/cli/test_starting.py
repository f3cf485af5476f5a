"""What the programs do alike at their start and end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from gopher.cli.starting import STUCK_EXIT_CODE
from tests.programs import Program

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

ARGUMENTS: Final = ("--grpc", "127.0.0.1:0", "--http", "none", "--grace", "100ms", "--log-format", "json")


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("gopher.cli.server", []),
        ("gopher.cli.dev", []),
        ("gopher.cli.dev", ["--app", "tests.client.app:registry"]),
    ],
    ids=["server", "dev", "dev with a worker"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_that_hangs_ends_with_a_code_of_its_own(
    redis_server: RedisServer, module: str, more: list[str], number: signal.Signals
) -> None:
    """A server whose stop blocks the loop is ended by its watchdog, which says so."""
    arguments = [module, "--redis-url", redis_server.url, *ARGUMENTS, *more]
    with Program("tests.cli.hanging_stop", *arguments, environ=os.environ) as program:
        program.wait_ready()

        program.process.send_signal(number)
        code = program.wait()

    assert code == STUCK_EXIT_CODE == 70
    assert any('"stop.stuck"' in line for line in program.errors)
