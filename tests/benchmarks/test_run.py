from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks import run
from benchmarks.children import MeasurementError
from benchmarks.plan import BULLMQ, DRAMATIQ, FULL, GOPHER, Plan, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def measured(values: list[float]) -> Callable[[], Awaitable[dict[str, float]]]:
    async def measure() -> dict[str, float]:
        await trio.lowlevel.checkpoint()
        return {"speed": values.pop(0)}

    return measure


async def failing() -> dict[str, float]:
    await trio.lowlevel.checkpoint()
    raise MeasurementError("it fell over")


def use(monkeypatch: pytest.MonkeyPatch, steps: list[Step]) -> None:
    def all_steps(_plan: Plan, _questions: tuple[str, ...], _against: Path | None) -> list[Step]:
        return steps

    monkeypatch.setattr(run, "all_steps", all_steps)


async def test_measure_repeats_and_keeps_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step gives one value a repetition, and a step that is made once gives one."""
    often = Step(question="drain", column=GOPHER, measure=measured([1.0, 2.0, 3.0]))
    once = Step(question="memory", column=BULLMQ, measure=measured([4.0]), once=True)
    use(monkeypatch, [often, once])

    done = await run.measure(FULL, ["drain", "memory"])

    assert done.results == {"speed": {GOPHER: [1.0, 2.0, 3.0], BULLMQ: [4.0]}}
    assert done.notes == []


async def test_measure_leaves_the_cells_of_a_peer_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is missing or fails is noted once and is no failure of the run."""
    missing = Step(question="drain", column=BULLMQ, measure=failing, missing="no node")
    broken = Step(question="drain", column=DRAMATIQ, measure=failing)
    use(monkeypatch, [missing, broken])

    done = await run.measure(FULL, ["drain"])

    assert done.results == {}
    assert done.notes == ["BullMQ, drain: no node", "dramatiq, drain: it fell over"]
    assert not done.gopher_failed


async def test_measure_fails_with_gopher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement of Gopher's own that cannot be made is a failure of the run."""
    use(monkeypatch, [Step(question="drain", column=GOPHER, measure=failing)])

    done = await run.measure(FULL, ["drain"])

    assert done.gopher_failed


async def test_measure_gives_up_on_a_step_that_hangs(monkeypatch: pytest.MonkeyPatch, autojump_clock: object) -> None:
    """A measurement that does not end is given up, and the others go on."""

    async def hang() -> dict[str, float]:
        await trio.sleep_forever()
        return {}

    hanging = Step(question="drain", column=BULLMQ, measure=hang, once=True)
    after = Step(question="drain", column=GOPHER, measure=measured([1.0]), once=True)
    use(monkeypatch, [hanging, after])

    done = await run.measure(FULL, ["drain"])

    assert done.notes == ["BullMQ, drain: not done after 90 s"]
    assert done.results == {"speed": {GOPHER: [1.0]}}


@pytest.mark.parametrize("question", run.QUESTIONS)
def test_all_steps_answers_the_asked_question_only(question: str) -> None:
    """Every question has measurements, and asking one gives no other."""
    steps = run.all_steps(FULL, [question])

    assert {step.question for step in steps} == {question}
