"""`examples.demo.product`: a child process from its ready line to its end, tried with small stand-ins for `gopher dev`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from examples.demo import product
from examples.demo.product import DemoError, Product, product_command, product_environment, run_product

if TYPE_CHECKING:
    from pathlib import Path

READY = "print('ready grpc=127.0.0.1:4 http=127.0.0.1:5', flush=True)"
UNTIL_TOLD = "signal.sigwait([signal.SIGTERM])"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
BLOCK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"


def child(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(("import signal, sys", *lines))]


async def run_until_ready(command: list[str], folder: Path) -> Product:
    """Start the command, stop it as soon as it is ready, and return what it said."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            started: Product = await nursery.start(run_product, command, os.environ, folder / "log")
            nursery.cancel_scope.cancel()
    return started


async def test_run_product_gives_the_addresses_of_the_ready_line(tmp_path: Path) -> None:
    """The ready line is found behind other output and in pieces; the child ends by SIGTERM with its own exit code."""
    pieces = "print('hello'); print('ready grpc=127.0.0.1:4 ht', end='', flush=True); print('tp=127.0.0.1:56', flush=True)"

    started = await run_until_ready(child(BLOCK, pieces, UNTIL_TOLD, "sys.exit(0)"), tmp_path)

    assert (started.grpc, started.http) == ("127.0.0.1:4", "127.0.0.1:56")
    assert started.process.returncode == 0


async def test_run_product_kills_a_child_that_will_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child deaf to SIGTERM is killed when its time is up, never left behind."""
    monkeypatch.setattr(product, "STOP_SECONDS", 0.05)

    started = await run_until_ready(child(DEAF, READY, "signal.pause()"), tmp_path)

    assert started.process.returncode == -signal.SIGKILL


async def test_run_product_tells_why_the_child_ended_before_it_was_ready(tmp_path: Path) -> None:
    """The exit code and the last line of its log are in the error."""
    expected = r"^gopher dev ended by itself with exit code 3: error: the data directory is locked \(its log: .*\)$"

    with pytest.RaisesGroup(pytest.RaisesExc(DemoError, match=expected)):
        await run_until_ready(child("print('error: the data directory is locked', file=sys.stderr)", "sys.exit(3)"), tmp_path)


async def test_run_product_gives_up_on_a_child_that_does_not_get_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent child is stopped and reported when its time is up."""
    monkeypatch.setattr(product, "READY_SECONDS", 0.05)

    with pytest.RaisesGroup(pytest.RaisesExc(DemoError, match="not ready after")):
        await run_until_ready(child("signal.pause()"), tmp_path)


async def test_run_product_reports_a_child_that_dies_at_work(tmp_path: Path) -> None:
    """A child that ends after its ready line ends the demo."""
    with pytest.RaisesGroup(pytest.RaisesExc(DemoError, match="ended by itself with exit code 9")), trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            started: Product = await nursery.start(run_product, child(READY, "sys.exit(9)"), os.environ, tmp_path / "log")
            await started.process.wait()


def test_product_environment_keeps_the_users_settings_out() -> None:
    """A user's own Redis and log settings do not reach the child; where redis-server lies does."""
    environ = {
        "PATH": "/bin",
        "REDIS_URL": "redis://elsewhere",
        "GOPHER_SERVER": "there:1",
        "GOPHER_REDIS_SERVER": "/opt/redis",
    }

    assert product_environment(environ, 2525) == {
        "PATH": "/bin",
        "GOPHER_REDIS_SERVER": "/opt/redis",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": "2525",
    }


def test_product_command_says_what_to_do_when_gopher_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing program is one line with the cure."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DemoError, match="run `make setup`"):
        product_command("examples.media:registry", tmp_path)
