"""`gopher-server` or `gopher dev`, whose server hangs when it is told to stop: the first argument says which module."""

from __future__ import annotations

import importlib
import sys
import threading

from gopher.cli import starting
from gopher.cli.server import Server


def hang(_: Server) -> None:
    """Block the loop for ever, as a lock inside of gRPC would."""
    threading.Event().wait()


if __name__ == "__main__":
    starting.WATCHDOG_SPARE_SECONDS = 0.1  # type: ignore[misc]  # final for the programs
    Server.stop = hang  # type: ignore[assignment,method-assign]  # the fault
    importlib.import_module(sys.argv.pop(1)).main()
