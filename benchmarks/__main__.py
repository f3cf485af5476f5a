"""The command `python -m benchmarks`: measure, print the table, write the JSON."""

from __future__ import annotations

import signal
import sys
from pathlib import Path  # noqa: TC003 - read at run time, from the annotation of the command
from typing import Literal

import cyclopts
import trio

from benchmarks import machine
from benchmarks.peers.install import install_peers
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.report import print_table, write_json
from benchmarks.run import QUESTIONS, Run, measure
from benchmarks.servers import open_server
from gopher.errors import GopherError

INTERRUPTED = 130
"""128 + SIGINT, as a shell has it."""

Question = Literal[
    "drain",
    "submit",
    "latency",
    "steady",
    "lateness",
    "cancel",
    "fanout",
    "nursery",
    "priorities",
    "processes",
    "backlog",
    "parked",
    "memory",
    "idle",
    "yardstick",
    "watchers",
    "adaptive",
]

app = cyclopts.App(name="python -m benchmarks", help="Measure Gopher beside its peers and print a table.", version_flags=[])


@app.default
def main(*, only: tuple[Question, ...] = (), quick: bool = False, against: Path | None = None) -> int:
    """Measure Gopher beside its peers and print a table.

    Args:
        only: Answer this question alone; may be given more than once.
        quick: One repetition with smaller sizes: a few minutes less, and more noise.
        against: Another checkout of Gopher: only drain is measured, this one and that one in turn, and their ratio is printed.
    """
    plan = QUICK if quick else FULL
    try:
        if against is None and (reason := install_peers()):
            sys.stderr.write(f"the Node peers are not installed: {reason}\n")
        run = trio.run(_measure_unless_told_to_stop, plan, only or QUESTIONS, against and against.resolve())
    except KeyboardInterrupt:
        run = None
    except GopherError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if run is None:
        sys.stderr.write("\ninterrupted: nothing is left running\n")
        return INTERRUPTED
    return 1 if run.gopher_failed else 0


async def _measure_unless_told_to_stop(plan: Plan, questions: tuple[str, ...], against: Path | None) -> Run | None:
    """Measure and report; a signal ends all children first, and then there is no run."""
    # Also the moment to find out that there is no redis-server.
    async with open_server() as server:
        facts = machine.facts(server.version())
    run = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        run = await measure(plan, questions, against)
        facts["load_average_after"] = machine.load_average()
        nursery.cancel_scope.cancel()
    if run is not None:
        print_table(run.results, facts, run.notes)
        print(f"all values: {write_json(run.results, facts, run.notes, plan)}")
    return run


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()
            return


if __name__ == "__main__":
    sys.exit(app(result_action="return_value"))
