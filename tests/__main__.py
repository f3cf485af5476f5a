"""Runs the tests in two processes at once, each with its share: most of their time they wait. `python -m tests [OPTIONS OF PYTEST]`.

What the first says is shown as it comes, what the second has said at its end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FIRST: Final = ("tests/e2e", "tests/conformance", "tests/edge", "tests/client", "tests/cli")
"""Those with real servers and workers: about half of the time."""
NOTHING_COLLECTED: Final = 5


def main(options: list[str]) -> int:
    """Run the tests and return the exit code: that of a share that failed, if one did."""
    pytest = [sys.executable, "-m", "pytest"]
    if any(Path(word.partition("::")[0]).exists() for word in options):
        # Which tests are to run is said.
        return subprocess.run([*pytest, *options], check=False).returncode
    others = [word for folder in FIRST for word in ("--ignore", folder)]
    with tempfile.TemporaryFile() as said:
        second = subprocess.Popen([*pytest, "tests", *others, *options], stdout=said, stderr=subprocess.STDOUT)
        try:
            codes = [subprocess.run([*pytest, *FIRST, *options], check=False).returncode]
            codes.append(second.wait())
        finally:
            second.terminate()
            second.wait()
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    failed = [code for code in codes if code not in {0, NOTHING_COLLECTED}]
    return failed[0] if failed else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
