"""The page about structured concurrency, run as it stands: its Python snippets are one application."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

import gopher
import gopher.testing
from gopher.client import Client
from gopher.runtime.apps import load_registry
from tests.programs import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

PAGE: Final = (ROOT / "docs" / "structured-concurrency.md").read_text(encoding="utf-8")
RUN: Final = {
    "album": (["a", "b"], ["a.thumb", "b.thumb"]),
    "fastest": ([60.0, 0.01], 0.01),
    "digest": (["a", "word"], 2),
    "report": (0.01, None),
    "crawl": (["one.example"], None),
}
"""Handler -> payload, and what it returns, as the page says it."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gopher.Registry:
    """The application of the page, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "concurrency_page", raising=False)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "concurrency_page.py").write_text("\n".join(snippets), encoding="utf-8")
    return load_registry("concurrency_page:registry")


@pytest.mark.parametrize("name", RUN)
async def test_page_handler_returns_what_the_page_says(redis_program: str, registry: gopher.Registry, name: str) -> None:
    """A parent ends with its children, and has their results."""
    payload, returned = RUN[name]

    async with gopher.testing.open_runtime(registry) as runtime:
        job_id = await runtime.submit(name, payload, max_attempts=1)
        job = (await runtime.drain())[job_id]

    assert job.result is not None
    assert msgspec.json.decode(job.result) == returned


def test_page_stream_of_submits_answers_each_item(registry: gopher.Registry, redis_url: str, namespace: str) -> None:
    """Each name becomes a job, what is refused is counted, and the same stream again is the same jobs."""
    load = sys.modules["concurrency_page"].load
    arguments = ["--grpc", "127.0.0.1:0", "--redis-url", redis_url, "--accept-unknown-types"]

    with Program("gopher.cli.server", *arguments, environ=os.environ) as program:
        with Client(program.wait_ready()["grpc"], namespace=namespace) as client:
            ids, refused = load(client, ["a", "b", "x" * 300])
            again, _ = load(client, ["a", "b"])
        program.stop()

    assert len(set(ids)) == 2
    assert refused == 1
    assert again == ids


def test_page_attached_job_is_gone_with_its_block(
    registry: gopher.Registry, redis_program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A charge that fails is told by its events and raised by its result, and leaves nothing behind."""
    book = sys.modules["concurrency_page"].book
    arguments = [
        "--grpc",
        "127.0.0.1:0",
        "--http",
        "none",
        "--data-dir",
        str(tmp_path / "data"),
        "--app",
        "concurrency_page:registry",
    ]

    with Program("gopher.cli.main", "dev", *arguments, environ=os.environ, directory=tmp_path) as program:
        with Client(program.wait_ready()["grpc"]) as client:
            with pytest.raises(gopher.JobFailedError, match="no card"):
                book(client, -1)
            (job,) = client.list()
        program.stop()

    assert job.state is gopher.JobState.FAILED
    assert job.deadline_ms is not None
    assert capsys.readouterr().out.splitlines()[-1] == "failed 0.0"


async def test_page_failure_of_one_child_cancels_the_other(redis_program: str, registry: gopher.Registry) -> None:
    """The block ends long before the sibling's minute is over, and tells of the child that failed."""
    async with gopher.testing.open_runtime(registry) as runtime:
        job_id = await runtime.submit("checkout", [1, -1], max_attempts=1)
        job = (await runtime.drain())[job_id]

    assert job.state is gopher.JobState.COMPLETED
    assert b"no card has a negative amount" in (job.result or b"")


async def test_page_cleanup_runs_when_the_handler_is_ended(
    redis_program: str, registry: gopher.Registry, tmp_path: Path
) -> None:
    """What the shield protects is done, also under a time-out."""
    async with gopher.testing.open_runtime(registry) as runtime:
        job_id = await runtime.submit("export", str(tmp_path / "file"), max_attempts=1, timeout_ms=100)
        job = (await runtime.drain())[job_id]

    assert job.failure is not None
    assert job.failure.reason == "TIMED_OUT"
    assert not (tmp_path / "file").exists()
