"""`python -m gopher.conformance -- COMMAND...`: tries the worker that the command starts, prints a table, and exits with 0 or 1."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
from cyclopts import Parameter
from cyclopts.validators import Number

from gopher.cli import output
from gopher.cli.options import new_app
from gopher.conformance.checks import CHECKS
from gopher.conformance.stage import ConformanceError, Theatre
from gopher.errors import StartError
from gopher.store.embedded import open_embedded_redis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.conformance.checks import Check

HELP = "Try a worker of WorkerService, in any language: start COMMAND and see whether it does all that a worker has to."


def run(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    only: Annotated[list[str] | None, Parameter(negative=())] = None,
    at_once: Annotated[int, Parameter(validator=Number(gte=1, lte=16))] = 1,
    list_checks: Annotated[bool, Parameter(name="--list", negative=())] = False,
) -> int:
    """Try a worker.

    Args:
        command: Starts the worker; put -- before it.
        only: Name of a check to run; may be given again. All are run if none is given.
        at_once: Checks that run at the same time, each with servers and a worker of its own; 1 unless told otherwise.
        list_checks: List the checks, and run none.
    """
    if list_checks:
        output.table(["check", "claim"], [[each.name, each.claim] for each in CHECKS])
        return output.DONE
    if not command:
        raise StartError("no command is given: put it after --", exit_code=output.USAGE)
    known = {each.name for each in CHECKS}
    if unknown := sorted(set(only or ()) - known):
        raise StartError(
            f"there is no check {', '.join(unknown)}; there are {', '.join(sorted(known))}", exit_code=output.USAGE
        )
    return trio.run(_run_all, command, [each for each in CHECKS if not only or each.name in only], at_once)


async def _run_all(command: Sequence[str], checks: Sequence[Check], at_once: int) -> int:
    passed: list[Check] = []
    waiting = list(reversed(checks))

    async def play(theatre: Theatre) -> None:
        while waiting:
            check = waiting.pop()
            if await _try(theatre, command, check):
                passed.append(check)

    with tempfile.TemporaryDirectory(prefix="gopher-conformance-") as name:
        async with open_embedded_redis(None) as redis, trio.open_nursery() as nursery:
            theatre = Theatre(redis.url, Path(name))
            for _ in range(at_once):
                nursery.start_soon(play, theatre)
    output.line(f"{len(passed)} of {len(checks)} checks passed")
    return output.DONE if len(passed) == len(checks) else output.FAILED


async def _try(theatre: Theatre, command: Sequence[str], check: Check) -> bool:
    """Run a check, tell the result, and return whether it passed."""
    began_at = trio.current_time()
    fault = ""
    async with theatre.stage(check.name, check.lease_seconds) as stage:
        try:
            await stage.play(command, check.body)
        except ConformanceError as error:
            fault = str(error)
        tail = stage.worker.tail() if fault else ""
    output.line(f"{'FAILED' if fault else 'passed':6}  {trio.current_time() - began_at:5.1f} s  {check.name:18} {check.claim}")
    if fault:
        output.line(f"        {fault}")
        for line in tail.splitlines():
            output.line(f"        | {line}")
    return not fault


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    app = new_app("python -m gopher.conformance", HELP)
    app.default(run)
    return output.guarded(app, argv)


if __name__ == "__main__":
    sys.exit(main())
