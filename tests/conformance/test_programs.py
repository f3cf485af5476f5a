"""The programs that the suite starts: nothing of them is left when it is done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gopher.conformance.programs import ChildProgram
from tests.waiting import runs, until

if TYPE_CHECKING:
    from pathlib import Path


async def test_program_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    """A command that is a wrapper, as that of a language's package may be, leaves no worker behind."""
    with ChildProgram(["sh", "-c", "sleep 600 & echo $!; wait"], tmp_path / "log", os.environ) as program:
        await until(lambda: program.tail().strip().isdigit())
        worker = int(program.tail())
        before = runs(worker)

    await until(lambda: not runs(worker))
    assert before
