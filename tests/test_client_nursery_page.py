"""What the page about structured concurrency says of nurseries of clients, run as it stands."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest
import trio

import gopher
from gopher.client import Client, TrioClient
from gopher.runtime.apps import load_registry
from tests.programs import ROOT, Program
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

PAGE: Final = (ROOT / "docs" / "structured-concurrency.md").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The application of the page, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "client_nursery_page", raising=False)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "client_nursery_page.py").write_text("\n".join(snippets), encoding="utf-8")
    load_registry("client_nursery_page:registry")
    return sys.modules["client_nursery_page"]


@pytest.fixture
def address(page: ModuleType, tmp_path: Path) -> Iterator[str]:
    """Where a server with a worker for the page's handlers serves."""
    arguments = ["--app", "client_nursery_page:registry", "--grpc", "127.0.0.1:0", "--http", "none"]
    arguments += ["--data-dir", str(tmp_path / "data")]
    with Program("gopher.cli.main", "dev", *arguments, environ=os.environ, directory=tmp_path) as program:
        yield program.wait_ready()["grpc"]
        program.stop()


def test_page_s_client_nurseries_do_what_the_page_says(page: ModuleType, address: str) -> None:
    """Results come in order, the first to complete wins, and a block that is cut off has cancelled its child."""
    with Client(address) as client:
        thumbs = page.shoot(client, ["a", "b"])

    async def main() -> tuple[object, gopher.JobState]:
        async with TrioClient(address) as trio_client:
            fastest = await page.race(trio_client, [60.0, 0.01])
            job_id = await page.give_up(trio_client, 2.0)
            return fastest, (await trio_client.get(job_id)).state

    fastest, state = trio.run(main)

    assert thumbs == ["a.thumb", "b.thumb"]
    assert fastest == 0.01
    assert state is gopher.JobState.CANCELLED


def test_page_s_watches_tell_what_the_page_says(page: ModuleType, address: str) -> None:
    """All that a handler gives out is told, in order, and of all jobs those are told that match."""
    found: list[str] = []
    with Client(address) as client, Client(address) as other:
        chunks = page.watch(client)
        thread = threading.Thread(target=lambda: found.extend(page.first_thumbnails(other, 2)), daemon=True)
        thread.start()
        until = time.monotonic() + PATIENCE_SECONDS
        ids: list[str] = []
        # Whoever follows says nobody when he has begun.
        while thread.is_alive() and time.monotonic() < until:
            ids.append(client.submit("thumbnail", {"name": "a"}))
            client.result(ids[-1], wait=PATIENCE_SECONDS)
        thread.join(PATIENCE_SECONDS)

    assert chunks == [{"word": "a", "letters": 1}, {"word": "word", "letters": 4}]
    assert len(found) == 2
    assert set(found) <= set(ids)
