"""A client in another language, made from the protos alone (`tests/e2e/node/`)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

FOLDER: Final = Path(__file__).parent / "node"
LONGEST_SECONDS: Final = 100

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules").is_dir(),
    reason="needs node, and `npm ci --prefix tests/e2e/node`; .ci/run has both and fails when this is skipped",
)


def test_node_client_submits_watches_to_the_end_and_cancels(dev_address: str) -> None:
    """What Node's own gRPC makes of the protos submits, watches to the end, cancels, and reads a refusal."""
    ended = subprocess.run(
        ["node", "client.mjs", dev_address, "echo", "steps", "endless"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen["quick"]["result"] == {"number": "9007199254740993", "list": []}
    assert seen["quick"]["states"][-1] == "JOB_STATE_COMPLETED"
    assert seen["slow"]["states"][-1] == "JOB_STATE_CANCELLED"
    assert "JOB_STATE_PROCESSING" in seen["slow"]["states"]
    assert seen["slow"]["reason"] == "no longer wanted"
    assert seen["refused"]["code"] == 3
    assert seen["refused"]["hasDetails"]
    assert "not a type" in seen["refused"]["details"]
