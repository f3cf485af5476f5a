"""The worker in another language, `examples/node-worker/`: made from the protos alone, it does all that a worker has to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

import pytest

from gopher.conformance.checks import CHECKS
from tests.programs import ROOT

FOLDER: Final = ROOT / "examples" / "node-worker"
LONGEST_SECONDS: Final = 400.0
MOST_LINES: Final = 80

installed = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules").is_dir(),
    reason="needs node, and `npm ci --prefix examples/node-worker`; .ci/run has both and fails when this is skipped",
)


def test_node_worker_stays_short() -> None:
    """The protocol asks no more of an implementer than a page."""
    lines = (FOLDER / "worker.mjs").read_text().splitlines()

    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 128


@installed
def test_node_worker_conforms() -> None:
    """It passes the whole suite: cut for 5 s nothing runs twice, and its server killed -9 it goes to the other."""
    ended = subprocess.run(
        [sys.executable, "-m", "gopher.conformance", "--at-once", "3", "--", "node", str(FOLDER / "worker.mjs")],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=ROOT,
        timeout=LONGEST_SECONDS,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(CHECKS)} of {len(CHECKS)} checks passed" in ended.stdout
