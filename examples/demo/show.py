"""Puts the demo together: its input, the mail server, the product as a child process, and what happens between them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import trio
from rich.console import Console

from examples.demo.board import Board
from examples.demo.checks import require
from examples.demo.inputs import make_pictures, make_shop
from examples.demo.plan import ADA, GREYLISTED, plan_jobs
from examples.demo.post_office import PostOffice
from examples.demo.product import DemoError, product_command, product_environment, run_product
from examples.demo.story import run_jobs
from gopher import GopherError
from gopher.client import TrioClient

if TYPE_CHECKING:
    from examples.demo.plan import PlannedJob

APP: Final = "examples.media:registry"
ORDERS: Final = 5_000
DEMO_SECONDS: Final = 50.0  # it takes about five
PLAIN_WIDTH: Final = 120  # characters a line when the output is no terminal


class StoppedError(Exception):
    """A signal told the demo to stop.

    Attributes:
        number: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def run() -> int:
    """Run the demo and return its exit code: 0 when all it showed is true, 128 + the signal's number when stopped, else 1."""
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    exit_code = 0
    try:
        trio.run(_show, Path(tempfile.mkdtemp(prefix="gopher-demo-")), console)
    except* StoppedError as group:
        stop = _first(group)
        exit_code = 128 + (stop.number if isinstance(stop, StoppedError) else 0)
        print(f"demo {stop}", file=sys.stderr)
    except* (DemoError, GopherError, OSError) as group:
        exit_code = exit_code or 1
        print(f"demo failed: {_first(group.subgroup(DemoError) or group)}", file=sys.stderr)
    return exit_code


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _show(folder: Path, console: Console) -> None:
    async with trio.open_nursery() as nursery:  # while the demo runs
        await nursery.start(_watch_signals)
        with trio.move_on_after(DEMO_SECONDS) as scope:
            await _perform(folder, console)
        if scope.cancelled_caught:
            raise DemoError(f"it was not done after {DEMO_SECONDS:.0f} s; look into {folder}")
        nursery.cancel_scope.cancel()


async def _watch_signals(*, task_status: trio.TaskStatus[None]) -> NoReturn:
    """Wait for a signal and end the demo by an error, so that all it has started is cleaned up."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            raise StoppedError(number)
    raise AssertionError("a signal receiver does not end by itself")


async def _perform(folder: Path, console: Console) -> None:
    console.print(f"Gopher demo. Its files lie in {folder}", highlight=False, soft_wrap=True)
    plan = await trio.to_thread.run_sync(_make_input, folder)
    with PostOffice(folder / "out" / "mail", [ADA, GREYLISTED], greylisted=[GREYLISTED]) as office:
        command = product_command(APP, folder / "redis")
        environ = product_environment(os.environ, office.port)
        async with trio.open_nursery() as nursery:  # while gopher dev runs
            product = await nursery.start(run_product, command, environ, folder / "gopher.log")
            console.print(f"gopher dev serves gRPC on {product.grpc}, HTTP on {product.http}", highlight=False)
            async with TrioClient(product.grpc) as client:
                with Board(console) as board:
                    await run_jobs(client, plan, office, board)
            nursery.cancel_scope.cancel()
    code = product.process.returncode
    require(code == 0, f"gopher dev ended with exit code {code} when told to stop; its log: {folder / 'gopher.log'}")
    for name in ("pictures", "exports", "mail"):
        console.print(f"{name + ':':<9} {folder / 'out' / name}", highlight=False, soft_wrap=True)
    console.print("Every picture, row and mail was checked: all is as shown.", highlight=False)


def _make_input(folder: Path) -> list[PlannedJob]:
    pictures = make_pictures(folder / "in")
    shop = folder / "in" / "shop.sqlite"
    make_shop(shop, ORDERS)
    return plan_jobs(pictures, shop, folder / "out")
