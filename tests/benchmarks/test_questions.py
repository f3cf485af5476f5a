"""Each question that Gopher alone is asked, with the least that can be measured: the programs start, agree, and give every figure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args

import pytest
import trio

from benchmarks import __main__ as command
from benchmarks import backlog, lateness, parked, processes
from benchmarks.children import ROOT
from benchmarks.plan import GOPHER, QUICK
from benchmarks.run import ON_DEMAND, QUESTIONS, all_steps
from benchmarks.targets import FIGURES

if TYPE_CHECKING:
    from benchmarks.plan import Step

TINY: Final = replace(
    QUICK,
    drain_jobs=dict.fromkeys(QUICK.drain_jobs, 400),
    priority_jobs=60,
    paced_seconds=0.2,
    cancels=3,
    events=1,
    nurseries=1,
    watchers=8,
    watched_seconds=0.1,
    backlog_jobs=600,
    parked_jobs=50,
)


def steps_of(question: str) -> list[Step]:
    return [step for step in all_steps(TINY, [question]) if step.column == GOPHER]


@pytest.mark.parametrize(
    "question",
    ["steady", "lateness", "cancel", "fanout", "watchers", "nursery", "priorities", "processes", "backlog", "parked"],
)
async def test_question_is_answered(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measurement gives figures, each of which has a row in the table."""
    # Without a warm-up the count begins before the worker: so few jobs may be done between two looks of the driver.
    for module in (processes, parked):
        monkeypatch.setattr(module, "WARM_SHARE", 0)
    monkeypatch.setattr(backlog, "WARM_JOBS", 0)
    monkeypatch.setattr(backlog, "SHORT_JOBS", 300)
    monkeypatch.setattr(backlog, "SHORT_DRAINS", 1)
    monkeypatch.setattr(lateness, "LEAD_MS", 500)
    rows = {figure.name for figure in FIGURES}

    figures: list[dict[str, float]] = []
    for step in steps_of(question):
        with trio.fail_after(120):
            figures.append(await step.measure())

    assert figures != []
    for figure in figures:
        assert figure != {}
        assert set(figure) <= rows
        assert all(value >= 0 for value in figure.values())  # so few jobs may cost less than a tick of the processor's clock


def test_command_knows_every_question() -> None:
    """What `--only` takes is what there are steps for, and the README has each."""
    named = get_args(command.Question)
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")

    assert sorted(named) == sorted((*QUESTIONS, *ON_DEMAND))
    assert {*re.findall(r"^\| `(\w+)\.py` \|", readme, re.MULTILINE)} == {*QUESTIONS, *ON_DEMAND}
