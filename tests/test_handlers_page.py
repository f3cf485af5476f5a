"""The page for authors of handlers, run as it stands: its snippets are one application."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

import pytest

import gopher
import gopher.testing
from gopher.runtime.apps import load_registry
from tests.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE: Final = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gopher.Registry:
    """The application of the page, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "handlers_page", raising=False)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "handlers_page.py").write_text("\n".join(snippets), encoding="utf-8")
    return load_registry("handlers_page:registry")


async def test_page_is_an_application_that_works(
    redis_program: str, registry: gopher.Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every handler of the page does what the page says of it, with its lifespan open and its middleware around each."""
    async with gopher.testing.open_runtime(registry) as runtime:
        greeted = await runtime.submit("greet", {"name": "world"})
        charged = await runtime.submit("charge", {"order": "7"}, max_attempts=1)
        counted = await runtime.submit("crunch", [1, 2, 3])
        rung = await runtime.submit("ring", "tower")
        noted = [await runtime.submit("note", word) for word in ("one", "two")]
        jobs = await runtime.drain()

    assert jobs[greeted].result == b'"hello world"'
    assert (jobs[counted].result, jobs[rung].result) == (b"6", b'"tower answered"')
    failure = jobs[charged].failure
    assert failure is not None
    assert failure.reason == "CARD_EXPIRED"
    assert {jobs[job_id].state for job_id in noted} == {gopher.JobState.COMPLETED}
    assert sorted((tmp_path / "journal.txt").read_text().split()) == ["one", "two"]
    printed = capsys.readouterr().out
    assert sorted(re.findall(r"^(\w+) took ", printed, re.MULTILINE)) == ["charge", "crunch", "greet", "note", "note", "ring"]


def test_page_names_each_handler_that_it_runs(registry: gopher.Registry) -> None:
    """A snippet that is added to the page is run by the test above."""
    assert registry.types == ["charge", "crunch", "greet", "note", "ring"]
