"""What does this machine's Redis do on its own? redis-benchmark's pipelined SET, as a measure of the machine and of its noise."""

from __future__ import annotations

import csv
import os
from functools import partial
from pathlib import Path
from typing import Final

import trio

from benchmarks.children import MeasurementError, find_program
from benchmarks.plan import PAYLOAD_BYTES, YARDSTICK, Plan, Step
from benchmarks.servers import open_server
from gopher.errors import StartError
from gopher.store.embedded import find_redis_server

PIPELINE: Final = 50
CONNECTIONS: Final = 50


def steps(plan: Plan) -> list[Step]:
    """Return the one measurement."""
    program = _find()
    return [
        Step(
            question="yardstick",
            column=YARDSTICK,
            missing=None if program else "no redis-benchmark on the PATH or beside redis-server (Debian: redis-tools)",
            measure=partial(_measure, program or "", plan.yardstick_commands),
        )
    ]


async def _measure(program: str, commands: int) -> dict[str, float]:
    async with open_server() as server:
        sizes = ("-n", str(commands), "-c", str(CONNECTIONS), "-P", str(PIPELINE), "-d", str(PAYLOAD_BYTES))
        argv = [program, "-s", str(server.socket_path), *sizes, "-t", "set", "--csv"]
        ended = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    if ended.returncode != 0:
        raise MeasurementError(f"redis-benchmark: {ended.stderr.decode(errors='replace').strip()}")
    rows = list(csv.DictReader(ended.stdout.decode().splitlines()))
    return {"redis_set_per_second": float(rows[0]["rps"])}


def _find() -> str | None:
    if program := find_program("redis-benchmark"):
        return program
    try:
        beside = Path(find_redis_server(os.environ)).with_name("redis-benchmark")
    except StartError:
        return None
    return str(beside) if beside.is_file() else None
