from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.children import ROOT, run_child
from benchmarks.plan import FULL, GOPHER, OTHER
from benchmarks.run import all_steps
from benchmarks.systems import gopher_at

if TYPE_CHECKING:
    from pathlib import Path


def test_other_checkout_that_is_none_is_blank(tmp_path: Path) -> None:
    """A folder without a Gopher in it is named, and not run."""
    system = gopher_at(tmp_path)

    assert system.missing == f"no checkout of Gopher: {tmp_path}"


def test_against_measures_the_two_in_turn() -> None:
    """Only the drain is asked, of this checkout and of the other, with the same number of jobs."""
    steps = all_steps(FULL, ["drain"], against=ROOT)

    assert [(step.question, step.column, step.missing) for step in steps] == [("drain", GOPHER, None), ("drain", OTHER, None)]


async def test_other_checkout_imports_its_own_gopher(tmp_path: Path) -> None:
    """The programs of another checkout import what lies there, not what is installed here."""
    for name in ("gopher", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "benchmarks" / "app.py").touch()
    (tmp_path / "benchmarks" / "store_client.py").write_text('import gopher; print(\'{"from": "%s"}\' % gopher.__file__)')
    system = gopher_at(tmp_path)

    answer = await run_child(system.client, {}, system.directory)

    assert system.missing is None
    assert sys.executable in system.client
    assert answer == {"from": str(tmp_path / "gopher" / "__init__.py")}
